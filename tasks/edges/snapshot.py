"""Takes what was delivered since the last time, files or a query's rows, into the snapshot that
ingest reads."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from recsys_core.artifacts import sha256
from recsys_core.data.card_parts import FilesSource, PostgresSource
from recsys_core.data.card_parts import Snapshot as SnapshotRules
from recsys_core.data.cards import DatasetCard, read_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.snapshot_manifest import Manifest, held, opened_manifest, write_manifest
from recsys_core.data.snapshots import Delivery, append_part, replace_table
from recsys_core.data.sources import log_files, open_file, open_files
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections import Ingest, Snapshot
from tasks.postgres import copy_out
from tasks.settings import read_settings
from tasks.step import main

logger = logging.getLogger(__name__)

MEMORY_MB = 1024


def run(*, layout: Layout, ingest: Ingest, snapshot: Snapshot) -> None:
    """Bring the snapshot in `ingest.path` up to date; where nothing is new, no byte changes."""
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
                after = _take_files(connection, card, source, rules, folder, delivered, before)
            elif isinstance(source, PostgresSource):
                after = _take_query(connection, card, source, rules, folder, work, before)
            else:
                raise ConfigError(f"card {card.name}: a simulated log needs no snapshot")
        changed = write_manifest(folder, after, before=before)
    _report(card, before, after, changed=changed)


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
    manifest: Manifest,
) -> Manifest:
    tables = {"items": source.items, "users": source.users}
    besides = [delivered / name for name in tables.values() if name is not None]
    files = log_files(delivered / source.interactions, besides=besides)
    seen = {file: _seen(file) for file in files}
    digests = {file: sha256(file) for file in files}
    known = [file for file in files if digests[file] in manifest.files]
    if known:
        rows = sum(manifest.files[digests[file]].rows for file in known)
        logger.info("event=snapshot taken_before=%d rows_redelivered=%d", len(known), rows)
    new = [file for file in files if file not in known]
    if new:
        deliveries = [
            Delivery(
                name=file.name,
                source=open_files(connection, [file], name=str(file)),
                sha256=digests[file],
            )
            for file in new
        ]
        manifest = append_part(
            connection,
            deliveries,
            folder=folder,
            manifest=manifest,
            card=card,
            row_key=rules.row_key,
            now=datetime.now(UTC),
        )
        for file in new:
            if _seen(file) != seen[file]:
                raise DataError(
                    f"{file}: it changed while it was read; deliver a file whole, by renaming it"
                )
    if source.items is not None:
        items = open_file(connection, delivered / source.items)
        manifest = replace_table(connection, items, name="items", folder=folder, manifest=manifest)
    if source.users is not None:
        users = open_file(connection, delivered / source.users)
        manifest = replace_table(connection, users, name="users", folder=folder, manifest=manifest)
    return manifest


def _take_query(
    connection: duckdb.DuckDBPyConnection,
    card: DatasetCard,
    source: PostgresSource,
    rules: SnapshotRules,
    folder: Path,
    work: Path,
    manifest: Manifest,
) -> Manifest:
    answer = copy_out(
        read_settings().source_dsn, source, rules=rules, since=manifest.watermark, folder=work
    )
    rows = open_files(
        connection, [answer.interactions], name="source.interactions", empty_texts=True
    )
    after = append_part(
        connection,
        [Delivery(name="source.interactions", source=rows, sha256=None)],
        folder=folder,
        manifest=manifest,
        card=card,
        row_key=rules.row_key,
        now=datetime.now(UTC),
    )
    if after != manifest:
        # it moves only with rows: otherwise a run with nothing new would change the manifest
        after = after.model_copy(update={"watermark": answer.watermark})
    if answer.items is not None:
        items = open_files(connection, [answer.items], name="source.items", empty_texts=True)
        after = replace_table(connection, items, name="items", folder=folder, manifest=after)
    if answer.users is not None:
        users = open_files(connection, [answer.users], name="source.users", empty_texts=True)
        after = replace_table(connection, users, name="users", folder=folder, manifest=after)
    return after


def _seen(file: Path) -> tuple[int, int]:
    """What changes where a file is written to."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _report(card: DatasetCard, before: Manifest, after: Manifest, *, changed: bool) -> None:
    for part in after.parts[len(before.parts) :]:
        logger.info(
            "event=snapshot part=%s rows_in=%d rows=%d redelivered=%d redelivered_changed=%d "
            "late=%d",
            part.name,
            part.rows_in,
            part.rows,
            part.redelivered,
            part.redelivered_changed,
            part.late,
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
