"""The published table as Parquet files, as `table_contract` describes it.

    recommendation_runs.json         every run, and which one is current: the only file that is ever
                                     replaced, so that everything changes by one rename
    3f2a09b1c4d5/part-00000.parquet  rows of a run that is kept, with all columns of the view
    .writing-3f2a09b1c4d5/           a run that is being written, with the shards it comes from
    .lock                            held by whoever writes

A killed run goes on with the first part that is missing. A reader takes the name of the current run
once, and then finds all of that run.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.artifacts import atomic_path, read_json, write_json
from recsys_core.columns import USER_ID
from recsys_core.errors import BusyError, PublishError
from recsys_core.serving.shards import EPOCH, RESERVED, ScoreRun, time_of
from recsys_core.serving.table_contract import (
    RECOMMENDATIONS,
    RUN_ID,
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

LEDGER = "recommendation_runs.json"
LOCK = ".lock"
WRITING = ".writing-"
SHARDS = "shards.json"
TRIES = 10

Entry = dict[str, Any]
"""A run as `RUNS` has it; times are texts as `datetime.isoformat` writes them."""


@dataclass(frozen=True)
class ParquetTable:
    """The table as a folder of Parquet files; a `table_contract.Table`."""

    folder: Path

    @property
    def place(self) -> str:
        return str(self.folder)

    def publish(self, run: ScoreRun, *, keep_runs: int, published_at: datetime) -> Published:
        """Make a scored run the current one of the folder."""
        digest, users = content(run)
        run_id = run_id_of(run, digest=digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._held():
            entries = self._entries()
            entry = entries.get(run_id)
            changed = entry is None or not entry["current"]
            if entry is None or entry["status"] != "published":
                self._write(run_id, run)
                entries[run_id] = _entry(run_id, run, digest=digest, users=users)
            if changed:
                _make_current(entries, run_id, published_at)
                _drop_old_runs(entries, keep_runs)
                self._put(entries)
            self._tidy(entries)
        return Published(run_id=run_id, rows=run.rows, users=users, sha256=digest, changed=changed)

    def make_current(self, run_id: str, *, published_at: datetime) -> bool:
        check_run_id(run_id)
        self._check_exists()
        with self._held():
            entries = self._entries()
            entry = entries.get(run_id)
            check_kept(run_id, None if entry is None else entry["status"], place=self.place)
            changed = not entries[run_id]["current"]
            if changed:
                _make_current(entries, run_id, published_at)
                self._put(entries)
        return changed

    def read(self, user_id: str) -> pa.Table:
        theirs = [(USER_ID, "=", user_id)]
        return self._whole(RECOMMENDATIONS, filters=theirs)

    def user_ids(self, *, first: int | None = None) -> pa.StringArray:
        column = self._whole(pa.schema([RECOMMENDATIONS.field(USER_ID)]), filters=None)
        # in the order of the rows, which are sorted by user
        ids = pc.unique(column.column(0))
        ids = ids.filter(pc.invert(pc.starts_with(ids, RESERVED)))
        return ids if first is None else ids.slice(0, first)

    def current(self) -> Current | None:
        self._check_exists()
        for entry in self._entries().values():
            if entry["current"]:
                return Current(
                    run_id=entry["run_id"],
                    rows=entry["rows"],
                    users=entry["users"],
                    model_version=entry["model_version"],
                    as_of=microseconds_of(datetime.fromisoformat(entry["as_of"])),
                )
        return None

    def runs(self) -> pa.Table:
        self._check_exists()
        ordered = sorted(self._entries().values(), key=lambda entry: int(entry["published_order"]))
        times = ("as_of", "published_at")
        rows = [
            {**entry, **{name: datetime.fromisoformat(entry[name]) for name in times}}
            for entry in ordered
        ]
        return pa.Table.from_pylist(rows, schema=RUNS)

    def forget(self, user_id: str) -> int:
        """Remove a user from every kept run; each file with rows of theirs is replaced whole."""
        if not self.folder.exists():
            return 0
        removed = 0
        with self._held():
            entries = self._entries()
            self._tidy(entries)  # what killed writers left may hold the user too
            for entry in entries.values():
                if entry["status"] != "published":
                    continue
                try:
                    parts = self._parts(entry["run_id"])
                except FileNotFoundError as error:
                    raise PublishError(
                        f"{error}: the files of a kept run are gone; restore or publish them again"
                    ) from error
                for part in parts:
                    _without(part, user_id)
                # counted and not summed up, so that one that was killed is made good here
                left = sum(pq.ParquetFile(part).metadata.num_rows for part in parts)
                gone = entry["rows"] - left
                removed += gone
                entry.update(
                    rows=left,
                    forgotten=entry["forgotten"] + gone,
                    users=entry["users"] - (counted_users(user_id) if gone else 0),
                )
            if removed:
                self._put(entries)
        return removed

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder for one writer; `BusyError` where another holds it."""
        with (self.folder / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"{self.folder}: another run is publishing there; wait for it to end"
                ) from error
            yield

    def _whole(self, columns: pa.Schema, *, filters: list[tuple[str, str, str]] | None) -> pa.Table:
        """Rows of the current run, all from that one."""
        for _ in range(TRIES):
            current = self.current()
            if current is None:
                return columns.empty_table()
            try:
                return pq.read_table(
                    self._parts(current.run_id),
                    columns=columns.names,
                    filters=filters,
                    partitioning=None,
                ).cast(columns)
            except FileNotFoundError:
                continue  # it was dropped meanwhile: another is current by now
        raise BusyError(f"{self.folder}: runs come and go faster than one is read; try again")

    def _check_exists(self) -> None:
        if not (self.folder / LEDGER).exists():
            raise PublishError(f"{self.folder}: nothing is published yet; run `twotempo run`")

    def _entries(self) -> dict[str, Entry]:
        path = self.folder / LEDGER
        if not path.exists():
            return {}
        found = read_json(path)
        check_version(found["schema_version"], place=self.place)
        return {
            check_run_id(entry["run_id"]): {**entry, "schema_version": SCHEMA_VERSION}
            for entry in found["runs"]
        }

    def _put(self, entries: dict[str, Entry]) -> None:
        current = next((name for name, entry in entries.items() if entry["current"]), None)
        runs = [
            {key: value for key, value in entry.items() if key != "schema_version"}
            for entry in entries.values()
        ]
        value = {"schema_version": SCHEMA_VERSION, "current": current, "runs": runs}
        write_json(self.folder / LEDGER, value)

    def _parts(self, run_id: str) -> list[Path]:
        parts = sorted((self.folder / run_id).glob("part-*.parquet"))
        if not parts:
            raise FileNotFoundError(self.folder / run_id)
        return parts

    def _write(self, run_id: str, run: ScoreRun) -> None:
        """Write the parts of a run aside, those that a killed run has not written yet, and then
        move them to their place, where the ledger does not name them yet."""
        place, writing = self.folder / run_id, self.folder / f"{WRITING}{run_id}"
        shutil.rmtree(place, ignore_errors=True)  # of one that was killed before it was named
        sources = [shard.sha256 for shard in run.shards]
        if not (writing / SHARDS).exists() or read_json(writing / SHARDS) != sources:
            shutil.rmtree(writing, ignore_errors=True)
            write_json(writing / SHARDS, sources)
        for piece in writing.glob(".*"):
            piece.unlink()
        for number, source in enumerate(run.parts):
            part = writing / f"part-{number:05d}.parquet"
            if not part.exists():
                _write_part(part, source, run)
        found = sum(pq.ParquetFile(part).metadata.num_rows for part in writing.glob("part-*"))
        if found != run.rows:
            shutil.rmtree(writing)
            raise PublishError(
                f"{self.folder}: {found} of {run.rows} rows were written; the old table stays, "
                "publish again"
            )
        (writing / SHARDS).unlink()
        writing.replace(place)

    def _tidy(self, entries: dict[str, Entry]) -> None:
        """Remove folders of runs that the ledger does not keep, and pieces of killed writers."""
        for path in self.folder.iterdir():
            if path.name.startswith(f".{LEDGER}."):
                path.unlink()
            name = path.name.removeprefix(WRITING)
            entry = entries.get(name)
            kept = path.name == name and entry is not None and entry["status"] == "published"
            if path.is_dir() and RUN_ID.fullmatch(name) and not kept:
                shutil.rmtree(path)


