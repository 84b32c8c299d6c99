"""Metrics of single ranks, as arithmetic."""

import doctest
import math

import numpy as np
import pytest

from recsys_core.evaluation import metrics

RANKS = np.array([1, 2, 5, 20, 21, 0], dtype=np.int32)


def test_doctests():
    assert doctest.testmod(metrics).failed == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recall@20", [1, 1, 1, 1, 0, 0]),
        ("recall@1", [1, 0, 0, 0, 0, 0]),
        ("mrr@20", [1, 1 / 2, 1 / 5, 1 / 20, 0, 0]),
        ("mrr@4", [1, 1 / 2, 0, 0, 0, 0]),
        ("ndcg@20", [1, 1 / math.log2(3), 1 / math.log2(6), 1 / math.log2(21), 0, 0]),
        ("ndcg@2", [1, 1 / math.log2(3), 0, 0, 0, 0]),
        ("recall@1000", [1, 1, 1, 1, 1, 0]),
        ("mrr", [1, 1 / 2, 1 / 5, 1 / 20, 1 / 21, 0]),
    ],
)
def test_each_metric_is_zero_beyond_its_cutoff_and_for_a_miss(name, expected):
    np.testing.assert_allclose(metrics.metric_of(RANKS, name), expected)


def test_every_name_can_be_worked_out():
    for name in metrics.metric_names((1, 7)):
        assert metrics.metric_of(RANKS, name)[0] == 1.0


def test_perplexity_of_a_fair_coin_is_two():
    assert metrics.perplexity(math.log(2)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # a basket of three, ranked 2, 5 and not at all; one of a single item, ranked 1
        ("recall@4", [1 / 3, 1]),
        ("recall@5", [2 / 3, 1]),
        ("mrr@4", [1 / 2, 1]),
        ("mrr@1", [0, 1]),
        ("mrr", [1 / 2, 1]),
        # the best two hits of two places, for the basket has more than two
        ("ndcg@2", [(1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1]),
        # three places and three items: three hits would be the best
        (
            "ndcg@5",
            [
                (1 / math.log2(3) + 1 / math.log2(6)) / (1 + 1 / math.log2(3) + 1 / math.log2(4)),
                1,
            ],
        ),
    ],
)
def test_a_basket_is_one_query(name, expected):
    rank = np.array([5, 0, 2, 1], dtype=np.int32)
    query = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(metrics.metric_of(rank, name, query=query), expected)


def test_queries_of_one_target_are_as_targets():
    for name in metrics.metric_names((1, 7)):
        np.testing.assert_allclose(
            metrics.metric_of(RANKS, name, query=np.arange(len(RANKS))),
            metrics.metric_of(RANKS, name),
        )
