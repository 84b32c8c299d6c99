"""The published table in PostgreSQL, as `table_contract` describes it; `postgres_schema` has the
objects.

A run is written aside, shard by shard, by binary COPY, each shard in a transaction of its own: one
that was killed goes on with the first that is missing. Then its table becomes a partition, and in
one transaction the run the current one. An advisory lock keeps a second writer out.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import errors, sql
from pydantic import SecretStr

from recsys_core.errors import BusyError, PublishError
from recsys_core.postgres import Database, connected
from recsys_core.serving.postgres_rows import LIST_COLUMNS, ROW_COLUMNS, lists_of, rows_of
from recsys_core.serving.postgres_schema import CREATE, Layout, Names
from recsys_core.serving.shards import RESERVED, ScoreRun, time_of
from recsys_core.serving.table_contract import (
    RECOMMENDATIONS,
    RUNS,
    SCHEMA_VERSION,
    Current,
    Published,
    check_kept,
    check_run_id,
    check_version,
    content,
    counted_users,
    microseconds_of,
    run_id_of,
)

VARIABLE = "TWOTEMPO_TABLE_DSN"

WAIT_FOR_WRITER = "10s"
WAIT_FOR_READERS = "2s"
"""How long dropping an old run may wait for those who read it, and let new readers wait."""
LOOKS = 100
SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class PostgresTable:
    """The table in a schema of a PostgreSQL database; a `table_contract.Table`."""

    dsn: SecretStr | None
    schema: str
    layout: Layout

    @property
    def place(self) -> str:
        return f"PostgreSQL, schema {self.schema}"

    def publish(self, run: ScoreRun, *, keep_runs: int, published_at: datetime) -> Published:
        """Make a scored run the current one of the schema."""
        digest, users = content(run)
        run_id = run_id_of(run, digest=digest)
        with self._writing() as writer:
            writer.remove_unfinished(except_for=run_id)
            status, current = writer.state(run_id)
            changed = not (status == "published" and current)
            if status != "published":
                number = writer.begin(run_id, run, digest=digest, users=users, at=published_at)
                writer.copy(run_id, number, run)
                writer.attach(run_id, number)
            if changed:
                writer.make_current(run_id, published_at)
            writer.drop_old_runs(keep_runs)
        return Published(run_id=run_id, rows=run.rows, users=users, sha256=digest, changed=changed)

    def make_current(self, run_id: str, *, published_at: datetime) -> bool:
        check_run_id(run_id)
        with self._writing() as writer:
            status, current = writer.state(run_id)
            check_kept(run_id, status, place=self.place)
            if not current:
                writer.make_current(run_id, published_at)
        return not current

    def read(self, user_id: str) -> pa.Table:
        with self._reading() as reader:
            rows = reader.all(
                "SELECT user_id, rank, item_id, score, model_version, as_of, rating FROM {view} "
                "WHERE user_id = {user_id} ORDER BY rank",
                user_id=sql.Literal(user_id),
            )
        return _table(rows, RECOMMENDATIONS)

    def user_ids(self, *, first: int | None = None) -> pa.StringArray:
        with self._reading() as reader:
            rows = reader.all(
                'SELECT DISTINCT user_id COLLATE "C" AS user_id FROM {view} '
                "WHERE NOT starts_with(user_id, {reserved}) ORDER BY user_id LIMIT {first}",
                reserved=sql.Literal(RESERVED),
                first=sql.Literal(first),
            )
        return pa.array([user_id for (user_id,) in rows], pa.string())

    def current(self) -> Current | None:
        with self._reading() as reader:
            rows = reader.all(
                "SELECT run_id, rows, users, model_version, as_of FROM {runs} WHERE current"
            )
        if not rows:
            return None
        run_id, count, users, version, as_of = rows[0]
        return Current(run_id, count, users, version, as_of=microseconds_of(as_of))

    def runs(self) -> pa.Table:
        with self._reading() as reader:
            reader.check_version(self.place)
            rows = reader.all(
                "SELECT {columns} FROM {runs} ORDER BY published_order, run_number",
                columns=sql.SQL(", ").join(map(sql.Identifier, RUNS.names)),
            )
        return _table(rows, RUNS)

    def forget(self, user_id: str) -> int:
        """Remove a user from every kept run, and reclaim the space of what was removed."""
        with self._writing() as writer:
            writer.remove_unfinished(except_for=None)
            return writer.forget(user_id)

    @contextmanager
    def _reading(self) -> Iterator["_Objects"]:
        with self._opened() as database:
            yield _Objects(database.connection, Names(self.schema))

    @contextmanager
    def _writing(self) -> Iterator["_Writer"]:
        """Hold the schema for one writer, with its objects made where they are not there yet."""
        with self._opened() as database:
            writer = _Writer(database.connection, Names(self.schema), self.layout)
            writer.lock()
            with writer.connection.transaction():
                writer.create()
            writer.check_version(self.place)
            yield writer

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        names = Names(self.schema)
        with connected(
            self.dsn, variable=VARIABLE, needed_by="publish.kind is postgres"
        ) as database:
            try:
                with database.connection as connection:
                    connection.autocommit = True
                    # nothing but our own schema and PostgreSQL's is ever meant
                    connection.execute("SET search_path = pg_catalog")
                    connection.execute("SET TIME ZONE 'UTC'")
                    yield database
            except psycopg.Error as error:
                raise self._said(database, error, names) from None

    def _said(self, database: Database, error: psycopg.Error, names: Names) -> PublishError:
        """What went wrong, in one line of ours; nothing of the address."""
        said = database.said(error)
        if isinstance(error, errors.LockNotAvailable):
            return BusyError(
                f"{self.place}: another run is publishing there; wait for it to end, try again"
            )
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return PublishError(f"{self.place}: nothing is published yet; run `twotempo run`")
        if isinstance(error, errors.InsufficientPrivilege):
            return PublishError(
                f"{self.place}: {said}; grant the role of {VARIABLE} CREATE on the schema "
                f"{names.schema}, and on the database where the schema is not there yet"
            )
        if isinstance(error, errors.DiskFull):
            return PublishError(
                f"{self.place}: the server's disk is full; free some and publish again, the old "
                "table stands"
            )
        if isinstance(error, psycopg.OperationalError):
            return BusyError(
                f"{self.place}: the connection was lost or the server stopped ({said}); the old "
                "table stands, publish again once the server is up: it goes on where it stopped"
            )
        return PublishError(
            f"{self.place}: PostgreSQL refuses ({said}); the old table stands: mend what it says "
            "and publish again"
        )


@dataclass(frozen=True)
class _Objects:
    connection: psycopg.Connection[tuple[Any, ...]]
    names: Names

    def execute(self, text: LiteralString, **values: sql.Composable) -> psycopg.Cursor[Any]:
        return self.connection.execute(self.names.sql(text, **values))

    def all(self, text: LiteralString, **values: sql.Composable) -> list[tuple[Any, ...]]:
        return self.execute(text, **values).fetchall()

    def check_version(self, place: str) -> None:
        ((version,),) = self.all("SELECT max(schema_version) FROM {runs}")
        check_version(version, place=place)


@dataclass(frozen=True)
class _Writer(_Objects):
    layout: Layout

    def lock(self) -> None:
        """Keep a second writer out for as long as this connection is open."""
        digest = hashlib.sha256(f"twotempo/{self.names.schema}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        self._set_lock_timeout(WAIT_FOR_WRITER)
        self.execute("SELECT pg_advisory_lock({key})", key=sql.Literal(key))
        self._set_lock_timeout("0")

    def create(self) -> None:
        schema = sql.Literal(self.names.schema)
        # asked first: IF NOT EXISTS needs the right to create even where there is nothing to do
        if not self.all("SELECT FROM pg_namespace WHERE nspname = {schema}", schema=schema):
            self.execute("CREATE SCHEMA {name}", name=sql.Identifier(self.names.schema))
        found = self.all(
            "SELECT FROM pg_tables WHERE schemaname = {schema} "
            "AND tablename = 'recommendation_runs'",
            schema=schema,
        )
        for statement in () if found else CREATE:
            self.execute(statement)

    def state(self, run_id: str) -> tuple[str | None, bool]:
        """The status of a run, and whether it is the current one."""
        found = self.all(
            "SELECT status, current FROM {runs} WHERE run_id = {run_id}", run_id=sql.Literal(run_id)
        )
        return (found[0][0], found[0][1]) if found else (None, False)

    def remove_unfinished(self, *, except_for: str | None) -> None:
        """Remove what killed writers have left of other runs than this one."""
        unfinished = self.all("SELECT run_id FROM {runs} WHERE status = 'writing'")
        for (run_id,) in unfinished:
            if run_id != except_for:
                self._remove(run_id)

    def begin(self, run_id: str, run: ScoreRun, *, digest: str, users: int, at: datetime) -> int:
        """An empty table for a run, or what a killed writer has left of it; returns its number."""
        shards = [shard.sha256 for shard in run.shards]
        found = self.all(
            "SELECT run_number, layout FROM {runs} WHERE run_id = {run_id} AND status = 'writing'",
            run_id=sql.Literal(run_id),
        )
        if found:
            ((number, layout),) = found
            written = self._written(number)
            if layout == self.layout and written == shards[: len(written)]:
                return int(number)
        with self.connection.transaction():
            self._remove(run_id)
            sequence = self.names.sql("{numbers}").as_string(self.connection)
            ((number,),) = self.all("SELECT nextval({name})", name=sql.Literal(sequence))
            # attaching it later does not read it, since the check says what is in it
            self.execute(
                "CREATE TABLE {table} (LIKE {parent}, CHECK (run_number = {number}))",
                table=self.names.of_run(run_id),
                parent=self.names.parent(self.layout),
                number=sql.Literal(number),
            )
            values = (
                run_id,
                run.facts.model_version,
                run.facts.graph,
                time_of(run.facts.as_of),
                users,
                run.rows,
                digest,
                "writing",
                at,
                SCHEMA_VERSION,
                False,
                0,
                0,
                number,
                self.layout,
            )
            self.execute(
                "INSERT INTO {runs} VALUES ({values})",
                values=sql.SQL(", ").join(map(sql.Literal, values)),
            )
        return int(number)

    def copy(self, run_id: str, number: int, run: ScoreRun) -> None:
        """Write the shards that are missing, each in a transaction of its own."""
        columns = ROW_COLUMNS if self.layout == "rows" else LIST_COLUMNS
        statement = self.names.sql(
            "COPY {table} ({columns}) FROM STDIN (FORMAT binary)",
            table=self.names.of_run(run_id),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        )
        encoded = rows_of if self.layout == "rows" else lists_of
        for part in range(len(self._written(number)), len(run.shards)):
            table = pq.read_table(run.parts[part], partitioning=None)
            with self.connection.transaction(), self.connection.cursor() as cursor:
                with cursor.copy(statement) as rows:
                    for block in encoded(table, number):
                        rows.write(block)
                values = (number, part, run.shards[part].sha256, table.num_rows)
                self.execute(
                    "INSERT INTO {parts} VALUES ({values})",
                    values=sql.SQL(", ").join(map(sql.Literal, values)),
                )

    def attach(self, run_id: str, number: int) -> None:
        """Make the written run a partition, and wait until no query is on that was planned before:
        it would find the run current, and none of its rows."""
        key = "user_id, rank" if self.layout == "rows" else "user_id"
        with self.connection.transaction():
            self.execute(
                "CREATE UNIQUE INDEX ON {table} ({key})",
                table=self.names.of_run(run_id),
                key=sql.SQL(key),
            )
            self.execute(
                "ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES IN ({number})",
                parent=self.names.parent(self.layout),
                table=self.names.of_run(run_id),
                number=sql.Literal(number),
            )
            self.execute(
                "UPDATE {runs} SET status = 'published' WHERE run_id = {run_id}",
                run_id=sql.Literal(run_id),
            )
            self.execute(
                "DELETE FROM {parts} WHERE run_number = {number}", number=sql.Literal(number)
            )
        self.execute("ANALYZE {table}", table=self.names.of_run(run_id))
        reading = self._readers()
        for _ in range(LOOKS):
            reading &= self._readers()
            if not reading:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)  # whoever reads longer has begun to: it is no danger

    def make_current(self, run_id: str, at: datetime) -> None:
        with self.connection.transaction():
            self.execute("UPDATE {runs} SET current = false WHERE current")
            self.execute(
                "UPDATE {runs} SET current = true, published_at = {at}, published_order = "
                "(SELECT max(published_order) + 1 FROM {runs}) WHERE run_id = {run_id}",
                at=sql.Literal(at),
                run_id=sql.Literal(run_id),
            )

    def drop_old_runs(self, keep_runs: int) -> None:
        """Drop the rows of runs beyond the `keep_runs` that were current last, and of those that
        never were; their entries stay.

        Where somebody reads on, it is left to the next time.
        """
        old = self.all(
            "SELECT run_id FROM {runs} WHERE status = 'published' AND NOT current "
            "AND run_id NOT IN (SELECT run_id FROM {runs} WHERE status = 'published' "
            "AND NOT current AND published_order > 0 ORDER BY published_order DESC "
            "LIMIT {keep_runs}) ORDER BY published_order",
            keep_runs=sql.Literal(keep_runs),
        )
        self._set_lock_timeout(WAIT_FOR_READERS)
        for (run_id,) in old:
            try:
                with self.connection.transaction():
                    self.execute("DROP TABLE {table}", table=self.names.of_run(run_id))
                    self.execute(
                        "UPDATE {runs} SET status = 'dropped' WHERE run_id = {run_id}",
                        run_id=sql.Literal(run_id),
                    )
            except errors.LockNotAvailable:
                break
        self._set_lock_timeout("0")

    def forget(self, user_id: str) -> int:
        kept = self.all("SELECT run_id, layout FROM {runs} WHERE status = 'published'")
        removed = 0
        with self.connection.transaction():
            for run_id, layout in kept:
                each = sql.SQL("1" if layout == "rows" else "cardinality(item_ids)")
                ((gone,),) = self.all(
                    "WITH gone AS (DELETE FROM {table} WHERE user_id = {user_id} "
                    "RETURNING {each} AS rows) SELECT coalesce(sum(rows), 0)::bigint FROM gone",
                    table=self.names.of_run(run_id),
                    user_id=sql.Literal(user_id),
                    each=each,
                )
                if gone:
                    self.execute(
                        "UPDATE {runs} SET rows = rows - {gone}, forgotten = forgotten + {gone}, "
                        "users = users - {users} WHERE run_id = {run_id}",
                        gone=sql.Literal(gone),
                        users=sql.Literal(counted_users(user_id)),
                        run_id=sql.Literal(run_id),
                    )
                removed += gone
        # also where nothing was removed: a call may have been killed here; statistics hold ids too
        for run_id, _ in kept:
            self.execute("VACUUM (ANALYZE) {table}", table=self.names.of_run(run_id))
        return removed

    def _remove(self, run_id: str) -> None:
        """Remove a run that was never current, or whose rows were dropped, with its entry."""
        with self.connection.transaction():
            self.execute("DROP TABLE IF EXISTS {table}", table=self.names.of_run(run_id))
            self.execute(
                "DELETE FROM {parts} WHERE run_number IN "
                "(SELECT run_number FROM {runs} WHERE run_id = {run_id})",
                run_id=sql.Literal(run_id),
            )
            self.execute("DELETE FROM {runs} WHERE run_id = {run_id}", run_id=sql.Literal(run_id))

    def _written(self, number: int) -> list[str]:
        """The SHA-256 of the shards that are written, in order."""
        rows = self.all(
            "SELECT sha256 FROM {parts} WHERE run_number = {number} ORDER BY part",
            number=sql.Literal(number),
        )
        return [digest for (digest,) in rows]

    def _readers(self) -> set[str]:
        """The transactions that read the view's tables now."""
        rows = self.all(
            "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE pid <> pg_backend_pid() "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND relation IN (SELECT pg_class.oid FROM pg_class JOIN pg_namespace "
            "ON relnamespace = pg_namespace.oid WHERE nspname = {schema} "
            "AND relname IN ('recommendation_rows', 'recommendation_lists'))",
            schema=sql.Literal(self.names.schema),
        )
        return {transaction for (transaction,) in rows}

    def _set_lock_timeout(self, value: str) -> None:
        self.execute("SELECT set_config('lock_timeout', {value}, false)", value=sql.Literal(value))


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )
