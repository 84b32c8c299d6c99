"""Targets: the events that are asked for, and what may be read before each.

    user 7, n_items 4      4 . . 9 . . 2 | 2 . . 4          | is the start of the period
    target                                 a     b
    position                               3     4          all earlier events
    history                                2     3          those of known items (9 is not)
    last_item                              2     2          the last known one

| kind       | its targets                                                | read before one        |
|------------|------------------------------------------------------------|------------------------|
| successive | each event of the period that has an earlier one           | all earlier events     |
| last       | of these, each user's last                                 | all earlier events     |
| session    | of sessions that begin in the period, from the second on   | all earlier events     |
| basket     | distinct items of each user's first session in the period, | what lies before the   |
|            | where they had one before it                               | basket                 |

What may be read holds earlier events of the period itself. The targets of a basket have one
position: targets of one user at one position are asked for together, as one *query*.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Period
from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.sections import TargetKind

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Targets:
    """One entry per target, in the order of events: by user, then position, then row."""

    user_idx: Int32  # (N,)
    position: Int32  # (N,) earlier events of the user, without the target's own basket
    history: Int32  # (N,) those of them whose item is known
    item_idx: Int32  # (N,) above n_items where unknown
    timestamp: Int64  # (N,) microseconds, when it is asked for: a basket's, its first event's
    source_row: Int64  # (N,)
    last_item: Int32  # (N,) the last known item before the target, 0 where there is none

    def __len__(self) -> int:
        return len(self.item_idx)

    @property
    def query(self) -> Int64:
        """Which query each target is of: 0, 1, ... without gaps. (N,)"""
        return queries(self.user_idx, self.position)

    def take(self, rows: slice | Bool | Int64) -> "Targets":
        """The targets at `rows`: a slice, a mask or row numbers."""
        return Targets(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def queries(user_idx: Int32, position: Int32) -> Int64:
    """Number each run of equal (user, position) among targets in order: 0, 1, ... (N,)"""
    new = np.zeros(len(user_idx), dtype=np.int64)
    new[1:] = (user_idx[1:] != user_idx[:-1]) | (position[1:] != position[:-1])
    return np.cumsum(new)


def targets_of(kind: TargetKind, events: Events, period: Period, *, n_items: int) -> Targets:
    """The targets of a period; an item is known where its idx is at most `n_items`.

    No target lies outside of the period. That there is something earlier of the user is asked of
    all their events, not of those of known items.
    """
    if kind == "basket":
        rows, asked_at = _basket_rows(events, period)
    else:
        rows = np.flatnonzero(period.holds(events) & (events.position > 0))
        if kind == "last":
            users = events.user_idx[rows]
            rows = rows[np.append(users[1:] != users[:-1], True)[: len(rows)]]
        elif kind == "session":
            first = _session_first_rows(events)[rows]
            rows = rows[(first < rows) & period.holds(events)[first]]
        asked_at = rows
    return _targets(events, rows, asked_at, n_items=n_items)


def request_times(events: Events, targets: Targets, *, n_items: int) -> RequestTimes:
    """When each target is asked for, and whether that opens a session for a model of `n_items`.

    It does where the session has no event of a known item before: of the others nobody knows.
    """
    rows = events.offsets[targets.user_idx] + targets.position  # (N,)
    known = np.flatnonzero(events.item_idx <= n_items)
    session, first = np.unique(events.session_idx[known], return_index=True)
    asked = events.session_idx[rows]
    place = np.minimum(np.searchsorted(session, asked), max(len(session) - 1, 0))
    if len(session) == 0:
        return RequestTimes(targets.timestamp, np.ones(len(rows), dtype=bool))
    goes_on = (session[place] == asked) & (known[first[place]] < rows)
    return RequestTimes(targets.timestamp, ~goes_on)


def events_in_period(events: Events, period: Period) -> int:
    """How many events lie in the period: targets, and those that are none."""
    return int(np.count_nonzero(period.holds(events)))


def _targets(events: Events, rows: Int64, asked_at: Int64, *, n_items: int) -> Targets:
    """The events `rows` (N,), each asked for before the event `asked_at` (N,) of the same user."""
    users = events.user_idx[rows]
    first = events.offsets[users]  # (N,) the user's first row
    known = events.item_idx <= n_items
    known_before = np.zeros(len(events) + 1, dtype=np.int64)
    np.cumsum(known, out=known_before[1:])
    latest_known = np.where(known, np.arange(len(events), dtype=np.int64), -1)
    np.maximum.accumulate(latest_known, out=latest_known)
    last = latest_known[asked_at - 1]  # never row -1: a first event is nobody's target
    last_item = np.where(last >= first, events.item_idx[last], 0)
    return Targets(
        user_idx=users.astype(np.int32),
        position=(asked_at - first).astype(np.int32),
        history=(known_before[asked_at] - known_before[first]).astype(np.int32),
        item_idx=np.asarray(events.item_idx[rows], dtype=np.int32),
        timestamp=np.asarray(events.timestamp[asked_at], dtype=np.int64),
        source_row=np.asarray(events.source_row[rows], dtype=np.int64),
        last_item=last_item.astype(np.int32),
    )


def _session_first_rows(events: Events) -> Int64:
    """The first row of each event's session; sessions may interleave. (N,)"""
    _, first, session = np.unique(events.session_idx, return_index=True, return_inverse=True)
    return np.asarray(first[session], dtype=np.int64)


def _basket_rows(events: Events, period: Period) -> tuple[Int64, Int64]:
    """Rows of the baskets' distinct items, and the first row of each one's basket."""
    inside = period.holds(events)
    session_first = _session_first_rows(events)
    # of each user the first session that begins in the period, where something lies before it
    begins = np.flatnonzero(inside & (session_first == np.arange(len(events))))
    _, first_of_user = np.unique(events.user_idx[begins], return_index=True)
    begins = begins[first_of_user]
    begins = begins[events.position[begins] > 0]
    rows = np.flatnonzero(inside & np.isin(session_first, begins))
    basket_and_item = np.stack([session_first[rows], events.item_idx[rows]])
    _, distinct = np.unique(basket_and_item, axis=1, return_index=True)
    rows = rows[np.sort(distinct)]
    return rows, session_first[rows]
