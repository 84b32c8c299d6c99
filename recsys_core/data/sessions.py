"""From valid interactions to vocabularies and event columns, in DuckDB, out of core.

    interactions.parquet ──cut-off, kept types──▶ the view `log`, read once for each of
        ├─▶ items.parquet, users.parquet    idx from 1 by first (arrival, source_row)
        └─▶ events/*.npy                    ordered by (user_idx, timestamp, source_row)

A log grows in parts, and the *arrival* of a row is the later of its timestamp and the latest
timestamp of all parts before its own: nobody could know it earlier. In a log of one part that is
its timestamp. Since idx follow arrival, a row that comes late with an old time and a new id takes
the next idx, and none that was given changes.

A session's `session_idx` is 1 + the lowest source_row of its events: one number for one session,
not dense, and the same however the log grows, unless late rows join two sessions into one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from recsys_core.data.card_parts import GapSessions, GivenSessions
from recsys_core.data.cards import DatasetCard
from recsys_core.data.duck import arrow_batches, literal, parquet_sql
from recsys_core.data.session_runs import Columns, in_sessions
from recsys_core.errors import ConfigError, ContractError, DataError
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, events_writer, table_writer

BATCH_ROWS = 131_072
PAGE_BITS = 16
"""Rows are looked up in parts by pages of 2 ** 16: a hash join, where a join by range sorts."""

AS_READ = ("user_idx", "item_idx", "timestamp", "event_type", "value", "source_row")


@dataclass(frozen=True)
class LogCounts:
    """rows_in = events + cut + dropped_types; what lies after the cut-off counts as cut alone."""

    rows_in: int
    cut: int
    dropped_types: int
    events: int


def load_log(
    connection: duckdb.DuckDBPyConnection,
    interactions: Path,
    *,
    card: DatasetCard,
    cut_off: int | None,
    first_rows: Sequence[int],
    ties: Literal["first", "last"],
) -> LogCounts:
    """Create the views `log`, the interactions before the cut-off and of kept types, and `arrived`,
    the same with their arrival.

    `cut_off` is in microseconds, that of the card or an earlier one; None keeps all.
    `first_rows` are the source_rows at which the parts of the log begin, the first of them 0.
    `ties` `last` reads the log backwards, so that events of one time come in the other order: its
    source_row is counted from the end.
    Raises `DataError` where nothing is left.
    """
    if not interactions.exists():
        raise ContractError(f"{interactions}: no such table; run the stage that writes it")
    if list(first_rows[:1]) != [0] or any(a > b for a, b in pairwise(first_rows)):
        raise ContractError(
            f"the log's parts begin at rows {list(first_rows)!r:.80}, they must begin at 0 and "
            "never fall; run `ingest` again"
        )
    if ties == "last" and len(first_rows) > 1:
        raise ConfigError(
            f"sessionize.ties is last, but the log came in {len(first_rows)} parts; a log that "
            "grows cannot be read backwards: set sessionize.ties to first"
        )
    source = parquet_sql(interactions)
    row = "source_row" if ties == "first" else "max(source_row) OVER () - source_row"
    types = "[" + ", ".join(literal(name) for name in card.kept_types) + "]"
    before = "true" if cut_off is None else f"epoch_us(timestamp) < {cut_off}"
    kept = f"list_contains({types}, event_type)"
    rows_in, cut, dropped = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE NOT {before}), "
        f"count(*) FILTER (WHERE {before} AND NOT {kept}) FROM {source}"
    ).fetchall()[0]
    counts = LogCounts(rows_in, cut, dropped, events=rows_in - cut - dropped)
    if counts.events == 0:
        raise DataError(
            f"none of {rows_in} interactions is an event ({cut} after the cut-off, {dropped} of "
            "types that are not kept); correct cut_off or event_types in the dataset card"
        )
    connection.execute(
        f"""
        CREATE VIEW log AS
        SELECT user_id, item_id, session_id, {row} AS source_row,
               epoch_us(timestamp) AS timestamp,
               CAST(list_position({types}, event_type) - 1 AS TINYINT) AS event_type,
               coalesce(value, 'nan'::FLOAT) AS value
        FROM {source} WHERE {before} AND {kept}
        """
    )
    _create_arrived(connection, first_rows)
    return counts


def write_vocabularies(connection: duckdb.DuckDBPyConnection, *, items: Path, users: Path) -> None:
    """Create and write the tables `items` and `users` of `log`: idx from 1 by first arrival.

    Their `first_timestamp` is that arrival.
    """
    for name, path, schema in (("item", items, ITEM_VOCABULARY), ("user", users, USER_VOCABULARY)):
        connection.execute(
            f"""
            CREATE TABLE {name}s AS
            SELECT CAST(row_number() OVER (ORDER BY first) AS INTEGER) AS {name}_idx,
                   {name}_id, first_timestamp
            FROM (SELECT {name}_id, min(arrival) AS first_timestamp,
                         min({_moment("arrival")}) AS first
                  FROM arrived GROUP BY {name}_id)
            """
        )
        with table_writer(path, schema, key=(f"{name}_idx",)) as write:
            query = f"SELECT * FROM {name}s ORDER BY {name}_idx"
            for batch in arrow_batches(connection, query, rows=BATCH_ROWS):
                write(pa.Table.from_batches([batch]).cast(schema))


def write_event_columns(
    connection: duckdb.DuckDBPyConnection, folder: Path, *, card: DatasetCard, events: int
) -> int:
    """Write the `events` event columns, each event placed in its session; returns the number of
    sessions."""
    users = connection.execute("SELECT count(*) FROM users").fetchall()[0][0]
    sessions = 0
    with events_writer(folder, events=events, users=users) as write:
        for rows in _placed(connection, card):
            sessions += int(rows["session_start"].sum())
            write(rows)
    return sessions


def _moment(time: str) -> str:
    """A row's place in (time, source_row) as one number of SQL, whose minimum is the first row."""
    return f"{time}::HUGEINT * 18446744073709551616 + source_row"


