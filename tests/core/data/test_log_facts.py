"""Facts about a log as a whole, with answers known by construction."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.data.duck import open_duckdb
from recsys_core.data.log_facts import (
    DAY_MICROSECONDS as DAY,
)
from recsys_core.data.log_facts import (
    LogFacts,
    described_share,
    find_repeats,
    last_day_share,
    log_facts,
    repeats_of,
    rows_per_day,
)
from recsys_core.tables import INTERACTIONS


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb(tmp_path / "duck", memory_mb=128) as opened:
        yield opened


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table of interactions; what a row does not say is null."""
    full = [{"source_row": place, **row} for place, row in enumerate(rows)]
    columns = {name: [row.get(name) for row in full] for name in INTERACTIONS.names}
    pq.write_table(pa.table(columns, schema=INTERACTIONS), path)
    return path


def test_facts_count_what_is_there(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = written(
        tmp_path / "it's [1].parquet",
        [
            {"user_id": "a", "item_id": "x", "timestamp": -5},
            {"user_id": "a", "item_id": None, "timestamp": None},
            {"user_id": None, "item_id": "y", "timestamp": DAY},
        ],
    )
    assert log_facts(connection, path) == LogFacts(rows=3, users=1, items=2, first=-5, last=DAY)
    assert rows_per_day(connection, path) == {-1: 1, 1: 1}


def test_facts_of_nothing(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = written(tmp_path / "empty.parquet", [])
    assert log_facts(connection, path) == LogFacts(rows=0, users=0, items=0, first=None, last=None)
    assert rows_per_day(connection, path) == {}
    assert described_share(connection, path, features=path, key="item_id") == 0.0


def test_repeats_count_the_equal_rows_before(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    one = {"user_id": "a", "item_id": "x", "timestamp": 1, "value": 1.0}
    path = written(
        tmp_path / "log.parquet",
        [
            one,
            {**one, "value": None},
            one,
            {**one, "timestamp": 2},
            {**one, "value": None},
            one,
            {**one, "value": float("nan")},
            {**one, "value": float("nan")},
            {**one, "value": -0.0},
            {**one, "value": 0.0},
        ],
    )
    find_repeats(connection, path, columns=INTERACTIONS.names[1:])
    whole = repeats_of(connection, np.arange(10, dtype=np.int64))
    assert whole.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 0, 1]
    assert repeats_of(connection, np.arange(3, 6, dtype=np.int64)).tolist() == [0, 1, 2]
    assert repeats_of(connection, np.array([3])).tolist() == [0]


def test_repeats_equal_those_of_a_loop(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    n = 3_000
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}" if item else None, "timestamp": int(time)}
        for user, item, time in rng.integers(0, [20, 10, 30], (n, 3))
    ]
    seen: dict[tuple[Any, ...], int] = {}
    expected = []
    for row in rows:
        key = tuple(row.values())
        expected.append(seen.get(key, 0))
        seen[key] = expected[-1] + 1
    assert max(expected) > 1
    path = written(tmp_path / "log.parquet", rows)
    find_repeats(connection, path, columns=INTERACTIONS.names[1:])
    assert repeats_of(connection, np.arange(n, dtype=np.int64)).tolist() == expected


def test_a_column_may_be_called_like_one_of_ours(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """A context column `number` was once taken for the hash of a row."""
    path = tmp_path / "log.parquet"
    names = ["number", "repeats", "shared", "hash"]
    pq.write_table(pa.table({"source_row": [0, 1, 2], **{n: [1, 2, 1] for n in names}}), path)
    find_repeats(connection, path, columns=names)
    assert repeats_of(connection, np.arange(3, dtype=np.int64)).tolist() == [0, 0, 1]


def test_described_rows_are_those_with_a_row_of_features(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = written(tmp_path / "log.parquet", [{"item_id": item} for item in ["a", "a", "b", None]])
    features = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a", "c", None]}), features)
    assert described_share(connection, path, features=features, key="item_id") == 2 / 4


@pytest.mark.parametrize(
    ("per_day", "first", "end", "share"),
    [
        # days 0 and 1 are usual, 2 is the last; of day 3 only the midnight is there
        ({0: 10, 1: 10, 2: 5, 3: 1}, 0, 3 * DAY, 0.5),
        # a microsecond less, and day 2 is not over
        ({0: 10, 1: 5, 2: 5}, 0, 3 * DAY - 1, 0.5),
        # the first day is no whole one if the log begins after its midnight
        ({0: 1, 1: 10, 2: 5}, 1, 3 * DAY, 0.5),
        # a day without a row counts as such: the median of 10, 0, 10 and 0 is 5
        ({0: 10, 2: 10, 4: 5}, 0, 5 * DAY, 1.0),
        ({0: 10, 1: 10}, 0, 3 * DAY, 0.0),
        # only four weeks are looked at
        (
            {**dict.fromkeys(range(40), 1000), **dict.fromkeys(range(40, 68), 4), 68: 2},
            0,
            69 * DAY,
            0.5,
        ),
        ({0: 5}, 0, DAY, None),
        ({0: 5, 1: 5}, 1, 2 * DAY, None),
        ({5: 1, 20: 7}, 5 * DAY, 21 * DAY, 1.0),
    ],
)
def test_the_last_whole_day_beside_the_usual_one(
    per_day: dict[int, int], first: int, end: int, share: float | None
) -> None:
    assert last_day_share(per_day, first=first, end=end) == share
