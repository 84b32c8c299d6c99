"""Models of people who come back: own items in their order, then the rest."""

import numpy as np
import pytest

from recsys_core.models.baselines import Popularity, fit_transitions
from recsys_core.models.personal import (
    OwnAndTransitions,
    OwnAndTransitionsSettings,
    OwnItems,
    PersonalFrequency,
)
from tests.event_rows import events_of, random_rows
from tests.history_batches import everything, histories_of, log_of_sets, scores_of

SHARES = Popularity(np.array([0.0, 0.1, 0.2, 0.05, 0.35, 0.3]))
BATCH = histories_of([3, 1, 1, 3, 2], [], [5])


def order_of(scores):
    """Items from the largest score to the smallest, which must all be different."""
    assert len(np.unique(scores)) == len(scores)
    return (np.argsort(-scores) + 1).tolist()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("recent", [2, 3, 1, 4, 5]),
        ("frequent", [3, 1, 2, 4, 5]),  # 3 and 1 twice, 3 more lately
        ("last", [2, 4, 5, 1, 3]),
    ],
)
def test_own_items_come_first_then_the_rest(order, expected):
    found = scores_of(OwnItems(order, catalogue=5, rest=SHARES), BATCH)
    assert order_of(found[0]) == expected
    assert order_of(found[1]) == [4, 5, 2, 1, 3]
    assert order_of(found[2]) == [5, 4, 2, 1, 3]


def test_without_a_rest_the_others_are_tied():
    found = scores_of(OwnItems("recent", catalogue=5, rest=None), BATCH)
    assert found[0].tolist() == pytest.approx([2.0, 4.0, 3.0, 0.0, 0.0])
    assert not found[1].any()


def test_the_rest_may_follow_the_last_item():
    log = log_of_sets([2, 4], [2, 5], [2, 5])
    model = fit_transitions(log, everything(log), backoff=SHARES, since=None)
    found = scores_of(OwnItems("recent", catalogue=5, rest=model), histories_of([1, 2]))
    assert order_of(found[0]) == [2, 1, 5, 4, 3]


def test_personal_frequency_is_a_count_and_a_share():
    found = scores_of(PersonalFrequency(SHARES), BATCH)
    np.testing.assert_allclose(found[0], [2.1, 1.2, 2.05, 0.35, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found[1], SHARES.share[1:], rtol=1e-6)


def test_own_items_are_weighed_against_transitions():
    log = events_of(random_rows(100, users=9, items=5, end=500))
    model = fit_transitions(log, everything(log), backoff=SHARES, since=None)
    settings = OwnAndTransitionsSettings(weight=0.5, power=2.0)
    found = scores_of(OwnAndTransitions(settings, model), BATCH)
    room = np.empty((3, 6), dtype=np.float32)
    expected = np.exp(model.scores(np.array([2, 0, 5], dtype=np.int32), out=room))[:, 1:]
    expected[0] += 0.5 * np.array([1 / 9, 1, 1 / 4, 0, 0])
    expected[2, 4] += 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_many_own_items_all_have_places():
    history = (np.random.default_rng(8).permutation(3000) + 1).tolist()
    shares = Popularity(np.array([0.0, *np.arange(1, 4001) / np.arange(1, 4001).sum()]))
    found = scores_of(OwnItems("recent", catalogue=4000, rest=shares), histories_of(history))[0]
    assert order_of(found)[:3000] == history[::-1]
