"""Ragged histories: what is gathered, in which order, and what is the latest of each item."""

import numpy as np
import pytest

from recsys_core.models.baselines import fit_popularity, fit_transitions
from recsys_core.models.history_model import FromLastItem, blocks_of, gather_request_histories
from tests.event_rows import events_of, random_rows
from tests.history_batches import everything, gathered, histories_of, log_of_sets, scores_of

LOG = log_of_sets([4, 9, 4], [2, 7, 2, 5])


def test_the_first_events_of_each_user_in_the_order_of_time():
    batch = gathered(LOG, [2, 1, 2, 1], [3, 0, 4, 2])
    assert batch.offsets.tolist() == [0, 3, 3, 7, 9]
    assert batch.item_idx.tolist() == [2, 7, 2, 2, 7, 2, 5, 4, 9]
    assert batch.row.tolist() == [0, 0, 0, 2, 2, 2, 2, 3, 3]
    assert batch.age.tolist() == [2, 1, 0, 3, 2, 1, 0, 1, 0]
    assert batch.last_item.tolist() == [2, 0, 5, 9]


def test_a_limit_takes_the_latest_of_them():
    batch = gather_request_histories(
        LOG,
        np.array([2, 1]),
        history=np.array([3, 1]),
        request_time=np.array([8, 9]),
        limit=2,
    )
    assert batch.offsets.tolist() == [0, 2, 3]
    assert batch.item_idx.tolist() == [7, 2, 4]
    assert batch.timestamp.tolist() == [1, 2, 0]
    assert batch.request_time.tolist() == [8, 9]


@pytest.mark.parametrize("limit", [None, 3])
def test_gathering_is_slicing(limit):
    events = events_of(random_rows(300, users=20, items=9, end=1000))
    rng = np.random.default_rng(2)
    user = rng.integers(1, 21, 50)
    history = rng.integers(0, np.diff(events.offsets)[user] + 1)
    batch = gather_request_histories(
        events, user, history=history, request_time=np.zeros(50, dtype=np.int64), limit=limit
    )
    for which in range(50):
        first = events.offsets[user[which]]
        start = 0 if limit is None else max(0, history[which] - limit)
        expected = events.item_idx[first + start : first + history[which]]
        found = batch.item_idx[batch.offsets[which] : batch.offsets[which + 1]]
        assert found.tolist() == expected.tolist()


def test_of_each_item_the_latest_event_counts():
    batch = histories_of([4, 9, 4], [], [9])
    assert batch.latest_of_items.tolist() == [2, 1, 3]
    matrix = batch.item_matrix(9, batch.recency(1.0)).toarray()
    assert matrix[0, 4] == 1.0
    assert matrix[0, 9] == 0.5
    assert matrix[1].sum() == 0.0
    assert matrix[2, 9] == 1.0
    assert batch.item_matrix(9).toarray().sum(axis=1).tolist() == [2.0, 0.0, 1.0]


def test_a_batch_without_any_event():
    batch = histories_of([], [])
    assert batch.item_matrix(3).toarray().tolist() == [[0.0] * 4] * 2
    assert batch.last_item.tolist() == [0, 0]
    assert histories_of().item_matrix(3).shape == (0, 4)


def test_a_model_of_the_last_item_reads_the_last_item():
    events = log_of_sets([1, 2, 1, 2], [3, 1])
    popularity = fit_popularity(events, everything(events), n_items=3)
    model = fit_transitions(events, everything(events), backoff=popularity, since=None)
    found = scores_of(FromLastItem(model), histories_of([3, 1], [], [2]))
    room = np.empty((3, 4), dtype=np.float32)
    direct = model.scores(np.array([1, 0, 2], dtype=np.int32), out=room)
    np.testing.assert_array_equal(found, direct[:, 1:])


def test_blocks_hold_what_was_allowed_or_one_row():
    assert blocks_of(np.array([3, 3, 9, 1, 1]), most=6) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert blocks_of(np.array([0, 0, 0]), most=6) == [slice(0, 3)]
    assert blocks_of(np.array([], dtype=np.int64), most=6) == []
