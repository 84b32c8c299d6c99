"""From a source to the interactions table: roles and types by the dataset card, every row kept.

    file or simulated table ──DuckDB, streamed──▶ interactions, items and users .parquet

`source_row` is the row's number in the source, from 0. Ids are texts; whole numbers have no
decimals. A timestamp that cannot be read is null, a value that cannot be read is NaN: validation
finds both, so nothing is lost here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from recsys_core.data.cards import FEATURE_TYPES, ONE_TYPE, DatasetCard, Feature, Features, Time
from recsys_core.data.duck import arrow_batches, file_literal, identifier, literal, one_line
from recsys_core.errors import ConfigError, DataError
from recsys_core.tables import INTERACTIONS, UTC_MICROSECONDS, table_writer

BATCH_ROWS = 131_072
MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}

FIRST_MICROSECOND = -62_135_596_800_000_000
LAST_MICROSECOND = 253_402_300_799_999_999
"""Years 1 to 9999, what Python's dates can say; a number outside of them was read wrongly."""

FLOATS = ("FLOAT", "DOUBLE")
INTEGERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)


@dataclass(frozen=True)
class Source:
    """What DuckDB can select from, its name in errors, and its columns' SQL types."""

    sql: str
    name: str
    types: dict[str, str]


@dataclass(frozen=True)
class Column:
    """A column to be written: its SQL, its Arrow type, the source's column where there is one."""

    name: str
    sql: str
    kind: pa.DataType
    source: str | None


def open_file(connection: duckdb.DuckDBPyConnection, path: Path) -> Source:
    """A Parquet or CSV file as a source. CSV: commas, a header, every column a text, empty is null.

    Raises `ConfigError` where there is no such file and `DataError` where it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; check ingest.path and the card's `source`")
    if path.name.endswith(".parquet"):
        sql = f"read_parquet({file_literal(path)}, hive_partitioning = false)"
    else:
        sql = (
            f"read_csv({file_literal(path)}, all_varchar = true, hive_partitioning = false, "
            "header = true, skip = 0, delim = ',', quote = '\"', escape = '\"', comment = '')"
        )
    source = Source(sql=sql, name=str(path), types={})
    with _reading(source):
        described = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
    source.types.update((row[0], row[1]) for row in described)
    return source


def open_table(connection: duckdb.DuckDBPyConnection, table: pa.Table, *, name: str) -> Source:
    """An Arrow table as a source."""
    connection.register(name, table)
    described = connection.execute(f"DESCRIBE SELECT * FROM {identifier(name)}").fetchall()
    return Source(sql=identifier(name), name=name, types={row[0]: row[1] for row in described})


def ingest_interactions(
    connection: duckdb.DuckDBPyConnection, source: Source, *, card: DatasetCard, path: Path
) -> dict[str, Any]:
    """Write the interactions table; returns rows in and out, and per column what cannot be read.

    Raises `DataError` where the source has no rows or is broken, `ConfigError` where it does not
    fit the card.
    """
    columns = _interaction_columns(source, card)
    schema = pa.schema([*INTERACTIONS, *card.context_fields])
    rows = 0
    with _reading(source), table_writer(path, schema, key=(SOURCE_ROW,)) as write:
        for batch in _batches(connection, source, columns):
            numbers = pa.array(np.arange(rows, rows + len(batch), dtype=np.int64))
            write(batch.add_column(0, SOURCE_ROW, numbers))
            rows += len(batch)
        if rows == 0:
            raise DataError(f"{source.name}: it has no rows; check the export that writes it")
    unreadable = _unreadable(connection, source, columns)
    return {"rows_in": rows, "rows_out": rows, "unreadable": unreadable}


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
    with _reading(source):
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
    with _reading(source), table_writer(path, schema, key=(key.name,)) as write:
        for batch in _batches(connection, source, columns, suffix=order):
            write(batch)
    unreadable = _unreadable(connection, source, columns)
    return {
        "rows_in": rows,
        "rows_out": ids,
        "without_id": rows - with_id,
        "unreadable": unreadable,
    }


def id_column(source: Source, column: str, *, name: str) -> Column:
    """An id, called `name` in our tables and `column` in the source."""
    return Column(name, _text(source, column), pa.string(), column)


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """What DuckDB finds wrong with a file while it is read, as one line."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise DataError(
            f"{source.name}: cannot be read ({one_line(error)}); write the file again"
        ) from error


