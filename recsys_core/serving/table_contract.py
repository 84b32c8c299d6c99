"""What every published table does, whatever keeps it: DuckDB, PostgreSQL or Parquet files.

    recommendations        view    user_id, rank, item_id, score, model_version, as_of, rating of
                                   the current run; rating null where none is predicted
    recommendation_runs    table   every run ever published, one of them current
    a place for each run           its rows, ordered by (user_id, rank)

A run is written aside and becomes current at once; the runs before it are kept and can be made
current again. Readers find the last whole run, never half of one.
"""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.columns import SCORE
from recsys_core.errors import ContractError, PublishError
from recsys_core.serving.shards import EPOCH, KEY, RESERVED, ScoreRun
from recsys_core.tables import SCORES, check_table

SCHEMA_VERSION = 2
"""Of `recommendation_runs`; 2 added `published_order` and `forgotten`."""

TIME = pa.timestamp("us", tz="UTC")

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("model_version", pa.string()),
        ("graph", pa.string()),
        ("as_of", TIME),
        ("users", pa.int64()),
        ("rows", pa.int64()),
        ("sha256", pa.string()),
        ("status", pa.string()),
        ("published_at", TIME),
        ("schema_version", pa.int32()),
        ("current", pa.bool_()),
        ("published_order", pa.int32()),
        ("forgotten", pa.int64()),
    ]
)
"""`rows` and `users` are there now, `forgotten` rows were removed with their users since; `sha256`
is that of the rows as they were published. `status` is `writing`, `published` or `dropped`: the
rows of the last are gone. `published_order` rises each time that a run becomes current."""

RECOMMENDATIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("model_version", pa.string()),
        ("as_of", TIME),
        ("rating", pa.float32()),
    ]
)

RUN_ID = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class Published:
    """What publishing did; `changed` is False where the run was current already."""

    run_id: str
    rows: int
    users: int
    sha256: str
    changed: bool


@dataclass(frozen=True)
class Current:
    """The current run of a table; `as_of` is in microseconds since 1970."""

    run_id: str
    rows: int
    users: int
    model_version: str
    as_of: int


class Table(Protocol):
    """A published table. Whatever fails is a `PublishError`, and a `BusyError` where the same may
    work a little later; the table is then as it was."""

    @property
    def place(self) -> str:
        """Where the table is, for a person; nothing of a database's address."""

    def publish(self, run: ScoreRun, *, keep_runs: int, published_at: datetime) -> Published:
        """Make a scored run the current one; rows of the `keep_runs` runs before it stay.

        A run is named by its model, its `as_of` and the content of its rows: one that is current
        already changes nothing, one that is still kept only becomes current again.
        Raises `ContractError` where the rows break their contract.
        """

    def make_current(self, run_id: str, *, published_at: datetime) -> bool:
        """Make a kept run the current one again; returns whether that changed anything."""

    def read(self, user_id: str) -> pa.Table:
        """The current `RECOMMENDATIONS` of one user, best first; no rows for a stranger."""

    def user_ids(self, *, first: int | None = None) -> pa.StringArray:
        """The users of the current run, in the order of their ids as bytes; the `first` ones.

        Nobody is whom a cold list is for (`shards.RESERVED`)."""

    def current(self) -> Current | None:
        """The current run; None where none is published."""

    def runs(self) -> pa.Table:
        """`RUNS`: every run ever published, in the order in which they last became current."""

    def forget(self, user_id: str) -> int:
        """Remove a user from every run that is kept; returns how many rows that were."""


def run_id_of(run: ScoreRun, *, digest: str) -> str:
    """The name of a run: 12 hexadecimal digits of its model, its `as_of` and its rows' SHA-256."""
    named = f"{run.facts.model_version}/{run.facts.as_of}/{digest}"
    return hashlib.sha256(named.encode()).hexdigest()[:12]


def check_run_id(run_id: str) -> str:
    """The name of a run; `PublishError` unless it is one, so that it is safe in a name."""
    if not RUN_ID.fullmatch(run_id):
        raise PublishError(
            f"{run_id!r} names no run, a name is 12 hexadecimal digits; "
            "`twotempo publish --list` prints those that are kept"
        )
    return run_id


def check_kept(run_id: str, status: str | None, *, place: str) -> None:
    """Raise `PublishError` unless the rows of a run are still there, by its `status`."""
    if status != "published":
        found = "was never published there" if status is None else f"is {status}: it has no rows"
        raise PublishError(
            f"{place}: run {run_id} {found}; `twotempo publish --list` prints those that are kept"
        )


def check_version(version: int | None, *, place: str, oldest: int = SCHEMA_VERSION) -> None:
    """Raise `PublishError` where a table's schema is newer than ours, or too old to be migrated."""
    if version is not None and not oldest <= version <= SCHEMA_VERSION:
        remedy = (
            "update twotempo"
            if version > SCHEMA_VERSION
            else "move the table away and publish again"
        )
        raise PublishError(
            f"{place}: schema version {version}, this version of twotempo knows {oldest} to "
            f"{SCHEMA_VERSION}; {remedy}"
        )


def counted_users(user_id: str) -> int:
    """How many users an id stands for: 0 for a cold list, which is nobody's."""
    return 0 if user_id.startswith(RESERVED) else 1


def content(run: ScoreRun) -> tuple[str, int]:
    """A SHA-256 of all rows of a run, however they are cut into shards, and the number of users.
    Cold lists are nobody's.

    Checks on the way that rows keep to SCORES, that scores are numbers, and that rows are ordered
    by (user_id, rank), across shards too.
    """
    states: dict[tuple[str, int], Any] = defaultdict(hashlib.sha256)
    rows = users = 0
    before: pa.Table | None = None  # the last row so far
    for part in run.parts:
        for batch in pq.ParquetFile(part).iter_batches():
            table = pa.Table.from_batches([batch])
            seam = table if before is None else pa.concat_tables([before, table])
            check_table(seam, SCORES, name=part.name, key=KEY)
            _check_scores(table, name=part.name)
            user_id = seam.column(KEY[0]).combine_chunks()
            # a row opens a user unless it is of the same one as the row before it, or a cold list's
            opens = pc.not_equal(user_id.slice(1), user_id.slice(0, len(user_id) - 1))
            named = pc.invert(pc.starts_with(user_id, RESERVED))
            users += int(pc.sum(pc.and_(opens, named.slice(1))).as_py() or 0)
            users += int(before is None and len(user_id) > 0 and named[0].as_py())
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


def microseconds_of(time: datetime) -> int:
    """Microseconds since 1970 of a time in UTC, exactly."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _check_scores(table: pa.Table, *, name: str) -> None:
    wrong = table.num_rows - int(pc.sum(pc.is_finite(table.column(SCORE))).as_py() or 0)
    if wrong:
        raise ContractError(
            f"{name}: {wrong} of {table.num_rows} scores are NaN or infinite, they must be numbers;"
            " the old table stays: export the model again, then score"
        )


def _streams(column: pa.Array) -> list[bytes]:
    """A column's content as streams that go on over batches: values, or lengths and texts."""
    if not pa.types.is_string(column.type):
        return [column.to_numpy(zero_copy_only=False).tobytes()]  # a null becomes NaN
    _, offsets_buffer, texts = column.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[column.offset :][: len(column) + 1]
    return [np.diff(offsets).tobytes(), memoryview(texts)[offsets[0] : offsets[-1]].tobytes()]
