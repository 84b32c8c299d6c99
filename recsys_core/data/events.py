"""Events of all users as memory-mapped columns with user offsets (CSR).

    offsets      0 0       3           5            user u has rows offsets[u] to offsets[u + 1]
    item_idx         4 1 4     2 4                  (N,) int32, 0 never occurs (PAD)
    timestamp        a b c     a c                  (N,) int64, microseconds since 1970, UTC
    session_start    1 0 1     1 0                  (N,) bool

Rows are ordered by (user_idx, timestamp, source_row). User 0 is PAD and has no events, so `offsets`
has one entry more than the largest user_idx plus one.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys_core.data.field_rows import FieldRows

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """The event columns; the arrays may be memory maps and are never written to."""

    offsets: Int64  # (U + 2,)
    item_idx: npt.NDArray[np.int32]  # (N,)
    timestamp: Int64  # (N,)
    session_idx: Int64  # (N,) 1 + the lowest source_row of the session's events: not dense
    session_start: npt.NDArray[np.bool_]  # (N,)
    event_type: npt.NDArray[np.int8]  # (N,) position in the card's event types
    value: npt.NDArray[np.float32]  # (N,) NaN where the interaction has none
    source_row: Int64  # (N,)
    field_rows: FieldRows | None = None
    """What a model reads of events and users beside these columns; no column itself."""

    @property
    def n_users(self) -> int:
        """The largest user_idx."""
        return len(self.offsets) - 2

    def __len__(self) -> int:
        return len(self.item_idx)

    @cached_property
    def user_idx(self) -> npt.NDArray[np.int32]:
        """The user of each event. (N,)"""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def position(self) -> Int64:
        """How many earlier events the event's user has. (N,)"""
        return np.arange(len(self), dtype=np.int64) - np.repeat(
            self.offsets[:-1], np.diff(self.offsets)
        )

    def within(self, counts: Int64) -> npt.NDArray[np.bool_]:
        """Which events are among the first `counts[u]` (U + 1,) of their user. (N,)"""
        return self.position < counts[self.user_idx]

    def where(self, keep: npt.NDArray[np.bool_]) -> "Events":
        """The events that `keep` (N,) marks, of the same users.

        A session opens with the first of its events that is kept.
        """
        kept = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(keep, out=kept[1:])
        columns = {name: getattr(self, name)[keep] for name in column_names() if name != "offsets"}
        columns["session_start"] = first_rows_of_sessions(columns["session_idx"])
        field_rows = None if self.field_rows is None else self.field_rows.where(keep)
        return Events(offsets=kept[self.offsets], **columns, field_rows=field_rows)

    def counts_before(self, timestamp: int) -> Int64:
        """Per user_idx, the number of events earlier than `timestamp`. (U + 1,)"""
        earlier = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self.timestamp < timestamp, out=earlier[1:])
        return earlier[self.offsets[1:]] - earlier[self.offsets[:-1]]


def column_names() -> list[str]:
    """The columns of `Events`, the offsets among them."""
    return [field.name for field in fields(Events) if field.name != "field_rows"]


def first_rows_of_sessions(session_idx: Int64) -> npt.NDArray[np.bool_]:
    """Which rows are the first of their session; sessions may interleave. (N,) to (N,)"""
    first = np.zeros(len(session_idx), dtype=bool)
    first[np.unique(session_idx, return_index=True)[1]] = True
    return first
