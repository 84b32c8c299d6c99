"""What the two-time-scale model reads for a user, in validation, evaluation, export and scoring.

    events of a user     0 1 2 ... s ... n-1      n events so far
    inactive (n < t*)    [ all n            ]     read by the inactive network; no user vector
    active   (n >= t*)   [ fold-in          ]     the user vector comes from all events, the active
                                  [window   ]     network reads the latest as well

The window is the latest min(n, K) events, and so bounded is the fold-in: who has K events costs
what who has 10,000 does. The memory beside the networks reads the different items of
everybody's history, the latest first, with how often and how lately each occurred
(`models/own_items.py`).

An ablation (`models/ablations.py`) changes who is answered by which network, from what.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.histories import EVENT_NUMBERS, RequestTimes, gather_histories
from recsys_core.models.ablations import Ablation
from recsys_core.models.fold_in import UserVectors
from recsys_core.models.own_items import Own, gather_own
from recsys_core.sections import Read

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputSpec:
    """The numbers that shape a model's input.

    `n_items` is the model's vocabulary: items with a larger idx are unknown. `remembered` is how
    many own items the memory reads at most; 0 for what the networks alone read.
    """

    n_items: int
    dim: int
    t_star: int
    window: int
    remembered: int
    ablation: Ablation
    reads: tuple[Read, ...]
    context: FieldSizes = NO_FIELDS
    users: FieldSizes = NO_FIELDS

    @property
    def event_columns(self) -> int:
        """Numbers of an event."""
        return len(EVENT_NUMBERS) + self.context.width

    @property
    def user_columns(self) -> int:
        """Fields of a user: at least one column, which is 0 where none is read."""
        return max(1, self.users.width)

    @property
    def max_length(self) -> int:
        """The longest slice of a history that the model reads."""
        return max(self.t_star - 1, self.window)

    @property
    def reads_request(self) -> bool:
        """Whether it matters when a user is asked about."""
        return not {"request", "session"}.isdisjoint(self.reads)

    def is_active(self, history: Int64) -> npt.NDArray[np.bool_]:
        """Whom the active network answers: users with at least t* events. (B,)"""
        if self.ablation == "one_rnn":
            return np.zeros(len(history), dtype=bool)
        return history < self.t_star if self.ablation == "swap" else history >= self.t_star

    def window_start(self, history: Int64) -> Int64:
        """Where the slice that the network reads begins. (B,)"""
        start = np.maximum(history - self.window, 0)
        if self.ablation in ("one_rnn", "swap"):
            return start
        if self.ablation == "active_static":
            start = history  # nothing is read: the user vector stays as it is
        return np.where(self.is_active(history), start, 0)

    def folded(self, history: Int64) -> Int64:
        """How many of the first events the user vector comes from. (B,)"""
        return np.where(self.is_active(history), history, 0)


@dataclass(frozen=True)
class Requests:
    """A batch of model inputs, named like the graph's inputs."""

    items: Int64  # (B, T)
    event_numbers: npt.NDArray[np.float32]  # (B, T, .) `histories.EVENT_NUMBERS`, context
    user_fields: npt.NDArray[np.float32]  # (B, .)
    length: Int64  # (B,)
    user_vector: npt.NDArray[np.float32]  # (B, D) zero for inactive users
    active: npt.NDArray[np.bool_]  # (B,)
    own: Own

    def inputs(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by name."""
        return {
            "items": self.items,
            "event_numbers": self.event_numbers,
            "user_fields": self.user_fields,
            "length": self.length,
            "user_vector": self.user_vector,
            "active": self.active,
            "own_items": self.own.items,
            "own_numbers": self.own.numbers,
            "user_numbers": self.own.user_numbers,
        }


def make_requests(
    spec: InputSpec,
    fold_in: UserVectors,
    events: Events,
    *,
    user_idx: Int64,
    history: Int64,
    request: RequestTimes | None = None,
) -> Requests:
    """Inputs for users after their first `history` events, all of which must be known items.

    Without `request` it is not known when they are asked about. Where the model reads fields,
    `events` have them.
    """
    start, folded = spec.window_start(history), spec.folded(history)
    batch = gather_histories(
        events, user_idx, start=start, stop=history, reads=spec.reads, request=request
    )
    assert batch.numbers.shape[2] == spec.event_columns, "the events have the context that is read"
    assert batch.user_fields.shape[1] == spec.user_columns, "and their users the fields"
    user_vector = fold_in.vectors(events, user_idx, count=folded)
    return Requests(
        items=batch.items,
        event_numbers=batch.numbers,
        user_fields=batch.user_fields,
        length=batch.length,
        user_vector=user_vector,
        active=spec.is_active(history),
        own=gather_own(events, user_idx=user_idx, history=history, most=spec.remembered),
    )


def request_at(
    at: Int64 | int,
    known: Events,
    *,
    user_idx: Int64,
    history: Int64,
    session_gap_seconds: float | None,
) -> RequestTimes:
    """The requests of users (B,) after their first `history` events, at one time or at (B,) times
    in microseconds, of which nothing more is known.

    Such a request opens a session where the user has been away for the gap; without one none does.
    """
    time = np.broadcast_to(np.asarray(at, dtype=np.int64), user_idx.shape)  # (B,)
    opens = np.zeros(len(user_idx), dtype=bool)
    if session_gap_seconds is not None:
        last = last_times(known, user_idx=user_idx, history=history, of_nobody=time)
        opens = time - last >= session_gap_seconds * 1e6
    return RequestTimes(time, opens)


def request_at_scoring(
    as_of: int,
    known: Events,
    *,
    user_idx: Int64,
    history: Int64,
    session_gap_seconds: float | None,
) -> RequestTimes:
    """The requests (B,) of a scoring run at `as_of`, or after each `history` where that has later
    events."""
    last = last_times(known, user_idx=user_idx, history=history, of_nobody=as_of)
    return request_at(
        np.maximum(last, as_of),
        known,
        user_idx=user_idx,
        history=history,
        session_gap_seconds=session_gap_seconds,
    )


def last_times(known: Events, *, user_idx: Int64, history: Int64, of_nobody: Int64 | int) -> Int64:
    """When the last of each user's first `history` events was; `of_nobody` where there is none.
    (B,)"""
    last = np.array(np.broadcast_to(np.asarray(of_nobody, dtype=np.int64), user_idx.shape))
    there = history > 0
    last[there] = known.timestamp[known.offsets[user_idx[there]] + history[there] - 1]
    return last


def asked_early(at: Int64 | int, known: Events, *, user_idx: Int64, history: Int64) -> int:
    """How many requests are for a time before the last of their first `history` events.

    None should be; the time until such a request is read as none at all.
    """
    last = last_times(known, user_idx=user_idx, history=history, of_nobody=at)
    return int(np.count_nonzero(last > at))


def known_events(events: Events, n_items: int) -> Events:
    """The events whose item the model knows: what a history is made of.

    Where all are known it is the very same object.
    """
    keep = np.asarray(events.item_idx) <= n_items
    return events if keep.all() else events.where(keep)
