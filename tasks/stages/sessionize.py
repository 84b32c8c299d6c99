"""Places valid interactions in sessions: vocabularies, event columns, the times of the split."""

import logging
import shutil
from dataclasses import asdict

import numpy as np

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.card_parts import SimulatorSource
from recsys_core.data.cards import DatasetCard, read_resolved_card
from recsys_core.data.cuts import Period, cuts_of, events_per_part
from recsys_core.data.duck import open_duckdb
from recsys_core.data.sessions import load_log, write_event_columns, write_vocabularies
from recsys_core.data.splits import make_split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import FrameSplit, Sessionize, SplitParams
from recsys_core.tables import ITEM_VOCABULARY, read_events, read_table
from tasks.clock import Clock, check_clock
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, split: SplitParams, sessionize: Sessionize) -> None:
    card = read_resolved_card(layout.resolved_card)
    check_clock(Clock(card.time.kind, one_time=True), split=split)
    cut_off = _cut_off(card, split)
    first_rows = read_json(layout.parts)["first_rows"]
    if sessionize.ties == "last" and isinstance(card.source, SimulatorSource):
        raise ConfigError(
            "sessionize.ties is last, but the simulator's truth is known by the log's own order; "
            "set it to first"
        )
    shutil.rmtree(layout.stage("sessionize"), ignore_errors=True)  # a killed run left pieces
    with open_duckdb(
        layout.stage("sessionize").parent, memory_mb=sessionize.memory_mb, insertion_order=False
    ) as connection:
        counts = load_log(
            connection,
            layout.valid_interactions,
            card=card,
            cut_off=cut_off,
            first_rows=first_rows,
            ties=sessionize.ties,
        )
        write_vocabularies(connection, items=layout.item_vocabulary, users=layout.user_vocabulary)
        sessions = write_event_columns(connection, layout.events, card=card, events=counts.events)
    write_json(layout.time_kind, {"kind": card.time.kind})
    write_json(layout.session_gap, {"seconds": card.session_gap_seconds})
    write_json(layout.event_types, {"names": card.kept_types, "weights": card.type_weights})
    events = read_events(layout.events)
    cut_up = make_split(events, split, cut_off=cut_off)
    write_json(layout.split, cut_up.to_json())
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    cuts = cuts_of(events, cut_up, items)
    report = {
        **asdict(counts),
        "users": events.n_users,
        "items": len(items),
        "sessions": sessions,
        "split": cut_up.to_json(),
        "events_per_part": events_per_part(events, cut_up),
        "users_without_target": {
            "validation": _untouched(cuts.validation_period),
            "test": _untouched(cuts.test_period),
        },
        "items_known": {
            "valid_start": cuts.valid.n_items,
            "test_start": cuts.test.n_items,
            "end": cuts.end.n_items,
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


def _cut_off(card: DatasetCard, split: SplitParams) -> int | None:
    """Where the log ends: at the card's cut-off, or before it at the end of a frame."""
    ends = [card.cut_off_microseconds, split.end if isinstance(split, FrameSplit) else None]
    return min((end for end in ends if end is not None), default=None)


def _untouched(period: Period) -> int:
    """Users without an event in a period."""
    return int(np.count_nonzero((period.until.counts == period.before.counts)[1:]))


if __name__ == "__main__":
    main(run)
