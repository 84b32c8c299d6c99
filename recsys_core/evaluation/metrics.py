"""Metrics of queries, from the ranks of their targets; a metric's value is the mean over queries.

A rank counts from 1; rank 0 says that the target was no candidate, which every metric takes as a
miss. Most queries have one target. Of several (a basket) recall is the share among the first k, mrr
counts the first hit, and ndcg divides by the best that min(k, targets) hits could have.
"""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.int32]


def recall(rank: Ranks, k: int) -> Float64:
    """1 where the target is among the first `k`, else 0.

    >>> recall(np.array([1, 3, 4, 0], dtype=np.int32), 3)
    array([1., 1., 0., 0.])
    """
    return _inside(rank, k).astype(np.float64)


def mrr(rank: Ranks, k: int | None) -> Float64:
    """1 / rank where the target is among the first `k`, else 0; None counts every rank.

    >>> mrr(np.array([1, 2, 4, 0], dtype=np.int32), 3)
    array([1. , 0.5, 0. , 0. ])
    """
    return np.where(_inside(rank, k), 1.0 / np.maximum(rank, 1), 0.0)


def ndcg(rank: Ranks, k: int) -> Float64:
    """1 / log2(1 + rank) where the target is among the first `k`, else 0.

    That is its gain; with one target the ideal is 1, so nothing is divided by.

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


def metric_names(cutoffs: tuple[int, ...]) -> list[str]:
    """Names of all ranking metrics at these cutoffs, and of mrr without one.

    >>> metric_names((10, 20))
    ['recall@10', 'recall@20', 'mrr@10', 'mrr@20', 'ndcg@10', 'ndcg@20', 'mrr']
    """
    return [f"{name}@{k}" for name in ("recall", "mrr", "ndcg") for k in cutoffs] + ["mrr"]


def metric_of(rank: Ranks, name: str, *, query: Int64 | None = None) -> Float64:
    """The metric called `name`, such as `mrr@20` or `mrr`, of each query. (Q,)

    `query` (N,) numbers the queries of the targets 0, 1, ...; None: each target is one. Of a query
    of three targets, ranked 1, 4 and 0:

    >>> metric_of(np.array([1, 4, 0], dtype=np.int32), "recall@5", query=np.zeros(3, dtype=int))
    array([0.66666667])
    """
    kind, _, cutoff = name.partition("@")
    k = int(cutoff) if cutoff else None
    if kind == "mrr":
        hits = mrr(rank, k)
        if query is None:
            return hits
        best = np.zeros(_n_queries(query))
        np.maximum.at(best, query, hits)
        return best
    assert k is not None, f"{name} needs a cutoff"
    gains = recall(rank, k) if kind == "recall" else ndcg(rank, k)
    if query is None:
        return gains
    sizes = np.bincount(query)
    sums = np.bincount(query, weights=gains)
    if kind == "recall":
        return np.asarray(sums / sizes)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))  # (k,)
    return np.asarray(sums / ideal[np.minimum(sizes, k) - 1])


def _n_queries(query: Int64) -> int:
    return int(query.max(initial=-1)) + 1


def _inside(rank: Ranks, k: int | None) -> npt.NDArray[np.bool_]:
    return rank >= 1 if k is None else (rank >= 1) & (rank <= k)
