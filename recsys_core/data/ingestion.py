"""From a source to the interactions table: roles and types by the dataset card, every row kept.

    files or simulated table ──DuckDB, streamed──▶ interactions, items and users .parquet

`source_row` is the row's number in the source, from 0, one file after the other. Ids are texts;
whole numbers have no decimals. A timestamp that cannot be read is null, a value that cannot be read
is NaN: validation finds both, so nothing is lost here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from recsys_core.columns import (
    EVENT_TYPE,
    ITEM_ID,
    SESSION_ID,
    SOURCE_ROW,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recsys_core.data.card_parts import FEATURE_TYPES, ONE_TYPE, Feature, Features, Time
from recsys_core.data.cards import DatasetCard
from recsys_core.data.column_sql import (
    has_units,
    microseconds_sql,
    number_sql,
    text_sql,
    unit_counts_sql,
    unit_hint,
    value_sql,
)
from recsys_core.data.duck import arrow_batches, identifier, literal
from recsys_core.data.sources import Source, reading
from recsys_core.errors import DataError
from recsys_core.tables import INTERACTIONS, UTC_MICROSECONDS, table_writer

BATCH_ROWS = 131_072


@dataclass(frozen=True)
class Column:
    """A column to be written: its SQL, its Arrow type, the source's column where there is one."""

    name: str
    sql: str
    kind: pa.DataType
    source: str | None


def ingest_interactions(
    connection: duckdb.DuckDBPyConnection, source: Source, *, card: DatasetCard, path: Path
) -> dict[str, Any]:
    """Write the interactions table; returns rows in and out, and what is odd about them.

    `unreadable` counts per typed column what cannot be read. `unit_hint`, where it is there, is the
    unit that the times seem to have instead of the card's. `rows_with_line_breaks` (CSV): a text of
    theirs goes over several lines, as two stray quotation marks make of the lines between them.
    Raises `DataError` where the source has no rows or is broken, `ConfigError` where it does not
    fit the card.
    """
    columns = _interaction_columns(source, card)
    schema = pa.schema([*INTERACTIONS, *card.context_fields])
    rows = 0
    with reading(source), table_writer(path, schema, key=(SOURCE_ROW,)) as write:
        for batch in _batches(connection, source, columns):
            numbers = pa.array(np.arange(rows, rows + len(batch), dtype=np.int64))
            write(batch.add_column(0, SOURCE_ROW, numbers))
            rows += len(batch)
        if rows == 0:
            raise DataError(f"{source.name}: it has no rows; check the export that writes it")
    odd = _what_is_odd(connection, source, columns, card=card)
    return {"rows_in": rows, "rows_out": rows, **odd}


def ingest_features(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    *,
    key: Column,
    features: Features,
    time: Time,
    path: Path,
) -> dict[str, Any]:
    """Write a table of features, one row per id in the order of ids; returns rows in, out and why.

    Rows without an id are left out and counted. Raises `DataError` where an id occurs twice.
    """
    columns = [key, *(_feature(source, name, features[name], time) for name in sorted(features))]
    with reading(source):
        rows, with_id, ids = connection.execute(
            "SELECT count(*), count(id), count(DISTINCT id) "
            f"FROM (SELECT {key.sql} AS id FROM {source.sql})"
        ).fetchall()[0]
    if with_id > ids:
        raise DataError(
            f"{source.name}: {with_id - ids} rows repeat an {key.name}; keep one row for each"
        )
    schema = pa.schema([pa.field(column.name, column.kind) for column in columns])
    order = f"WHERE ({key.sql}) IS NOT NULL ORDER BY 1"
    with reading(source), table_writer(path, schema, key=(key.name,)) as write:
        for batch in _batches(connection, source, columns, suffix=order):
            write(batch)
    unreadable = _unreadable(columns)
    counts = _counted(connection, source, list(unreadable.values()))
    return {
        "rows_in": rows,
        "rows_out": ids,
        "without_id": rows - with_id,
        "unreadable": dict(zip(unreadable, counts, strict=True)),
    }


def id_column(source: Source, column: str, *, name: str) -> Column:
    """An id, called `name` in our tables and `column` in the source."""
    return Column(name, text_sql(source, column), pa.string(), column)


