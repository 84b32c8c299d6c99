"""Events from rows that a test writes down."""

import numpy as np

from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events

HOUR = 3_600_000_000
"""Microseconds."""


def events_of(rows: list[tuple[int, int, int]]) -> Events:
    """Events of (user_idx, item_idx, timestamp); the position in `rows` is the source row."""
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], rows[row][2], row))
    users = np.array([rows[row][0] for row in order], dtype=np.int64)
    n_users = int(users.max(initial=0))
    offsets = np.zeros(n_users + 2, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=n_users + 1), out=offsets[1:])
    n = len(rows)
    return Events(
        offsets=offsets,
        item_idx=np.array([rows[row][1] for row in order], dtype=np.int32),
        timestamp=np.array([rows[row][2] for row in order], dtype=np.int64),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.array(order, dtype=np.int64),
    )


def period_of(events: Events, start: int, end: int, *, n_items: int) -> Period:
    """The events with `start <= timestamp < end`."""
    cuts = (Cut.at(events, time, n_items=n_items) for time in (start, end))
    return Period(*cuts)


def random_rows(
    n: int, *, users: int, items: int, end: int, seed: int = 5
) -> list[tuple[int, int, int]]:
    """`n` rows of random users, items and times in [0, end), in the order of time."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, end, n))
    return [
        (int(user), int(item), int(time))
        for user, item, time in zip(
            rng.integers(1, users + 1, n), rng.integers(1, items + 1, n), times, strict=True
        )
    ]
