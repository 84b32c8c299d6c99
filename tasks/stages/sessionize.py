"""Places valid interactions in sessions: vocabularies, event columns, the times of the split."""

import logging
import shutil
from dataclasses import asdict

import numpy as np

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cards import read_resolved_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.sessions import load_log, write_event_columns, write_vocabularies
from recsys_core.data.splits import split_by_time
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.layout import Layout
from recsys_core.sections import Sessionize, SplitParams
from recsys_core.tables import ITEM_VOCABULARY, read_events, read_table
from tasks.clock import check_clock
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, split: SplitParams, sessionize: Sessionize) -> None:
    card = read_resolved_card(layout.resolved_card)
    check_clock(card.time.kind, split=split)
    first_rows = read_json(layout.parts)["first_rows"]
    shutil.rmtree(layout.stage("sessionize"), ignore_errors=True)  # a killed run left pieces
    with open_duckdb(
        layout.stage("sessionize").parent, memory_mb=sessionize.memory_mb, insertion_order=False
    ) as connection:
        counts = load_log(connection, layout.valid_interactions, card=card, first_rows=first_rows)
        write_vocabularies(connection, items=layout.item_vocabulary, users=layout.user_vocabulary)
        sessions = write_event_columns(connection, layout.events, card=card, events=counts.events)
    write_json(layout.time_kind, {"kind": card.time.kind})
    write_json(layout.event_types, {"names": card.kept_types, "weights": card.type_weights})
    events = read_events(layout.events)
    cuts = split_by_time(events.timestamp, split, cut_off=card.cut_off_microseconds)
    write_json(layout.split, cuts.to_json())
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    before_valid = int(np.count_nonzero(events.timestamp < cuts.valid_start))
    before_test = int(np.count_nonzero(events.timestamp < cuts.test_start))
    report = {
        **asdict(counts),
        "users": events.n_users,
        "items": len(items),
        "sessions": sessions,
        "split": cuts.to_json(),
        "events_per_part": {
            "train": before_valid,
            "validation": before_test - before_valid,
            "test": len(events) - before_test,
        },
        "items_known": {
            "valid_start": items.known_before(cuts.valid_start),
            "test_start": items.known_before(cuts.test_start),
            "end": items.known_before(cuts.end),
        },
    }
    write_json(layout.report("sessionize"), report)
    logger.info(
        "sessionize rows_in=%d cut=%d dropped_types=%d events=%d users=%d items=%d sessions=%d",
        *asdict(counts).values(),
        events.n_users,
        len(items),
        sessions,
    )


if __name__ == "__main__":
    main(run)
