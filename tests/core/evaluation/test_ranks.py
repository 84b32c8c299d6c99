"""Ranks: ties, unknown targets, the seen filter, and likelihoods, against answers known before."""

import doctest
import math

import numpy as np
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.errors import ModelError
from recsys_core.evaluation import ranks as ranks_module
from recsys_core.evaluation.ranks import (
    Ranks,
    Scorer,
    candidates_at,
    is_candidate,
    negative_log_likelihood,
    rank_targets,
)
from recsys_core.evaluation.targets import Targets, targets_of
from tests.event_rows import events_of, period_of, random_rows


def fixed_scorer(scores: np.ndarray, *, is_softmax: bool = True) -> Scorer:
    """Given scores (N, V), a row per target; they lie elsewhere and must stay as they are."""
    with_pad = np.concatenate([np.full((len(scores), 1), -np.inf), scores], axis=1)
    with_pad = with_pad.astype(np.float32)
    with_pad.flags.writeable = False
    return Scorer(
        n_items=scores.shape[1], is_softmax=is_softmax, scores=lambda rows, _: with_pad[rows]
    )


def rank(
    scorer: Scorer, targets: Targets, events, *, batch: int = 7, seen_filter: bool = False
) -> Ranks:
    everything = np.ones(scorer.n_items + 1, dtype=bool)
    return rank_targets(
        scorer,
        targets,
        events=events,
        candidates=everything,
        batch=batch,
        seen_filter=seen_filter,
    )


def two_events_each(items: list[int]):
    """User u has item `items[u - 1]` twice; the second is the target."""
    rows = [(user, item, time) for time in (0, 10) for user, item in enumerate(items, start=1)]
    events = events_of(rows)
    return events, targets_of(
        "successive", events, period_of(events, 10, 20, n_items=max(items)), n_items=max(items)
    )


def test_doctests():
    assert doctest.testmod(ranks_module).failed == 0


def test_checkerboard_has_rank_one():
    events, targets = two_events_each([1, 2, 3, 4])
    found = rank(fixed_scorer(np.eye(4)), targets, events)
    assert found.rank.tolist() == [1, 1, 1, 1]
    assert found.ties.tolist() == [0, 0, 0, 0]


def test_scores_that_are_all_alike_rank_every_target_last():
    events, targets = two_events_each([1, 2, 5])
    found = rank(fixed_scorer(np.zeros((3, 5))), targets, events)
    assert found.rank.tolist() == [5, 5, 5]
    assert found.ties.tolist() == [4, 4, 4]


def test_an_unknown_target_is_a_miss():
    events, targets = two_events_each([1, 6])
    found = rank(fixed_scorer(np.zeros((2, 5))), targets, events)
    assert found.rank.tolist() == [5, 0]
    assert found.ties.tolist() == [4, 0]
    assert np.isnan(found.nll).tolist() == [False, True]


def test_a_target_that_is_never_recommended_is_a_miss():
    events, targets = two_events_each([1, 2])
    scores = np.array([[-np.inf, 1.0], [-np.inf, 1.0]])
    found = rank(fixed_scorer(scores, is_softmax=False), targets, events)
    assert found.rank.tolist() == [0, 1]
    assert found.nll is None


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("seen_filter", [False, True])
def test_against_ranking_one_by_one(batch, seen_filter):
    rows = random_rows(400, users=30, items=25, end=1000)
    events = events_of(rows)
    n_items = 20
    targets = targets_of(
        "successive", events, period_of(events, 500, 1000, n_items=n_items), n_items=n_items
    )
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (len(targets), n_items)).astype(np.float32)  # many ties
    found = rank(fixed_scorer(scores), targets, events, batch=batch, seen_filter=seen_filter)
    for row in range(len(targets)):
        user, item = int(targets.user_idx[row]), int(targets.item_idx[row])
        seen = {i for u, i, t in rows[: targets.source_row[row]] if u == user}
        candidates = [i for i in range(1, n_items + 1) if not (seen_filter and i in seen)]
        expected = expected_ties = 0
        if item in candidates:
            mine = scores[row, item - 1]
            others = [scores[row, i - 1] for i in candidates if i != item]
            expected = 1 + sum(other >= mine for other in others)
            expected_ties = sum(other == mine for other in others)
        assert (found.rank[row], found.ties[row]) == (expected, expected_ties)
    assert len(targets) > 100


