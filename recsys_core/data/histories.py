"""Slices of users' histories as right-padded batches.

user 7, events 2 to 5   ->   items            [  9   4   9   0   0 ]   0 is PAD
                             gap_seconds      [ 61   3 900   0   0 ]   since the event before
                             request_seconds  [  3 900  50   0   0 ]   until the event after, of the
                             length              3                     last one until the request
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.sections import Read

EVENT_NUMBERS = (
    "gap_seconds",  # since the user's event before, -1 for the first
    "request_seconds",  # until the user's next event, or the request; -1 where it is not known
    "opens_session",  # 1 where that next event, or the request, opens a session, -1: not known
    "event_type",  # position in the card's event types, -1 where it is not known
    "value",  # 0 where there is none
    "has_value",  # 1 where there is one
)
"""What is known of an event beside its item, in the order of the last axis; the row of its context
follows, where the events have one."""

UNKNOWN = -1.0
"""A gap, a time until the request, a session flag or an event type that is not there."""

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RequestTimes:
    """When each history is asked about, and whether that opens a session."""

    timestamp: Int64  # (B,) microseconds
    opens_session: npt.NDArray[np.bool_]  # (B,)

    def take(self, rows: Int64 | slice) -> "RequestTimes":
        """Those of some rows."""
        return RequestTimes(self.timestamp[rows], self.opens_session[rows])


@dataclass(frozen=True)
class Histories:
    """A padded batch of history slices."""

    items: Int64  # (B, T)
    numbers: Float32  # (B, T, len(EVENT_NUMBERS) + context width) those that are not read are 0
    length: Int64  # (B,)
    user_fields: Float32  # (B, user width); a column of 0 where nothing is read of users

    def number(self, name: str) -> Float32:
        """One of `EVENT_NUMBERS`. (B, T)"""
        return self.numbers[:, :, EVENT_NUMBERS.index(name)]


def gather_histories(
    events: Events,
    user_idx: Int64,
    *,
    start: Int64,
    stop: Int64,
    reads: tuple[Read, ...],
    request: RequestTimes | None = None,
) -> Histories:
    """Events `start` (inclusive) to `stop` (exclusive) of each user, padded on the right. (B, T)

    T is the longest slice, at least 1. `user_idx`, `start` and `stop` are (B,); positions count a
    user's events from 0. Without `request` nobody knows when the last event is followed, and by
    what: no event from `stop` on is looked at. A request for a time before the last event is read
    as one for that event's (`models.requests.asked_early` counts such). Fields are read where the
    events have any.
    """
    length = stop - start  # (B,)
    width = max(1, int(length.max(initial=0)))
    step = np.arange(width)
    valid = step < length[:, None]  # (B, T)
    position = start[:, None] + step  # (B, T)
    rows = np.where(valid, events.offsets[user_idx][:, None] + position, 0)
    items = np.where(valid, events.item_idx[rows], 0).astype(np.int64)
    numbers = np.zeros((*items.shape, len(EVENT_NUMBERS)), dtype=np.float32)
    last = step == length[:, None] - 1  # (B, T)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    if "gap" in reads:
        first = position == 0
        before = np.where(valid & ~first, rows - 1, rows)
        gap = (events.timestamp[rows] - events.timestamp[before]) / 1e6
        columns["gap_seconds"] = np.where(first, UNKNOWN, gap)
    after = np.where(valid & ~last, rows + 1, rows)
    if "request" in reads:
        until = (events.timestamp[after] - events.timestamp[rows]) / 1e6
        asked = np.full(length.shape, UNKNOWN)
        if request is not None:
            latest = rows[np.arange(len(rows)), np.maximum(length - 1, 0)]  # (B,)
            asked = np.maximum(request.timestamp - events.timestamp[latest], 0) / 1e6
        columns["request_seconds"] = np.where(last, asked[:, None], until)
    if "session" in reads:
        opens = events.session_start[after]
        flag = np.full(length.shape, UNKNOWN) if request is None else request.opens_session
        columns["opens_session"] = np.where(last, flag[:, None], opens)
    if "type" in reads:
        columns["event_type"] = events.event_type[rows]
    if "value" in reads:
        value = events.value[rows]
        there = ~np.isnan(value)
        columns["value"], columns["has_value"] = np.where(there, value, 0.0), there
    for name, column in columns.items():
        numbers[:, :, EVENT_NUMBERS.index(name)] = np.where(valid, column, 0)
    user_fields = np.zeros((len(user_idx), 1), dtype=np.float32)
    fields = events.field_rows
    if fields is not None and fields.context.sizes.width:
        context = np.where(valid[:, :, None], fields.of_events(rows), 0)  # (B, T, .)
        numbers = np.concatenate([numbers, context], axis=2)
    if fields is not None and fields.users.sizes.width:
        user_fields = fields.of_users(user_idx)
    return Histories(items=items, numbers=numbers, length=length, user_fields=user_fields)
