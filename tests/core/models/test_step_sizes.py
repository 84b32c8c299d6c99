"""How far events move an embedding, against a fold-in for each number of events."""

import numpy as np
import pytest

from recsys_core.models import step_sizes as module
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.step_sizes import FEWEST_USERS, StepSizes, choose_t_star, step_sizes
from tests.serving_world import N_ITEMS, make_events, make_model, random_histories

LENGTHS = [0, 1, 2, 3, 7, 12, 12, 250]
EVENTS = make_events(random_histories(LENGTHS))
COUNTS = np.array([0, *LENGTHS])


def naive(fold_in: FoldIn, t: int) -> tuple[int, float, float]:
    users = np.flatnonzero(t < COUNTS)

    def step(t: int) -> float:
        before, after = (
            fold_in.vectors(EVENTS, users, count=np.full(len(users), n)) for n in (t, t + 1)
        )
        return float(np.linalg.norm(after - before, axis=1).mean())

    return len(users), step(t), step(1)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_it_is_the_fold_in_after_each_event(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USERS_AT_ONCE", at_once)
    model = make_model()
    fold_in = FoldIn.fit(
        model.fold_in_items.numpy(), np.zeros(N_ITEMS + 1, dtype=np.float32), l2=0.5, limit=256
    )
    steps = step_sizes(fold_in, EVENTS, COUNTS)
    assert len(steps.users) == len(steps.share) == 200
    for t in (1, 2, 3, 6, 7, 11, 12, 60, 200):
        users, step, first = naive(fold_in, t)
        assert steps.users[t - 1] == users
        np.testing.assert_allclose(steps.step[t - 1], step, rtol=1e-3)
        np.testing.assert_allclose(steps.first_step[t - 1], first, rtol=1e-3)
    rows = steps.rows()
    assert (rows[0]["interactions"], rows[0]["share"], rows[-1]["interactions"]) == (1, 1.0, 200)


def test_only_the_events_that_are_known_count() -> None:
    steps = step_sizes(make_model().fold_in, EVENTS, np.minimum(COUNTS, 3))
    assert steps.users.tolist() == [6, 5]


def test_nobody_has_no_steps() -> None:
    steps = step_sizes(make_model().fold_in, EVENTS, np.minimum(COUNTS, 1))
    assert (len(steps.users), steps.rows(), choose_t_star(steps, rho=0.2)) == (0, [], 200)


def steps_of(share: np.ndarray, users: int = FEWEST_USERS) -> StepSizes:
    count = np.full(len(share), users, dtype=np.int64)
    return StepSizes(users=count, step=3.0 * share, first_step=np.full(len(share), 3.0))


@pytest.mark.parametrize(
    ("rho", "expected"), [(0.2, 10), (0.1, 20), (0.5, 5), (0.9, 5), (0.001, 200)]
)
def test_t_star_is_the_first_small_step_within_its_range(rho: float, expected: int) -> None:
    """Steps fall as 1.99 / t: at most rho of the first from 1.99 / rho on."""
    assert choose_t_star(steps_of(1.99 / np.arange(1, 201)), rho=rho) == expected


def test_a_step_with_few_users_behind_it_is_not_judged() -> None:
    falling = 2.0 / np.arange(1, 201)
    assert choose_t_star(steps_of(falling, FEWEST_USERS - 1), rho=0.2) == 200


def test_who_is_behind_a_step_does_not_bend_the_curve() -> None:
    """Users with many events who always move ten times as far as the others: the share stays 1."""
    steps = StepSizes(
        users=np.array([100, 50]), step=np.array([5.5, 10.0]), first_step=np.array([5.5, 10.0])
    )
    assert steps.share.tolist() == [1.0, 1.0]
