"""Sessions by a gap, in a stream of events that comes ordered by user and time.

    user_idx        1  1  1  2  2       gap 100
    timestamp       0 99 200 0 50       a session is a run of rows, so that its start is a
    source_row      4  0  9  1  5       difference to the row before
    session_start   1  0  1  1  0
    session_idx     1  1 10  2  2       1 + the lowest source_row of the run

What the last rows of a batch are in is known when the next run begins: they wait until then, and
no more than one session waits.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, np.ndarray[Any, Any]]
"""The next rows of some columns, by name."""


def in_sessions(batches: Iterable[Columns], *, gap: int | None) -> Iterator[Columns]:
    """The same rows with `session_start` and `session_idx`, in batches cut between sessions.

    A session begins with a user, and after `gap` microseconds or more without an event; where
    `gap` is None, with a user alone.
    """
    waiting: list[Columns] = []
    for batch in batches:
        batch["session_start"] = _starts(batch, after=waiting[-1] if waiting else None, gap=gap)
        begun = np.flatnonzero(batch["session_start"])
        if waiting and len(begun):
            # all that waits is whole at the first start, unless it is the start itself
            waiting.append(_part(batch, slice(0, int(begun[-1]))))
            yield _numbered(waiting)
            waiting = [_part(batch, slice(int(begun[-1]), None))]
        else:
            waiting.append(batch)
    if waiting:
        yield _numbered(waiting)


def _starts(batch: Columns, *, after: Columns | None, gap: int | None) -> npt.NDArray[np.bool_]:
    """Whether each row begins a session; `after` are the rows before the batch."""
    user, time = batch["user_idx"], batch["timestamp"]
    starts = np.ones(len(user), dtype=np.bool_)
    starts[1:] = user[1:] != user[:-1]
    if gap is not None:
        starts[1:] |= np.diff(time) >= gap
    if after is not None:
        starts[0] = user[0] != after["user_idx"][-1] or (
            gap is not None and time[0] - after["timestamp"][-1] >= gap
        )
    return starts


def _part(batch: Columns, rows: slice) -> Columns:
    return {name: column[rows] for name, column in batch.items()}


def _numbered(pieces: list[Columns]) -> Columns:
    """Whole sessions as one batch, with `session_idx`."""
    rows = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    begun = np.flatnonzero(rows["session_start"])
    lowest = np.minimum.reduceat(rows["source_row"], begun)
    rows["session_idx"] = np.repeat(lowest + 1, np.diff(begun, append=len(rows["source_row"])))
    return rows
