"""The published table in a DuckDB file, as `table_contract` describes it.

    recommendations            view    of the current run
    recommendation_runs        table   every run
    recommendations_<run_id>   tables  rows of the runs that are kept, ordered by (user_id, rank)

A run becomes current in one transaction: until COMMIT the old view stands, also where the writer is
killed. DuckDB lets no other process in while one writes, so all checking is done before the file is
opened.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from recsys_core.artifacts import atomic_path
from recsys_core.data.duck import identifier, literal, raise_if_full
from recsys_core.errors import BusyError, PublishError
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
    run_id_of,
)

CREATE_RUNS = """
CREATE TABLE IF NOT EXISTS recommendation_runs (
    run_id VARCHAR PRIMARY KEY,
    model_version VARCHAR NOT NULL,
    graph VARCHAR NOT NULL,
    as_of TIMESTAMPTZ NOT NULL,
    users BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('published', 'dropped')),
    published_at TIMESTAMPTZ NOT NULL,
    schema_version INTEGER NOT NULL,
    current BOOLEAN NOT NULL,
    published_order INTEGER,
    forgotten BIGINT DEFAULT 0
)
"""

FROM_1_TO_2 = (
    "ALTER TABLE recommendation_runs ADD COLUMN published_order INTEGER",
    "ALTER TABLE recommendation_runs ADD COLUMN forgotten BIGINT DEFAULT 0",
    """
    UPDATE recommendation_runs SET published_order = placed.place, schema_version = 2
    FROM (SELECT run_id, row_number() OVER (ORDER BY published_at, run_id) AS place
          FROM recommendation_runs) AS placed
    WHERE placed.run_id = recommendation_runs.run_id
    """,
)

CREATE_VIEW = """
CREATE OR REPLACE VIEW recommendations AS
SELECT scores.user_id, scores.rank, scores.item_id, scores.score, run.model_version, run.as_of,
    scores.rating
FROM {table} AS scores
CROSS JOIN (SELECT model_version, as_of FROM recommendation_runs WHERE current) AS run
"""


@dataclass(frozen=True)
class DuckdbTable:
    """The table in a DuckDB file; a `table_contract.Table`."""

    path: Path

    @property
    def place(self) -> str:
        return str(self.path)

    def publish(self, run: ScoreRun, *, keep_runs: int, published_at: datetime) -> Published:
        """Make a scored run the current one of the file."""
        digest, users = content(run)
        run_id = run_id_of(run, digest=digest)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing() as connection:
            status, current = _state(connection, run_id)
            changed = not (status == "published" and current)
            if status != "published":
                _insert(connection, run_id, run, digest=digest, users=users, at=published_at)
            if changed:
                _make_current(connection, run_id, published_at)
                _drop_old_runs(connection, keep_runs)
        return Published(run_id=run_id, rows=run.rows, users=users, sha256=digest, changed=changed)

    def make_current(self, run_id: str, *, published_at: datetime) -> bool:
        check_run_id(run_id)
        self._check_exists()
        with self._writing() as connection:
            status, current = _state(connection, run_id)
            check_kept(run_id, status, place=self.place)
            if not current:
                _make_current(connection, run_id, published_at)
        return not current

    def read(self, user_id: str) -> pa.Table:
        with open_table(self.path, read_only=True) as connection:
            return (
                connection.sql(
                    "SELECT * FROM recommendations WHERE user_id = ? ORDER BY rank",
                    params=[user_id],
                )
                .to_arrow_table()
                .cast(RECOMMENDATIONS)
            )

    def user_ids(self, *, first: int | None = None) -> pa.StringArray:
        limit = "" if first is None else f" LIMIT {first:d}"
        with open_table(self.path, read_only=True) as connection:
            found = connection.sql(
                "SELECT DISTINCT user_id FROM recommendations "
                f"WHERE NOT starts_with(user_id, '{RESERVED}') ORDER BY user_id{limit}"
            ).to_arrow_table()
        return found.column(0).combine_chunks()

    def current(self) -> Current | None:
        with open_table(self.path, read_only=True) as connection:
            found = connection.execute(
                "SELECT run_id, rows, users, model_version, epoch_us(as_of) "
                "FROM recommendation_runs WHERE current"
            ).fetchall()
        return Current(*found[0]) if found else None

    def runs(self) -> pa.Table:
        with open_table(self.path, read_only=True) as connection:
            version = _version(connection)
            check_version(version, place=self.place, oldest=1)
            if version == 1:  # not yet written to since
                return _runs_of_1(connection)
            return (
                connection.sql(
                    f"SELECT {', '.join(RUNS.names)} FROM recommendation_runs "
                    "ORDER BY published_order"
                )
                .to_arrow_table()
                .cast(RUNS)
            )

    def forget(self, user_id: str) -> int:
        """Remove a user from every kept run, and write the file anew, so that no free block of it
        still holds what was removed."""
        if not self.path.exists():
            return 0
        removed = 0
        with open_table(self.path, read_only=False) as connection:
            with _transaction(connection, place=self.place):
                kept = connection.execute(
                    "SELECT run_id FROM recommendation_runs WHERE status = 'published'"
                ).fetchall()
                for (run_id,) in kept:
                    removed += _forget(connection, run_id, user_id)
            connection.execute("CHECKPOINT")
            # also where nothing was removed: a call that was killed here, and a run that was
            # dropped, have left rows in free blocks
            with atomic_path(self.path) as fresh:
                connection.execute(f"ATTACH {literal(str(fresh))} AS fresh_file")
                ((name,),) = connection.execute("SELECT current_database()").fetchall()
                connection.execute(f"COPY FROM DATABASE {identifier(name)} TO fresh_file")
                connection.execute("DETACH fresh_file")
        return removed

    @contextlib.contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with (
            open_table(self.path, read_only=False) as connection,
            _transaction(connection, place=self.place),
        ):
            yield connection

    def _check_exists(self) -> None:
        if not self.path.exists():
            raise _nothing_there(self.path)


@contextlib.contextmanager
def open_table(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the published file, in UTC; a DuckDB error becomes a `PublishError`.

    It is a `BusyError` where the file cannot be had: DuckDB allows one writer and nobody beside it.
    A full disk is an `OSError`.
    """
    if read_only and not path.exists():
        raise _nothing_there(path)
    try:
        with duckdb.connect(str(path), read_only=read_only) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
    except duckdb.Error as error:
        raise_if_full(error)
        summary = " ".join(str(error).split())
        kind = BusyError if isinstance(error, duckdb.IOException) else PublishError
        raise kind(
            f"{path}: {summary:.300}; if another process has the file open, close it there "
            "and try again"
        ) from error


