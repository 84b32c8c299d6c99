"""Scorers: vectors against plain products, and the simulator's truth on a model's vocabulary."""

import numpy as np
import pyarrow as pa

from recsys_core.data.oracle import Oracle
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.evaluation.ranks import Scorer, rank_targets
from recsys_core.evaluation.scorers import vector_scorer
from recsys_core.evaluation.targets import targets_of
from recsys_core.evaluation.truth import oracle_scorer
from tests.event_rows import events_of, period_of


def scores_of(scorer: Scorer, rows: slice) -> np.ndarray:
    out = np.full((rows.stop - rows.start, scorer.n_items + 1), np.nan, dtype=np.float32)
    return scorer.scores(rows, out)


def test_vectors_score_by_dot_product_and_bias():
    rng = np.random.default_rng(0)
    users = rng.normal(size=(7, 3)).astype(np.float32)
    items = rng.normal(size=(5, 3)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    scorer = vector_scorer(users, item_vectors=items, item_bias=bias)
    found = scores_of(scorer, slice(2, 6))
    np.testing.assert_allclose(found[:, 1:], (users[2:6] @ items.T + bias)[:, 1:], rtol=1e-5)
    assert np.all(found[:, 0] == -np.inf)
    assert scorer.n_items == 4


def four_item_oracle() -> Oracle:
    """Two topics of two items; row 3: probabilities .4, .1, .25, .25; row 5: item `d` for sure."""
    return Oracle(
        item_ids=["a", "b", "c", "d"],
        topic_offsets=np.array([0, 2, 4]),
        factors=np.zeros((4, 1), dtype=np.float32),
        appeal=np.log(np.array([[0.8, 0.2, 0.5, 0.5]])).astype(np.float32),
        source_row=np.array([3, 5]),
        period=np.array([0, 0]),
        query=np.zeros((2, 1), dtype=np.float32),
        topic_log_probability=np.log(np.array([[0.5, 0.5], [1e-30, 1.0]])).astype(np.float32),
        previous_item=np.array([-1, 3], dtype=np.int32),
        repeat_probability=np.array([0.0, 1 - 1e-7], dtype=np.float32),
    )


def test_the_truth_is_renormalised_over_the_vocabulary():
    oracle = four_item_oracle()
    np.testing.assert_allclose(
        np.exp(oracle.log_probability(np.array([3]))), [[0.4, 0.1, 0.25, 0.25]]
    )
    # the vocabulary has another order; "d" is the first item that is unknown, "b" never occurs
    items = Vocabulary(pa.array(["c", "a", "d"]), np.array([0, 1, 2]))
    events = events_of([(1, 1, 0), (1, 2, 1), (2, 2, 2), (1, 2, 10), (2, 1, 3), (2, 3, 11)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    assert targets.source_row.tolist() == [3, 5]
    covered = targets.take(oracle.covers(targets.source_row))
    scorer = oracle_scorer(oracle, covered, items=items, n_items=2)
    found = np.exp(scores_of(scorer, slice(0, 1)))
    np.testing.assert_allclose(found, [[0, 0.25 / 0.65, 0.4 / 0.65]], rtol=1e-5)
    ranks = rank_targets(
        scorer,
        covered,
        events=events,
        candidates=np.ones(3, dtype=bool),
        batch=1,
        seen_filter=False,
    )
    assert ranks.rank.tolist() == [1, 0]
    np.testing.assert_allclose(ranks.nll[0], -np.log(0.4 / 0.65), rtol=1e-5)
    assert np.isnan(ranks.nll[1])


def test_where_nothing_possible_is_in_the_vocabulary_nothing_is_a_candidate():
    oracle = four_item_oracle()
    impossible = oracle.log_probability(np.array([5]))[:, :2]
    assert impossible.max() < -50  # all but item "d" and its topic
    items = Vocabulary(pa.array(["x", "y", "d"]), np.array([0, 1, 2]))
    events = events_of([(1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 3), (2, 1, 4), (1, 3, 10)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    scorer = oracle_scorer(oracle, targets, items=items, n_items=2)
    ranks = rank_targets(
        scorer,
        targets,
        events=events,
        candidates=np.ones(3, dtype=bool),
        batch=1,
        seen_filter=False,
    )
    assert np.all(scores_of(scorer, slice(0, 1)) == -np.inf)
    assert ranks.rank.tolist() == [0]
