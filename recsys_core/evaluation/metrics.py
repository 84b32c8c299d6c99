"""Metrics of one target each, from its rank; the value of a metric is the mean over targets.

A rank counts from 1; rank 0 says that the target was no candidate, which every metric takes as a
miss.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int32]


def recall(rank: Ranks, k: int) -> Float64:
    """1 where the target is among the first `k`, else 0.

    >>> recall(np.array([1, 3, 4, 0], dtype=np.int32), 3)
    array([1., 1., 0., 0.])
    """
    return _inside(rank, k).astype(np.float64)


def mrr(rank: Ranks, k: int) -> Float64:
    """1 / rank where the target is among the first `k`, else 0.

    >>> mrr(np.array([1, 2, 4, 0], dtype=np.int32), 3)
    array([1. , 0.5, 0. , 0. ])
    """
    return np.where(_inside(rank, k), 1.0 / np.maximum(rank, 1), 0.0)


def ndcg(rank: Ranks, k: int) -> Float64:
    """1 / log2(1 + rank) where the target is among the first `k`, else 0.

    With one target the ideal is 1, so nothing is divided by.

    >>> ndcg(np.array([1, 3, 4, 0], dtype=np.int32), 3)
    array([1. , 0.5, 0. , 0. ])
    """
    return np.where(_inside(rank, k), 1.0 / np.log2(1.0 + np.maximum(rank, 1)), 0.0)


def perplexity(mean_nll: float) -> float:
    """exp of the mean negative log-likelihood of known targets over the whole vocabulary.

    Natural logarithms. A model that gives `V` items the same probability has perplexity `V`:

    >>> round(perplexity(np.log(50.0)), 9)
    50.0
    """
    return float(np.exp(mean_nll))


METRICS: dict[str, Callable[[Ranks, int], Float64]] = {"recall": recall, "mrr": mrr, "ndcg": ndcg}


def metric_names(cutoffs: tuple[int, ...]) -> list[str]:
    """Names of all ranking metrics at these cutoffs.

    >>> metric_names((10, 20))
    ['recall@10', 'recall@20', 'mrr@10', 'mrr@20', 'ndcg@10', 'ndcg@20']
    """
    return [f"{name}@{k}" for name in METRICS for k in cutoffs]


def metric_of(rank: Ranks, name: str) -> Float64:
    """The metric called `name`, such as `mrr@20`, of each target. (N,)"""
    kind, _, cutoff = name.partition("@")
    return METRICS[kind](rank, int(cutoff))


def _inside(rank: Ranks, k: int) -> npt.NDArray[np.bool_]:
    return (rank >= 1) & (rank <= k)
