"""The k best items of many users by inner product, exactly, never holding users by items.

    score[n, v] = users[n] . items[v] + bias[v]

A block of users is scored against one block of items after the other (`item_blocks.py`). A first
guess of how much a score must reach comes from a sample of the items, an eighth at most: of the
best k of all, about k times the sample's share lie in it, and a few more in nearly every draw.
Whatever reaches the guess is kept. A user of whom k items reach it has the k best among them,
whatever the guess was; the others are searched again with the sample's own k-th best, which k
items reach for certain. The sample decides how long it takes, and never what is found.

Of equal scores the lower idx comes first, as in the graphs.
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from recsys_core.errors import ModelError
from recsys_core.serving.item_blocks import ItemBlocks, Scan, Tile, block_items, product_session
from recsys_core.serving.ranked_keys import most_users

USERS_AT_ONCE, FEWEST_USERS = 512, 16
"""Of one product, powers of two; a small call is spread over the threads."""

SPREAD = 3.0
"""Standard deviations that the guess allows for: of 1,000 users about one is searched again."""

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Best:
    """The best items of N users; item 0 with the score -inf where fewer than k were left."""

    items: Int64  # (N, k)
    scores: Float32  # (N, k)


@dataclass(frozen=True)
class LeftOut:
    """Item `items[s]` is no candidate of row `rows[s]`; repeats and any order are allowed."""

    rows: Int64  # (S,)
    items: Int64  # (S,)


class TopK:
    """A catalogue, ready to be searched by a number of threads.

    Row 0 of `vectors` (V + 1, D) is PAD, no candidate. `bias` (V + 1,) is added to everybody's
    scores. Only the items that `eligible` (V + 1,) marks are scored at all; None: every item.
    Raises `ModelError` where a number of an eligible item is NaN or infinite.
    """

    def __init__(
        self, vectors: Float32, *, bias: Float32 | None, eligible: Bool | None, threads: int
    ) -> None:
        offered = np.ones(len(vectors), dtype=np.bool_) if eligible is None else eligible.copy()
        offered[:1] = False
        self._threads = threads
        self._product = product_session()
        self._with_bias = bias is not None
        self._blocks: ItemBlocks = block_items(vectors, np.flatnonzero(offered), bias=bias)
        bad = int(np.count_nonzero(~np.isfinite(self._blocks.rows).all(axis=1)))
        if bad:
            raise ModelError(
                f"{bad} of {len(self._blocks.rows)} items have NaN or infinite numbers; the model "
                "has diverged: train it again with a smaller learning rate"
            )

    def search(self, users: Float32, *, k: int, left_out: LeftOut | None = None) -> Best:
        """The k best items of each user, best first. (N, D) to (N, k)

        The answer does not depend on the number of threads. Each thread holds the scores of
        `USERS_AT_ONCE` users and a sample of the items, some tens of megabytes. Raises
        `ModelError` where k is below 1, a pair names a row or an item that does not exist, or a
        score is NaN.
        """
        if k < 1:
            raise ModelError(f"top {k} was asked for; k must be at least 1")
        best = Best(
            items=np.zeros((len(users), k), dtype=np.int64),
            scores=np.full((len(users), k), -np.inf, dtype=np.float32),
        )
        if not len(users) or not len(self._blocks.rows):
            return best
        queries = np.asarray(users, dtype=np.float32)
        if self._with_bias:
            ones = np.ones((len(users), 1), dtype=np.float32)
            queries = np.concatenate([queries, ones], axis=1)  # (N, D + 1)
        pairs = _Pairs.of(left_out, rows=len(users), blocks=self._blocks)
        guess = guessed_rank(k, share=self._blocks.sample_share)
        everybody = np.arange(len(users))
        again = self._scan(queries, pairs, everybody, best, k=k, rank=guess)
        if len(again):
            self._scan(queries, pairs, again, best, k=k, rank=k)
        return best

    def _scan(
        self,
        queries: Float32,
        pairs: "_Pairs",
        rows: Int64,
        best: Best,
        *,
        k: int,
        rank: int,
    ) -> Int64:
        """Fill in these rows of `best`; returns those of which fewer than k items were found."""
        width = _width(len(rows), threads=self._threads, n_items=self._blocks.n_items)
        tiles = [rows[first : first + width] for first in range(0, len(rows), width)]
        workers = min(self._threads, len(tiles))
        work = partial(self._work, queries, pairs, best, width=width, k=k, rank=rank)
        with ThreadPoolExecutor(workers) as pool:
            missed = pool.map(work, [tiles[first::workers] for first in range(workers)])
            return np.sort(np.concatenate(list(missed)))

    def _work(
        self,
        queries: Float32,
        pairs: "_Pairs",
        best: Best,
        tiles: Iterable[Int64],
        *,
        width: int,
        k: int,
        rank: int,
    ) -> Int64:
        """What one thread does: its tiles, one after the other."""
        scan = Scan(self._blocks, self._product, width=width)
        missed = [np.zeros(0, dtype=np.int64)]
        for rows in tiles:
            users, places = pairs.of_rows(rows)
            tile = Tile(vectors=queries[rows], users=users, places=places)
            items, scores, found = scan.best(tile, k=k, rank=rank)
            best.items[rows], best.scores[rows] = items, scores
            if rank < k:
                missed.append(rows[found < k])
        return np.concatenate(missed)


def guessed_rank(k: int, *, share: float) -> int:
    """The rank in a sample of this share of the items that the k-th best of all hardly reaches.

    >>> guessed_rank(100, share=0.125), guessed_rank(100, share=1.0), guessed_rank(5, share=0.5)
    (24, 100, 5)
    """
    expected = k * share
    return k if share == 1 else min(k, math.ceil(expected + SPREAD * math.sqrt(expected)))


def _width(n_users: int, *, threads: int, n_items: int) -> int:
    """How many users to score at once: a power of two."""
    each = max(1, -(-n_users // threads))
    wanted = min(USERS_AT_ONCE, max(FEWEST_USERS, 1 << (each - 1).bit_length()))
    return min(wanted, most_users(n_items))


@dataclass(frozen=True)
class _Pairs:
    """What is left out, in the order of its rows."""

    offsets: Int64  # (N + 1,) the first of each row
    places: Int64  # (S,) where the items stand in the blocks

    @classmethod
    def of(cls, left_out: LeftOut | None, *, rows: int, blocks: ItemBlocks) -> "_Pairs":
        if left_out is None:
            return cls(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        row, item = left_out.rows, left_out.items
        outside = (row < 0) | (row >= rows) | (item < 0) | (item >= len(blocks.place))
        if outside.any():
            raise ModelError(
                f"{int(outside.sum())} of {len(row)} pairs to leave out name no row below {rows} "
                f"or no item below {len(blocks.place)}; ask with this model's idx"
            )
        place = blocks.place[item]
        # an item that nobody is offered need not be left out
        row, place = row[place >= 0], place[place >= 0]
        order = np.argsort(row, kind="stable")
        counts = np.bincount(row, minlength=rows)
        return cls(np.concatenate([[0], np.cumsum(counts)]), place[order])

    def of_rows(self, rows: Int64) -> tuple[Int64, Int64]:
        """The pairs of these rows: which of the rows, by its number among them, and the place."""
        first, last = self.offsets[rows], self.offsets[rows + 1]
        length = last - first
        users = np.repeat(np.arange(len(rows)), length)
        within = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
        return users, self.places[np.repeat(first, length) + within]
