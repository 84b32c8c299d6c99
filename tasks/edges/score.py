"""Scores every user with the champion, shard by shard; a stopped run goes on where it stopped."""

import hashlib
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from recsys_core.artifacts import read_json, sha256
from recsys_core.data.events import Events
from recsys_core.data.fields import FieldEncoding
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError, DataError
from recsys_core.layout import Layout
from recsys_core.models.requests import asked_early, known_events
from recsys_core.sections import Score
from recsys_core.serving.bundle import Bundle, read_bundle
from recsys_core.serving.engine import ScoringEngine
from recsys_core.serving.registry import champion
from recsys_core.serving.shards import RunFacts, RunFolder, recommendation_rows
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, read_events, read_table
from tasks.code import RUNNING, code_digest
from tasks.fields import field_files, with_fields_of
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, score: Score) -> None:
    """Write the scores of all users with an event as one run, which publishing then finds whole."""
    now = champion(layout.registry)
    if now is None:
        raise ContractError(f"{layout.registry} has no champion; run the register edge first")
    bundle = read_bundle(now.bundle)
    events = with_fields_of(layout, bundle.fields, read_events(layout.events))
    users = Vocabulary.from_table(read_table(layout.user_vocabulary, USER_VOCABULARY))
    check_vocabulary(bundle, layout.item_vocabulary)
    user_idx = users_to_score(events, users)
    events = with_items_of(bundle, events, layout.item_vocabulary)
    engine = ScoringEngine(bundle, graph=now.graph, threads=threads())
    facts = RunFacts(
        model_version=now.version,
        graph=now.graph,
        as_of=Split(**read_json(layout.split)).as_of,
        k=score.k,
        seen_filter=score.seen_filter,
        shard_users=score.shard_users,
        users=len(user_idx),
        log=log_digest(layout, bundle.fields),
        code=code_digest("edges.score", root=RUNNING),
        provider=engine.provider,
    )
    folder = RunFolder(layout.scores, facts)
    missing = folder.missing()
    logger.info(
        "event=score model_version=%s graph=%s as_of=%s users=%d shards=%d already_whole=%d",
        now.version,
        now.graph,
        facts.as_of,
        facts.users,
        facts.n_shards,
        facts.n_shards - len(missing),
    )
    if missing:
        score_shards(engine, folder, events=events, users=users, user_idx=user_idx)
    whole = folder.finish()
    logger.info(
        "event=scored users=%d rows=%d shortfall=%d", facts.users, whole.rows, whole.shortfall
    )


def score_shards(
    engine: ScoringEngine,
    folder: RunFolder,
    *,
    events: Events,
    users: Vocabulary,
    user_idx: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    """Score the shards that are missing; `user_idx` is in the order of the users' ids."""
    facts = folder.facts
    known = known_events(events, engine.bundle.spec.n_items)
    history = np.diff(known.offsets)[user_idx]
    logger.info(
        "event=histories provider=%s events=%d unknown_item_events_left_out=%d "
        "users_without_known_events=%d users_asked_before_their_last_event=%d",
        engine.provider,
        len(events),
        len(events) - len(known),
        int(np.count_nonzero(history == 0)),
        asked_early(facts.as_of, known, user_idx=user_idx, history=history),
    )
    started, done = time.perf_counter(), 0
    for number in folder.missing():
        rows = user_idx[number * facts.shard_users : (number + 1) * facts.shard_users]
        top = engine.top_items(
            known, rows, k=facts.k, seen_filter=facts.seen_filter, as_of=facts.as_of
        )
        table, shortfall = recommendation_rows(
            top, user_ids=users.to_ids(rows), items=engine.bundle.items
        )
        folder.write(number, table, users=len(rows), shortfall=shortfall)
        done += len(rows)
        logger.info(
            "event=shard shard=%d/%d users=%d rows=%d shortfall=%d users_per_second=%.0f",
            number + 1,
            facts.n_shards,
            len(rows),
            table.num_rows,
            shortfall,
            done / (time.perf_counter() - started),
        )


def users_to_score(events: Events, users: Vocabulary) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The idx of every user with an event, in the order of their ids (as bytes). (U,)"""
    user_idx = np.flatnonzero(np.diff(events.offsets))
    if len(user_idx) == 0:
        raise DataError(
            "no user has an event: there is nobody to score; look at the reports of validate "
            "and sessionize"
        )
    order = pc.sort_indices(users.to_ids(user_idx)).to_numpy()
    ordered: np.ndarray[tuple[int], np.dtype[np.int64]] = user_idx[order]
    return ordered


def check_vocabulary(bundle: Bundle, item_vocabulary: Path) -> None:
    """Raise `ContractError` unless the champion's items are the first of the log's."""
    items = Vocabulary.from_table(read_table(item_vocabulary, ITEM_VOCABULARY))
    known = bundle.logged_items
    if not items.ids.slice(0, known).equals(bundle.items.ids.slice(0, known)):
        raise ContractError(
            f"{item_vocabulary}: its first {known} items are not those of champion "
            f"{bundle.folder.parent.name}: the log was "
            "rewritten since; train, export and register again, or use a workspace of its "
            "own for another log"
        )


def with_items_of(bundle: Bundle, events: Events, item_vocabulary: Path) -> Events:
    """The events with the items that the bundle knows by other numbers than the log numbered as
    there, and those that it does not know behind all others."""
    if not bundle.new_items:
        return events
    items = Vocabulary.from_table(read_table(item_vocabulary, ITEM_VOCABULARY))
    first = bundle.logged_items
    place = pc.index_in(items.ids.slice(first), value_set=bundle.items.ids.slice(first))
    number = first + 1 + place.fill_null(bundle.new_items).to_numpy()
    of_log = np.concatenate([np.arange(first + 1), number]).astype(np.int32)  # (V + 1,)
    return replace(events, item_idx=of_log[events.item_idx])


def log_digest(layout: Layout, fields: FieldEncoding | None) -> str:
    """A SHA-256 of all that a score may depend on of who has which events of what when, and of the
    `fields` of both; a late row changes it, though not `as_of`."""
    names = ("offsets", "item_idx", "timestamp", "session_start", "event_type", "value")
    files = [
        layout.user_vocabulary,
        layout.item_vocabulary,
        *(layout.events / f"{name}.npy" for name in names),
    ]
    files += [] if fields is None else field_files(layout, fields.kinds)
    return hashlib.sha256("/".join(sha256(file) for file in files).encode()).hexdigest()


def threads() -> int:
    """The CPUs that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(run)
