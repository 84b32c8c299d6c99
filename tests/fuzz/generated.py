"""Logs and their cards as hypothesis draws them: any names, types, times, sessions and rules."""

import csv
import gzip
import io
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recsys_core.config import read_yaml
from tests.small_logs import REPOSITORY, START, card_value

ODD_NAMES = (
    *("user", "item", "at", "user_id", "item_id", "timestamp", "value", "event_type"),
    *("session_id", "source_row", "reason", "repeats", "finite value", "number", "shared", "id"),
    *("select", 'the "first"', "it's", "a.b", "a b", "Größe", "商品", "x" * 300, "USER", "Item"),
    *("$name", "{x}", "%s", "a;b", "a\tb", "row_condition", "column", "index", "log", "first"),
)
ODD_TEXTS = (
    *("", " ", "007", "7", "7.0", "1e3", "NaN", "null", "None", "nan", "inf", "-0", "true"),
    *("o'hara", 'quo"te', "a,b", "a;b", "naïve ☃ 例", "%s {0} $1", "\t", "a\nb", "a\r\nb", "\0"),
    *("x" * 10_000, " padded ", "\u202eright", "\ufeffbom", "e\u0301", "=1+1", "../x", "😀" * 50),
    *("2023-11-14", "2023-11-14T22:13:20Z", "2023-13-45", "infinity", "1_000", "0x10", "٣"),
)
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}

NAMES = st.sampled_from(ODD_NAMES) | st.text(min_size=1, max_size=8).filter(
    lambda text: text.strip() and "\0" not in text
)
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30)
FLOATS = st.floats(width=64) | st.sampled_from([1.0, 17850.0, 2.0**53, float("nan")])


@dataclass(frozen=True)
class Drawn:
    """A log's columns in the source's names, its card, and how its files are written."""

    card: dict[str, Any]
    params: dict[str, Any]
    log: pa.Table
    features: dict[str, pa.Table]
    ending: str
    files: int
    quote_all: bool


def write_case(root: Path, number: int) -> int:
    """Write the workspace that this number draws; returns the rows of its log."""
    case = drawn(number)
    (root / "datasets").mkdir()
    (root / "data").mkdir()
    _dump(root / "datasets" / "small.yaml", case.card)
    _dump(root / "params.yaml", case.params)
    path = root / "data" / case.card["source"]["interactions"]
    if case.files == 1:
        write_table(path, case.log, quote_all=case.quote_all)
    else:
        path.mkdir()
        cuts = np.linspace(0, len(case.log), case.files + 1).astype(int)
        for part, (low, high) in enumerate(pairwise(cuts)):
            name = path / f"part {part}{case.ending}"
            write_table(name, case.log.slice(low, high - low), quote_all=case.quote_all)
    for name, table in case.features.items():
        write_table(root / "data" / name, table, quote_all=case.quote_all)
    return len(case.log)


