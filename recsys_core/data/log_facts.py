"""Facts about a log as a whole, aggregated in DuckDB: repeats, ids, days, described rows.

Every function reads tables of interactions as Parquet files and holds no more of them in memory
than the connection may; see `duck.open_duckdb`.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import numpy.typing as npt

from recsys_core.columns import ITEM_ID, SOURCE_ROW, TIMESTAMP, USER_ID
from recsys_core.data.duck import identifier, parquet_sql

DAY_MICROSECONDS = 86_400_000_000
COMPARED_DAYS = 28
"""Four weeks: every weekday is in them alike, and a festival does not move their median."""


@dataclass(frozen=True)
class LogFacts:
    """How much a table of interactions holds; times in microseconds, None where it has none."""

    rows: int
    users: int
    items: int
    first: int | None
    last: int | None


def log_facts(connection: duckdb.DuckDBPyConnection, path: Path) -> LogFacts:
    """Rows, distinct ids and the span of time of a table of interactions."""
    table = parquet_sql(path)
    rows, first, last = connection.execute(
        f"SELECT count(*), epoch_us(min({TIMESTAMP})), epoch_us(max({TIMESTAMP})) FROM {table}"
    ).fetchall()[0]
    # two queries, not count(DISTINCT ...): that holds every id in memory
    users, items = (
        connection.execute(
            f"SELECT count(id) FROM (SELECT DISTINCT {name} AS id FROM {table})"
        ).fetchall()[0][0]
        for name in (USER_ID, ITEM_ID)
    )
    return LogFacts(rows=rows, users=users, items=items, first=first, last=last)


def find_repeats(connection: duckdb.DuckDBPyConnection, path: Path, *, columns: list[str]) -> None:
    """Make the table `repeats` of rows that equal an earlier row in all `columns`.

    Nulls equal each other. `repeats` counts the equal rows before it.
    """
    # by place: a column of the log may be called like anything of ours
    names = [f"c{place}" for place in range(len(columns))]
    placed = ", ".join(
        f"{identifier(column)} AS {name}" for column, name in zip(columns, names, strict=True)
    )
    table = f"(SELECT {placed}, {SOURCE_ROW} AS place FROM {parquet_sql(path)})"
    key = ", ".join(names)
    # one number per row first: only rows that share theirs with another are compared in full
    connection.execute(
        f"CREATE TABLE shared AS SELECT hash({key}) AS number FROM {table} "
        "GROUP BY number HAVING count(*) > 1"
    )
    connection.execute(
        f"CREATE TABLE repeats AS SELECT place AS {SOURCE_ROW}, repeats FROM ("
        f"SELECT place, row_number() OVER (PARTITION BY {key} ORDER BY place) - 1 AS repeats "
        f"FROM {table} WHERE hash({key}) IN (SELECT number FROM shared)"
        ") WHERE repeats > 0 ORDER BY place"
    )
    connection.execute("DROP TABLE shared")


def repeats_of(
    connection: duckdb.DuckDBPyConnection, source_rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many equal rows come before each of these rows (N,), which are in order; by
    `find_repeats`."""
    counts = np.zeros(len(source_rows), dtype=np.int64)
    found = connection.execute(
        f"SELECT {SOURCE_ROW}, repeats FROM repeats WHERE {SOURCE_ROW} BETWEEN ? AND ?",
        [int(source_rows[0]), int(source_rows[-1])],
    ).fetchnumpy()
    counts[np.searchsorted(source_rows, found[SOURCE_ROW])] = found["repeats"]
    return counts


def rows_per_day(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[int, int]:
    """Rows by day, a day counted from 1970-01-01 or from the log's start; days without are left
    out, and so are rows without a time."""
    found = connection.execute(
        f"SELECT floor(epoch_us({TIMESTAMP}) / {DAY_MICROSECONDS})::BIGINT, count(*) "
        f"FROM {parquet_sql(path)} WHERE {TIMESTAMP} IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {int(day): int(rows) for day, rows in found}


def last_day_share(per_day: dict[int, int], *, first: int, end: int) -> float | None:
    """The rows of the last whole day in those of the median day of the four weeks before it.

    A whole day lies between `first` (the earliest timestamp) and `end` (where the log ends), in
    microseconds; the last one ends at the last midnight up to `end`. None where no whole day lies
    before it. A median of zero rows is reached by any day.

    >>> last_day_share({0: 10, 1: 30, 2: 10, 3: 2}, first=0, end=3 * DAY_MICROSECONDS + 5)
    0.5
    """
    last = end // DAY_MICROSECONDS - 1
    begin = max(-(-first // DAY_MICROSECONDS), last - COMPARED_DAYS)
    before = [per_day.get(day, 0) for day in range(begin, last)]
    if not before:
        return None
    usual = median(before)
    return per_day.get(last, 0) / usual if usual else 1.0


def described_share(
    connection: duckdb.DuckDBPyConnection, path: Path, *, features: Path, key: str
) -> float:
    """The share of rows whose id in column `key` has a row in a table of features."""
    found, rows = connection.execute(
        f"SELECT count(*) FILTER (WHERE {key} IN (SELECT {key} FROM {parquet_sql(features)})), "
        f"count(*) FROM {parquet_sql(path)}"
    ).fetchall()[0]
    return found / rows if rows else 0.0
