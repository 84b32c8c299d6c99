"""Ingestion: every row comes in, in order, ids as they came; what cannot be read is counted."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.data.cards import DatasetCard
from recsys_core.data.duck import open_duckdb
from recsys_core.data.ingestion import id_column, ingest_features, ingest_interactions
from recsys_core.data.sources import open_file, open_log, open_table
from recsys_core.errors import ConfigError, DataError
from recsys_core.tables import INTERACTIONS, read_table
from tests.small_logs import START, small_card


def ingested(path: Path, card: DatasetCard) -> tuple[pa.Table, dict[str, Any]]:
    out = path.parent / "out" / "interactions.parquet"
    with open_duckdb(path.parent / "work", memory_mb=256) as connection:
        source = open_log(connection, path)
        report = ingest_interactions(connection, source, card=card, path=out)
    assert list((path.parent / "work").iterdir()) == []
    return read_table(out, pa.schema([*INTERACTIONS, *card.context_fields])), report


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return folder / "log.parquet"


def times_of(folder: Path, column: Any, unit: str) -> tuple[list[int | None], int]:
    """What a column of times becomes, and how many are counted as unreadable."""
    n = len(column)
    path = parquet(folder, user=["u"] * n, item=["i"] * n, at=column)
    kind = "absolute"
    table, report = ingested(path, small_card(time={"kind": kind, "unit": unit}))
    return table["timestamp"].cast(pa.int64()).to_pylist(), report["unreadable"]["timestamp"]


def test_rows_keep_their_number_and_their_order(tmp_path: Path) -> None:
    n = 300_000  # more than a batch and a row group, in many row groups of the source
    number = np.random.default_rng(1).permutation(n)
    log = pa.table({"user": number, "item": number % 7, "at": START + number})
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=7_001)
    table, report = ingested(tmp_path / "log.parquet", small_card())
    assert (report["rows_in"], report["rows_out"]) == (n, n)
    np.testing.assert_array_equal(table["source_row"], np.arange(n))
    assert table["user_id"].to_pylist() == [str(value) for value in number]
    np.testing.assert_array_equal(table["timestamp"].cast(pa.int64()), START + number)
    assert set(table["event_type"].to_pylist()) == {"interaction"}
    assert table["value"].null_count == table["session_id"].null_count == n


def test_csv_rows_keep_their_number_and_their_order(tmp_path: Path) -> None:
    n = 250_000
    lines = "".join(f"u{row},{row % 9},{START + row}\n" for row in range(n))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(f"user,item,at\n{lines}".encode(), 1))
    table, _ = ingested(tmp_path / "log.csv.gz", small_card())
    assert table["user_id"].to_pylist() == [f"u{row}" for row in range(n)]
    np.testing.assert_array_equal(table["timestamp"].cast(pa.int64()), START + np.arange(n))


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([7, 0, -1], pa.int64()), ["7", "0", "-1"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (
            pa.array([17850.0, None, 0.5, float("nan"), 1e300]),
            ["17850", None, "0.5", None, "1e+300"],
        ),
        (pa.array(["007", "1.0", " x ", "", "é", None]), ["007", "1.0", " x ", "", "é", None]),
        (pa.array([True, False]), ["true", "false"]),
    ],
)
def test_ids_come_as_they_are(column: pa.Array, texts: list[str | None], tmp_path: Path) -> None:
    path = parquet(tmp_path, user=column, item=column, at=[START] * len(column))
    table, _ = ingested(path, small_card())
    assert table["user_id"].to_pylist() == texts
    assert table["item_id"].to_pylist() == texts


def test_csv_is_text_and_empty_is_null(tmp_path: Path) -> None:
    text = 'user,item,at\n007,"a,""b""",1.5\n,#1,abc\n"two\nlines",1e3,\n'
    (tmp_path / "log.csv").write_text(text)
    table, report = ingested(
        tmp_path / "log.csv", small_card(time={"kind": "absolute", "unit": "s"})
    )
    assert table["user_id"].to_pylist() == ["007", None, "two\nlines"]
    assert table["item_id"].to_pylist() == ['a,"b"', "#1", "1e3"]
    assert table["timestamp"].cast(pa.int64()).to_pylist() == [1_500_000, None, None]
    # "abc"; an empty field is missing, not unreadable
    assert report["unreadable"] == {"timestamp": 1}
    assert report["rows_with_line_breaks"] == 1


@pytest.mark.parametrize(("unit", "factor"), [("s", 1_000_000), ("ms", 1_000), ("us", 1)])
def test_whole_times_are_exact_in_every_unit(unit: str, factor: int, tmp_path: Path) -> None:
    wanted = 1_508_198_399 * 1_000_000
    column = pa.array([wanted // factor, None, 0, -5], pa.int64())
    assert times_of(tmp_path, column, unit) == ([wanted, None, 0, -5 * factor], 0)
    texts = pa.array([str(wanted // factor), "later", " 12 "])
    assert times_of(tmp_path, texts, unit) == ([wanted, None, 12 * factor], 1)


def test_fractions_of_seconds_are_kept_to_the_microsecond(tmp_path: Path) -> None:
    column = pa.array([1_508_198_399.123456, 0.0000004, float("nan"), float("inf")])
    assert times_of(tmp_path, column, "s") == ([1_508_198_399_123_456, 0, None, None], 2)


def test_times_that_no_calendar_has_are_unreadable(tmp_path: Path) -> None:
    # microseconds where the card says seconds; the sums overflow or leave the year 9999
    column = pa.array([START, 2**62, -(2**62), 253_402_300_799], pa.int64())
    last = 253_402_300_799_000_000
    assert times_of(tmp_path, column, "s") == ([None, None, None, last], 3)


def test_dates_in_texts_are_utc_unless_they_say_so(tmp_path: Path) -> None:
    texts = [
        "2020-01-01T00:00:00Z",
        "2020-01-01 02:00:00+02:00",
        "2020-01-01",
        "2020-13-01",
        "infinity",
    ]
    new_year = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    assert times_of(tmp_path, pa.array(texts), "iso") == ([new_year] * 3 + [None, None], 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC")),
        pa.array([datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("ms", tz="Asia/Tokyo")),
        pa.array([1_577_836_800_000_000_123], pa.timestamp("ns")),
        pa.array([1_577_836_800], pa.timestamp("s")),
        pa.array([date(2020, 1, 1)], pa.date32()),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("unit", ["iso", "s"])
def test_a_column_of_a_timestamp_type_is_taken_as_it_is(
    column: pa.Array, unit: str, tmp_path: Path
) -> None:
    assert times_of(tmp_path, column, unit) == ([1_577_836_800_000_000], 0)


def test_a_value_that_is_no_number_becomes_nan_and_is_counted(tmp_path: Path) -> None:
    columns = {"user_id": "user", "item_id": "item", "timestamp": "at", "value": "stars"}
    stars = ["4.5", None, "many", "nan", "1e39", "-3"]
    path = parquet(tmp_path, user=["u"] * 6, item=["i"] * 6, at=[START] * 6, stars=stars)
    table, report = ingested(path, small_card(columns=columns))
    value = table["value"].to_pylist()
    assert value[0] == 4.5
    assert value[1] is None
    assert all(np.isnan(value[row]) for row in (2, 3))
    assert not np.isfinite(value[4])  # more than a float32 holds
    assert value[5] == -3
    assert report["unreadable"]["value"] >= 2


def test_types_sessions_and_context_come_in_by_their_roles(tmp_path: Path) -> None:
    card = small_card(
        columns={
            "user_id": "user",
            "item_id": "item",
            "timestamp": "at",
            "event_type": "what",
            "session_id": "visit",
        },
        event_types={"view": 1.0},
        context={"os": "categorical", "dwell": "numeric"},
    )
    path = parquet(
        tmp_path,
        user=["a", "b", "c"],
        item=["x", "y", "z"],
        at=[START] * 3,
        what=["view", "buy", None],
        visit=[1, 2, None],
        os=[20, None, 3],
        dwell=["1.5", "long", None],
        unused=[0, 0, 0],
    )
    table, report = ingested(path, card)
    assert table.column_names[-2:] == ["dwell", "os"]
    assert table["event_type"].to_pylist() == ["view", "buy", None]
    assert table["session_id"].to_pylist() == ["1", "2", None]
    assert table["os"].to_pylist() == ["20", None, "3"]
    assert table["dwell"].to_pylist() == [1.5, None, None]
    assert report["unreadable"] == {"timestamp": 0, "dwell": 1}


def test_columns_and_files_with_odd_names_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] *folder* x=1"
    folder.mkdir()
    columns = {"user_id": 'the "user"', "item_id": "select", "timestamp": "a b"}
    path = parquet(
        folder, **{'the "user"': ["u"], "select": ["i"], "a b": [START], "source_row": [9]}
    )
    table, _ = ingested(path, small_card(columns=columns))
    assert table.select(["source_row", "user_id", "item_id"]).to_pylist() == [
        {"source_row": 0, "user_id": "u", "item_id": "i"}
    ]
    assert "x" not in table.column_names


def test_a_table_is_a_source_like_a_file(tmp_path: Path) -> None:
    log = pa.table({"user": ["u", "v"], "item": [1, 2], "at": [START, START + 1]})
    pq.write_table(log, tmp_path / "log.parquet")
    with open_duckdb(tmp_path, memory_mb=256) as connection:
        source = open_table(connection, log, name="simulated log")
        ingest_interactions(connection, source, card=small_card(), path=tmp_path / "table.parquet")
    ingested(tmp_path / "log.parquet", small_card())
    from_file = tmp_path / "out" / "interactions.parquet"
    assert (tmp_path / "table.parquet").read_bytes() == from_file.read_bytes()


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    path = parquet(tmp_path, user=[1], thing=[2], at=[3])
    with pytest.raises(
        ConfigError, match=r"names a column 'item', there are \['user', 'thing', 'at'\]"
    ):
        ingested(path, small_card())


@pytest.mark.parametrize(
    ("column", "unit"), [([1], "iso"), ([True], "s"), ([[1]], "s"), ([b"1"], "us")]
)
def test_a_column_that_is_no_time_is_an_error(column: list[Any], unit: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a time"):
        times_of(tmp_path, column, unit)


def test_a_relative_time_counts_from_the_start(tmp_path: Path) -> None:
    path = parquet(tmp_path, user=[1], item=[2], at=[3])
    table, _ = ingested(path, small_card(time={"kind": "relative", "unit": "s"}))
    assert table["timestamp"].cast(pa.int64()).to_pylist() == [3_000_000]


RANK = {"time": {"kind": "rank", "unit": None}, "sessions": {"kind": "none"}}


@pytest.mark.parametrize(
    ("column", "wanted", "unreadable"),
    [
        (pa.array([3, None, 0, -2], pa.int64()), [3, None, 0, -2], 0),
        (pa.array([3.0, 1.5, float("nan"), 2.0**54]), [3, None, None, None], 3),
        (pa.array(["3", "1.5", "first", " 4 "]), [3, None, None, 4], 2),
    ],
    ids=["integers", "floats", "texts"],
)
def test_a_rank_is_that_many_microseconds(
    column: pa.Array, wanted: list[int | None], unreadable: int, tmp_path: Path
) -> None:
    path = parquet(tmp_path, user=["u"] * len(column), item=["i"] * len(column), at=column)
    table, report = ingested(path, small_card(**RANK))
    assert table["timestamp"].cast(pa.int64()).to_pylist() == wanted
    assert report["unreadable"]["timestamp"] == unreadable
    assert "unit_hint" not in report


def test_a_rank_of_truths_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is BOOLEAN, which cannot be a rank"):
        ingested(parquet(tmp_path, user=[1], item=[2], at=[True]), small_card(**RANK))


SECOND = 1_700_000_000


@pytest.mark.parametrize(
    ("unit", "times", "hint"),
    [
        ("s", [SECOND * 1_000] * 3 + [SECOND] * 2, "ms"),
        ("s", [SECOND * 1_000_000, SECOND * 1_000_000, None], "us"),
        ("ms", [SECOND] * 3, "s"),
        ("us", [str(SECOND * 1_000), str(SECOND * 1_000), "soon"], "ms"),
        ("iso", [str(SECOND), str(SECOND)], "s"),
        ("s", [SECOND] * 2 + [SECOND * 1_000] * 2, None),  # no more than half are elsewhere
        ("s", [1, 2, 3], None),  # 1970 in every unit
        ("s", [float("nan"), -5.0, 1e308], None),
        ("iso", ["2023-11-14", str(SECOND)], None),
        ("s", [None, None], None),
    ],
)
def test_a_unit_that_would_fit_better_is_told(
    unit: str, times: list[Any], hint: str | None, tmp_path: Path
) -> None:
    if times[0] is None:
        times = pa.array(times, pa.int64())
    path = parquet(tmp_path, user=["u"] * len(times), item=["i"] * len(times), at=times)
    _, report = ingested(path, small_card(time={"kind": "absolute", "unit": unit}))
    assert report.get("unit_hint") == hint


def test_numbers_in_texts_that_are_no_times_are_counted(tmp_path: Path) -> None:
    texts = ["NaN", "-1", "1e400", "-1e400", "inf", "", "0x10", "1_000", "٣", "1700000000"]
    lines = "".join(f"u,i,{text}\n" for text in texts)
    (tmp_path / "log.csv").write_text(f"user,item,at\n{lines}", encoding="utf-8")
    card = small_card(time={"kind": "absolute", "unit": "s"})
    table, report = ingested(tmp_path / "log.csv", card)
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    assert times[1] == -1_000_000
    assert times[-1] == SECOND * 1_000_000
    assert [times[place] for place in (0, 2, 3, 4, 5, 8)] == [None] * 6
    assert report["rows_out"] == len(texts)
    assert report["unreadable"]["timestamp"] == times.count(None) - 1  # the empty one is missing


def test_rows_with_a_line_break_in_any_column_are_counted(tmp_path: Path) -> None:
    # two stray quotes make one text of the lines between them, in a column that nobody reads
    good = "".join(f"u{row},i,{START},note\n" for row in range(5))
    text = f'user,item,at,note\nv,i,{START},"oh\n{good}w,i,{START}",no"\n'
    broken = text.replace('",no"', ',no"')
    (tmp_path / "log.csv").write_text(broken)
    table, report = ingested(tmp_path / "log.csv", small_card())
    assert table["user_id"].to_pylist() == ["v"]
    assert report["rows_with_line_breaks"] == 1
    (tmp_path / "log.csv").write_text(f"user,item,at,note\n{good}")
    assert ingested(tmp_path / "log.csv", small_card())[1]["rows_with_line_breaks"] == 0


def test_a_text_where_a_number_is_expected_is_counted_in_csv_too(tmp_path: Path) -> None:
    """DuckDB's optimizer once moved the cast into its reader of CSV files, which then refused."""
    (tmp_path / "log.csv").write_text(f"user,item,at,dwell\nu,i,{START},long\nu,j,{START},5\n")
    table, report = ingested(tmp_path / "log.csv", small_card(context={"dwell": "numeric"}))
    assert table["dwell"].to_pylist() == [None, 5.0]
    assert report["unreadable"]["dwell"] == 1


ITEMS_SOURCE = {"kind": "files", "interactions": "log.parquet", "items": "items.csv", "users": None}
ITEM_FEATURES = {
    "title": "text",
    "tags": "multi_categorical",
    "price": "numeric",
    "launch": "timestamp",
}


def features_of(folder: Path, text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    (folder / "items.csv").write_text(text)
    card = small_card(source=ITEMS_SOURCE, item_features=ITEM_FEATURES)
    with open_duckdb(folder / "work", memory_mb=256) as connection:
        source = open_file(connection, folder / "items.csv")
        report = ingest_features(
            connection,
            source,
            key=id_column(source, "item", name="item_id"),
            features=card.item_features,
            time=card.time,
            path=folder / "items.parquet",
        )
    return pq.read_table(folder / "items.parquet").to_pylist(), report


def test_features_are_ordered_by_id_and_typed(tmp_path: Path) -> None:
    text = (
        "item,title,tags,price,launch\n"
        "b,B,x|y,2.5,1000000\n10,Ten,,cheap,\n,None,x,1,1\n9,Nine,|x|,3,0\n"
    )
    rows, report = features_of(tmp_path, text)
    one = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    assert rows == [
        {"item_id": "10", "launch": None, "price": None, "tags": None, "title": "Ten"},
        {"item_id": "9", "launch": zero, "price": 3.0, "tags": ["x"], "title": "Nine"},
        {"item_id": "b", "launch": one, "price": 2.5, "tags": ["x", "y"], "title": "B"},
    ]
    assert report == {
        "rows_in": 4,
        "rows_out": 3,
        "without_id": 1,
        "unreadable": {"launch": 0, "price": 1},
    }


def test_an_id_may_have_one_row_of_features(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 rows repeat an item_id"):
        features_of(tmp_path, "item,title,tags,price,launch\na,A,,,\na,B,,,\n")


def test_a_feature_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names a column 'tags'"):
        features_of(tmp_path, "item,title,price,launch\na,A,1,1\n")
