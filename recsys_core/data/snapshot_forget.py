"""Removing a person from a snapshot: every file with rows of theirs is written anew without them.

A part written anew has another name, and the manifest names it in place of the old one: whoever is
killed on the way leaves a snapshot with the person or one without, never one that is broken.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from recsys_core.artifacts import sha256
from recsys_core.data.column_sql import text_sql
from recsys_core.data.duck import literal, open_duckdb
from recsys_core.data.snapshot_manifest import (
    PARTS,
    WORK,
    Manifest,
    Part,
    held,
    opened_manifest,
    put_in_place,
    rewritten_name,
    table_name,
)
from recsys_core.data.sources import open_files, reading

MEMORY_MB = 1024


@dataclass(frozen=True)
class Removed:
    """What was removed from a snapshot: rows of the log, and rows of the table of users."""

    interactions: int
    users: int


def forget_in_snapshot(folder: Path, user_id: str, *, user_column: str) -> Removed:
    """Remove a person from the parts and from the table of users; returns how many rows.

    `user_id` is as the pipeline has it, a text; `user_column` is what the source calls it. The
    counts of a part say how many of its rows were forgotten. Raises `BusyError` where a run is
    writing the snapshot, `DataError` where a part is not as it was.
    """
    with held(folder) as work:
        before = opened_manifest(folder, row_key=None)
        with open_duckdb(work, memory_mb=MEMORY_MB) as connection:
            parts = [
                _part_without(connection, folder, part, user_id, column=user_column)
                for part in before.parts
            ]
            table = _users_without(connection, folder, before, user_id, column=user_column)
        names = {old.name: new.name for old, new in zip(before.parts, parts, strict=True)}
        files = {
            digest: file.model_copy(update={"part": names[file.part]})
            for digest, file in before.files.items()
        }
        update: dict[str, Any] = {"parts": parts, "files": files}
        users = 0
        if table is not None:
            update["tables"] = {**before.tables, "users": table[0]}
            users = table[1]
        put_in_place(folder, before.model_copy(update=update), before=before)
    gone = sum(new.forgotten - old.forgotten for old, new in zip(before.parts, parts, strict=True))
    return Removed(interactions=gone, users=users)


def _part_without(
    connection: duckdb.DuckDBPyConnection, folder: Path, part: Part, user_id: str, *, column: str
) -> Part:
    """Write a part anew into the work folder without a person; the part as it was where they have
    no row in it."""
    if not part.rows:
        return part
    written = folder / WORK / "rewritten.parquet"
    gone = _write_without(connection, folder / PARTS / part.name, written, user_id, column=column)
    if not gone:
        return part
    digest = sha256(written)
    name = rewritten_name(part.name, digest)
    written.replace(folder / WORK / name)
    counts = {"rows": part.rows - gone, "forgotten": part.forgotten + gone}
    return part.model_copy(update={"name": name, "sha256": digest, **counts})


def _users_without(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    manifest: Manifest,
    user_id: str,
    *,
    column: str,
) -> tuple[str, int] | None:
    """Write the table of users anew; returns its SHA-256 and how many rows it lost."""
    if "users" not in manifest.tables:
        return None
    written = folder / WORK / "rewritten.parquet"
    place = folder / table_name("users", manifest.tables["users"])
    gone = _write_without(connection, place, written, user_id, column=column)
    if not gone:
        return None
    digest = sha256(written)
    written.replace(folder / WORK / table_name("users", digest))
    return digest, gone


def _write_without(
    connection: duckdb.DuckDBPyConnection, path: Path, written: Path, user_id: str, *, column: str
) -> int:
    """Write a file's rows in their order, less those of a person; returns how many they are."""
    source = open_files(connection, [path], name=str(path))
    theirs = f"coalesce({text_sql(source, column)} = {literal(user_id)}, false)"
    with reading(source):
        ((gone,),) = connection.execute(
            f"SELECT count(*) FROM {source.sql} WHERE {theirs}"
        ).fetchall()
        if gone:
            connection.execute(
                f"COPY (SELECT * FROM {source.sql} WHERE NOT {theirs}) TO {literal(str(written))} "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
    return int(gone)
