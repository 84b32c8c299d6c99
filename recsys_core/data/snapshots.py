"""Deliveries into a snapshot: the rows that are new become its next part, the others are counted.

A row whose key is in the snapshot already, or came before it in the same deliveries, is
*re-delivered*: it is not appended, the first stays. A null in the key is a value like others. A row
whose timestamp lies before the latest of the earlier parts is *late*: counted and appended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from recsys_core.artifacts import sha256
from recsys_core.data.cards import DatasetCard
from recsys_core.data.column_sql import LAST_MICROSECOND, microseconds_sql, type_of
from recsys_core.data.duck import identifier, literal
from recsys_core.data.snapshot_manifest import (
    PARTS,
    WORK,
    Counts,
    Manifest,
    Part,
    TableName,
    TakenFile,
    part_name,
    table_name,
)
from recsys_core.data.sources import Source, open_files, reading
from recsys_core.errors import DataError

AHEAD = timedelta(days=1)
"""Timestamps further in the future than this are wrong, and make no other row late."""


@dataclass(frozen=True)
class Delivery:
    """Rows that arrived: a file with its SHA-256, or the answer of a query without one."""

    name: str
    source: Source
    sha256: str | None


def append_part(
    connection: duckdb.DuckDBPyConnection,
    deliveries: Sequence[Delivery],
    *,
    folder: Path,
    manifest: Manifest,
    card: DatasetCard,
    row_key: Sequence[str],
    now: datetime,
) -> tuple[Manifest, Counts]:
    """Write one part with the new rows of all deliveries; returns the manifest that names it, and
    what became of the rows.

    The part lies in the work folder, for `put_in_place`. Where no row is new and no file was
    delivered there is none, and the manifest is as it was. Raises `DataError` where a delivery has
    other columns than the first ever had, `ConfigError` where it lacks one that the card names.
    """
    columns = dict(manifest.columns) or deliveries[0].source.types
    for delivery in deliveries:
        _check_columns(delivery, columns)
    for name in row_key:
        type_of(deliveries[0].source, name)
    keys = [_place(columns, name) for name in row_key]
    rows_in, files = _load(connection, deliveries, columns=columns, card=card)
    kept = _keep(connection, folder, manifest, columns=columns, card=card)
    rows = _find_new(connection, keys, kept=kept)
    counts = Counts(
        rows=rows,
        rows_in=rows_in,
        redelivered=rows_in - rows,
        redelivered_changed=_changed(connection, keys, len(columns), kept=kept),
        late=_late(connection, card, now) if kept else 0,
    )
    if rows == 0 and not files:
        return manifest, counts
    name = part_name(len(manifest.parts) + 1)
    written = folder / WORK / name
    _write(connection, written, columns)
    day = now.astimezone(UTC).date()
    part = Part(name=name, sha256=sha256(written), taken=day, **counts.model_dump())
    taken = {
        digest: TakenFile(name=file, rows=count, part=name)
        for digest, (file, count) in files.items()
    }
    after = manifest.model_copy(
        update={
            "columns": list(columns.items()),
            "parts": [*manifest.parts, part],
            "files": {**manifest.files, **taken},
        }
    )
    return after, counts


def replace_table(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    *,
    name: TableName,
    folder: Path,
    manifest: Manifest,
) -> Manifest:
    """Write the table of items or users into the work folder, for `put_in_place`; returns the
    manifest that names it."""
    written = folder / WORK / f"{name}.parquet"
    # in order and by one thread: a query answers in any order, and the same rows must be the same
    # bytes
    threads = connection.execute("SELECT current_setting('threads')").fetchall()[0][0]
    connection.execute("SET threads = 1")
    with reading(source):
        _copy(connection, f"SELECT * FROM {source.sql} ORDER BY ALL", written)
    connection.execute(f"SET threads = {threads}")
    digest = sha256(written)
    written.replace(folder / WORK / table_name(name, digest))
    return manifest.model_copy(update={"tables": {**manifest.tables, name: digest}})


def _check_columns(delivery: Delivery, columns: dict[str, str]) -> None:
    """Raise `DataError` unless a delivery has the columns and types of the first ever."""
    found = delivery.source.types
    for column in (*columns, *found):
        here, there = found.get(column), columns.get(column)
        if here != there:
            raise DataError(
                f"{delivery.name}: column {column!r} is {here or 'not there'}, in the snapshot it "
                f"is {there or 'not there'}; deliver the same columns and types as before, or take "
                "the log into a new folder"
            )


def _place(columns: dict[str, str], name: str) -> str:
    """What a column is called in our tables here: by place, so that no name is in the way."""
    return f"c{list(columns).index(name)}"


def _selected(source: Source, columns: dict[str, str], card: DatasetCard) -> str:
    """SQL for a source's columns by place, and its timestamps as `us`."""
    named = (f"{identifier(name)} AS {_place(columns, name)}" for name in columns)
    time = microseconds_sql(source, card.columns.timestamp, card.time)
    return f"SELECT {', '.join(named)}, {time} AS us FROM {source.sql}"


