"""The folder of a snapshot: append-only parts, a manifest that names them, and who may write.

    manifest.json                      what was taken, and the SHA-256 of every other file
    interactions/part-000001.parquet   the source's own columns, the rows in the order they came
    items-0123456789abcdef.parquet     as last delivered, named by its own SHA-256; so for users
    .taking.json                       while files are moved here: the parts that come and go

Everything is written aside first. A file counts from the moment the manifest names it, and nothing
that it names is touched before: a run that is killed leaves at most files that the next one puts
right, and `.taking.json` proves that they were its own.
"""

import fcntl
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from recsys_core.artifacts import MANIFEST, sha256, write_json
from recsys_core.config import describe_errors
from recsys_core.errors import BusyError, ConfigError, DataError

PARTS = "interactions"
LOCK = ".lock"
WORK = ".work"
"""Inside the snapshot, so that a finished part is moved and not copied; empty between calls."""

TAKING = ".taking.json"
OWN = {MANIFEST, PARTS, LOCK, WORK, TAKING}
TABLE_FILE = re.compile(r"(items|users)-[0-9a-f]{16}\.parquet")

TableName = Literal["items", "users"]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Record):
    """What became of rows that came: `rows` were appended; with the re-delivered ones they are
    `rows_in`. `late` are among `rows`, `redelivered_changed` (another content under the same key)
    among `redelivered`."""

    rows: Count
    rows_in: Count
    redelivered: Count
    redelivered_changed: Count
    late: Count


NO_ROWS = Counts(rows=0, rows_in=0, redelivered=0, redelivered_changed=0, late=0)


class Part(Counts):
    """A file of appended rows; `taken` is the day in UTC on which they came. Of the rows that were
    appended `forgotten` are gone again, with the people who wanted that; they are not in `rows`."""

    name: str
    sha256: str
    taken: date
    forgotten: Count = 0


class TakenFile(_Record):
    """A delivered file: its name, its rows, and the part that they went to."""

    name: str
    rows: Count
    part: str