def _entry(run_id: str, run: ScoreRun, *, digest: str, users: int) -> Entry:
    return {
        "run_id": run_id,
        "model_version": run.facts.model_version,
        "graph": run.facts.graph,
        "as_of": time_of(run.facts.as_of).isoformat(),
        "users": users,
        "rows": run.rows,
        "sha256": digest,
        "status": "published",
        "published_at": EPOCH.isoformat(),
        "schema_version": SCHEMA_VERSION,
        "current": False,
        "published_order": 0,
        "forgotten": 0,
    }


def _make_current(entries: dict[str, Entry], run_id: str, at: datetime) -> None:
    order = 1 + max(int(entry["published_order"]) for entry in entries.values())
    for entry in entries.values():
        entry["current"] = False
    entries[run_id].update(current=True, published_at=at.isoformat(), published_order=order)


def _drop_old_runs(entries: dict[str, Entry], keep_runs: int) -> None:
    """Call runs beyond the `keep_runs` that were current last dropped."""
    old = [e for e in entries.values() if e["status"] == "published" and not e["current"]]
    old.sort(key=lambda entry: -int(entry["published_order"]))
    for entry in old[keep_runs:]:
        entry["status"] = "dropped"


def _write_part(part: Path, source: Path, run: ScoreRun) -> None:
    """Write one part whole or not at all: the rows of a shard, with the columns of the view."""
    as_of = pa.scalar(time_of(run.facts.as_of), RECOMMENDATIONS.field("as_of").type)
    with (
        atomic_path(part) as temporary,
        pq.ParquetWriter(temporary, RECOMMENDATIONS, compression="zstd") as writer,
    ):
        for batch in pq.ParquetFile(source).iter_batches():
            columns = {name: batch.column(name) for name in batch.schema.names}
            columns["model_version"] = pa.repeat(run.facts.model_version, batch.num_rows)
            columns["as_of"] = pa.repeat(as_of, batch.num_rows)
            writer.write_batch(
                pa.record_batch(
                    [columns[name] for name in RECOMMENDATIONS.names], schema=RECOMMENDATIONS
                )
            )


def _without(part: Path, user_id: str) -> None:
    """Replace a part by one without a user, unless they are not in it."""
    table = pq.read_table(part, schema=RECOMMENDATIONS, partitioning=None)
    left = table.filter(pc.not_equal(table.column(USER_ID), user_id))
    if left.num_rows < table.num_rows:
        with atomic_path(part) as temporary:
            pq.write_table(left, temporary, compression="zstd")
