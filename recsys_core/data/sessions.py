"""From valid interactions to vocabularies and event columns, in DuckDB, out of core.

    interactions.parquet ──cut-off, kept types──▶ log, ordered by (timestamp, source_row)
        ├─▶ items.parquet, users.parquet    idx from 1 by first appearance in that order
        └─▶ events/*.npy                    ordered by (user_idx, timestamp, source_row)

A row's place in the log, its `position`, stands for (timestamp, source_row) from there on: it
orders events without ties. Sessions are numbered from 1 by their first events; 0 is free for PAD.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from recsys_core.data.cards import DatasetCard, GapSessions
from recsys_core.data.duck import arrow_batches, file_literal, literal
from recsys_core.errors import ContractError, DataError
from recsys_core.tables import (
    EVENT_DTYPES,
    ITEM_VOCABULARY,
    USER_VOCABULARY,
    events_writer,
    table_writer,
)

BATCH_ROWS = 131_072


@dataclass(frozen=True)
class LogCounts:
    """rows_in = events + cut + dropped_types; what lies after the cut-off counts as cut alone."""

    rows_in: int
    cut: int
    dropped_types: int
    events: int


def load_log(
    connection: duckdb.DuckDBPyConnection, interactions: Path, *, card: DatasetCard
) -> LogCounts:
    """Create the table `log`: the interactions before the cut-off and of kept types, in time order.

    Raises `DataError` where nothing is left.
    """
    if not interactions.exists():
        raise ContractError(f"{interactions}: no such table; run the stage that writes it")
    source = f"read_parquet({file_literal(interactions)}, hive_partitioning = false)"
    types = "[" + ", ".join(literal(name) for name in card.kept_types) + "]"
    cut_off = card.cut_off_microseconds
    before = "true" if cut_off is None else f"epoch_us(timestamp) < {cut_off}"
    kept = f"list_contains({types}, event_type)"
    rows_in, cut, dropped = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE NOT {before}), "
        f"count(*) FILTER (WHERE {before} AND NOT {kept}) FROM {source}"
    ).fetchall()[0]
    # the order of insertion is kept, so a row's rowid is its position in time
    connection.execute(
        f"""
        CREATE TABLE log AS
        SELECT user_id, item_id, session_id, source_row,
               epoch_us(timestamp) AS timestamp,
               CAST(list_position({types}, event_type) - 1 AS TINYINT) AS event_type,
               coalesce(value, 'nan'::FLOAT) AS value
        FROM {source} WHERE {before} AND {kept}
        ORDER BY epoch_us(timestamp), source_row
        """
    )
    events = connection.execute("SELECT count(*) FROM log").fetchall()[0][0]
    counts = LogCounts(rows_in=rows_in, cut=cut, dropped_types=dropped, events=events)
    assert rows_in == events + cut + dropped, f"rows went missing: {counts}"
    if events == 0:
        raise DataError(
            f"none of {rows_in} interactions is an event ({cut} after the cut-off, {dropped} of "
            "types that are not kept); correct cut_off or event_types in the dataset card"
        )
    return counts


def write_vocabularies(connection: duckdb.DuckDBPyConnection, *, items: Path, users: Path) -> None:
    """Create and write the tables `items` and `users` of `log`: idx from 1 by first position."""
    for name, path, schema in (("item", items, ITEM_VOCABULARY), ("user", users, USER_VOCABULARY)):
        connection.execute(
            f"""
            CREATE TABLE {name}s AS
            SELECT CAST(row_number() OVER (ORDER BY first_position) AS INTEGER) AS {name}_idx,
                   {name}_id, first_timestamp
            FROM (SELECT {name}_id, min(rowid) AS first_position, min(timestamp) AS first_timestamp
                  FROM log GROUP BY {name}_id)
            ORDER BY {name}_idx
            """
        )
        with table_writer(path, schema, key=(f"{name}_idx",)) as write:
            query = f"SELECT * FROM {name}s ORDER BY {name}_idx"
            for batch in arrow_batches(connection, query, rows=BATCH_ROWS):
                write(pa.Table.from_batches([batch]).cast(schema))


def write_event_columns(
    connection: duckdb.DuckDBPyConnection, folder: Path, *, card: DatasetCard
) -> int:
    """Write the event columns, each event placed in its session; returns the number of sessions."""
    _place(connection, card)
    users, events = connection.execute(
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM placed)"
    ).fetchall()[0]
    query = """
        SELECT user_idx, item_idx, timestamp, session_idx, event_type, value, source_row,
               position = first_position AS session_start
        FROM placed JOIN sessions USING (first_position)
        ORDER BY user_idx, position
        """
    with events_writer(folder, events=events, users=users) as write:
        for batch in arrow_batches(connection, query, rows=BATCH_ROWS):
            rows: dict[str, np.ndarray[Any, Any]] = {
                name: batch.column(name).to_numpy(zero_copy_only=False)
                for name in ("user_idx", *EVENT_DTYPES)
                if name != "offsets"
            }
            write(rows)
    return int(connection.execute("SELECT count(*) FROM sessions").fetchall()[0][0])


def _place(connection: duckdb.DuckDBPyConnection, card: DatasetCard) -> None:
    """Create `placed`, the log with idx and its session's first position, and `sessions`."""
    connection.execute(
        """
        CREATE TABLE indexed AS
        SELECT user_idx, item_idx, log.rowid AS position, log.timestamp, session_id,
               event_type, value, source_row
        FROM log JOIN items USING (item_id) JOIN users USING (user_id)
        """
    )
    connection.execute("DROP TABLE log")
    if isinstance(card.sessions, GapSessions):
        gap = round(card.sessions.gap_seconds * 1_000_000)
        placed = f"""
            SELECT * EXCLUDE (starts),
                   max(CASE WHEN starts THEN position END) OVER so_far AS first_position
            FROM (SELECT *,
                         coalesce(timestamp - lag(timestamp) OVER passed >= {gap}, true) AS starts
                  FROM indexed WINDOW passed AS (PARTITION BY user_idx ORDER BY position))
            WINDOW so_far AS (PARTITION BY user_idx ORDER BY position ROWS UNBOUNDED PRECEDING)
            """
    else:
        placed = """
            SELECT *, min(position) OVER (PARTITION BY user_idx, session_id) AS first_position
            FROM indexed
            """
    connection.execute(f"CREATE TABLE placed AS {placed}")
    connection.execute("DROP TABLE indexed")
    connection.execute(
        """
        CREATE TABLE sessions AS
        SELECT first_position, row_number() OVER (ORDER BY first_position) AS session_idx
        FROM placed WHERE position = first_position
        """
    )
