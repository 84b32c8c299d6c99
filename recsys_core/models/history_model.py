"""What a model that reads whole histories is given, and what it answers.

    request 0   4 9 4         offsets    0 3 3 5
    request 1   (nothing)     item_idx   4 9 4 2 7
    request 2   2 7           age        2 1 0 1 0      later events of the same request

The histories of a batch lie one after the other (CSR), each in the order of time; items are known
ones, so 0 (PAD) never occurs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.data.events import Events

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


LONGEST = 2048
"""Events of a history that baselines and the memory read, the latest: a target of who has 100,000
must not cost 100,000."""


@dataclass(frozen=True)
class RequestHistories:
    """The known events of each user before a request."""

    user_idx: Int64  # (B,)
    request_time: Int64  # (B,) microseconds
    offsets: Int64  # (B + 1,)
    item_idx: Int32  # (H,)
    timestamp: Int64  # (H,) microseconds
    session_idx: Int64  # (H,)

    def __len__(self) -> int:
        return len(self.user_idx)

    @cached_property
    def row(self) -> Int64:
        """The request of each event. (H,)"""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    @cached_property
    def age(self) -> Int64:
        """How many later events the request has: 0 for its last one. (H,)"""
        return self.offsets[1:][self.row] - 1 - np.arange(len(self.item_idx), dtype=np.int64)

    def recency(self, power: float) -> Float32:
        """(1 + age)^-power: older events count less, with power 0 all count alike. (H,)"""
        return ((1.0 + self.age) ** -power).astype(np.float32)

    @cached_property
    def last_item(self) -> Int32:
        """The last item of each request, 0 where there is none. (B,)"""
        last = np.zeros(len(self), dtype=np.int32)
        some = np.diff(self.offsets) > 0
        last[some] = self.item_idx[self.offsets[1:][some] - 1]
        return last

    @cached_property
    def latest_of_items(self) -> Int64:
        """The latest event of each different item of a request, by request, then item. (E,)"""
        return latest_of_pairs(self.row, self.item_idx)

    def item_matrix(self, n_items: int, weight: Float32 | None = None) -> sparse.csr_array:
        """Each request's items, each once: with 1, or its latest event's `weight` (H,).

        (B, V + 1) float32
        """
        entry = self.latest_of_items
        data = np.ones(len(entry), dtype=np.float32) if weight is None else weight[entry]
        starts = np.searchsorted(self.row[entry], np.arange(len(self) + 1))
        shape = (len(self), n_items + 1)
        return sparse.csr_array((data, self.item_idx[entry], starts), shape=shape)


class HistoryModel(Protocol):
    """A model that scores all items from histories."""

    @property
    def n_items(self) -> int: ...

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Scores in `out`, or elsewhere and read-only; column 0 is -inf. (B, V + 1)"""
        ...


class LastItemScores(Protocol):
    """A model of `models.baselines`: it scores from the last known item alone."""

    @property
    def n_items(self) -> int: ...

    def scores(self, last_item: Int32, *, out: Float32) -> Float32: ...


@dataclass(frozen=True)
class FromLastItem:
    """A model of the last item, as one that is given whole histories."""

    model: LastItemScores

    @property
    def n_items(self) -> int:
        return self.model.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """The model's scores for the last items. (B, V + 1)"""
        return self.model.scores(histories.last_item, out=out)


def gather_request_histories(
    events: Events, user_idx: Int64, *, history: Int64, request_time: Int64, limit: int | None
) -> RequestHistories:
    """The first `history` events of each user, of these the latest `limit`; None takes all.

    All are (B,). `events` are those of known items (`models.requests.known_events`), so `history`
    counts known items alone, as that of `evaluation.targets.Targets` does.
    """
    length = history if limit is None else np.minimum(history, limit)  # (B,)
    offsets = np.zeros(len(user_idx) + 1, dtype=np.int64)
    np.cumsum(length, out=offsets[1:])
    first = events.offsets[user_idx] + history - length  # (B,)
    rows = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], length)  # (H,)
    return RequestHistories(
        user_idx=user_idx.astype(np.int64),
        request_time=request_time.astype(np.int64),
        offsets=offsets,
        item_idx=np.asarray(events.item_idx[rows], dtype=np.int32),
        timestamp=np.asarray(events.timestamp[rows], dtype=np.int64),
        session_idx=np.asarray(events.session_idx[rows], dtype=np.int64),
    )


def latest_of_pairs(row: Int64, item_idx: Int32) -> Int64:
    """Where each different (row, item) occurs last, in the order of these pairs. (E,)"""
    if len(row) == 0:
        return np.zeros(0, dtype=np.int64)
    key = row * (int(item_idx.max()) + 1) + item_idx
    _, first = np.unique(key[::-1], return_index=True)
    return np.asarray(len(key) - 1 - first, dtype=np.int64)


def write_scores(out: Float32, votes: sparse.csr_array) -> Float32:
    """`votes` (B, V + 1) as scores in `out`: 0 for an item without one, -inf for PAD."""
    votes.astype(np.float32, copy=False).toarray(out=out)
    out[:, 0] = -np.inf
    return out


def in_blocks(
    cost: Int64, *, most: int, work: Callable[[slice], sparse.csr_array]
) -> sparse.csr_array:
    """`work` done on runs of consecutive rows whose `cost` (N,) is `most` together, and stacked.

    A single row may cost more. What a sparse product holds at a time is bounded so.
    """
    blocks = [work(block) for block in blocks_of(cost, most=most)]
    return blocks[0] if len(blocks) == 1 else sparse.vstack(blocks, format="csr")


def blocks_of(cost: Int64, *, most: int) -> list[slice]:
    """Runs of consecutive rows whose `cost` (N,) is `most` together, or of a single row."""
    total = np.concatenate([[0], np.cumsum(cost)])
    blocks = []
    start = 0
    while start < len(cost):
        stop = int(np.searchsorted(total, total[start] + most, side="right")) - 1
        stop = min(max(stop, start + 1), len(cost))
        blocks.append(slice(start, stop))
        start = stop
    return blocks
