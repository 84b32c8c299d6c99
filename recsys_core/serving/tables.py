"""The published table: a DuckDB file in which readers find the last whole run, never half of one.

    recommendations            view    user_id, rank, item_id, score, model_version, as_of, rating
                                       of the current run; rating null where none is predicted
    recommendation_runs        table   every run ever published, one of them current
    recommendations_<run_id>   tables  rows of the runs that are kept, ordered by (user_id, rank)

A run becomes current in one transaction: until COMMIT the old view stands, also where the writer is
killed. DuckDB lets no other process in while one writes, so all checking is done before the file is
opened.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.errors import BusyError, ContractError, PublishError
from recsys_core.serving.shards import KEY, ScoreRun, time_of
from recsys_core.tables import SCORES, check_table

SCHEMA_VERSION = 1

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
    current BOOLEAN NOT NULL
)
"""

CREATE_VIEW = """
CREATE OR REPLACE VIEW recommendations AS
SELECT scores.user_id, scores.rank, scores.item_id, scores.score, run.model_version, run.as_of,
    scores.rating
FROM {table} AS scores
CROSS JOIN (SELECT model_version, as_of FROM recommendation_runs WHERE current) AS run
"""


@dataclass(frozen=True)
class Published:
    """What publishing did; `changed` is False where the run was current already."""

    run_id: str
    rows: int
    users: int
    sha256: str
    changed: bool


def publish_run(path: Path, run: ScoreRun, *, keep_runs: int, published_at: datetime) -> Published:
    """Make a scored run the current one of a file; rows of `keep_runs` runs before it stay.

    A run is named by its model, its `as_of` and the content of its rows: one that is current
    already changes nothing, one that is still kept only becomes current again.
    Raises `ContractError` where the rows break their contract, `PublishError` where the file is in
    use or of another schema.
    """
    digest, users = content(run)
    run_id = hashlib.sha256(
        f"{run.facts.model_version}/{run.facts.as_of}/{digest}".encode()
    ).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_table(path, read_only=False) as connection:
        connection.execute("BEGIN")
        # leaving the block without COMMIT closes the file, which rolls back
        connection.execute(CREATE_RUNS)
        _check_schema(connection, path)
        found = connection.execute(
            "SELECT status, current FROM recommendation_runs WHERE run_id = ?", [run_id]
        ).fetchall()
        changed = found != [("published", True)]
        if changed:
            if not found or found[0][0] == "dropped":
                _insert(connection, run_id, run)
            _make_current(
                connection, run_id, run, digest=digest, users=users, published_at=published_at
            )
            _drop_old_runs(connection, keep_runs)
        connection.execute("COMMIT")
    return Published(run_id=run_id, rows=run.rows, users=users, sha256=digest, changed=changed)


def read_recommendations(path: Path, user_id: str) -> pa.Table:
    """The current recommendations of one user, best first; no rows for a user it does not have.

    Columns: `user_id`, `rank`, `item_id`, `score`, `model_version`, `as_of` (UTC), `rating`.
    """
    with open_table(path, read_only=True) as connection:
        return connection.sql(
            "SELECT * FROM recommendations WHERE user_id = ? ORDER BY rank", params=[user_id]
        ).to_arrow_table()


def read_runs(path: Path) -> pa.Table:
    """Every run ever published, in the order of publication."""
    with open_table(path, read_only=True) as connection:
        return connection.sql(
            "SELECT * FROM recommendation_runs ORDER BY published_at, run_id"
        ).to_arrow_table()


