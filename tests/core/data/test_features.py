"""Encoded features: what they are by hand and by a naive reading, and nothing is lost uncounted."""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.artifacts import read_json, write_json
from recsys_core.data import feature_bags
from recsys_core.data.card_parts import FEATURE_TYPES
from recsys_core.data.feature_bags import WIDEST, BagField, words_of
from recsys_core.data.features import (
    TYPES,
    Encoded,
    FeatureEncoding,
    Kind,
    NumberField,
    encode,
    encode_rows,
    fit_encoding,
    fit_rows,
)
from recsys_core.errors import ContractError
from tests.small_logs import run_stages, small_log, workspace

KINDS: dict[str, Kind] = {
    "brand": "categorical",
    "genres": "multi_categorical",
    "title": "text",
    "price": "numeric",
    "launch": "timestamp",
}
LISTS = pa.list_(pa.string())
HALF = 1 / math.sqrt(2)
ROOT = np.float32(HALF)


def features(ids: list[str] | None = None, **columns: Any) -> pa.Table:
    """A table as ingest writes it: the ids, then the fields by name."""
    typed = {
        name: pa.array(values, FEATURE_TYPES[KINDS[name]])
        for name, values in sorted(columns.items())
    }
    n = len(next(iter(columns.values())))
    return pa.table({"item_id": pa.array(ids or names(n), pa.string()), **typed})


def names(n: int) -> list[str]:
    return [f"i{row}" for row in range(n)]


def kinds_of(table: pa.Table) -> dict[str, Kind]:
    return {name: KINDS[name] for name in table.schema.names[1:]}


def fitted(
    table: pa.Table, ids: list[str] | None = None, *, most: int = 1000, words: int = 3000
) -> FeatureEncoding:
    known = table["item_id"] if ids is None else pa.array(ids, pa.string())
    return fit_encoding(table, kinds_of(table), ids=known, most=most, words=words)


def encoded(encoding: FeatureEncoding, table: pa.Table, ids: list[str]) -> Encoded:
    return encode(encoding, table, pa.array(ids, pa.string()))


def same(one: Encoded, other: Encoded) -> None:
    assert one.counts == other.counts
    for name in ("codes", "weights"):
        for left, right in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.numbers, other.numbers)