def _nothing_there(path: Path) -> PublishError:
    return PublishError(f"{path}: nothing is published yet; run `twotempo run`")


@contextlib.contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection, *, place: str) -> Iterator[None]:
    """One transaction on tables of our schema version; an older one is migrated in it.

    Leaving the block by an error closes the file without COMMIT, which rolls back.
    """
    connection.execute("BEGIN")
    connection.execute(CREATE_RUNS)
    version = _version(connection)
    check_version(version, place=place, oldest=1)
    if version == 1:
        for statement in FROM_1_TO_2:
            connection.execute(statement)
    yield
    connection.execute("COMMIT")


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    ((version,),) = connection.execute(
        "SELECT max(schema_version) FROM recommendation_runs"
    ).fetchall()
    return None if version is None else int(version)


def _runs_of_1(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    return (
        connection.sql(
            "SELECT *, row_number() OVER (ORDER BY published_at, run_id) AS published_order, "
            "0 AS forgotten FROM recommendation_runs ORDER BY published_order"
        )
        .to_arrow_table()
        .cast(RUNS)
    )


def _state(connection: duckdb.DuckDBPyConnection, run_id: str) -> tuple[str | None, bool]:
    """The status of a run, and whether it is the current one."""
    found = connection.execute(
        "SELECT status, current FROM recommendation_runs WHERE run_id = ?", [run_id]
    ).fetchall()
    return (str(found[0][0]), bool(found[0][1])) if found else (None, False)


def _insert(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    run: ScoreRun,
    *,
    digest: str,
    users: int,
    at: datetime,
) -> None:
    """Rows of a run into a table of its own, in the order of the shards, and its entry."""
    table = _table(run_id)
    connection.execute(
        f"CREATE TABLE {table} (user_id VARCHAR NOT NULL, rank INTEGER NOT NULL, "
        "item_id VARCHAR NOT NULL, score FLOAT NOT NULL, rating FLOAT)"
    )
    connection.execute(
        f"INSERT INTO {table} SELECT user_id, rank, item_id, score, rating "
        "FROM read_parquet($parts)",
        {"parts": [str(part) for part in run.parts]},
    )
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    if rows != run.rows:
        raise PublishError(
            f"{rows} of {run.rows} rows went into the table; the old one stays, publish again"
        )
    connection.execute(
        "INSERT OR REPLACE INTO recommendation_runs VALUES (?, ?, ?, ?, ?, ?, ?, "
        "'published', ?, ?, false, NULL, 0)",
        [
            run_id,
            run.facts.model_version,
            run.facts.graph,
            time_of(run.facts.as_of),
            users,
            run.rows,
            digest,
            at,
            SCHEMA_VERSION,
        ],
    )


def _make_current(connection: duckdb.DuckDBPyConnection, run_id: str, at: datetime) -> None:
    connection.execute("UPDATE recommendation_runs SET current = false WHERE current")
    connection.execute(
        "UPDATE recommendation_runs SET current = true, published_at = ?, published_order = "
        "(SELECT coalesce(max(published_order), 0) + 1 FROM recommendation_runs) WHERE run_id = ?",
        [at, run_id],
    )
    connection.execute(CREATE_VIEW.format(table=_table(run_id)))


def _drop_old_runs(connection: duckdb.DuckDBPyConnection, keep_runs: int) -> None:
    """Drop the rows of runs beyond the `keep_runs` that were current last; their entries stay."""
    old = connection.execute(
        "SELECT run_id FROM recommendation_runs WHERE status = 'published' AND NOT current "
        "ORDER BY published_order DESC OFFSET ?",
        [keep_runs],
    ).fetchall()
    for (run_id,) in old:
        connection.execute(f"DROP TABLE {_table(run_id)}")
        connection.execute(
            "UPDATE recommendation_runs SET status = 'dropped' WHERE run_id = ?", [run_id]
        )


def _forget(connection: duckdb.DuckDBPyConnection, run_id: str, user_id: str) -> int:
    ((removed,),) = connection.execute(
        f"DELETE FROM {_table(run_id)} WHERE user_id = ?", [user_id]
    ).fetchall()
    if removed:
        connection.execute(
            "UPDATE recommendation_runs SET rows = rows - $n, forgotten = forgotten + $n, "
            "users = users - $users WHERE run_id = $run_id",
            {"n": removed, "users": counted_users(user_id), "run_id": run_id},
        )
    return int(removed)


def _table(run_id: str) -> str:
    """The name of a run's table; a run_id is hexadecimal, so that it needs no quotes."""
    return f"recommendations_{check_run_id(run_id)}"
