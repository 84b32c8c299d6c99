"""Scores of some users and all items, block by block, keeping only what may be among the best.

Candidates stand in blocks of `ITEMS_AT_ONCE` rows. The scores of a block stay in the cache while
the maxima of groups of 8 of them are taken, and of 8 such groups:

    scores    (S, U)       one row an item, one column a user
    maxima    (S / 8, U)   group g has the items g, g + S / 8, g + 2 S / 8, ...
              (S / 64, U)  the same again

What a user's scores must reach is compared with the last level alone, and followed down where it
is reached.

The products are ONNX Runtime's: its `MatMul` is the fastest of those that are installed
(`make bench-score`), and it takes the number of threads from whoever opens a session: one here,
since each thread scans on its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper

from recsys_core.errors import ModelError
from recsys_core.serving.ranked_keys import Keys

ITEMS_AT_ONCE = 1_024
"""With 512 users 2 MiB of scores, about what the cache of a core holds."""

BLOCKS_AT_ONCE = 2
"""So many blocks are looked through together, which saves calls."""

SAMPLE = 2**14
"""Items of the sample at most: 32 MiB of scores with 512 users."""

PART = 8
"""The sample is this part of the items at most."""

FOLDS = (8, 8)
"""Each maximum is of so many numbers of the level before."""

CLEAR = 4
"""A level of maxima ranks as the scores do where it has so many times as many rows as the rank."""

PENDING = 2**21
"""Keys that wait to be ranked, at most: 16 MiB, reached where many scores are equal."""

REACHED_AT_ONCE = 2**15
"""Maxima that are followed down at once: to 16 MiB of scores' places where all below are equal."""

