"""Removes a person from what a workspace keeps of people, and says where it cannot."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.artifacts import MANIFEST, atomic_path
from recsys_core.columns import USER_ID
from recsys_core.config import read_params
from recsys_core.data.card_parts import PostgresSource, SimulatorSource
from recsys_core.data.cards import DatasetCard, read_card
from recsys_core.data.snapshot_forget import forget_in_snapshot
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Ingest, Snapshot
from tasks.tables import every_table


def forget(layout: Layout, user_id: str) -> Iterator[str]:
    """Remove a person from snapshot, quarantine, tables, scores and carried states; yields a line
    for each, once it is done, and then what is left elsewhere.

    The log goes first: whoever is cut off asks again, and what is gone already is no harm.
    """
    params = read_params(layout.params)
    card = read_card(layout.card(params.ingest.dataset))
    yield from _from_snapshot(layout, card, params.ingest, user_id)
    yield f"quarantine: {_from_quarantine(layout.quarantine, user_id)} rows removed"
    tables = every_table(layout)
    for table in tables:
        yield f"{table.place}: {table.forget(user_id)} rows of kept runs removed"
    yield f"scores: {_from_scores(layout.scores, user_id)} rows, removed with all scored shards"
    if layout.states.exists():
        shutil.rmtree(layout.states)
        yield "states: removed for everybody; the next scoring run makes them anew"
    yield "not removed:"
    yield from _left(layout, card, params.ingest, params.snapshot)


def _from_snapshot(
    layout: Layout, card: DatasetCard, ingest: Ingest, user_id: str
) -> Iterator[str]:
    folder = layout.root / ingest.path
    if card.snapshot is None or not (folder / MANIFEST).exists():
        return
    removed = forget_in_snapshot(folder, user_id, user_column=card.columns.user_id)
    yield (
        f"snapshot {folder}: {removed.interactions} rows of the log removed, "
        f"{removed.users} of the table of users"
    )


def _from_quarantine(path: Path, user_id: str) -> int:
    """Write the quarantine anew without a person; returns how many rows it lost."""
    if not path.exists():
        return 0
    table = pq.read_table(path, partitioning=None)
    theirs = pc.fill_null(pc.equal(table.column(USER_ID), user_id), False)
    gone = int(pc.sum(theirs).as_py() or 0)
    if gone:
        with atomic_path(path) as temporary:
            pq.write_table(table.filter(pc.invert(theirs)), temporary)
    return gone


def _from_scores(folder: Path, user_id: str) -> int:
    """Remove the shards of scoring runs, which a run makes anew; returns a person's rows there."""
    if not folder.exists():
        return 0
    rows = 0
    for part in sorted(folder.rglob("*.parquet")):
        column = pq.read_table(part, columns=[USER_ID], partitioning=None).column(0)
        rows += int(pc.sum(pc.equal(column, user_id)).as_py() or 0)
    shutil.rmtree(folder)
    return rows


def _left(layout: Layout, card: DatasetCard, ingest: Ingest, snapshot: Snapshot) -> Iterator[str]:
    """Where a person may still be, and what removes them there."""
    source = card.source
    if isinstance(source, PostgresSource):
        yield "  the database that the log comes from: remove them there, or their rows come again"
    elif not isinstance(source, SimulatorSource):
        path = ingest.path if snapshot.path is None or card.snapshot is None else snapshot.path
        place = (layout.root / path).resolve()
        yield f"  the log's own files in {place}: remove them there, or their rows come again"
    yield "  artifacts/ and reports/: the next `twotempo run` makes them anew; until then"
    yield "    `twotempo score` with other settings would recommend to them again"
    yield "  the models in artifacts/ and registry/, which have learned from them: train anew"
    yield "  DVC's cache and its remotes: `dvc gc` removes what no workspace uses any more"
    if (layout.root / "origins").exists():
        yield "  origins/ of a backtest: whole workspaces; run the backtest anew"
    if any(table.place.startswith("PostgreSQL") for table in every_table(layout)):
        yield "  backups, replicas and the write-ahead log of PostgreSQL"
    yield "  copies that readers of the table have made"