def _interaction_columns(source: Source, card: DatasetCard) -> list[Column]:
    """The columns after source_row: the roles, then the context by name."""
    if card.time.kind == "rank":
        raise ConfigError(
            f"card {card.name}: time is a rank, an order without clock times; "
            "this version reads absolute and relative times"
        )
    log = card.columns
    no_type, no_value, no_session = (
        literal(ONE_TYPE),
        "CAST(NULL AS FLOAT)",
        "CAST(NULL AS VARCHAR)",
    )
    time = _microseconds(source, log.timestamp, card.time)
    kind = _if_named(_text, source, log.event_type, no_type)
    value = _if_named(_value, source, log.value, no_value)
    session = _if_named(_text, source, log.session_id, no_session)
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


def _type_of(source: Source, column: str) -> str:
    if column not in source.types:
        raise ConfigError(
            f"{source.name}: the dataset card names a column {column!r}, "
            f"there are {list(source.types)}; correct the card"
        )
    return source.types[column]


def _text(source: Source, column: str) -> str:
    """SQL for a text; whole floats, which integers with gaps often become, lose the `.0`."""
    kind, name = _type_of(source, column), identifier(column)
    if kind not in FLOATS:
        return f"CAST({name} AS VARCHAR)"
    whole = f"isfinite({name}) AND {name} = trunc({name}) AND abs({name}) < 1e15"
    return (
        f"CASE WHEN {whole} THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) "
        f"WHEN NOT isnan({name}) THEN CAST({name} AS VARCHAR) END"
    )


def _value(source: Source, column: str) -> str:
    """SQL for a float32; what stands there and is no number becomes NaN, for validation to see."""
    _type_of(source, column)
    name = identifier(column)
    number = f"coalesce(TRY_CAST({name} AS FLOAT), CAST('nan' AS FLOAT))"
    return f"CASE WHEN {name} IS NOT NULL THEN {number} END"


def _number(source: Source, column: str) -> str:
    """SQL for a finite float64, null where it cannot be read."""
    _type_of(source, column)
    number = f"TRY_CAST({identifier(column)} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def _microseconds(source: Source, column: str, time: Time) -> str:
    """SQL for microseconds since 1970 or the log's start, null where they cannot be read."""
    kind, name = _type_of(source, column), identifier(column)
    if kind == "DATE" or kind.startswith("TIMESTAMP") or (time.unit == "iso" and kind == "VARCHAR"):
        moment = f"TRY_CAST({name} AS TIMESTAMPTZ)"
        number = f"CASE WHEN isfinite({moment}) THEN epoch_us({moment}) END"
    elif time.unit is not None and time.unit != "iso" and kind in INTEGERS:
        number = f"TRY_CAST(CAST({name} AS HUGEINT) * {MICROSECONDS[time.unit]} AS BIGINT)"
    elif time.unit is not None and time.unit != "iso" and kind in (*FLOATS, "VARCHAR"):
        # a double holds every microsecond up to the year 2255
        seconds = f"TRY_CAST({name} AS DOUBLE)"
        number = f"TRY_CAST(round({seconds} * {MICROSECONDS[time.unit]}) AS BIGINT)"
    else:
        raise ConfigError(
            f"{source.name}: {column!r} is {kind}, which cannot be a time in unit {time.unit}; "
            "correct columns.timestamp or time.unit in the dataset card"
        )
    within = f"{number} BETWEEN {FIRST_MICROSECOND} AND {LAST_MICROSECOND}"
    return f"CASE WHEN {within} THEN {number} END"


def _feature(source: Source, name: str, feature: Feature, time: Time) -> Column:
    """A column of features, called the same in the source."""
    if feature.kind == "numeric":
        sql = _number(source, name)
    elif feature.kind == "timestamp":
        sql = _microseconds(source, name, time)
    elif feature.separator is not None:
        parts = f"string_split({_text(source, name)}, {literal(feature.separator)})"
        sql = f"list_filter({parts}, lambda part: part <> '')"
    else:
        sql = _text(source, name)
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


def _unreadable(
    connection: duckdb.DuckDBPyConnection, source: Source, columns: list[Column]
) -> dict[str, int]:
    """Per typed column, the rows where something stands that is not of its type."""
    counts = {}
    for column in columns:
        if column.source is None or column.kind in (pa.string(), pa.list_(pa.string())):
            continue
        lost = f"isnan({column.sql})" if column.name == VALUE else f"({column.sql}) IS NULL"
        there = f"{identifier(column.source)} IS NOT NULL"
        counts[column.name] = f"count(*) FILTER (WHERE {there} AND {lost})"
    if not counts:
        return {}
    query = f"SELECT {', '.join(counts.values())} FROM {source.sql}"
    found = connection.execute(query).fetchall()[0]
    return dict(zip(counts, map(int, found), strict=True))