LOWEST = np.finfo(np.float32).min
GOLDEN = 0.6180339887498949
OPSET, IR_VERSION = 20, 9

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ItemBlocks:
    """The candidates as rows in an order that knows nothing of their scores, so that the first ones
    are a sample."""

    rows: Float32  # (C, D)
    item: Int64  # (C,) their idx
    place: Int64  # (V + 1,) where an idx stands among the rows; -1: no candidate

    @property
    def n_items(self) -> int:
        """Items are numbered below this."""
        return len(self.place)

    @property
    def blocks(self) -> int:
        return -(-len(self.rows) // ITEMS_AT_ONCE)

    @property
    def sample_blocks(self) -> int:
        """Blocks of the sample; all of them where there are few."""
        wanted = min(SAMPLE // ITEMS_AT_ONCE, -(-self.blocks // PART))
        return min(self.blocks, max(BLOCKS_AT_ONCE, wanted))

    @property
    def sample_share(self) -> float:
        """The sample's share of the items."""
        return min(1.0, self.sample_blocks * ITEMS_AT_ONCE / max(1, len(self.rows)))


def block_items(vectors: Float32, candidates: Int64, *, bias: Float32 | None) -> ItemBlocks:
    """The candidates of (V + 1, D) in blocks; a bias (V + 1,) becomes one more column."""
    item = candidates[_spread(len(candidates))]
    columns = vectors.shape[1]
    rows = np.empty((len(item), columns + (bias is not None)), dtype=np.float32)
    rows[:, :columns] = vectors[item]
    if bias is not None:
        rows[:, columns] = bias[item]
    place = np.full(len(vectors), -1, dtype=np.int64)
    place[item] = np.arange(len(item))
    return ItemBlocks(rows, item, place)


@dataclass(frozen=True)
class Tile:
    """Users to scan for together, and what is left out of them: row `places[s]` of the items for
    the user `users[s]` among these."""

    vectors: Float32  # (U, D)
    users: Int64  # (S,)
    places: Int64  # (S,)


class Scan:
    """The space and the products of one thread, for up to `width` users at a time, a power of two.

    The width is always filled up, so that every product has the same shape, and so every score the
    same bits, whoever stands beside it.
    """

    def __init__(
        self, blocks: ItemBlocks, product: onnxruntime.InferenceSession, *, width: int
    ) -> None:
        self._blocks, self._product, self._width = blocks, product, width
        self._keys = Keys(width)
        self._users = np.zeros((blocks.rows.shape[1], width), dtype=np.float32)  # (D, U)
        slots = blocks.sample_blocks
        sizes = np.cumprod((1, *FOLDS))
        # scores first, then one level of maxima after the other; a row is one block
        self._levels = [
            np.empty((slots, ITEMS_AT_ONCE // size * width), dtype=np.float32) for size in sizes
        ]
        self._parts = [
            (0, slots),
            *(
                (first, min(first + BLOCKS_AT_ONCE, blocks.blocks))
                for first in range(slots, blocks.blocks, BLOCKS_AT_ONCE)
            ),
        ]
        self._products = [
            self._bind(block, slot=block - first)
            for first, last in self._parts
            for block in range(first, last)
        ]

    def best(self, tile: Tile, *, k: int, rank: int) -> tuple[Int64, Float32, Int64]:
        """The best items of each user, their scores, and how many were found of k or more. (U, k)
        twice, (U,)

        They are the k best of all where k were found or `rank` is k: found is whatever reaches the
        `rank`-th best of the sample.
        """
        width, count = self._width, len(tile.vectors)
        self._users[:, :count] = tile.vectors.T
        self._users[:, count:] = 0
        left_out = np.sort(tile.places * width + tile.users)
        bounds = np.searchsorted(left_out, np.arange(self._blocks.blocks + 1) * self._cells)
        least = np.full(width, LOWEST, dtype=np.float32)
        kept, waiting = [np.zeros(0, dtype=np.uint64)], 0
        for first, last in self._parts:
            for block in range(first, last):
                cells = left_out[bounds[block] : bounds[block + 1]] - block * self._cells
                self._score(block, slot=block - first, left_out=cells)
            used = last - first
            self._refuse_nan(used)
            if first == 0:
                least = np.maximum(least, self._ranked(rank))
            for keys in self._reaching(least, first=first, used=used):
                kept.append(keys)
                waiting += len(keys)
                if waiting > PENDING:
                    kept = [self._first_k(kept, k=k)]
                    waiting = len(kept[0])
        return self._answer(self._first_k(kept, k=k), count=count, k=k)

    @property
    def _cells(self) -> int:
        """Scores of one block."""
        return ITEMS_AT_ONCE * self._width

    def _bind(self, block: int, *, slot: int) -> onnxruntime.IOBinding:
        """A product whose inputs and output are bound once: binding takes a tenth of its time."""
        rows = self._blocks.rows[block * ITEMS_AT_ONCE : (block + 1) * ITEMS_AT_ONCE]
        binding = self._product.io_binding()
        binding.bind_cpu_input("rows", rows)
        binding.bind_cpu_input("users", self._users)
        where = self._levels[0][slot].ctypes.data
        binding.bind_output("scores", "cpu", 0, np.float32, (len(rows), self._width), where)
        return binding

    def _score(self, block: int, *, slot: int, left_out: Int64) -> None:
        """Scores and maxima of one block; what is left out is -inf, and so is what fills it up."""
        self._product.run_with_iobinding(self._products[block])
        scores = self._levels[0][slot]
        scores[(len(self._blocks.rows) - block * ITEMS_AT_ONCE) * self._width :] = -np.inf
        scores[left_out] = -np.inf
        for size, below, above in zip(FOLDS, self._levels, self._levels[1:], strict=False):
            np.maximum.reduce(below[slot].reshape(size, -1), axis=0, out=above[slot])

    def _refuse_nan(self, used: int) -> None:
        # a maximum is NaN where any number below it is
        if np.isnan(self._levels[-1][:used]).any():
            raise ModelError(
                "scores are NaN; the model has diverged: roll back to an earlier version, or train "
                "it again with a smaller learning rate"
            )

    def _ranked(self, rank: int) -> Float32:
        """The rank-th best maximum or score of each user in the sample. (U,)"""
        used = self._parts[0][1]
        for level in reversed(self._levels):
            rows = level[:used].reshape(-1, self._width)  # (G, U)
            if len(rows) >= CLEAR * rank:
                break
        if len(rows) < rank:
            return np.full(self._width, LOWEST, dtype=np.float32)
        by_user = np.ascontiguousarray(rows.T)  # (U, G)
        by_user.partition(len(rows) - rank, axis=1)
        return by_user[:, len(rows) - rank]

    def _reaching(self, least: Float32, *, first: int, used: int) -> Iterator[UInt64]:
        """The scores of the first `used` slots that reach `least`, as keys, some at a time. (C,)"""
        top = self._levels[-1][:used].reshape(-1, self._width)
        reached = np.flatnonzero(top >= least)
        for begin in range(0, len(reached), REACHED_AT_ONCE):
            cells, values = self._followed(reached[begin : begin + REACHED_AT_ONCE], least)
            user = cells & (self._width - 1)
            place = first * ITEMS_AT_ONCE + cells // self._width
            yield self._keys.pack(user, values, self._blocks.item.take(place))

    def _followed(self, cells: Int64, least: Float32) -> tuple[Int64, Float32]:
        """Cells of the last level to those of the scores below them that reach `least`. (C,)"""
        values = np.zeros(0, dtype=np.float32)
        for depth in range(len(FOLDS) - 1, -1, -1):
            size, row = FOLDS[depth], self._levels[depth + 1].shape[1]
            # in the level below a block's row is `size` times as long
            start = cells + cells // row * ((size - 1) * row)
            below = start + np.arange(size)[:, None] * row  # (size, C)
            values = self._levels[depth].reshape(-1).take(below)
            hit = np.flatnonzero(values >= least.take(cells & (self._width - 1)))
            cells, values = below.reshape(-1).take(hit), values.reshape(-1).take(hit)
        return cells, values

    def _first_k(self, kept: list[UInt64], *, k: int) -> UInt64:
        """The keys of the k best of each user, in order."""
        ordered = np.concatenate(kept)
        ordered.sort()
        starts = self._keys.starts(ordered)
        within = np.arange(len(ordered)) - np.repeat(starts[:-1], np.diff(starts))
        return ordered[within < k]

    def _answer(self, ordered: UInt64, *, count: int, k: int) -> tuple[Int64, Float32, Int64]:
        starts = self._keys.starts(ordered)
        found = np.diff(starts)[:count]  # (U,)
        there = np.arange(k) < found[:, None]  # (U, k)
        items = np.zeros((count, k), dtype=np.int64)
        scores = np.full((count, k), -np.inf, dtype=np.float32)
        keys = ordered[: starts[count]]
        items[there], scores[there] = self._keys.items(keys), self._keys.scores(keys)
        return items, scores, found


def _spread(count: int) -> Int64:
    """An order of 0 to count - 1 whose first ones come from everywhere. (count,)

    Items are numbered as they arrived, and so by their age: the first ones would be no sample.
    """
    step = max(1, round(count * GOLDEN))
    while np.gcd(step, count) != 1:
        step += 1
    return np.arange(count, dtype=np.int64) * step % max(1, count)


def product_session() -> onnxruntime.InferenceSession:
    """The product of two matrices, on the calling thread alone, and on several at a time."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("rows", ["S", "D"]), ("users", ["D", "U"]), ("scores", ["S", "U"]))
    ]
    product = helper.make_node("MatMul", ["rows", "users"], ["scores"])
    graph = helper.make_graph([product], "product", ports[:2], ports[2:])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
