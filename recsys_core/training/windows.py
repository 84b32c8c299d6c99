"""Which slices of users' histories train which network.

inactive   the first t* events of every user, active ones included: all of them are targets

active     users with more than t* events; the targets t*, t* + 1, ... are cut into blocks at a
           phase drawn anew each epoch, and each block is read from about `lead` K events before
           it, so that window and block have K events together; all before it are folded in

           events     0 . . . . s . . . . b . . . . e
           fold-in    [                 ]
           network              [ lead   ][ targets ]

together   the same blocks over all of every history, nobody folded in: one network for everybody,
           which the two begin as

A short lead costs fewer reads a target; a long one trains on what the network will be asked for,
since a user with many events is read over K of them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

ROUNDING = 1e-9
"""A share of .8 of 10 events is 8 of them, whatever 1 - .2 comes to in floating point."""


@dataclass(frozen=True)
class Windows:
    """One row a window: read from `start` on, predict `first_target` to `stop` (exclusive).

    Positions count a user's events from 0.
    """

    user_idx: Int64  # (W,)
    start: Int64  # (W,)
    first_target: Int64  # (W,)
    stop: Int64  # (W,)
    folded: Int64  # (W,) the first events that the user vector comes from

    def __len__(self) -> int:
        return len(self.user_idx)

    def take(self, rows: Int64) -> "Windows":
        """Some of the windows."""
        return Windows(
            self.user_idx[rows],
            self.start[rows],
            self.first_target[rows],
            self.stop[rows],
            self.folded[rows],
        )

    @property
    def length(self) -> Int64:
        """States per window: one before each event from `start` to `stop`. (W,)"""
        return self.stop - self.start


def inactive_windows(counts: Int64, *, t_star: int) -> Windows:
    """The first t* events of each user; `counts` (U + 1,) are the users' training events."""
    user_idx = np.flatnonzero(counts).astype(np.int64)
    start = np.zeros(len(user_idx), dtype=np.int64)
    return Windows(user_idx, start, start, np.minimum(counts[user_idx], t_star), start)


def active_windows(
    counts: Int64, *, t_star: int, window: int, lead: float, rng: np.random.Generator
) -> Windows:
    """Blocks of targets from the t*-th on, with a random phase for each user.

    `lead` is the share of the window that is read before its first target.
    """
    block = max(1, math.floor(window * (1.0 - lead) + ROUNDING))
    user, first_target, stop = _blocks(counts, after=t_star, size=block, rng=rng)
    start = np.maximum(first_target - (window - block + 1), 0)
    return Windows(user, start, first_target, stop, folded=first_target)


def windows_of_all(counts: Int64, *, window: int, lead: float, rng: np.random.Generator) -> Windows:
    """Blocks of targets from the first event on, for a network that answers everybody."""
    windows = active_windows(counts, t_star=0, window=window, lead=lead, rng=rng)
    return replace(windows, folded=np.zeros(len(windows), dtype=np.int64))


def _blocks(
    counts: Int64, *, after: int, size: int, rng: np.random.Generator
) -> tuple[Int64, Int64, Int64]:
    """User, first event and end of blocks of `size` events that cover all from the `after`-th on,
    with a random phase for each user. (W,) each"""
    users = np.flatnonzero(counts > after).astype(np.int64)
    phase = rng.integers(1, size + 1, size=len(users))
    beyond = np.maximum(counts[users] - after - phase, 0)
    blocks = 1 + -(-beyond // size)
    user = np.repeat(users, blocks)
    number = np.arange(len(user)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    first_stop = after + np.repeat(phase, blocks)
    stop = np.minimum(first_stop + number * size, counts[user])
    first = np.where(number == 0, after, first_stop + (number - 1) * size)
    return user, first, stop


def bucket_by_length(windows: Windows, *, budget: int, rng: np.random.Generator) -> list[Windows]:
    """Batches of windows of similar length, in random order.

    Each has at most `budget` states, padding included, or is one window that is longer.
    """
    order = rng.permutation(len(windows))
    order = order[np.argsort(windows.length[order], kind="stable")]
    lengths = windows.length[order]
    batches, begin = [], 0
    while begin < len(order):
        # lengths rise, so the last row that fits is found by what it would pad the batch to
        size = np.searchsorted(
            np.arange(1, len(order) - begin + 1) * lengths[begin:], budget, "right"
        )
        end = begin + max(1, int(size))
        batches.append(windows.take(order[begin:end]))
        begin = end
    return [batches[index] for index in rng.permutation(len(batches))]