def drawn(number: int) -> Drawn:
    """The case of a number: hypothesis draws the same for the same number and its own version."""
    found: list[Drawn] = []

    @seed(number)
    @settings(
        max_examples=3,  # the first is the simplest that there is
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def remember(case: Drawn) -> None:
        found.append(case)

    remember()
    return found[-1]


@st.composite
def cases(draw: st.DrawFn) -> Drawn:
    """A log, its card and params."""
    calm = draw(st.integers(0, 2)) > 0  # a log that could be one: with many oddities, none passes
    rows = draw(st.integers(20, 60) if calm else st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(NAMES, min_size=9, max_size=9, unique_by=str.lower))
    kind = draw(st.sampled_from(["absolute", "absolute", "relative", "rank"]))
    units = {"absolute": ["s", "ms", "us", "iso"], "relative": ["s", "ms", "us"], "rank": [None]}
    unit = draw(st.sampled_from(units[kind]))
    has_type, has_value, has_session = (draw(st.booleans()) for _ in range(3))
    columns: dict[str, pa.Array] = {
        names[0]: draw(_ids(rows, rng, calm=calm)),
        names[1]: draw(_ids(rows, rng, calm=calm)),
        names[2]: draw(_times(rows, rng, kind, unit, calm=calm)),
    }
    types = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    if has_type:
        columns[names[3]] = _of([*types * 4, "other", None], rows, rng)
    if has_value:
        columns[names[4]] = draw(_numbers(rows, rng))
    if has_session:
        columns[names[5]] = draw(_ids(rows, rng, calm=calm))
    context = {
        name: draw(st.sampled_from(["categorical", "numeric"]))
        for name in names[6 : 6 + draw(st.integers(0, 2))]
    }
    for name, of in context.items():
        columns[name] = draw(_numbers(rows, rng) if of == "numeric" else _ids(rows, rng))
    if draw(st.booleans()):
        columns[names[8]] = draw(_ids(rows, rng))  # of no use
    ending = draw(st.sampled_from([".parquet", ".parquet", ".csv", ".csv.gz"]))
    files = draw(st.sampled_from([1, 1, 1, 2, 4]))
    log = pa.table(columns)
    features = draw(_features(log, names, ending, rng))
    card = draw(_card(kind, unit, names, types, has_type, has_value, has_session, context, calm))
    stem = draw(st.sampled_from(["log", "a b", "it's", "x=1", "[a]*", "ö"]))
    source = {"kind": "files", "interactions": stem + ending if files == 1 else stem}
    for which, table in (("items", "item_features"), ("users", "user_features")):
        source[which] = f"{which}{ending}" if which in features else None
        if which in features:
            card[table] = features[which][1]
            share = None if calm else draw(st.none() | st.floats(0.01, 1.0))
            card["expected"][f"{which}_described"] = share
    card["source"] = source
    return Drawn(
        card=card,
        params=draw(_params(calm)),
        log=log,
        features={f"{name}{ending}": table for name, (table, _) in features.items()},
        ending=ending,
        files=files,
        quote_all=draw(st.booleans()),
    )


def write_table(path: Path, table: pa.Table, *, quote_all: bool = False) -> None:
    """Write a table as its path's ending says."""
    if path.name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=max(1, len(table) // 2))
        return
    text = io.StringIO(newline="")
    # with line ends of LF alone, Python's writer leaves a CR in a text unquoted
    writer = csv.writer(
        text,
        lineterminator="\n" if quote_all else "\r\n",
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
    )
    writer.writerow(table.column_names)
    writer.writerows(zip(*map(_cells, table.columns), strict=True))
    data = text.getvalue().encode("utf-8", errors="replace")
    path.write_bytes(gzip.compress(data, 1) if path.name.endswith(".gz") else data)


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """A column's values for Python's CSV writer; times as numbers, since not all are dates."""
    values: list[Any] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values


@st.composite
def _card(
    draw: st.DrawFn,
    kind: str,
    unit: str | None,
    names: list[str],
    types: list[str],
    has_type: bool,
    has_value: bool,
    has_session: bool,
    context: dict[str, str],
    calm: bool,
) -> dict[str, Any]:
    roles = dict(zip(("user_id", "item_id", "timestamp"), names, strict=False))
    texts = ["user_id", "item_id", "event_type", "session_id"]
    texts += [name for name, of in context.items() if of == "categorical"]
    numbers = [name for name, of in context.items() if of == "numeric"]
    for there, role, name in zip(
        (has_type, has_value, has_session),
        ("event_type", "value", "session_id"),
        names[3:6],
        strict=True,
    ):
        if there:
            roles[role] = name
    if has_value:
        numbers.append("value")
    gap = {"kind": "gap", "gap_seconds": draw(st.sampled_from([1e-6, 1.0, 1800.0, 1e12, 1e300]))}
    sessions = [{"kind": "none"}]
    sessions += [{"kind": "given"}] * 2 if has_session else []
    sessions += [gap] * 2 if kind != "rank" else []
    rules: dict[str, dict[str, Any]] = {}
    for name in draw(
        st.lists(st.sampled_from(texts + numbers), max_size=1 if calm else 3, unique=True)
    ):
        rule: dict[str, Any] = {"required": draw(st.booleans())}
        if name in numbers:
            low, high = sorted((draw(st.floats(-1e6, 1e6)), draw(st.floats(-1e6, 1e6))))
            rule |= {"min": low, "max": high}
        else:
            rule["matches"] = draw(st.sampled_from(["^.", "(a|u)", "[0-9]+$", "\\S", "^(?!x)", ""]))
        rules[name] = rule
    cut_offs = [None, None, "2023-11-15T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"]
    return card_value(
        columns=roles,
        time={"kind": kind, "unit": unit},
        event_types=dict.fromkeys(types[: draw(st.integers(1, 3))], 1.0) if has_type else None,
        sessions=draw(st.sampled_from(sessions)),
        context=context,
        cut_off=draw(st.sampled_from(cut_offs)) if kind == "absolute" else None,
        rules=rules,
        duplicates=draw(st.sampled_from(["quarantine", "keep"])),
        expected={
            "bad_share": 0.99 if calm else draw(st.sampled_from([0.0, 0.5, 0.99])),
            "rows": 1 if calm else draw(st.sampled_from([1, 5, 10**9])),
            "last_day_share": None
            if calm or kind == "rank"
            else draw(st.sampled_from([None, 0.01, 1.0])),
        },
    )


@st.composite
def _params(draw: st.DrawFn, calm: bool) -> dict[str, Any]:
    value: dict[str, Any] = read_yaml(REPOSITORY / "params.yaml")
    value["ingest"] = {"dataset": "small", "path": "data"}
    value["validate"] = {
        "batch_rows": draw(st.sampled_from([17, 1_000, 2_000_000])),
        "timestamps_before": draw(
            st.sampled_from([None, date(2023, 11, 16), *([] if calm else [date(1, 1, 1)])])
        ),
        "memory_mb": 256,
    }
    value["sessionize"] = {"memory_mb": 256}
    value["split"] = draw(
        st.sampled_from(
            [{"kind": "quantile", "share": 0.2}]
            if calm
            else [
                {"kind": "quantile", "share": 0.999},
                {"kind": "days", "days": 1},
                {"kind": "days", "days": 0.001},
                {"kind": "days", "days": 1e300},
            ]
        )
    )
    return value


@st.composite
def _ids(draw: st.DrawFn, rows: int, rng: np.random.Generator, calm: bool = False) -> pa.Array:
    pools: list[tuple[st.SearchStrategy[Any], pa.DataType]] = [
        (TEXTS, pa.string()),
        (TEXTS, pa.large_string()),
        (TEXTS, pa.dictionary(pa.int8(), pa.string())),
        (st.integers(0, 9).map("u{}".format), pa.string()),
        (INT64, pa.int64()),
        (st.integers(0, 2**64 - 1), pa.uint64()),
        (FLOATS, pa.float64()),
        (st.booleans(), pa.bool_()),
        (st.binary(max_size=8), pa.binary()),
        (st.dates(date(1, 1, 1)), pa.date32()),
        (st.lists(st.integers(0, 3), max_size=2), pa.list_(pa.int64())),
        (st.decimals(-1000, 1000, places=2), pa.decimal128(10, 2)),
        (st.none(), pa.null()),
    ]
    pool, kind = draw(st.sampled_from(pools[3:5] * 2 + pools[:1] if calm else pools))
    values = draw(st.lists(pool, min_size=4 if calm else 1, max_size=6))
    values += [None] if draw(st.integers(0, 3)) == 0 else []
    return _of(values, rows, rng, kind)


@st.composite
def _numbers(draw: st.DrawFn, rows: int, rng: np.random.Generator) -> pa.Array:
    pool, kind = draw(
        st.sampled_from(
            [
                (FLOATS, pa.float64()),
                (st.floats(width=32), pa.float32()),
                (INT64, pa.int64()),
                (st.booleans(), pa.bool_()),
                (st.decimals(-1000, 1000, places=2), pa.decimal128(10, 2)),
                (TEXTS | st.floats().map(str), pa.string()),
                (st.none(), pa.null()),
            ]
        )
    )
    return _of(draw(st.lists(st.none() | pool, min_size=1, max_size=6)), rows, rng, kind)


@st.composite
def _times(
    draw: st.DrawFn,
    rows: int,
    rng: np.random.Generator,
    kind: str,
    unit: str | None,
    calm: bool,
) -> pa.Array:
    """Mostly times of the card's kind and unit, in any type, some of them impossible."""
    spreads = [10**9, 30 * 86_400 * 10**6]
    spread = draw(st.sampled_from(spreads if calm else [0, 10_000, *spreads, 10**15]))
    start = START if kind == "absolute" else 0
    moments = [int(value) for value in start + rng.integers(0, spread + 1, rows)]
    factor = UNITS.get(unit or "us", 1)
    odd_numbers = draw(st.lists(st.none() | INT64 | st.integers(-5, 5), max_size=3))
    odd_floats = draw(st.lists(st.none() | FLOATS, max_size=3))
    odd_texts = draw(st.lists(st.none() | TEXTS, max_size=3))
    dates = [datetime.fromtimestamp(value / 1e6, UTC) for value in moments]
    iso = [value.isoformat() for value in dates] if unit == "iso" else None
    choices: list[tuple[list[Any], list[Any], pa.DataType]] = [
        ([value // factor for value in moments], odd_numbers, pa.int64()),
        ([value / factor for value in moments], odd_floats, pa.float64()),
        (iso or [str(value // factor) for value in moments], odd_texts, pa.string()),
        (moments, [None, -(2**62), 2**62], pa.timestamp("us", tz="UTC")),
        (moments, [None, 2**60], pa.timestamp("us")),
        ([value * 1_000 for value in moments], [None, 2**62], pa.timestamp("ns")),
        ([value // 1_000_000 for value in moments], [None, 2**40], pa.timestamp("s")),
        ([value.date() for value in dates], [None, date(9999, 12, 31), date(1, 1, 1)], pa.date32()),
        ([Decimal(value // factor) for value in moments], [None], pa.decimal128(38, 0)),
        ([value % 2 == 0 for value in moments], [None], pa.bool_()),
    ]
    right = [2, 3] if unit == "iso" else [0, 0, 1, 2]
    good, odd, type_ = choices[draw(st.sampled_from(right if calm else range(len(choices))))]
    share = draw(st.sampled_from([0.0, 0.1] if calm else [0.0, 0.1, 0.9])) if odd else 0.0
    picked = rng.random(rows) < share
    values = [
        odd[int(rng.integers(len(odd)))] if bad else value
        for bad, value in zip(picked, good, strict=True)
    ]
    return pa.array(values, type_)


@st.composite
def _features(
    draw: st.DrawFn, log: pa.Table, names: list[str], ending: str, rng: np.random.Generator
) -> dict[str, tuple[pa.Table, dict[str, str]]]:
    """Tables of items and users, with the features that the card names of them."""
    found = {}
    for which, key in (("items", names[1]), ("users", names[0])):
        if draw(st.integers(0, 3)) > 0:
            continue
        ids = log[key].to_pylist()
        if draw(st.integers(0, 3)):
            ids = [*{repr(value): value for value in ids}.values()]
        table = {key: pa.array(ids, log[key].type)}
        features = draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=str.lower))
        kinds = {}
        for name in features:
            if name.lower() == key.lower():
                continue
            kinds[name] = draw(
                st.sampled_from(
                    ["categorical", "multi_categorical", "numeric", "text", "timestamp"]
                )
            )
            part = draw(_numbers(len(ids), rng) | _ids(len(ids), rng))
            table[name] = part
        found[which] = (pa.table(table), kinds)
    return found


def _of(
    values: list[Any], rows: int, rng: np.random.Generator, kind: pa.DataType | None = None
) -> pa.Array:
    return pa.array([values[place] for place in rng.integers(len(values), size=rows)], kind)


def _dump(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