def test_seen_filter_takes_what_was_had_in_the_period_too():
    # item 1 before the period, 2 in it; at the third event only 3 is left of three items
    events = events_of([(1, 1, 0), (1, 2, 10), (1, 3, 11), (1, 2, 12)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=3), n_items=3)
    scores = np.array([[3.0, 2.0, 1.0]] * 3)
    assert rank(fixed_scorer(scores), targets, events, seen_filter=False).rank.tolist() == [2, 3, 2]
    assert rank(fixed_scorer(scores), targets, events, seen_filter=True).rank.tolist() == [1, 1, 0]


def test_the_likelihood_does_not_depend_on_the_seen_filter():
    events, targets = two_events_each([1, 2, 3])
    scorer = fixed_scorer(np.arange(9.0).reshape(3, 3))
    plain = rank(scorer, targets, events)
    filtered = rank(scorer, targets, events, seen_filter=True)
    assert filtered.nll.tolist() == plain.nll.tolist()
    assert filtered.rank.tolist() == [0, 0, 0]


def test_likelihood_is_the_softmax_over_the_whole_vocabulary():
    scores = np.array([[-np.inf, 0.0, 0.0, 0.0], [-np.inf, math.log(2), 0.0, math.log(5)]])
    scores = np.concatenate([scores, scores[1:] + 300]).astype(np.float32)
    nll = negative_log_likelihood(scores, np.array([2, 3, 1], dtype=np.int32))
    np.testing.assert_allclose(nll, [math.log(3), math.log(8 / 5), math.log(8 / 2)], rtol=1e-4)


def test_an_impossible_target_is_refused_where_there_is_a_likelihood():
    events, targets = two_events_each([1, 2])
    with pytest.raises(ModelError, match="1 targets that occurred have probability 0"):
        rank(fixed_scorer(np.array([[-np.inf, 1.0], [-np.inf, 1.0]])), targets, events)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_refused(bad):
    events, targets = two_events_each([1, 2, 3])
    scores = np.zeros((3, 3))
    scores[1, 2] = bad
    with pytest.raises(ModelError, match="1 of 3 rows of scores hold NaN or \\+inf"):
        rank(fixed_scorer(scores), targets, events)


def test_no_targets_have_no_ranks():
    events = events_of([(1, 1, 0), (1, 2, 1)])
    targets = targets_of("successive", events, period_of(events, 5, 9, n_items=2), n_items=2)
    found = rank(fixed_scorer(np.zeros((0, 2))), targets, events)
    assert len(found.rank) == 0


def test_an_item_without_an_event_is_no_candidate_and_its_target_a_miss():
    events, targets = two_events_each([1, 2, 3])
    scores = np.array([[1.0, 2.0, 3.0]] * 3)
    candidates = np.array([False, True, True, False, True])  # one item more than the model knows
    found = rank_targets(
        fixed_scorer(scores),
        targets,
        events=events,
        candidates=candidates,
        batch=2,
        seen_filter=False,
    )
    assert found.rank.tolist() == [2, 1, 0]
    assert np.isnan(found.nll).tolist() == [False, False, True]


def test_candidates_are_the_known_items_with_an_event_before_the_cut():
    # item 2 was delivered late; item 3 is in the catalogue and has no event yet
    events = events_of([(1, 1, 0), (1, 2, 1), (2, 4, 2), (2, 3, 9)])
    assert candidates_at(events, Cut.at(events, 5, n_items=4)).tolist() == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert candidates_at(events, Cut.at(events, 5, n_items=1)).tolist() == [False, True]
    masked = is_candidate(np.array([False, True, False]), np.array([1, 2, 7], dtype=np.int32))
    assert masked.tolist() == [True, False, False]
