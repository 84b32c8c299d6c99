"""What the users of a log had, as a sparse matrix: the input of the neighbour methods.

What is known at a cut is the first `counts[u]` events of each user, and of these the ones of items
with idx at most `n_items`; an event of another item is passed over. A cap on the latest events of
each user bounds the cost, which grows with the square of what one user had.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.data.events import Events

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

PRODUCT_ENTRIES = 20_000_000
"""Additions that a sparse product may take at a time: some 250 MB."""


def known_rows(events: Events, counts: Int64, *, n_items: int, latest: int | None) -> Int64:
    """Rows of the known events, ascending; of each user the `latest`, None for all. (N,)"""
    known = (events.position < counts[events.user_idx]) & (events.item_idx <= n_items)
    rows = np.flatnonzero(known)
    if latest is None:
        return rows
    user = events.user_idx[rows]
    end = np.cumsum(np.bincount(user, minlength=len(counts)))  # (U + 1,)
    return rows[end[user] - 1 - np.arange(len(rows)) < latest]


def user_items(
    events: Events, counts: Int64, *, n_items: int, latest: int | None
) -> sparse.csr_array:
    """1 where a user had an item, by the known events. (U + 1, V + 1) float32"""
    rows = known_rows(events, counts, n_items=n_items, latest=latest)
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(events.user_idx[rows], minlength=len(counts)), out=starts[1:])
    ones = np.ones(len(rows), dtype=np.float32)
    item = np.asarray(events.item_idx[rows])
    matrix = sparse.csr_array((ones, item, starts), shape=(len(counts), n_items + 1))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def strongest(value: Float32, n: int) -> Int64:
    """Positions of the `n` largest of `value`, the largest first; of equal ones the first.

    >>> strongest(np.array([2, 3, 1, 3, 2], dtype=np.float32), 3)
    array([1, 3, 0])
    """
    kept = np.arange(len(value))
    if len(value) > n:
        least = np.partition(value, len(value) - n)[len(value) - n]
        above = np.flatnonzero(value > least)
        equal = np.flatnonzero(value == least)[: n - len(above)]
        kept = np.concatenate([above, equal])
    return kept[np.lexsort((kept, -value[kept]))]


def strongest_of_rows(matrix: sparse.csr_array, n: int) -> sparse.csr_array:
    """The `n` largest stored entries of each row; of equal ones those of the lowest columns."""
    matrix.sort_indices()
    starts, data = matrix.indptr, matrix.data
    kept = [
        np.sort(strongest(data[starts[row] : starts[row + 1]], n)) + starts[row]
        for row in range(matrix.shape[0])
    ]
    entry = np.concatenate([np.zeros(0, dtype=np.int64), *kept])
    ends = np.concatenate([[0], np.cumsum([len(row) for row in kept])]).astype(np.int64)
    return sparse.csr_array((data[entry], matrix.indices[entry], ends), shape=matrix.shape)
