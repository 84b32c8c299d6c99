"""Targets of successive next-item prediction: events of users who have an earlier one.

    user 7, n_items 4      4 . . 9 . . 2 | 2 . . 4          | is the start of the period
    target                                 a     b
    position                               3     4          all earlier events
    history                                2     3          those of known items (9 is not)
    last_item                              2     2          the last known one

What a model may read of the user is everything before the target, the period itself included.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Targets:
    """One entry per target, in the order of events: by user, then position."""

    user_idx: Int32  # (N,)
    position: Int32  # (N,) earlier events of the user
    history: Int32  # (N,) earlier events of the user whose item is known
    item_idx: Int32  # (N,) above n_items where unknown
    timestamp: Int64  # (N,) microseconds
    source_row: Int64  # (N,)
    last_item: Int32  # (N,) the last known item before the target, 0 where there is none

    def __len__(self) -> int:
        return len(self.item_idx)

    def take(self, rows: slice | Bool | Int64) -> "Targets":
        """The targets at `rows`: a slice, a mask or row numbers."""
        return Targets(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def successive_targets(events: Events, start: int, *, end: int, n_items: int) -> Targets:
    """Every event with `start <= timestamp < end` that has an earlier event of its user.

    Times in microseconds. The earlier event need not be of a known item; an item is known where its
    idx is at most `n_items`.
    """
    time = events.timestamp
    rows = np.flatnonzero((time >= start) & (time < end) & (events.position > 0))  # (N,)
    users = events.user_idx[rows]
    first = events.offsets[users]  # (N,) the user's first row

    known = events.item_idx <= n_items
    known_before = np.zeros(len(events) + 1, dtype=np.int64)
    np.cumsum(known, out=known_before[1:])
    latest_known = np.where(known, np.arange(len(events), dtype=np.int64), -1)
    np.maximum.accumulate(latest_known, out=latest_known)
    last = latest_known[rows - 1]  # never row -1: the first event of all is nobody's target
    last_item = np.where(last >= first, events.item_idx[last], 0)

    return Targets(
        user_idx=users.astype(np.int32),
        position=(rows - first).astype(np.int32),
        history=(known_before[rows] - known_before[first]).astype(np.int32),
        item_idx=np.asarray(events.item_idx[rows], dtype=np.int32),
        timestamp=np.asarray(time[rows], dtype=np.int64),
        source_row=np.asarray(events.source_row[rows], dtype=np.int64),
        last_item=last_item.astype(np.int32),
    )


def events_in_period(events: Events, start: int, *, end: int) -> int:
    """How many events have `start <= timestamp < end`: targets, and first events of users."""
    return int(np.count_nonzero((events.timestamp >= start) & (events.timestamp < end)))
