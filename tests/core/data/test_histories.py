"""Slices of histories as padded batches."""

import numpy as np

from recsys_core.data.histories import NO_GAP, gather_histories
from tests.serving_world import make_events

EVENTS = make_events([[4, 1, 4], [], [2, 4]])


def idx(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_slices_are_padded_on_the_right() -> None:
    batch = gather_histories(EVENTS, idx(1, 3, 1), start=idx(1, 0, 0), stop=idx(3, 1, 0))
    assert batch.items.tolist() == [[1, 4], [2, 0], [0, 0]]
    assert batch.length.tolist() == [2, 1, 0]


def test_a_gap_is_the_time_since_the_users_event_before_even_one_outside_the_slice() -> None:
    batch = gather_histories(EVENTS, idx(1, 1, 3), start=idx(0, 2, 0), stop=idx(3, 3, 2))
    assert batch.gap_seconds.tolist() == [
        [NO_GAP, 60.0, 60.0],
        [60.0, 0.0, 0.0],
        [NO_GAP, 60.0, 0.0],
    ]


def test_no_events_at_all_still_give_one_column() -> None:
    batch = gather_histories(EVENTS, idx(2), start=idx(0), stop=idx(0))
    assert batch.items.tolist() == [[0]]
    assert gather_histories(EVENTS, idx(), start=idx(), stop=idx()).items.shape == (0, 1)
