"""Takes what was delivered since the last time, files or a query's rows, into the snapshot that
ingest reads."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from recsys_core.artifacts import sha256, write_json
from recsys_core.data.card_parts import FILE_ENDINGS, FilesSource, PostgresSource
from recsys_core.data.card_parts import Snapshot as SnapshotRules
from recsys_core.data.cards import DatasetCard, read_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.snapshot_manifest import (
    NO_ROWS,
    Counts,
    Manifest,
    TableName,
    held,
    opened_manifest,
    put_in_place,
)
from recsys_core.data.snapshots import Delivery, append_part, replace_table
from recsys_core.data.sources import Source, log_files, open_file, open_files
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Ingest, Snapshot
from tasks.postgres import copy_out
from tasks.settings import read_settings
from tasks.step import main

logger = logging.getLogger(__name__)

MEMORY_MB = 1024


@dataclass(frozen=True)
class Taken:
    """What one run took: the manifest that names it, what became of the rows that it read, and the
    rows of files that lie there still, whose content was taken before."""

    manifest: Manifest
    counts: Counts
    rows_taken_before: int = 0


def run(*, layout: Layout, ingest: Ingest, snapshot: Snapshot) -> None:
    """Bring the snapshot in `ingest.path` up to date; where nothing is new, no byte of it changes.

    What became of the rows is this run's report, also where all of them came again.
    """
    layout.report("snapshot").unlink(missing_ok=True)
    card = read_card(layout.card(ingest.dataset))
    rules = card.snapshot
    if rules is None:
        logger.info("event=snapshot dataset=%s nothing_to_do=the card has no snapshot", card.name)
        return
    folder = layout.root / ingest.path
    source = card.source
    if isinstance(source, FilesSource):
        delivered = _delivered(layout, ingest, snapshot)
    with held(folder) as work:
        before = opened_manifest(folder, row_key=rules.row_key)
        with open_duckdb(work, memory_mb=MEMORY_MB) as connection:
            if isinstance(source, FilesSource):
                taken = _take_files(connection, card, source, rules, folder, delivered, before)
            elif isinstance(source, PostgresSource):
                taken = _take_query(connection, card, source, rules, folder, work, before)
            else:
                raise ConfigError(f"card {card.name}: a simulated log needs no snapshot")
        changed = put_in_place(folder, taken.manifest, before=before)
    _report(layout, card, before, taken, changed=changed)


def _delivered(layout: Layout, ingest: Ingest, snapshot: Snapshot) -> Path:
    if snapshot.path is None:
        raise ConfigError(
            "snapshot.path is null, but the card has a snapshot of files; "
            "name the folder that they are delivered to"
        )
    folder = layout.root / snapshot.path
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder; snapshot.path names the folder that files are delivered to"
        )
    if folder.resolve() == (layout.root / ingest.path).resolve():
        raise ConfigError(
            f"snapshot.path and ingest.path are both {folder}; files are delivered to the one, "
            "the snapshot lies in the other"
        )
    return folder


def _take_files(
    connection: duckdb.DuckDBPyConnection,
    card: DatasetCard,
    source: FilesSource,
    rules: SnapshotRules,
    folder: Path,
    delivered: Path,
    before: Manifest,
) -> Taken:
    """Take the files that are not known by their content. Those that were taken may be gone, also
    all of them."""
    files = _files(source, delivered, before)
    seen = {file: _seen(file) for file in files}
    digests = {file: sha256(file) for file in files}
    known = [before.files[digests[file]].rows for file in files if digests[file] in before.files]
    if known:
        logger.info("event=snapshot taken_before=%d rows_redelivered=%d", len(known), sum(known))
    new = [file for file in files if digests[file] not in before.files]
    after, counts = before, NO_ROWS
    if new:
        deliveries = [
            Delivery(
                name=file.name,
                source=open_files(connection, [file], name=str(file)),
                sha256=digests[file],
            )
            for file in new
        ]
        after, counts = append_part(
            connection,
            deliveries,
            folder=folder,
            manifest=before,
            card=card,
            row_key=rules.row_key,
            now=datetime.now(UTC),
        )
        for file in new:
            if _seen(file) != seen[file]:
                raise DataError(
                    f"{file}: it changed while it was read; deliver a file whole, by renaming it"
                )
    tables: dict[TableName, Source] = {}
    for name, file in _tables(source, delivered).items():
        if file.exists() or name not in before.tables:
            tables[name] = open_file(connection, file)
        else:
            logger.info("event=snapshot table=%s not delivered: the last one stays", name)
    after = _take_tables(connection, tables, folder=folder, manifest=after)
    return Taken(manifest=after, counts=counts, rows_taken_before=sum(known))


def _files(source: FilesSource, delivered: Path, manifest: Manifest) -> list[Path]:
    """The files that lie there; none at all is an error only where none was ever taken."""
    log = delivered / source.interactions
    taken = bool(manifest.files)
    files: list[Path] = []
    # a log in one file may be gone as well once it was taken; a folder may not
    if not (taken and not log.exists() and log.name.lower().endswith(FILE_ENDINGS)):
        besides = list(_tables(source, delivered).values())
        files = log_files(log, besides=besides, may_be_empty=taken)
    if not files:
        logger.info("event=snapshot nothing_delivered=%s", log)
    return files


def _tables(source: FilesSource, delivered: Path) -> dict[TableName, Path]:
    named: dict[TableName, str | None] = {"items": source.items, "users": source.users}
    return {name: delivered / file for name, file in named.items() if file is not None}


def _take_tables(
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[TableName, Source],
    *,
    folder: Path,
    manifest: Manifest,
) -> Manifest:
    for name, table in tables.items():
        manifest = replace_table(connection, table, name=name, folder=folder, manifest=manifest)
    return manifest


def _take_query(
    connection: duckdb.DuckDBPyConnection,
    card: DatasetCard,
    source: PostgresSource,
    rules: SnapshotRules,
    folder: Path,
    work: Path,
    before: Manifest,
) -> Taken:
    answer = copy_out(
        read_settings().source_dsn, source, rules=rules, since=before.watermark, folder=work
    )
    rows = open_files(
        connection, [answer.interactions], name="source.interactions", empty_texts=True
    )
    after, counts = append_part(
        connection,
        [Delivery(name="source.interactions", source=rows, sha256=None)],
        folder=folder,
        manifest=before,
        card=card,
        row_key=rules.row_key,
        now=datetime.now(UTC),
    )
    if after != before:
        # it moves only with rows: otherwise a run with nothing new would change the manifest
        after = after.model_copy(update={"watermark": answer.watermark})
    answers: dict[TableName, Path | None] = {"items": answer.items, "users": answer.users}
    tables = {
        name: open_files(connection, [file], name=f"source.{name}", empty_texts=True)
        for name, file in answers.items()
        if file is not None
    }
    after = _take_tables(connection, tables, folder=folder, manifest=after)
    return Taken(manifest=after, counts=counts)


def _seen(file: Path) -> tuple[int, int]:
    """What changes where a file is written to."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _report(
    layout: Layout, card: DatasetCard, before: Manifest, taken: Taken, *, changed: bool
) -> None:
    """Say and write what this run took; the snapshot itself remembers only what it appended."""
    after, counts = taken.manifest, taken.counts
    facts = {
        "parts": len(after.parts) - len(before.parts),
        **counts.model_dump(),
        "rows_taken_before": taken.rows_taken_before,
    }
    write_json(layout.report("snapshot"), facts)
    logger.info(
        "event=snapshot rows_in=%d rows=%d redelivered=%d redelivered_changed=%d late=%d",
        counts.rows_in,
        counts.rows,
        counts.redelivered,
        counts.redelivered_changed,
        counts.late,
    )
    logger.info(
        "event=snapshot dataset=%s parts=%d rows=%d watermark=%s changed=%s",
        card.name,
        len(after.parts),
        sum(part.rows for part in after.parts),
        after.watermark,
        changed,
    )


if __name__ == "__main__":
    main(run)