def _create_arrived(connection: duckdb.DuckDBPyConnection, first_rows: Sequence[int]) -> None:
    if len(first_rows) == 1:
        connection.execute("CREATE VIEW arrived AS SELECT *, timestamp AS arrival FROM log")
        return
    connection.execute(
        f"""
        CREATE TABLE pages AS
        WITH begins AS (
            SELECT unnest($first_rows) AS first_row, unnest(range(len($first_rows))) AS part),
        parts AS (
            SELECT part, first_row, lead(first_row, 1, last_row + 1) OVER (ORDER BY part) AS end_row
            FROM begins, (SELECT max(source_row) AS last_row FROM log))
        SELECT part, first_row, end_row,
               unnest(range(first_row >> {PAGE_BITS}, ((end_row - 1) >> {PAGE_BITS}) + 1)) AS page
        FROM parts
        """,
        {"first_rows": list(first_rows)},
    )
    in_part = (
        f"source_row >> {PAGE_BITS} = page AND source_row >= first_row AND source_row < end_row"
    )
    connection.execute(
        f"""
        CREATE TABLE floors AS
        SELECT first_row, end_row, page,
               max(latest) OVER (ORDER BY part RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                   AS floor
        FROM pages LEFT JOIN (SELECT part, max(timestamp) AS latest
                              FROM log JOIN pages ON {in_part} GROUP BY part) USING (part)
        """
    )
    # the first part has no floor, and `greatest` passes over what is null
    connection.execute(
        "CREATE VIEW arrived AS SELECT log.*, greatest(timestamp, floor) AS arrival "
        f"FROM log JOIN floors ON {in_part}"
    )


def _placed(connection: duckdb.DuckDBPyConnection, card: DatasetCard) -> Iterator[Columns]:
    """Batches of events in order, each with `session_idx` and `session_start`."""
    order = "ORDER BY user_idx, timestamp, source_row"
    if not isinstance(card.sessions, GivenSessions):
        gap = None
        if isinstance(card.sessions, GapSessions):
            gap = round(card.sessions.gap_seconds * 1_000_000)
        query = (
            f"SELECT {', '.join(AS_READ)} FROM log "
            f"JOIN items USING (item_id) JOIN users USING (user_id) {order}"
        )
        yield from in_sessions(_batches(connection, query, AS_READ), gap=gap)
        return
    connection.execute(
        f"""
        CREATE TABLE visits AS
        SELECT user_idx, user_id, session_id, 1 + min(source_row) AS session_idx,
               min({_moment("timestamp")}) AS first
        FROM log JOIN users USING (user_id) GROUP BY user_idx, user_id, session_id
        """
    )
    query = f"""
        SELECT {", ".join(AS_READ)}, session_idx, {_moment("timestamp")} = first AS session_start
        FROM log JOIN items USING (item_id)
        JOIN visits ON log.user_id = visits.user_id
                    AND log.session_id IS NOT DISTINCT FROM visits.session_id
        {order}
        """
    yield from _batches(connection, query, (*AS_READ, "session_idx", "session_start"))


def _batches(
    connection: duckdb.DuckDBPyConnection, query: str, names: Sequence[str]
) -> Iterator[Columns]:
    for batch in arrow_batches(connection, query, rows=BATCH_ROWS):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