def _interaction_columns(source: Source, card: DatasetCard) -> list[Column]:
    """The columns after source_row: the roles, then the context by name."""
    log = card.columns
    no_type, no_value, no_session = (
        literal(ONE_TYPE),
        "CAST(NULL AS FLOAT)",
        "CAST(NULL AS VARCHAR)",
    )
    time = microseconds_sql(source, log.timestamp, card.time)
    kind = _if_named(text_sql, source, log.event_type, no_type)
    value = _if_named(value_sql, source, log.value, no_value)
    session = _if_named(text_sql, source, log.session_id, no_session)
    return [
        id_column(source, log.user_id, name=USER_ID),
        id_column(source, log.item_id, name=ITEM_ID),
        Column(TIMESTAMP, time, UTC_MICROSECONDS, log.timestamp),
        Column(EVENT_TYPE, kind, pa.string(), log.event_type),
        Column(VALUE, value, pa.float32(), log.value),
        Column(SESSION_ID, session, pa.string(), log.session_id),
        *(
            _feature(source, field.name, Feature(kind=card.context[field.name]), card.time)
            for field in card.context_fields
        ),
    ]


def _if_named(
    expression: Callable[[Source, str], str], source: Source, column: str | None, otherwise: str
) -> str:
    return otherwise if column is None else expression(source, column)


def _feature(source: Source, name: str, feature: Feature, time: Time) -> Column:
    """A column of features, called the same in the source."""
    if feature.kind == "numeric":
        sql = number_sql(source, name)
    elif feature.kind == "timestamp":
        sql = microseconds_sql(source, name, time)
    elif feature.separator is not None:
        parts = f"string_split({text_sql(source, name)}, {literal(feature.separator)})"
        sql = f"list_filter({parts}, lambda part: part <> '')"
    else:
        sql = text_sql(source, name)
    return Column(name, sql, FEATURE_TYPES[feature.kind], name)


def _batches(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    columns: list[Column],
    *,
    suffix: str = "",
) -> Iterator[pa.Table]:
    """The columns in the source's order of rows, some rows at a time."""
    selected = ", ".join(f"{column.sql} AS {identifier(column.name)}" for column in columns)
    schema = pa.schema([pa.field(column.name, column.kind) for column in columns])
    query = f"SELECT {selected} FROM {source.sql} {suffix}"
    for batch in arrow_batches(connection, query, rows=BATCH_ROWS):
        yield pa.Table.from_batches([batch]).cast(schema)


def _what_is_odd(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    columns: list[Column],
    *,
    card: DatasetCard,
) -> dict[str, Any]:
    """What a second look over the source counts, for the report: one pass for all of it."""
    unreadable = _unreadable(columns)
    time = card.columns.timestamp
    units = unit_counts_sql(time) if has_units(source, time, card.time) else []
    broken = [_line_breaks_sql(source)] if source.csv else []
    counts = _counted(connection, source, [*unreadable.values(), *units, *broken])
    in_units = counts[len(unreadable) : len(unreadable) + len(units)]
    odd: dict[str, Any] = {"unreadable": dict(zip(unreadable, counts, strict=False))}
    hint = unit_hint(card.time, in_units) if in_units else None
    if hint is not None:
        odd["unit_hint"] = hint
    if broken:
        odd["rows_with_line_breaks"] = counts[-1]
    return odd


def _unreadable(columns: list[Column]) -> dict[str, str]:
    """Per typed column, SQL counting the rows where something stands that is not of its type."""
    counts = {}
    for column in columns:
        if column.source is None or column.kind in (pa.string(), pa.list_(pa.string())):
            continue
        lost = f"isnan({column.sql})" if column.name == VALUE else f"({column.sql}) IS NULL"
        there = f"{identifier(column.source)} IS NOT NULL"
        counts[column.name] = f"count(*) FILTER (WHERE {there} AND {lost})"
    return counts


def _line_breaks_sql(source: Source) -> str:
    """SQL counting the rows with a line break in any column, also one that the card leaves out."""
    tests = (
        f"contains({identifier(column)}, chr({code}))"
        for column in source.types
        for code in (10, 13)
    )
    return f"count(*) FILTER (WHERE {' OR '.join(tests)})"


def _counted(connection: duckdb.DuckDBPyConnection, source: Source, counts: list[str]) -> list[int]:
    """What each of the SQL aggregates counts in a source."""
    if not counts:
        return []
    with reading(source):
        found = connection.execute(f"SELECT {', '.join(counts)} FROM {source.sql}").fetchall()[0]
    return list(map(int, found))