class Manifest(_Record):
    """`columns` are those of the deliveries, with DuckDB's types; `files` are by SHA-256, `tables`
    (items and users) have theirs. `watermark` is the latest value of a query's growing column."""

    version: Literal[1] = 1
    row_key: list[str]
    columns: list[tuple[str, str]] = Field(default_factory=list)
    parts: list[Part] = Field(default_factory=list)
    files: dict[str, TakenFile] = Field(default_factory=dict)
    watermark: str | None = None
    tables: dict[TableName, str] = Field(default_factory=dict)

    @property
    def parts_with_rows(self) -> list[Part]:
        return [part for part in self.parts if part.rows]

    @property
    def first_rows(self) -> list[int]:
        """The number of the row at which each part begins that has any."""
        rows = (part.rows for part in self.parts_with_rows)
        return list(accumulate(rows, initial=0))[:-1]


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Hold a snapshot for one writer; yields an empty folder to work in. Creates what is missing.

    Raises `BusyError` where another holds it, `ConfigError` where the folder has other files.
    """
    _refuse_strangers(folder)
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: another run is writing this snapshot; wait for it to end"
            ) from error
        work = folder / WORK
        shutil.rmtree(work, ignore_errors=True)  # left by one that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot; `ConfigError` where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        raise ConfigError(
            f"{folder}: no snapshot there yet; run `python -m tasks.edges.snapshot`, "
            "as `twotempo run` does, or correct ingest.path"
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{describe_errors(error, where=str(path))}; restore it from a copy and do not delete "
            "it: it alone knows what was taken"
        ) from error


def opened_manifest(folder: Path, *, row_key: Sequence[str] | None) -> Manifest:
    """The manifest to append to, its parts verified; an empty one for a new snapshot. Without a
    `row_key` there must be one.

    A part beyond the manifest that a killed run was moving here is removed: its rows come again.
    Raises `ConfigError` where the snapshot has another row key, `DataError` where a part is not as
    it was, or nobody knows whose it is.
    """
    if row_key is None or (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
    else:
        manifest = Manifest(row_key=sorted(row_key))
    if row_key is not None and manifest.row_key != sorted(row_key):
        raise ConfigError(
            f"{folder}: the snapshot has the row key {manifest.row_key}, the card says "
            f"{sorted(row_key)}; correct snapshot.row_key, or take the log into a new folder"
        )
    verify_parts(folder, manifest)
    _remove_unfinished(folder, manifest)
    return manifest


def verify_parts(folder: Path, manifest: Manifest) -> list[Path]:
    """The parts in order, each with the SHA-256 it was written with; `DataError` where one has
    another."""
    paths = [folder / PARTS / part.name for part in manifest.parts]
    for part, path in zip(manifest.parts, paths, strict=True):
        _verify(path, part.sha256)
    return paths


def snapshot_files(folder: Path) -> tuple[Manifest, list[Path], dict[str, Path]]:
    """What ingest reads, verified: the manifest, the parts with rows, the tables by name."""
    manifest = read_manifest(folder)
    paths = verify_parts(folder, manifest)
    parts = [path for part, path in zip(manifest.parts, paths, strict=True) if part.rows]
    if not parts:
        raise DataError(f"{folder}: the snapshot has no rows; check what was delivered")
    tables: dict[str, Path] = {}
    for name, digest in manifest.tables.items():
        tables[name] = folder / table_name(name, digest)
        _verify(tables[name], digest)
    return manifest, parts, tables


def put_in_place(folder: Path, manifest: Manifest, *, before: Manifest) -> bool:
    """Move the new files of a manifest from the work folder to their places, and write it; returns
    whether it says anything new. A damaged table is made good."""
    work = folder / WORK
    named, named_before = ({part.name for part in one.parts} for one in (manifest, before))
    parts = [part for part in manifest.parts if part.name not in named_before]
    replaced = [part for part in before.parts if part.name not in named]
    if parts:
        _write(folder, TAKING, {part.name: part.sha256 for part in (*parts, *replaced)})
    for part in parts:
        (work / part.name).replace(folder / PARTS / part.name)
    files = {table_name(name, digest): digest for name, digest in manifest.tables.items()}
    for name, digest in files.items():
        place = folder / name
        if (work / name).exists() and not (place.exists() and sha256(place) == digest):
            (work / name).replace(place)
    changed = manifest != before or not (folder / MANIFEST).exists()
    if changed:
        _write(folder, MANIFEST, manifest.model_dump(mode="json"))
    for path in folder.iterdir():
        if TABLE_FILE.fullmatch(path.name) and path.name not in files:
            path.unlink()
    for part in replaced:
        (folder / PARTS / part.name).unlink(missing_ok=True)
    (folder / TAKING).unlink(missing_ok=True)
    return changed


def part_name(number: int) -> str:
    """The name of a part, numbered from 1."""
    return f"part-{number:06}.parquet"


def rewritten_name(name: str, digest: str) -> str:
    """The name of a part that was written anew with another content.

    >>> rewritten_name("part-000003.parquet", "0123456789abcdef0123")
    'part-000003-0123456789abcdef.parquet'
    """
    return f"{name[: len('part-000001')]}-{digest[:16]}.parquet"


def table_name(name: TableName, digest: str) -> str:
    """The name of a table's file: with another content it is another file."""
    return f"{name}-{digest[:16]}.parquet"


def _write(folder: Path, name: str, value: Any) -> None:
    """Write a JSON file by way of the work folder: a killed run leaves no half of one elsewhere."""
    write_json(folder / WORK / name, value)
    (folder / WORK / name).replace(folder / name)


def _remove_unfinished(folder: Path, manifest: Manifest) -> None:
    """Remove the parts that the manifest does not name and a killed run was moving here; raise
    `DataError` where there are others: rows that the manifest does not know of."""
    named = {part.name for part in manifest.parts}
    beyond = sorted(path for path in (folder / PARTS).iterdir() if path.name not in named)
    moving = _moving(folder / TAKING)
    strangers = [
        path.name for path in beyond if path.name not in moving or sha256(path) != moving[path.name]
    ]
    if strangers:
        raise DataError(
            f"{folder / PARTS}: the manifest does not name {', '.join(strangers[:3])}; restore the "
            f"{MANIFEST} that does, or move them away and deliver their rows again"
        )
    for path in beyond:
        path.unlink()


def _moving(path: Path) -> dict[str, str]:
    """The SHA-256 of the parts that a killed run was moving to their place, by name."""
    if not path.exists():
        return {}
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{describe_errors(error, where=str(path))}; restore the snapshot from a copy"
        ) from error


def _verify(path: Path, digest: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing, though the manifest names it; restore it")
    if sha256(path) != digest:
        raise DataError(
            f"{path}: its SHA-256 is not the manifest's, so it was changed or damaged; restore it"
        )


def _refuse_strangers(folder: Path) -> None:
    """Raise where a folder that is no snapshot holds somebody's files."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; ingest.path names the folder of the snapshot")
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    strangers = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in OWN and not TABLE_FILE.fullmatch(path.name)
    )
    if strangers:
        raise ConfigError(
            f"{folder}: no snapshot, and it has files in it ({', '.join(strangers[:3])}); "
            "name a new folder as ingest.path"
        )