def _load(
    connection: duckdb.DuckDBPyConnection,
    deliveries: Sequence[Delivery],
    *,
    columns: dict[str, str],
    card: DatasetCard,
) -> tuple[int, dict[str, tuple[str, int]]]:
    """Bring all deliveries into the table `incoming`, in order; returns the rows, and the name and
    rows of each file by SHA-256. A file that is there twice is read once and counted twice."""
    files: dict[str, tuple[str, int]] = {}
    rows = 0
    for number, delivery in enumerate(deliveries):
        if delivery.sha256 in files:
            rows += files[delivery.sha256][1]
            continue
        query = _selected(delivery.source, columns, card)
        with reading(delivery.source):
            if number == 0:
                connection.execute(f"CREATE TABLE incoming AS {query} LIMIT 0")
            count = connection.execute(f"INSERT INTO incoming {query}").fetchall()[0][0]
        rows += count
        if delivery.sha256 is not None:
            files[delivery.sha256] = (delivery.name, count)
    return rows, files


def _keep(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    manifest: Manifest,
    *,
    columns: dict[str, str],
    card: DatasetCard,
) -> bool:
    """Name the rows of all parts `kept`; returns whether there are any."""
    paths = [folder / PARTS / part.name for part in manifest.parts if part.rows]
    if paths:
        source = open_files(connection, paths, name=str(folder / PARTS))
        connection.execute(f"CREATE VIEW kept AS {_selected(source, columns, card)}")
    return bool(paths)


def _same(one: str, other: str, columns: Sequence[str]) -> str:
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in columns)


def _find_new(connection: duckdb.DuckDBPyConnection, keys: Sequence[str], *, kept: bool) -> int:
    """Put the number of the first row of each new key into the table `fresh`; returns how many."""
    unseen = f"ANTI JOIN kept ON {_same('incoming', 'kept', keys)}" if kept else ""
    connection.execute(
        "CREATE TABLE fresh AS SELECT incoming.rowid AS place FROM incoming "
        "SEMI JOIN (SELECT min(rowid) AS place FROM incoming "
        f"GROUP BY {', '.join(keys)}) AS firsts ON incoming.rowid = firsts.place {unseen}"
    )
    return int(connection.execute("SELECT count(*) FROM fresh").fetchall()[0][0])


def _changed(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[str], columns: int, *, kept: bool
) -> int:
    """How many re-delivered rows differ from the row of their key that stays."""
    others = [name for name in (f"c{place}" for place in range(columns)) if name not in keys]
    if not others:
        return 0
    connection.execute(
        "CREATE TABLE again AS SELECT incoming.* FROM incoming "
        "ANTI JOIN fresh ON incoming.rowid = fresh.place"
    )
    differ = f"NOT ({_same('again', 'stays', others)})"
    stays = ["SELECT incoming.* FROM incoming SEMI JOIN fresh ON incoming.rowid = fresh.place"]
    if kept:
        stays.append("SELECT * FROM kept")
    counts = (
        f"SELECT count(*) AS n FROM again JOIN ({query}) AS stays "
        f"ON {_same('again', 'stays', keys)} WHERE {differ}"
        for query in stays
    )
    query = f"SELECT sum(n) FROM ({' UNION ALL '.join(counts)})"
    return int(connection.execute(query).fetchall()[0][0])


def _late(connection: duckdb.DuckDBPyConnection, card: DatasetCard, now: datetime) -> int:
    """How many new rows lie before the latest kept timestamp that can be true."""
    bound = LAST_MICROSECOND
    if card.time.kind == "absolute":
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        bound = (now + AHEAD - epoch) // timedelta(microseconds=1)
    query = (
        "SELECT count(*) FROM incoming SEMI JOIN fresh ON incoming.rowid = fresh.place "
        f"WHERE us < (SELECT max(us) FROM kept WHERE us <= {bound})"
    )
    return int(connection.execute(query).fetchall()[0][0])


def _write(connection: duckdb.DuckDBPyConnection, path: Path, columns: dict[str, str]) -> None:
    """Write the new rows as Parquet, in the order they came, under the names they came with."""
    named = (f"{_place(columns, name)} AS {identifier(name)}" for name in columns)
    query = (
        f"SELECT {', '.join(named)} FROM incoming "
        "SEMI JOIN fresh ON incoming.rowid = fresh.place ORDER BY incoming.rowid"
    )
    _copy(connection, query, path)


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
