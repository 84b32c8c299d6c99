"""Intervals of means over queries, by a cluster bootstrap: users are resampled, not queries.

Most queries have one target; a basket is one query, of one user. Queries of one user resemble each
other, so that an interval which takes them as independent is too narrow. A draw takes as many users
as there are, with replacement, and forms the ratio of sums again:

    value of a draw = sum of the drawn users' values / number of the drawn users' queries

Two models on the same queries are compared by the difference per query, so that what is hard for
both cancels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# what one block of draws may hold: draws x users counts in float64, 64 MB
BLOCK_CELLS = 8_000_000


@dataclass(frozen=True)
class Interval:
    """A value and the bounds of its 95 % percentile interval."""

    value: float
    low: float
    high: float


def mean_intervals(
    values: Float64,
    clusters: npt.NDArray[np.integer],
    *,
    rng: np.random.Generator,
    draws: int,
) -> list[Interval]:
    """The mean of each column of `values` (N, M) over queries, with its interval.

    `clusters` (N,) says whose each query is. All columns see the same draws. With no queries
    there is no mean: that is an error of the caller.
    """
    assert len(values) > 0, "no queries, no mean"
    drawn = bootstrap_means(values, clusters, rng=rng, draws=draws)  # (draws, M)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    means = values.mean(axis=0)
    return [
        Interval(float(mean), float(below), float(above))
        for mean, below, above in zip(means, low, high, strict=True)
    ]


def paired_difference(
    ours: Float64,
    theirs: Float64,
    clusters: npt.NDArray[np.integer],
    *,
    rng: np.random.Generator,
    draws: int,
) -> Interval:
    """The mean of `ours - theirs`, a metric (N,) of two models on the same queries."""
    return mean_intervals((ours - theirs)[:, None], clusters, rng=rng, draws=draws)[0]


def bootstrap_means(
    values: Float64,
    clusters: npt.NDArray[np.integer],
    *,
    rng: np.random.Generator,
    draws: int,
) -> Float64:
    """The means of the columns of `values` (N, M) in each draw of users. (draws, M)"""
    _, cluster = np.unique(clusters, return_inverse=True)
    n_clusters = int(cluster.max()) + 1
    sizes = np.bincount(cluster).astype(np.float64)  # (C,)
    sums = np.stack([np.bincount(cluster, weights=column) for column in values.T], axis=1)  # (C, M)
    means = np.empty((draws, values.shape[1]))
    block = max(1, BLOCK_CELLS // n_clusters)
    for start in range(0, draws, block):
        rows = slice(start, min(start + block, draws))
        # counting drawn users is the multinomial itself, and faster than to draw its counts
        counts = np.stack(
            [
                np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters)
                for _ in range(rows.stop - rows.start)
            ]
        ).astype(np.float64)  # (draws in the block, C)
        means[rows] = (counts @ sums) / (counts @ sizes)[:, None]
    return means
