"""Event columns: users, positions and counts follow from the offsets."""

import numpy as np

from recsys_core.data.events import Events


def events_of(offsets: list[int], timestamp: list[int]) -> Events:
    n = len(timestamp)
    return Events(
        offsets=np.array(offsets, dtype=np.int64),
        item_idx=np.ones(n, dtype=np.int32),
        timestamp=np.array(timestamp, dtype=np.int64),
        session_idx=np.ones(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def test_users_and_positions_follow_from_offsets() -> None:
    events = events_of([0, 0, 3, 3, 5], [10, 20, 30, 10, 30])  # user 2 has no events
    assert len(events) == 5
    assert events.n_users == 3
    assert events.user_idx.tolist() == [1, 1, 1, 3, 3]
    assert events.position.tolist() == [0, 1, 2, 0, 1]


def test_counts_before_a_time_leave_out_that_time() -> None:
    events = events_of([0, 0, 3, 3, 5], [10, 20, 30, 10, 30])
    assert events.counts_before(30).tolist() == [0, 2, 0, 1]
    assert events.counts_before(31).tolist() == [0, 3, 0, 2]
    assert events.counts_before(10).tolist() == [0, 0, 0, 0]


def test_no_events() -> None:
    events = events_of([0, 0], [])
    assert len(events) == 0
    assert events.n_users == 0
    assert events.user_idx.tolist() == []
    assert events.counts_before(5).tolist() == [0]
