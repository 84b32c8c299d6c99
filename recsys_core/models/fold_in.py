"""Folding a user in: the transductive embedding that a history implies, in closed form.

Stage one's softmax, expanded to second order around phi = 0, has the gradient sum_i (v_i - mean)
over the user's n events and the Hessian n C, with `mean` and C the mean and covariance of item
vectors under popularity. With a ridge of l2 |phi|^2 / 2 its maximum is

    phi = (n C + l2 I)^-1 sum_i (v_i - mean)

C is the same for all users, so one eigendecomposition serves everyone and a user costs one sum and
two small products. (The fold-in of the specification, section 1.3: closed-form ridge against V,
batched.)
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.models.embeddings import Embeddings

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

FOLD_IN_LIMIT = 256
"""How many of a user's latest events a fold-in reads; more hardly move a mean, and the cost stays
bounded."""

EVENTS_AT_ONCE = 262_144
"""Bounds the memory of the gathered item vectors: 64 MiB at 64 dimensions."""


class UserVectors(Protocol):
    """Where the transductive embeddings of users come from."""

    def vectors(self, events: Events, user_idx: Int64, *, count: Int64) -> Float32:
        """Those of users (B,) of whom the first `count` (B,) events may be read. (B, D)"""


@dataclass(frozen=True)
class FreeRows:
    """The rows that stage one learned for its users: the ablation `learned_phi`."""

    rows: Float32  # (U + 1, D)

    def vectors(self, events: Events, user_idx: Int64, *, count: Int64) -> Float32:  # noqa: ARG002 (as of every `UserVectors`)
        """Each user's row, zero where `count` is; who came after stage one has none, zero too."""
        there = (user_idx < len(self.rows)) & (count > 0)
        rows = self.rows[np.where(there, user_idx, 0)]
        return np.where(there[:, None], rows, np.float32(0))


@dataclass(frozen=True)
class FoldIn:
    """Item vectors of stage one and the eigendecomposition of their covariance."""

    items: Float32  # (V + 1, D)
    mean: Float32  # (D,)
    basis: Float32  # (D, D) eigenvectors in columns
    variance: Float32  # (D,) eigenvalues
    l2: float
    limit: int
    """The largest number of events that count for a user, the latest: it bounds the cost."""

    @classmethod
    def fit(cls, items: Float32, item_bias: Float32, *, l2: float, limit: int) -> "FoldIn":
        """From stage one's item vectors (V + 1, D) and biases (V + 1,); row 0 is PAD, left out."""
        bias = item_bias[1:].astype(np.float64)
        share = np.exp(bias - bias.max())
        share /= share.sum()
        vectors = items[1:].astype(np.float64)
        mean = share @ vectors
        centred = vectors - mean
        variance, basis = np.linalg.eigh((centred * share[:, None]).T @ centred)
        return cls(
            items=items,
            mean=mean.astype(np.float32),
            basis=basis.astype(np.float32),
            variance=np.maximum(variance, 0.0).astype(np.float32),
            l2=l2,
            limit=limit,
        )

    @classmethod
    def of(cls, embeddings: Embeddings) -> "FoldIn":
        """The one of stage one's output."""
        return cls.fit(
            embeddings.items,
            embeddings.item_bias,
            l2=embeddings.fold_in_l2,
            limit=FOLD_IN_LIMIT,
        )

    def vectors(self, events: Events, user_idx: Int64, *, count: Int64) -> Float32:
        """The embedding that the first `count` events of each user imply. (B, D)

        Of those the latest `limit` are read. A count of 0 gives the zero vector: nothing is known
        of that user.
        """
        used = np.minimum(count, self.limit)
        first_row = events.offsets[user_idx] + count - used
        sums = np.zeros((len(user_idx), self.items.shape[1]), dtype=np.float32)  # (B, D)
        for rows in _chunks(used):
            sums[rows] = self._sum(events, first_row[rows], used[rows])
        n = used[:, None].astype(np.float32)
        rotated = (sums - n * self.mean) @ self.basis  # (B, D)
        return np.asarray(
            (rotated / (n * self.variance + np.float32(self.l2))) @ self.basis.T, dtype=np.float32
        )

    def _sum(self, events: Events, first_row: Int64, used: Int64) -> Float32:
        """The sum of item vectors over `used` events from `first_row` on. (B, D)"""
        sums = np.zeros((len(used), self.items.shape[1]), dtype=np.float32)
        some = np.flatnonzero(used)
        if len(some) == 0:
            return sums
        length, start = used[some], first_row[some]
        ends = np.cumsum(length)
        begins = ends - length
        rows = np.repeat(start - begins, length) + np.arange(ends[-1])
        sums[some] = np.add.reduceat(self.items[events.item_idx[rows]], begins, axis=0)
        return sums


def _chunks(used: Int64) -> list[slice]:
    """Slices of rows whose event counts add up to about `EVENTS_AT_ONCE`."""
    total = np.cumsum(used)
    cuts = np.searchsorted(
        total, np.arange(EVENTS_AT_ONCE, total[-1] if len(total) else 0, EVENTS_AT_ONCE)
    )
    edges = np.unique(np.concatenate([[0], cuts + 1, [len(used)]]))
    edges = edges[edges <= len(used)]
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]