def test_the_table_of_the_docstrings() -> None:
    table = features(
        ["a", "b", "c"],
        genres=[["Drama"], ["War", "Drama"], []],
        title=["War, war", "A war", None],
        price=[10.0, None, 20.0],
        launch=[datetime(2024, 1, 1, tzinfo=UTC), None, datetime(2024, 1, 3, tzinfo=UTC)],
    )
    encoding = fitted(table)
    assert encoding.bags == (
        BagField("genres", "multi_categorical", ("Drama", "War"), left_out=0),
        BagField("title", "text", ("war",), left_out=1),
    )
    second = datetime(2024, 1, 2, tzinfo=UTC).timestamp()
    assert encoding.numbers == (
        NumberField("launch", "timestamp", second, 86_400.0),
        NumberField("price", "numeric", 15.0, 5.0),
    )
    assert (encoding.n_codes, encoding.n_numbers) == ((3, 2), 4)
    found = encoded(encoding, table, ["b", "z", "a", "c"])
    np.testing.assert_array_equal(found.codes[0], [[0, 0], [1, 2], [0, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(
        found.weights[0], np.array([[0, 0], [HALF, HALF], [1, 0], [1, 0], [1, 0]], np.float32)
    )
    np.testing.assert_array_equal(found.codes[1], [[0], [1], [0], [1], [0]])
    np.testing.assert_array_equal(found.weights[1], [[0], [1], [0], [1], [0]])
    nothing = [0, 0, 0, 0]
    np.testing.assert_array_equal(
        found.numbers, [nothing, nothing, nothing, [-1, 1, -1, 1], [1, 1, 1, 1]]
    )
    assert (found.counts.ids, found.counts.without_row, found.counts.rows_unused) == (4, 1, 0)
    assert found.counts.fields == {
        "genres": {"missing": 1, "unseen": 0, "cut": 0},
        "title": {"missing": 1, "unseen": 1, "cut": 0},
        "launch": {"missing": 1, "clipped": 0},
        "price": {"missing": 1, "clipped": 0},
    }


def test_types_are_those_of_the_tables() -> None:
    assert {kind: stored for kind, (stored, _) in TYPES.items()} == FEATURE_TYPES


def test_dtypes_are_those_of_the_contract() -> None:
    table = features(brand=["x"], title=["a"], price=[1.0])
    found = encoded(fitted(table), table, ["i0"])
    assert {array.dtype.name for array in found.codes} == {"int32"}
    assert {array.dtype.name for array in (*found.weights, found.numbers)} == {"float32"}


def test_what_an_ingested_log_gives(tmp_path: Path) -> None:
    """Through the ingest stage and its Parquet file, whose lists name their entries otherwise."""
    layout = workspace(
        tmp_path,
        small_log(),
        source={
            "kind": "files",
            "interactions": "log.parquet",
            "items": "items.parquet",
            "users": None,
        },
        item_features={"genres": {"kind": "multi_categorical"}, "price": "numeric"},
    )
    rows = pa.table({"item": ["i2", "i0"], "genres": ["War|Drama", "Drama"], "price": ["3", "x"]})
    pq.write_table(rows, tmp_path / "data" / "items.parquet")
    run_stages(layout, "ingest")
    table = pq.read_table(layout.item_features)
    encoding = fitted(table)
    found = encoded(encoding, table, ["i0", "i1", "i2"])
    assert encoding.bags[0].values == ("Drama", "War")
    np.testing.assert_array_equal(found.codes[0], [[0, 0], [1, 0], [0, 0], [1, 2]])
    np.testing.assert_array_equal(found.numbers, [[0, 0], [0, 0], [0, 0], [0, 1]])
    assert found.counts.without_row == 1


WORDS = st.sampled_from(["a", "b", "c", "d", "Ä", "é"])
ROW = st.fixed_dictionaries(
    {
        "brand": st.none() | WORDS,
        "genres": st.none() | st.lists(WORDS, max_size=4),
        "title": st.none() | st.lists(WORDS, max_size=6).map(", ".join),
        "price": st.none() | st.floats(-1e6, 1e6).map(lambda price: round(price, 6)),
        "launch": st.none() | st.integers(0, 10**12),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return features(**{name: [row[name] for row in rows] for name in KINDS})


def entries_of(name: str, value: Any) -> list[str]:
    if name == "brand":
        return [] if value is None else [value]
    if name == "genres":
        return value or []
    return re.findall(r"\w+", (value or "").lower())


def naive_bag(
    name: str, values: list[Any], fit: list[Any], most: int
) -> tuple[tuple[str, ...], list[dict[int, float]]]:
    """The values by code, and of each row the weights by code."""
    bags = [Counter(entries_of(name, value)) for value in fit]
    times = sum(bags, Counter[str]())
    fewest = 2 if name == "title" else 1
    often = [word for word in times if sum(word in bag for bag in bags) >= fewest]
    kept = sorted(often, key=lambda word: (-times[word], word))[:most]
    rows = []
    for value in values:
        bag = Counter(entries_of(name, value))
        known = {kept.index(word) + 1: n for word, n in bag.items() if word in kept}
        share = {code: math.sqrt(n) if name == "title" else 1.0 for code, n in known.items()}
        length = math.sqrt(sum(weight**2 for weight in share.values()))
        weights = {code: weight / length for code, weight in share.items()}
        rows.append(weights or ({} if name == "title" else {0: 1.0}))
    return tuple(kept), rows


def weights_by_code(codes: Any, weights: Any) -> dict[int, float]:
    there = weights > 0
    assert len(set(codes[there])) == there.sum(), "a code occurs once in a row"
    assert not codes[~there].any(), "padding is code 0"
    return dict(zip(codes[there].tolist(), weights[there].tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_everything_is_what_a_naive_reading_gives(
    rows: list[dict[str, Any]], most: int, data: st.DataObject
) -> None:
    table = table_of(rows)
    fit = sorted(data.draw(st.sets(st.sampled_from(range(len(rows))))))
    encoding = fitted(table, [f"i{row}" for row in fit], most=most, words=most)
    asked = data.draw(st.lists(st.integers(0, len(rows) + 2), max_size=15))
    found = encoded(encoding, table, [f"i{row}" for row in asked])
    nothing = dict.fromkeys(KINDS)
    wanted = [rows[row] if row < len(rows) else nothing for row in asked]
    for place, name in enumerate(["brand", "genres", "title"]):
        codes, weights = found.codes[place], found.weights[place]
        assert codes.shape == weights.shape == (len(asked) + 1, codes.shape[1])
        assert not codes[0].any()
        assert not weights[0].any()
        kept, bags = naive_bag(
            name, [row[name] for row in wanted], [rows[row][name] for row in fit], most
        )
        assert encoding.bags[place].values == kept
        for row, bag in enumerate(bags, start=1):
            assert weights_by_code(codes[row], weights[row]) == pytest.approx(bag, abs=1e-6)
        entries = [entries_of(name, row[name]) for row in wanted]
        counts = found.counts.fields[name]
        assert counts["unseen"] == sum(word not in kept for row in entries for word in row)
        assert counts["missing"] + found.counts.without_row == entries.count([])
    for place, name in enumerate(["launch", "price"]):
        scale = 1e-6 if name == "launch" else 1.0
        there = [rows[row][name] * scale for row in fit if rows[row][name] is not None]
        mean = np.mean(there) if there else 0.0
        deviation = np.std(there) if len(set(there)) > 1 else 1.0
        for row, value in enumerate((row[name] for row in wanted), start=1):
            pair = found.numbers[row, 2 * place : 2 * place + 2]
            if value is None:
                assert not pair.any()
            elif deviation > 1e-5 * abs(mean):  # else what cancels is all there is
                distance = np.clip((value * scale - mean) / deviation, -5, 5)
                np.testing.assert_allclose(pair, [distance, 1], rtol=1e-3, atol=1e-3)
    assert not found.numbers[0].any()
    assert found.counts.without_row == sum(row >= len(rows) for row in asked)
    assert found.counts.rows_unused == len(rows) - len({row for row in asked if row < len(rows)})


def many_rows(n: int, seed: int) -> pa.Table:
    draw = random.Random(seed)
    words = [f"w{word}" for word in range(30)]

    def some(longest: int) -> list[str]:
        return draw.choices(words, weights=range(30, 0, -1), k=draw.randint(0, longest))

    rows = [
        {
            "brand": draw.choice([None, *words]),
            "genres": draw.choice([None, some(5)]),
            "title": draw.choice([None, " ".join(some(9))]),
            "price": draw.choice([None, draw.lognormvariate(3, 2)]),
            "launch": draw.choice([None, draw.randint(0, 10**15)]),
        }
        for _ in range(n)
    ]
    return table_of(rows)


def test_the_order_of_rows_changes_nothing() -> None:
    table = many_rows(500, seed=1)
    shuffled = table.take(np.random.default_rng(2).permutation(500))
    encoding = fitted(table, names(400))
    assert fitted(shuffled, names(400)) == encoding
    same(encoded(encoding, shuffled, names(500)), encoded(encoding, table, names(500)))


def test_rows_of_other_ids_change_nothing() -> None:
    """What is learned at a cut does not move when the future does."""
    now, future, other = many_rows(300, seed=1), many_rows(500, seed=2), many_rows(500, seed=3)
    later = pa.concat_tables([now, future.slice(300)])
    otherwise = pa.concat_tables([now, other.slice(300)])
    known = names(300)
    assert fitted(later, known) == fitted(otherwise, known) == fitted(now, known)
    assert fitted(later) != fitted(otherwise)


def test_pieces_of_rows_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    table = many_rows(100, seed=4)
    encoding = fitted(table, most=12, words=12)
    whole = encoded(encoding, table, names(110))
    monkeypatch.setattr(feature_bags, "ROWS_AT_ONCE", 7)
    assert fitted(table, most=12, words=12) == encoding
    same(encoded(encoding, table, names(110)), whole)


def test_rows_in_their_order_are_those_of_ids_in_that_order() -> None:
    """As context columns of events are encoded, which have no ids."""
    table = many_rows(60, seed=5)
    encoding = fitted(table)
    context = table.drop_columns("item_id")
    assert fit_rows(context, KINDS, most=1000, words=3000) == encoding
    same(encode_rows(encoding, context), encoded(encoding, table, names(60)))


def test_an_encoding_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    odd = ["\x00", 'a"\\', "é\n", "", "​", "😀"]
    table = features(brand=odd, price=[0.1, 1 / 3, 1e-300, 3e100, -2.5, None])
    for encoding in (fitted(table), fitted(many_rows(200, seed=6)), FeatureEncoding((), ())):
        write_json(tmp_path / "features.json", encoding.to_json())
        assert FeatureEncoding.from_json(read_json(tmp_path / "features.json")) == encoding


@pytest.mark.parametrize("value", [{}, {"bags": [], "numbers": [{"name": "price"}]}])
def test_json_of_something_else_is_refused(value: Mapping[str, Any]) -> None:
    with pytest.raises(ContractError, match="not what to_json writes"):
        FeatureEncoding.from_json(value)


def test_rarer_categories_and_words_have_no_code_and_are_counted() -> None:
    table = features(brand=["x", "x", "y", "y", "z"], title=["p q", "p q", "p r", "p r", "r r s p"])
    encoding = fitted(table, most=2, words=2)
    assert encoding.bags == (
        BagField("brand", "categorical", ("x", "y"), left_out=1),  # of equal ones x before y
        BagField("title", "text", ("p", "r"), left_out=2),
    )
    found = encoded(encoding, table, ["i4"])
    assert found.codes[0][1].tolist() == [0]  # unknown
    assert found.counts.fields == {
        "brand": {"missing": 0, "unseen": 1, "cut": 0},
        "title": {"missing": 0, "unseen": 1, "cut": 0},
    }
    np.testing.assert_allclose(
        weights_by_code(found.codes[1][1], found.weights[1][1])[2], math.sqrt(2 / 3), rtol=1e-6
    )


def test_of_a_long_row_the_most_telling_values_stay() -> None:
    words = [f"w{word:03}" for word in range(WIDEST + 10)]
    table = features(
        title=[" ".join(words), " ".join([*words, *words[-20:]]), "w000"],
        genres=[words, words[:9], words[:9]],
    )
    encoding = fitted(table)
    found = encoded(encoding, table, names(3))
    assert {codes.shape for codes in found.codes} == {(4, WIDEST)}
    assert [found.counts.fields[name]["cut"] for name in ("genres", "title")] == [10, 20]
    # a list keeps its commonest values, a text the words that it repeats, then its commonest
    code = {word: place for place, word in enumerate(encoding.bags[1].values, start=1)}
    assert found.codes[0][1].tolist() == list(range(1, WIDEST + 1))
    assert found.codes[1][1].tolist() == list(range(1, WIDEST + 1))
    seldom = sorted(code, key=code.__getitem__)[-5:]
    other = features(title=[" ".join([*words, *seldom])], genres=[[]])
    codes = encoded(encoding, other, ["i0"]).codes[1][1]
    assert codes.tolist() == [*(code[word] for word in seldom), *range(1, WIDEST - 4)]
    both = features(title=[*other["title"].to_pylist(), "w001 w000"], genres=[[], []])
    codes = encoded(encoding, both, names(2)).codes[1][2]
    assert codes[:3].tolist() == [*sorted([code["w000"], code["w001"]]), 0]  # as without a long one
    for weights in found.weights:
        np.testing.assert_allclose(np.square(weights[1:]).sum(axis=1), 1.0, rtol=1e-5)


def test_words() -> None:
    texts = ["Don't STOP", "l’été, l'ÉTÉ!", "é", "3D/sci-fi_x", " — ", "ﬁn", "हिन्दी", "", None]  # noqa: RUF001 (quotes as texts have them)
    found = [
        None if words is None else [word for word in words if word]
        for words in words_of(pa.array(texts)).to_pylist()
    ]
    assert found == [
        ["don", "t", "stop"],
        ["l", "été", "l", "été"],
        ["é"],
        ["3d", "sci", "fi", "x"],
        [],
        ["fin"],
        ["हिन्दी"],
        [],
        None,
    ]


def test_numbers_that_are_far_missing_constant_or_huge() -> None:
    nine = [0.0] * 99
    table = features(price=[*nine, 1000.0, None, math.inf, math.nan])
    encoding = fitted(table)
    assert encoding.numbers[0].mean == pytest.approx(10.0)
    found = encoded(encoding, table, names(103))
    assert found.numbers[100].tolist() == [5.0, 1.0]  # 9.9 deviations
    assert found.numbers[101:].tolist() == [[0.0, 0.0]] * 3
    assert found.counts.fields["price"] == {"missing": 3, "clipped": 1}

    constant = features(price=[0.1] * 7)
    assert fitted(constant).numbers[0] == NumberField("price", "numeric", 0.1, 1.0)
    np.testing.assert_array_equal(
        encoded(fitted(constant), constant, ["i0"]).numbers[1], [0.0, 1.0]
    )

    huge = features(price=[1.7e308, -1.7e308])
    np.testing.assert_allclose(
        encoded(fitted(huge), huge, names(2)).numbers, [[0, 0], [1, 1], [-1, 1]]
    )
    later = features(price=[1.7e308])
    assert encoded(fitted(constant), later, ["i0"]).numbers[1].tolist() == [5.0, 1.0]


def test_times_keep_their_seconds() -> None:
    at = 1_700_000_000_000_000
    table = features(launch=[at, at + 2_000_000])
    assert fitted(table).numbers[0] == NumberField("launch", "timestamp", at / 1e6 + 1, 1.0)


@pytest.mark.parametrize("n", [0, 3])
def test_fields_of_nulls_alone_are_allowed(n: int) -> None:
    table = features(names(n), **dict.fromkeys(KINDS, [None] * n))
    found = encoded(fitted(table), table, names(4))
    for codes, weights in zip(found.codes, found.weights, strict=True):
        assert codes.shape == weights.shape == (5, 1)
        assert not codes.any()
    unknown = [0, 1, 1, 1, 1]
    assert [weights[:, 0].tolist() for weights in found.weights] == [unknown, unknown, [0] * 5]
    assert not found.numbers.any()
    assert found.counts.without_row == 4 - n
    assert {counts["missing"] for counts in found.counts.fields.values()} == {n}


def test_no_ids_and_no_fields() -> None:
    table = many_rows(5, seed=7)
    found = encoded(fitted(table, []), table, [])
    assert [codes.shape for codes in found.codes] == [(1, 1)] * 3
    assert found.numbers.shape == (1, 4)
    assert found.counts.rows_unused == 5
    none = encoded(FeatureEncoding((), ()), table, names(2))
    assert (none.codes, none.weights, none.numbers.shape) == ((), (), (3, 0))


def test_an_unseen_category_beside_known_ones_is_left_out() -> None:
    encoding = fitted(features(genres=[["a"], ["b"]]))
    later = features(genres=[["new", "b"], ["new", "newer"], ["b", "b", "a"]])
    found = encoded(encoding, later, names(3))
    assert found.codes[0].tolist() == [[0, 0], [2, 0], [0, 0], [1, 2]]
    np.testing.assert_array_equal(found.weights[0], [[0, 0], [1, 0], [1, 0], [ROOT, ROOT]])
    assert found.counts.fields["genres"] == {"missing": 0, "unseen": 3, "cut": 0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"item_id": ["a"]}), r"no columns \['price'\] among \['item_id'\]"),
        (pa.table({"item_id": ["a"], "price": ["1"]}), "column price is string, but numeric is"),
        (features(["a", "a"], price=[1.0, 2.0]), "1 rows have no item_id or repeat one"),
        (
            pa.table({"item_id": pa.array([None], pa.string()), "price": [1.0]}),
            "1 rows have no item_id",
        ),
        (pa.table({"price": [1.0]}), "the first one must hold the ids"),
        (pa.table({"item_id": [7], "price": [1.0]}), "the first one must hold the ids"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(table: pa.Table, message: str) -> None:
    encoding = fitted(features(price=[1.0, 2.0]))
    ids = pa.array(["a"])
    with pytest.raises(ContractError, match=message) as raised:
        encode(encoding, table, ids)
    assert "\n" not in str(raised.value)
    with pytest.raises(ContractError, match=message):
        fit_encoding(table, {"price": "numeric"}, ids=ids, most=9, words=9)


def test_films_by_genre_and_title(shared_data: Path) -> None:
    raw = pq.read_table(shared_data / "ml-1m-ordered" / "items.parquet").to_pydict()
    table = features(
        [str(item) for item in raw["item_id"]],
        genres=[genres.split("|") for genres in raw["genres"]],
        title=raw["title"],
    )
    encoding = fitted(table, table["item_id"].to_pylist()[::2])
    found = encoded(encoding, table, table["item_id"].to_pylist())
    genres = encoding.bags[0]
    assert genres.n_codes == 19
    assert genres.values[:2] == ("Drama", "Comedy")
    for row in (1, 1000, len(table)):
        own = {genres.values[code - 1] for code in found.codes[0][row] if code}
        assert own == set(raw["genres"][row - 1].split("|"))
    assert found.counts.fields["genres"] == {"missing": 0, "unseen": 0, "cut": 0}
