"""Slices of histories as padded batches."""

from dataclasses import replace

import numpy as np

from recsys_core.data.histories import (
    EVENT_NUMBERS,
    UNKNOWN,
    Histories,
    Read,
    RequestTimes,
    gather_histories,
)
from tests.serving_world import MINUTE, START, make_events

EVENTS = make_events([[4, 1, 4], [], [2, 4]])


def idx(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def gather(
    user_idx: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    *reads: Read,
    request: RequestTimes | None = None,
) -> Histories:
    return gather_histories(EVENTS, user_idx, start=start, stop=stop, reads=reads, request=request)


def test_slices_are_padded_on_the_right() -> None:
    batch = gather(idx(1, 3, 1), idx(1, 0, 0), idx(3, 1, 0))
    assert batch.items.tolist() == [[1, 4], [2, 0], [0, 0]]
    assert batch.length.tolist() == [2, 1, 0]
    assert batch.numbers.shape == (3, 2, len(EVENT_NUMBERS))
    assert not batch.numbers.any(), "nothing is read"


def test_a_gap_is_the_time_since_the_users_event_before_even_one_outside_the_slice() -> None:
    batch = gather(idx(1, 1, 3), idx(0, 2, 0), idx(3, 3, 2), "gap")
    assert batch.number("gap_seconds").tolist() == [
        [UNKNOWN, 60.0, 60.0],
        [60.0, 0.0, 0.0],
        [UNKNOWN, 60.0, 0.0],
    ]


def test_a_request_follows_each_event_and_the_last_one_is_what_is_asked() -> None:
    last = EVENTS.timestamp[EVENTS.offsets[idx(1, 1, 3)] + idx(2, 1, 0)]
    request = RequestTimes(
        last + idx(5, 2, -1) * MINUTE, opens_session=np.array([True, False, True])
    )
    read: tuple[Read, ...] = ("request", "session")
    arguments = (idx(1, 1, 3), idx(0, 0, 0), idx(3, 2, 1))
    batch = gather(*arguments, *read, request=request)
    assert batch.number("request_seconds").tolist() == [
        [60.0, 60.0, 300.0],
        [60.0, 120.0, 0.0],
        [0.0, 0.0, 0.0],  # never before the event
    ]
    assert batch.number("opens_session").tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    unknown = gather(*arguments, *read)
    assert unknown.number("request_seconds").tolist() == [
        [60.0, 60.0, UNKNOWN],
        [60.0, UNKNOWN, 0.0],
        [UNKNOWN, 0.0, 0.0],
    ]
    assert unknown.number("opens_session").tolist() == [
        [0, 0, UNKNOWN],
        [0, UNKNOWN, 0],
        [UNKNOWN, 0, 0],
    ]


def test_a_session_that_the_next_event_opens() -> None:
    starts = np.array([True, False, True, True, True])
    events = replace(EVENTS, session_start=starts)
    batch = gather_histories(events, idx(1, 3), start=idx(0, 0), stop=idx(3, 2), reads=("session",))
    assert batch.number("opens_session").tolist() == [[0, 1, UNKNOWN], [1, UNKNOWN, 0]]


def test_nothing_after_the_slice_is_looked_at() -> None:
    """Whatever follows: not a time, not a session, not even that there is something."""
    later = replace(
        EVENTS,
        timestamp=np.where(np.arange(5) == 2, START + 999 * MINUTE, EVENTS.timestamp),
        session_start=np.arange(5) == 2,
    )
    reads: tuple[Read, ...] = ("gap", "request", "session", "type", "value")
    ours, theirs = (
        gather_histories(log, idx(1), start=idx(0), stop=idx(2), reads=reads)
        for log in (EVENTS, later)
    )
    np.testing.assert_array_equal(ours.numbers, theirs.numbers)


def test_feedback_is_that_of_the_event() -> None:
    events = replace(
        EVENTS,
        event_type=np.array([0, 1, 1, 0, 2], dtype=np.int8),
        value=np.array([5.0, np.nan, 0.0, 1.0, np.nan], dtype=np.float32),
    )
    batch = gather_histories(
        events, idx(1, 3), start=idx(0, 0), stop=idx(3, 2), reads=("type", "value")
    )
    assert batch.number("event_type").tolist() == [[0, 1, 1], [0, 2, 0]]
    assert batch.number("value").tolist() == [[5, 0, 0], [1, 0, 0]]
    assert batch.number("has_value").tolist() == [[1, 0, 1], [1, 0, 0]]


def test_no_events_at_all_still_give_one_column() -> None:
    assert gather(idx(2), idx(0), idx(0), "gap", "request").items.tolist() == [[0]]
    assert gather(idx(), idx(), idx()).items.shape == (0, 1)
