"""What of a log the neighbour methods read."""

import numpy as np
import pytest

from recsys_core.models.user_items import known_rows, strongest, strongest_of_rows, user_items
from tests.event_rows import events_of, random_rows
from tests.history_batches import everything, log_of_sets

LOG = log_of_sets([1, 4, 1, 2], [3, 3, 5])


def test_known_events_of_known_items():
    counts = np.array([0, 3, 3])
    assert known_rows(LOG, counts, n_items=4, latest=None).tolist() == [0, 1, 2, 4, 5]
    # of these the latest two of each user
    assert known_rows(LOG, counts, n_items=4, latest=2).tolist() == [1, 2, 4, 5]
    assert known_rows(LOG, np.zeros(3, dtype=np.int64), n_items=4, latest=2).tolist() == []


def test_an_item_had_twice_is_had():
    matrix = user_items(LOG, everything(LOG), n_items=4, latest=None).toarray()
    assert matrix.tolist() == [[0] * 5, [0, 1, 1, 0, 1], [0, 0, 0, 1, 0]]


@pytest.mark.parametrize("n", [1, 3, 7, 20])
def test_the_strongest_are_the_first_of_a_stable_sort(n):
    value = np.random.default_rng(3).integers(0, 4, 12).astype(np.float32)
    assert strongest(value, n).tolist() == np.argsort(-value, kind="stable")[:n].tolist()


def test_the_strongest_of_each_row():
    events = events_of(random_rows(200, users=12, items=15, end=100))
    x = user_items(events, everything(events), n_items=15, latest=None)
    together = (x.T @ x).tocsr()
    found = strongest_of_rows(together, 4).toarray()
    dense = together.toarray()
    for row in range(16):
        stored = np.flatnonzero(dense[row])
        kept = stored[np.argsort(-dense[row, stored], kind="stable")[:4]]
        assert np.flatnonzero(found[row]).tolist() == sorted(kept.tolist())
        assert found[row].sum() == dense[row, kept].sum()
