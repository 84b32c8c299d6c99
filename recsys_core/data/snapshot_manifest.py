"""The folder of a snapshot: append-only parts, a manifest that names them, and who may write.

    manifest.json                      what was taken, and the SHA-256 of every other file
    interactions/part-000001.parquet   the source's own columns, the rows in the order they came
    items.parquet  users.parquet       as last delivered, replaced whole

A part counts from the moment the manifest names it, and the manifest is written last: a run that is
killed leaves at most a part that the next run writes again.
"""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys_core.artifacts import MANIFEST, read_json, sha256, write_json
from recsys_core.config import describe_errors
from recsys_core.errors import BusyError, ConfigError, DataError

PARTS = "interactions"
LOCK = ".lock"
WORK = ".work"
"""Inside the snapshot, so that a finished part is moved and not copied; empty between calls."""

OWN = {MANIFEST, PARTS, LOCK, WORK, "items.parquet", "users.parquet"}

Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Record):
    """`rows` were appended; with the re-delivered ones they are `rows_in`. `late` are among
    `rows`, `redelivered_changed` (another content under the same key) among `redelivered`."""

    name: str
    sha256: str
    rows: Count
    rows_in: Count
    redelivered: Count
    redelivered_changed: Count
    late: Count


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
    tables: dict[Literal["items", "users"], str] = Field(default_factory=dict)

    @property
    def first_rows(self) -> list[int]:
        """The number of the row at which each part begins that has any."""
        firsts, row = [], 0
        for part in self.parts:
            if part.rows:
                firsts.append(row)
            row += part.rows
        return firsts


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
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(
            f"{describe_errors(error, where=str(path))}; restore it, or take the log anew elsewhere"
        ) from error


def opened_manifest(folder: Path, *, row_key: Sequence[str]) -> Manifest:
    """The manifest to append to, its parts verified; an empty one for a new snapshot.

    A part beyond the manifest was left by a run that was killed, and is written again. Raises
    `ConfigError` where the snapshot has another row key, `DataError` where a part is not as it was.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
    else:
        manifest = Manifest(row_key=sorted(row_key))
    if manifest.row_key != sorted(row_key):
        raise ConfigError(
            f"{folder}: the snapshot has the row key {manifest.row_key}, the card says "
            f"{sorted(row_key)}; correct snapshot.row_key, or take the log into a new folder"
        )
    known = {part.name for part in manifest.parts} | {part_name(len(manifest.parts) + 1)}
    strangers = sorted({path.name for path in (folder / PARTS).iterdir()} - known)
    if strangers:
        raise DataError(
            f"{folder / PARTS}: {strangers[:3]} are not in the manifest; restore the manifest that "
            "belongs to them, or move them away"
        )
    verify_parts(folder, manifest)
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
        tables[name] = folder / f"{name}.parquet"
        _verify(tables[name], digest)
    return manifest, parts, tables


def write_manifest(folder: Path, manifest: Manifest, *, before: Manifest) -> bool:
    """Write the manifest if it says anything new; returns whether it does."""
    if manifest == before and (folder / MANIFEST).exists():
        return False
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return True


def part_name(number: int) -> str:
    """The name of a part, numbered from 1."""
    return f"part-{number:06}.parquet"


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
    strangers = sorted({path.name for path in folder.iterdir()} - OWN)
    if strangers:
        raise ConfigError(
            f"{folder}: no snapshot, and it has files in it ({', '.join(strangers[:3])}); "
            "name a new folder as ingest.path"
        )
