"""A scored run made by hand, and the three kinds of table to publish it to."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql
from pydantic import SecretStr

from recsys_core.artifacts import read_json
from recsys_core.serving.parquet_table import ParquetTable
from recsys_core.serving.postgres_table import PostgresTable
from recsys_core.serving.shards import RunFacts, RunFolder, ScoreRun
from recsys_core.serving.table_contract import RECOMMENDATIONS, Table
from recsys_core.serving.tables import DuckdbTable
from recsys_core.tables import SCORES
from tests.postgres import Server
from tests.serving_world import HOSTILE, START

KINDS = ("duckdb", "parquet", "postgres-rows", "postgres-arrays")

NIGHT = datetime(2026, 1, 1, 3, tzinfo=UTC)
USERS = sorted([*HOSTILE, "u1", "u2", "u3", "u4"], key=str.encode)


def make_run(
    root: Path,
    *,
    version: str = "0123456789ab",
    as_of: int = START,
    items: tuple[str, ...] = HOSTILE,
    users: list[str] = USERS,
    shard_users: int = 3,
) -> ScoreRun:
    """A scored run in which every user gets the same items."""
    facts = RunFacts(
        model_version=version,
        graph="popularity",
        as_of=as_of,
        k=len(items),
        seen_filter=False,
        shard_users=shard_users,
        users=len(users),
        log="",
        code="",
        provider="",
    )
    folder = RunFolder(root, facts)
    for number in folder.missing():
        chunk = users[number * shard_users : (number + 1) * shard_users]
        rows = [
            (user, rank, item, 1.0 / rank, 4.5 - rank if rank % 2 else None)
            for user in chunk
            for rank, item in enumerate(items, start=1)
        ]
        table = pa.table(
            [
                pa.array(column, kind)
                for column, kind in zip(zip(*rows, strict=True), SCORES.types, strict=True)
            ],
            schema=SCORES,
        )
        folder.write(number, table, users=len(chunk), shortfall=0)
    return folder.finish()


def publish(table: Table, run: ScoreRun, *, night: int = 0, keep_runs: int = 2) -> bool:
    at = NIGHT + timedelta(days=night)
    return table.publish(run, keep_runs=keep_runs, published_at=at).changed


def run_rows(table: Table) -> list[tuple[str, str, bool]]:
    runs = table.runs().to_pylist()
    return [(row["model_version"], row["status"], row["current"]) for row in runs]


def whole(table: Table) -> pa.Table:
    """Every row of the current run, in order, as somebody reads it who does not use our code."""
    if isinstance(table, ParquetTable):
        run = read_json(table.folder / "recommendation_runs.json")["current"]
        return pq.read_table(table.folder / run, schema=RECOMMENDATIONS)
    query = "SELECT * FROM {}recommendations ORDER BY user_id {}, rank"
    if isinstance(table, DuckdbTable):
        with duckdb.connect(str(table.path), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.sql(query.format("", "")).to_arrow_table()
            return found.cast(RECOMMENDATIONS)
    assert isinstance(table, PostgresTable)
    assert table.dsn is not None
    with psycopg.connect(table.dsn.get_secret_value()) as database:
        text = query.format(f'"{table.schema}".', 'COLLATE "C"')
        rows = database.execute(text.encode()).fetchall()
    columns = [
        pa.array(column, kind)
        for column, kind in zip(zip(*rows, strict=True), RECOMMENDATIONS.types, strict=True)
    ]
    return pa.table(columns, schema=RECOMMENDATIONS)


def open_kind(kind: str, root: Path, *, dsn: str = "", schema: str = "twotempo") -> Table:
    """A table of a kind; a local one in the folder `root`."""
    if kind == "duckdb":
        return DuckdbTable(root / "published" / "recommendations.duckdb")
    if kind == "parquet":
        return ParquetTable(root / "published" / "recommendations")
    layout = "rows" if kind == "postgres-rows" else "arrays"
    return PostgresTable(SecretStr(dsn), schema=schema, layout=layout)


@contextmanager
def fresh_schema(server: Server, name: str = "twotempo") -> Iterator[str]:
    """The address of a database in which the schema `name` is not there, before and after."""
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)).as_string(None)
    server.execute(drop)
    try:
        yield server.dsn
    finally:
        server.execute(drop)