@contextlib.contextmanager
def open_table(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the published file, in UTC; a DuckDB error becomes a `PublishError`.

    It is a `BusyError` where the file cannot be had: DuckDB allows one writer and nobody beside it.
    """
    if read_only and not path.exists():
        raise PublishError(f"{path}: nothing is published yet; run `twotempo run`")
    try:
        with duckdb.connect(str(path), read_only=read_only) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
    except duckdb.Error as error:
        summary = " ".join(str(error).split())
        kind = BusyError if isinstance(error, duckdb.IOException) else PublishError
        raise kind(
            f"{path}: {summary:.300}; if another process has the file open, close it there "
            "and try again"
        ) from error


def content(run: ScoreRun) -> tuple[str, int]:
    """A SHA-256 of all rows of a run, however they are cut into shards, and the number of users.

    Checks on the way that rows keep to SCORES and are ordered by (user_id, rank), across shards
    too.
    """
    states: dict[tuple[str, int], Any] = defaultdict(hashlib.sha256)
    rows = users = 0
    before: pa.Table | None = None  # the last row so far
    for part in run.parts:
        for batch in pq.ParquetFile(part).iter_batches():
            table = pa.Table.from_batches([batch])
            seam = table if before is None else pa.concat_tables([before, table])
            check_table(seam, SCORES, name=part.name, key=KEY)
            user_id = seam.column(KEY[0]).combine_chunks()
            changes = pc.not_equal(user_id.slice(1), user_id.slice(0, len(user_id) - 1))
            users += int(pc.sum(changes).as_py() or 0) + (
                1 if before is None and len(user_id) else 0
            )
            for name in SCORES.names:
                for number, stream in enumerate(_streams(table.column(name).combine_chunks())):
                    states[name, number].update(stream)
            rows += table.num_rows
            before = seam.slice(seam.num_rows - 1) if seam.num_rows else None
    if rows != run.rows:
        raise ContractError(
            f"{run.folder}: shards hold {rows} rows, {run.rows} were scored; score again"
        )
    if rows == 0:
        raise PublishError(
            f"{run.folder}: no rows to publish, the old table stays; see what the score edge said"
        )
    total = hashlib.sha256("/".join(state.hexdigest() for state in states.values()).encode())
    return total.hexdigest(), users


def _streams(column: pa.Array) -> list[bytes]:
    """A column's content as streams that go on over batches: values, or lengths and texts."""
    if not pa.types.is_string(column.type):
        return [column.to_numpy(zero_copy_only=False).tobytes()]  # a null becomes NaN
    _, offsets_buffer, texts = column.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[column.offset :][: len(column) + 1]
    return [np.diff(offsets).tobytes(), memoryview(texts)[offsets[0] : offsets[-1]].tobytes()]


def _check_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    versions = connection.execute(
        "SELECT DISTINCT schema_version FROM recommendation_runs WHERE schema_version <> ?",
        [SCHEMA_VERSION],
    ).fetchall()
    if versions:
        raise PublishError(
            f"{path}: schema version {versions[0][0]}, this version of twotempo writes "
            f"{SCHEMA_VERSION}; "
            "move the file away, and publish again"
        )


def _insert(connection: duckdb.DuckDBPyConnection, run_id: str, run: ScoreRun) -> None:
    """Rows of a run into a table of its own, in the order of the shards."""
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


def _make_current(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    run: ScoreRun,
    *,
    digest: str,
    users: int,
    published_at: datetime,
) -> None:
    connection.execute("UPDATE recommendation_runs SET current = false WHERE current")
    connection.execute(
        "INSERT OR REPLACE INTO recommendation_runs VALUES (?, ?, ?, ?, ?, ?, ?, "
        "'published', ?, ?, true)",
        [
            run_id,
            run.facts.model_version,
            run.facts.graph,
            time_of(run.facts.as_of),
            users,
            run.rows,
            digest,
            published_at,
            SCHEMA_VERSION,
        ],
    )
    connection.execute(CREATE_VIEW.format(table=_table(run_id)))


def _drop_old_runs(connection: duckdb.DuckDBPyConnection, keep_runs: int) -> None:
    """Drop the rows of runs beyond the `keep_runs` that were published last; their entries stay."""
    old = connection.execute(
        "SELECT run_id FROM recommendation_runs WHERE status = 'published' AND NOT current "
        "ORDER BY published_at DESC, run_id OFFSET ?",
        [keep_runs],
    ).fetchall()
    for (run_id,) in old:
        connection.execute(f"DROP TABLE {_table(run_id)}")
        connection.execute(
            "UPDATE recommendation_runs SET status = 'dropped' WHERE run_id = ?", [run_id]
        )


def _table(run_id: str) -> str:
    """The name of a run's table; a run_id is hexadecimal, so that it needs no quotes."""
    assert len(run_id) == 12, run_id
    assert set(run_id) <= set("0123456789abcdef"), run_id
    return f"recommendations_{run_id}"
