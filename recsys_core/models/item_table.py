"""A few weighted neighbours of each item: what an item-item model is where it is looked up.

    item   neighbour    weight
    0      0 0 0        0  0  0      PAD
    1      4 2 0        .7 .1 0      0: there is no third one
    2      1 3 4        .9 .5 .5     the strongest first; of equal ones the lowest item

A user's score of item j is the sum over the different items i of their history

    sum of (1 + age(i))^-recency w(i, j)

with age(i) the events since their latest one of i.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.models.baselines import Transitions
from recsys_core.models.history_model import RequestHistories, write_scores
from recsys_core.models.user_items import strongest

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemTable:
    """The strongest neighbours of each item, none of which is PAD."""

    neighbour: Int32  # (V + 1, N) 0 where there is none
    weight: Float32  # (V + 1, N) 0 where there is none

    @property
    def n_items(self) -> int:
        return len(self.neighbour) - 1

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """The weights from item to neighbour. (V + 1, V + 1) float32"""
        there = self.neighbour > 0
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        shape = (self.n_items + 1, self.n_items + 1)
        return sparse.csr_array((self.weight[there], self.neighbour[there], starts), shape=shape)


@dataclass(frozen=True)
class ItemTableScores:
    """A table as a model: what the items of a history have as neighbours."""

    table: ItemTable
    recency: float

    @property
    def n_items(self) -> int:
        return self.table.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """The sum of weights over each history, 0 for items that are no neighbours. (B, V + 1)"""
        own = histories.item_matrix(self.n_items, histories.recency(self.recency))
        return write_scores(out, own @ self.table.matrix)


def table_of_matrix(matrix: sparse.csr_array, n: int) -> ItemTable:
    """The `n` entries of largest magnitude in each row of (V + 1, V + 1)."""
    matrix.sort_indices()

    def rows() -> Iterator[tuple[Int64, Float32]]:
        for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            yield matrix.indices[start:stop], matrix.data[start:stop]

    return _table(rows(), matrix.shape[0], n)


def table_of_array(weight: Float32, n: int) -> ItemTable:
    """The `n` entries of largest magnitude in each row of (V + 1, V + 1); zeros are none."""

    def rows() -> Iterator[tuple[Int64, Float32]]:
        for row in weight:
            item = np.flatnonzero(row)
            yield item, row[item]

    return _table(rows(), len(weight), n)


def transition_shares(transitions: Transitions) -> sparse.csr_array:
    """n(i, j) / (n(i) + d(i)): transitions without what they are backed off by. (V + 1, V + 1)

    n events on d different items came after item i.
    """
    different = np.diff(transitions.starts)  # (V + 1,)
    last = np.repeat(np.arange(len(different)), different)  # (E,)
    total = np.bincount(last, weights=transitions.count, minlength=len(different)) + different
    share = (transitions.count / total[last]).astype(np.float32)
    return sparse.csr_array(
        (share, transitions.next_item, transitions.starts), shape=(len(different), len(different))
    )


def transition_table(transitions: Transitions, n: int) -> ItemTable:
    """The `n` most frequent successors of each item, with their `transition_shares`."""
    return table_of_matrix(transition_shares(transitions), n)


def _table(rows: Iterator[tuple[Int64, Float32]], n_rows: int, n: int) -> ItemTable:
    neighbour = np.zeros((n_rows, n), dtype=np.int32)
    weight = np.zeros((n_rows, n), dtype=np.float32)
    for row, (item, value) in enumerate(rows):
        kept = strongest(np.abs(value), n)
        neighbour[row, : len(kept)] = item[kept]
        weight[row, : len(kept)] = value[kept]
    return ItemTable(neighbour=neighbour, weight=weight)
