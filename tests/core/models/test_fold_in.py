"""Folding users in."""

import numpy as np
import pytest

from recsys_core.models import fold_in as module
from recsys_core.models.fold_in import FoldIn
from tests.serving_world import make_events, random_histories

RNG = np.random.default_rng(5)
ITEMS = RNG.normal(size=(41, 6)).astype(np.float32)
BIAS = RNG.normal(size=41).astype(np.float32)
EVENTS = make_events(random_histories([0, 1, 7, 30]))


def test_it_is_the_ridge_solution_of_its_docstring() -> None:
    fold_in = FoldIn.fit(ITEMS, BIAS, l2=0.7, limit=100)
    share = np.exp(BIAS[1:]) / np.exp(BIAS[1:]).sum()
    mean = share @ ITEMS[1:]
    covariance = (ITEMS[1:] - mean).T @ np.diag(share) @ (ITEMS[1:] - mean)
    users, counts = np.array([1, 2, 3, 4]), np.array([0, 1, 5, 30])
    got = fold_in.vectors(EVENTS, users, count=counts)
    for user, count, vector in zip(users, counts, got, strict=True):
        begin = EVENTS.offsets[user]
        centred = ITEMS[EVENTS.item_idx[begin : begin + count]] - mean
        expected = np.linalg.solve(count * covariance + 0.7 * np.eye(6), centred.sum(axis=0))
        np.testing.assert_allclose(vector, expected, rtol=2e-4, atol=1e-5)


def test_nobody_is_the_zero_vector() -> None:
    fold_in = FoldIn.fit(ITEMS, BIAS, l2=1.0, limit=100)
    assert not fold_in.vectors(EVENTS, np.array([1, 4]), count=np.array([0, 0])).any()


def test_only_the_latest_events_within_the_limit_count() -> None:
    long = FoldIn.fit(ITEMS, BIAS, l2=1.0, limit=4)
    last_four = make_events(
        [EVENTS.item_idx[EVENTS.offsets[4] + 16 : EVENTS.offsets[4] + 20].tolist()]
    )
    np.testing.assert_allclose(
        long.vectors(EVENTS, np.array([4]), count=np.array([20])),
        long.vectors(last_four, np.array([1]), count=np.array([4])),
        rtol=1e-5,
    )


@pytest.mark.parametrize("at_once", [1, 7, 8, 1000])
def test_chunks_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fold_in = FoldIn.fit(ITEMS, BIAS, l2=1.0, limit=100)
    users, counts = np.array([4, 1, 3, 4, 2, 4]), np.array([30, 0, 7, 1, 1, 12])
    whole = np.concatenate(
        [fold_in.vectors(EVENTS, users[i : i + 1], count=counts[i : i + 1]) for i in range(6)]
    )
    monkeypatch.setattr(module, "EVENTS_AT_ONCE", at_once)
    np.testing.assert_allclose(
        fold_in.vectors(EVENTS, users, count=counts), whole, rtol=1e-5, atol=1e-6
    )


def test_it_finds_the_taste_that_made_the_events() -> None:
    """Users who choose by softmax(<phi, v>) are folded in close to their phi's direction."""
    rng = np.random.default_rng(8)
    items = np.vstack([np.zeros((1, 4)), rng.normal(0, 0.7, (500, 4))]).astype(np.float32)
    tastes = rng.normal(0, 0.8, (20, 4))
    histories = []
    for taste in tastes:
        score = np.exp(items[1:] @ taste)
        histories.append((rng.choice(500, 200, p=score / score.sum()) + 1).tolist())
    fold_in = FoldIn.fit(items, np.zeros(501, dtype=np.float32), l2=1.0, limit=256)
    found = fold_in.vectors(make_events(histories), np.arange(1, 21), count=np.full(20, 200))
    cosine = (
        (found * tastes).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(tastes, axis=1)
    )
    assert cosine.mean() > 0.9
