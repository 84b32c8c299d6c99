"""The kinds of targets, each against a walk over the log, and a basket by hand."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.data.cuts import Period
from recsys_core.data.events import Events
from recsys_core.evaluation.targets import Targets, targets_of
from recsys_core.sections import TargetKind
from tests.core.data.test_cuts import LEAVE_ONE_OUT, LOO, cut_up
from tests.event_rows import events_of, period_of, random_rows

START, END, N_ITEMS = 600, 900, 18


def with_sessions(events: Events, seed: int = 4) -> Events:
    """Sessions that interleave: each event of a user is in one of four of theirs."""
    which = np.random.default_rng(seed).integers(0, 4, len(events))
    group = events.user_idx * 4 + which
    first = {number: int(events.source_row[group == number].min()) for number in np.unique(group)}
    return replace(events, session_idx=np.array([1 + first[number] for number in group]))


LOG = with_sessions(events_of(random_rows(600, users=40, items=30, end=1000)))


def walk(kind: TargetKind) -> list[tuple[int, int, int, int, int]]:
    """(user, position, history, item, source_row) of every target, one user after the other."""
    found = []
    for user in range(1, LOG.n_users + 1):
        rows = range(LOG.offsets[user], LOG.offsets[user + 1])
        inside = [row for row in rows if START <= LOG.timestamp[row] < END]
        first_of = {int(LOG.session_idx[row]): row for row in reversed(rows)}
        asked = [(row, row) for row in inside if row > rows[0]]
        if kind == "last":
            asked = asked[-1:]
        if kind == "session":
            asked = [
                (row, at)
                for row, at in asked
                if first_of[int(LOG.session_idx[row])] in inside
                and first_of[int(LOG.session_idx[row])] < row
            ]
        if kind == "basket":
            begins = [row for row in inside if first_of[int(LOG.session_idx[row])] == row][:1]
            asked, met = [], set()
            for row in inside if begins and begins[0] > rows[0] else []:
                item = int(LOG.item_idx[row])
                if LOG.session_idx[row] == LOG.session_idx[begins[0]] and item not in met:
                    met.add(item)
                    asked.append((row, begins[0]))
        for row, at in asked:
            history = [item for item in LOG.item_idx[rows[0] : at] if item <= N_ITEMS]
            item, source = int(LOG.item_idx[row]), int(LOG.source_row[row])
            found.append((user, at - rows[0], len(history), item, source))
    return found


@pytest.mark.parametrize("kind", ["successive", "last", "session", "basket"])
def test_against_a_walk_over_the_log(kind: TargetKind) -> None:
    period = period_of(LOG, START, END, n_items=N_ITEMS)
    targets = targets_of(kind, LOG, period, n_items=N_ITEMS)
    names = ("user_idx", "position", "history", "item_idx", "source_row")
    found = list(zip(*(getattr(targets, name).tolist() for name in names), strict=True))
    assert found == walk(kind)
    assert len(found) > 10


def test_a_basket_by_hand() -> None:
    # user 1: a session, then one of items 3, 2, 3 in the period, then another; user 2 is new
    rows = [(1, 1, 0), (1, 3, 10), (1, 2, 10), (1, 3, 11), (1, 4, 15), (2, 1, 12), (2, 2, 13)]
    sessions = np.array([1, 2, 2, 2, 5, 6, 6])
    events = replace(events_of(rows), session_idx=sessions)
    targets = targets_of("basket", events, period_of(events, 10, 20, n_items=3), n_items=3)
    assert targets.item_idx.tolist() == [3, 2]
    assert targets.position.tolist() == [1, 1]
    assert targets.history.tolist() == [1, 1]
    assert targets.last_item.tolist() == [1, 1]
    assert targets.timestamp.tolist() == [10, 10]
    assert targets.query.tolist() == [0, 0]


def test_a_session_from_before_the_period_has_no_targets_and_one_beyond_it_loses_none() -> None:
    rows = [(1, 1, 8), (1, 2, 11), (1, 3, 12), (1, 1, 13), (1, 2, 25)]
    events = replace(events_of(rows), session_idx=np.array([1, 1, 3, 3, 3]))
    targets = targets_of("session", events, period_of(events, 10, 20, n_items=3), n_items=3)
    assert targets.timestamp.tolist() == [13], "what lies behind the period is not asked for"


def test_leave_one_out_asks_for_the_last_event_of_whoever_has_two() -> None:
    cuts = cut_up(LOO, LEAVE_ONE_OUT)
    targets = targets_of("last", LOO, cuts.test_period, n_items=5)
    assert (targets.user_idx.tolist(), targets.item_idx.tolist()) == ([2, 3, 4], [2, 3, 5])
    assert targets.history.tolist() == [1, 2, 4]
    valid = targets_of("last", LOO, cuts.validation_period, n_items=5)
    assert (valid.user_idx.tolist(), valid.item_idx.tolist()) == ([3, 4], [2, 4])


@pytest.mark.parametrize("kind", ["successive", "last", "session", "basket"])
def test_a_period_without_events_has_no_targets(kind: TargetKind) -> None:
    period = period_of(LOG, 2_000, 3_000, n_items=N_ITEMS)
    found = targets_of(kind, LOG, period, n_items=N_ITEMS)
    assert isinstance(found, Targets)
    assert len(found) == len(found.query) == 0


@pytest.mark.parametrize("kind", ["successive", "last", "session", "basket"])
def test_what_lies_behind_the_period_changes_no_target(kind: TargetKind) -> None:
    period = period_of(LOG, START, END, n_items=N_ITEMS)
    before = LOG.where(LOG.timestamp < END)
    same = Period(period.before, period.until)
    here = targets_of(kind, LOG, period, n_items=N_ITEMS)
    there = targets_of(kind, before, same, n_items=N_ITEMS)
    for name in vars(here):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
