"""Brings a log in: from the dataset card's source to the tables of interactions and features."""

import logging
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from recsys_core.artifacts import write_json
from recsys_core.columns import ITEM_ID, USER_ID
from recsys_core.data.card_parts import FilesSource, SimulatorSource
from recsys_core.data.cards import DatasetCard, read_card, write_resolved_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.ingestion import id_column, ingest_features, ingest_interactions
from recsys_core.data.log_facts import log_facts
from recsys_core.data.oracle import write_oracle
from recsys_core.data.simulator import simulate
from recsys_core.data.snapshot_manifest import snapshot_files
from recsys_core.data.sources import Source, open_file, open_files, open_log, open_table
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Ingest
from tasks.step import main

logger = logging.getLogger(__name__)

MEMORY_MB = 1024
"""Rows stream through: only the largest row group of a Parquet file has to fit."""


def run(*, layout: Layout, ingest: Ingest) -> None:
    card_path, folder = layout.card(ingest.dataset), layout.root / ingest.path
    card = read_card(card_path)
    if card.name != ingest.dataset:
        raise ConfigError(f"{card_path}: name is {card.name!r}, it must be {ingest.dataset!r}")
    if folder.is_file():
        raise ConfigError(f"{folder}: a file; ingest.path names the folder that it lies in")
    if folder.resolve().is_relative_to(layout.stage("ingest").resolve()):
        raise ConfigError(
            f"ingest.path is {ingest.path!r}, which this stage empties before it writes there; "
            "move the log out of `artifacts`"
        )
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; ingest.path names the folder with the log")
    out = layout.stage("ingest")
    shutil.rmtree(out, ignore_errors=True)  # another card may have had features or an oracle
    with open_duckdb(out.parent, memory_mb=MEMORY_MB) as connection:
        log, items, users, parts = _open(connection, card, folder, layout)
        write_json(
            layout.declared_features,
            card.model_dump(mode="json", include={"item_features", "user_features", "context"}),
        )
        report = ingest_interactions(connection, log, card=card, path=layout.interactions)
        if items is not None and card.item_features:
            report["item_features"] = ingest_features(
                connection,
                items,
                key=id_column(items, card.columns.item_id, name=ITEM_ID),
                features=card.item_features,
                time=card.time,
                path=layout.item_features,
            )
        if users is not None and card.user_features:
            report["user_features"] = ingest_features(
                connection,
                users,
                key=id_column(users, card.columns.user_id, name=USER_ID),
                features=card.user_features,
                time=card.time,
                path=layout.user_features,
            )
        report |= _describe(connection, layout.interactions)
    write_resolved_card(layout.resolved_card, card)
    write_json(layout.parts, {**parts, "unit_hint": report.get("unit_hint")})
    write_json(layout.report("ingest"), {"dataset": card.name, "files": len(log.files), **report})
    logger.info("ingest dataset=%s rows=%s", card.name, report["rows_out"])


def _open(
    connection: duckdb.DuckDBPyConnection, card: DatasetCard, folder: Path, layout: Layout
) -> tuple[Source, Source | None, Source | None, dict[str, Any]]:
    """The log, the items and the users of a card's source, and of the log's parts the rows at which
    they begin and the days on which a snapshot took them; simulated ones are drawn here."""
    whole = {"first_rows": [0], "taken": None}
    source = card.source
    if card.snapshot is not None:
        manifest, parts, tables = snapshot_files(folder)
        described = [
            open_file(connection, tables[name]) if name in tables else None
            for name in ("items", "users")
        ]
        log = open_files(connection, parts, name=str(folder))
        taken = [part.taken.isoformat() for part in manifest.parts_with_rows]
        return log, described[0], described[1], {"first_rows": manifest.first_rows, "taken": taken}
    if isinstance(source, SimulatorSource):
        simulated = simulate(source, words=folder)
        write_oracle(layout.oracle, simulated.oracle)
        return (
            open_table(connection, simulated.interactions, name="simulated log"),
            open_table(connection, simulated.items, name="simulated items"),
            open_table(connection, simulated.users, name="simulated users"),
            whole,
        )
    if not isinstance(source, FilesSource):
        raise ConfigError(f"card {card.name}: a source of kind {source.kind} needs a snapshot")
    besides = [folder / name for name in (source.items, source.users) if name is not None]
    items = None if source.items is None else open_file(connection, folder / source.items)
    users = None if source.users is None else open_file(connection, folder / source.users)
    log = open_log(connection, folder / source.interactions, besides=besides)
    return log, items, users, whole


def _describe(connection: duckdb.DuckDBPyConnection, interactions: Path) -> dict[str, Any]:
    """Distinct ids and the span of time, as they came."""
    facts = log_facts(connection, interactions)
    return {
        "users": facts.users,
        "items": facts.items,
        "first_timestamp": _iso(facts.first),
        "last_timestamp": _iso(facts.last),
    }


def _iso(timestamp: int | None) -> str | None:
    """Microseconds since 1970 as a date and time."""
    if timestamp is None:
        return None
    moment = datetime(1970, 1, 1) + timedelta(microseconds=timestamp)  # noqa: DTZ001 (UTC)
    return f"{moment.isoformat(timespec='microseconds')}Z"


if __name__ == "__main__":
    main(run)
