"""Targets: which events are asked for, and what may be read before each."""

from dataclasses import replace

import numpy as np

from recsys_core.evaluation.targets import (
    Targets,
    events_in_period,
    request_times,
    targets_of,
)
from recsys_core.models.requests import known_events
from tests.event_rows import events_of, period_of, random_rows


def test_position_history_and_last_item_of_one_user():
    # items 4, 9, 2 before the period; 2 and 4 in it; the model knows items up to 4
    events = events_of([(7, 4, 0), (7, 9, 1), (7, 2, 2), (7, 2, 10), (7, 4, 11)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=4), n_items=4)
    assert targets.user_idx.tolist() == [7, 7]
    assert targets.position.tolist() == [3, 4]
    assert targets.history.tolist() == [2, 3]
    assert targets.item_idx.tolist() == [2, 4]
    assert targets.last_item.tolist() == [2, 2]
    assert targets.source_row.tolist() == [3, 4]
    assert targets.timestamp.tolist() == [10, 11]


def test_start_is_inclusive_and_end_exclusive():
    events = events_of([(1, 1, 0), (1, 1, 9), (1, 1, 10), (1, 1, 19), (1, 1, 20)])
    assert targets_of(
        "successive", events, period_of(events, 10, 20, n_items=1), n_items=1
    ).timestamp.tolist() == [10, 19]


def test_a_first_event_is_no_target_and_an_unknown_earlier_one_suffices():
    events = events_of([(1, 9, 10), (1, 3, 11), (2, 3, 12), (2, 3, 13)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=4), n_items=4)
    assert targets.timestamp.tolist() == [11, 13]
    assert targets.position.tolist() == [1, 1]
    assert targets.history.tolist() == [0, 1]
    assert targets.last_item.tolist() == [0, 3]


def test_the_last_item_is_never_that_of_the_user_before():
    events = events_of([(1, 3, 0), (2, 9, 1), (2, 3, 2)])
    targets = targets_of("successive", events, period_of(events, 0, 9, n_items=4), n_items=4)
    assert targets.user_idx.tolist() == [2]
    assert targets.last_item.tolist() == [0]


def test_equal_times_follow_the_order_of_rows():
    events = events_of([(1, 1, 5), (1, 2, 5), (1, 3, 5)])
    targets = targets_of("successive", events, period_of(events, 5, 6, n_items=3), n_items=3)
    assert targets.item_idx.tolist() == [2, 3]
    assert targets.last_item.tolist() == [1, 2]


def test_a_period_without_events_has_no_targets():
    events = events_of([(1, 1, 0), (1, 2, 1)])
    assert len(targets_of("successive", events, period_of(events, 5, 9, n_items=3), n_items=3)) == 0


def test_against_counting_one_by_one():
    rows = random_rows(600, users=40, items=30, end=1000)
    events = events_of(rows)
    n_items, start, end = 18, 600, 900
    histories: dict[int, list[int]] = {}
    expected = []
    for source_row, (user, item, time) in enumerate(rows):
        history = histories.setdefault(user, [])
        known = [earlier for earlier in history if earlier <= n_items]
        if start <= time < end and history:
            last = known[-1] if known else 0
            expected.append((user, len(history), len(known), item, time, source_row, last))
        history.append(item)
    targets = targets_of(
        "successive", events, period_of(events, start, end, n_items=n_items), n_items=n_items
    )
    found = zip(*(getattr(targets, name).tolist() for name in vars(targets)), strict=True)
    assert sorted(found) == sorted(expected)
    assert len(expected) > 100


def test_targets_and_first_events_are_all_events_of_the_period():
    events = events_of(random_rows(300, users=60, items=5, end=1000))
    targets = targets_of("successive", events, period_of(events, 500, 800, n_items=5), n_items=5)
    first = events.timestamp[events.offsets[1:-1][np.diff(events.offsets[1:]) > 0]]
    first_in_period = np.count_nonzero((first >= 500) & (first < 800))
    assert (
        events_in_period(events, period_of(events, 500, 800, n_items=5))
        == len(targets) + first_in_period
    )
    assert first_in_period > 0


def test_take_keeps_the_columns_together():
    events = events_of(random_rows(50, users=5, items=5, end=100))
    targets = targets_of("successive", events, period_of(events, 0, 100, n_items=5), n_items=5)
    some = targets.take(targets.item_idx == 2)
    assert isinstance(some, Targets)
    assert some.source_row.tolist() == targets.source_row[targets.item_idx == 2].tolist()
    assert targets.take(slice(3, 5)).position.tolist() == targets.position[3:5].tolist()


def test_a_request_opens_a_session_where_nothing_known_of_it_lies_before() -> None:
    """As a model sees it, whose history has known items alone; the rest nobody can read."""
    events = events_of(
        [(1, 1, 0), (1, 2, 1), (1, 9, 10), (1, 3, 11), (1, 4, 12), (2, 9, 13), (2, 5, 14)]
    )
    session_idx = np.array([1, 1, 3, 3, 3, 6, 6])
    events = replace(
        events, session_idx=session_idx, session_start=np.diff(session_idx, prepend=0) > 0
    )
    targets = targets_of("successive", events, period_of(events, 0, 20, n_items=8), n_items=8)
    request = request_times(events, targets, n_items=8)
    np.testing.assert_array_equal(request.timestamp, targets.timestamp)
    assert targets.item_idx.tolist() == [2, 9, 3, 4, 5]
    assert request.opens_session.tolist() == [False, True, True, False, True]
    history = known_events(events, 8)
    assert history.item_idx.tolist() == [1, 2, 3, 4, 5]
    assert history.session_start.tolist() == [True, False, True, False, True]
