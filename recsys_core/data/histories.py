"""Slices of users' histories as right-padded batches.

user 7, events 2 to 5   ->   items        [  9   4   9   0   0 ]   0 is PAD
                             gap_seconds  [ 61   3 900   0   0 ]   since the user's event
                             length          3                     before, -1 for the first
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events

NO_GAP = -1.0
"""The gap of a user's first event: there is none before it."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """A padded batch of history slices."""

    items: Int64  # (B, T)
    gap_seconds: npt.NDArray[np.float32]  # (B, T)
    length: Int64  # (B,)


def gather_histories(events: Events, user_idx: Int64, *, start: Int64, stop: Int64) -> Histories:
    """Events `start` (inclusive) to `stop` (exclusive) of each user, padded on the right. (B, T)

    T is the longest slice, at least 1. `user_idx`, `start` and `stop` are (B,); positions count a
    user's events from 0.
    """
    length = stop - start  # (B,)
    width = max(1, int(length.max(initial=0)))
    step = np.arange(width)
    valid = step < length[:, None]  # (B, T)
    position = start[:, None] + step  # (B, T)
    rows = np.where(valid, events.offsets[user_idx][:, None] + position, 0)
    items = np.where(valid, events.item_idx[rows], 0).astype(np.int64)
    first = position == 0
    before = np.where(valid & ~first, rows - 1, rows)
    gap = (events.timestamp[rows] - events.timestamp[before]) / 1e6
    gap_seconds = np.where(first, NO_GAP, gap).astype(np.float32)
    return Histories(
        items=items, gap_seconds=np.where(valid, gap_seconds, np.float32(0)), length=length
    )
