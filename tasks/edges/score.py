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

from recsys_core.artifacts import sha256, write_json
from recsys_core.data.events import Events
from recsys_core.data.fields import FieldEncoding
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.models.requests import asked_early
from recsys_core.sections import Score
from recsys_core.serving.bundle import Bundle, read_bundle
from recsys_core.serving.engine import ScoringEngine
from recsys_core.serving.registry import champion
from recsys_core.serving.shards import RunFacts, RunFolder, recommendation_rows
from recsys_core.serving.shortfall import Shortfall
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, read_events, read_table
from tasks.audience import Audience, audience_of
from tasks.clock import asks_for_clock, check_clock, clock_of
from tasks.code import RUNNING, code_digest
from tasks.fields import field_files, with_fields_of
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, score: Score) -> None:
    """Write the rows of everybody who gets any as one run, which publishing then finds whole."""
    now = champion(layout.registry)
    if now is None:
        raise ContractError(f"{layout.registry} has no champion; run the register edge first")
    if asks_for_clock(score):
        check_clock(clock_of(layout), score=score)
    bundle = read_bundle(now.bundle)
    log = with_fields_of(layout, bundle.fields, read_events(layout.events))
    check_vocabulary(bundle, layout.item_vocabulary)
    audience = audience_of(
        layout,
        score,
        bundle,
        log=log,
        events=with_items_of(bundle, log, layout.item_vocabulary),
        users=Vocabulary.from_table(read_table(layout.user_vocabulary, USER_VOCABULARY)),
        item_ids=Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY)).ids,
    )
    engine = ScoringEngine(bundle, graph=now.graph, threads=threads())
    facts = RunFacts(
        model_version=now.version,
        graph=now.graph,
        as_of=audience.as_of,
        k=score.k,
        seen_filter=audience.seen_filter,
        shard_users=score.shard_users,
        users=len(audience.recipients.ids),
        log=log_digest(layout, bundle.fields),
        code=code_digest("edges.score", root=RUNNING),
        provider=engine.provider,
        filters=audience.digest(),
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
        score_shards(engine, folder, audience, events=len(log))
    whole = folder.finish()
    why = sum((audience.shortfall(rows) for rows in shards_of(facts)), Shortfall())
    report = {**audience.report, "rows": whole.rows, "shortfall": vars(why)}
    write_json(layout.report("score"), report)
    logger.info(
        "event=scored users=%d rows=%d shortfall=%d catalogue=%d filters=%d seen=%d",
        facts.users,
        whole.rows,
        whole.shortfall,
        why.catalogue,
        why.filters,
        why.seen,
    )


def score_shards(
    engine: ScoringEngine, folder: RunFolder, audience: Audience, *, events: int
) -> None:
    """Score the shards that are missing; the log has so many `events`."""
    facts, known, people = folder.facts, audience.known, audience.recipients
    user_idx = people.user_idx[people.user_idx > 0]
    history = np.diff(known.offsets)[user_idx]
    logger.info(
        "event=histories provider=%s events=%d unknown_item_events_left_out=%d "
        "users_without_known_events=%d users_asked_before_their_last_event=%d",
        engine.provider,
        events,
        events - len(known),
        int(np.count_nonzero(history == 0)),
        asked_early(facts.as_of, known, user_idx=user_idx, history=history),
    )
    started, done = time.perf_counter(), 0
    for number, rows in enumerate(shards_of(facts)):
        if number not in folder.missing():
            continue
        ids = people.ids[rows]
        table, shortfall = recommendation_rows(
            audience.scored(engine, rows), user_ids=ids, items=engine.bundle.items
        )
        folder.write(number, table, users=len(ids), shortfall=shortfall)
        done += len(ids)
        logger.info(
            "event=shard shard=%d/%d users=%d rows=%d shortfall=%d users_per_second=%.0f",
            number + 1,
            facts.n_shards,
            len(ids),
            table.num_rows,
            shortfall,
            done / (time.perf_counter() - started),
        )


def shards_of(facts: RunFacts) -> list[slice]:
    """The recipients of each shard, as places in their order."""
    size = facts.shard_users
    return [slice(first, first + size) for first in range(0, facts.users, size)]


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
