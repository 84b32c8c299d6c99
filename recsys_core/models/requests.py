"""What the two-time-scale model reads for a user, in validation, evaluation, export and scoring.

    events of a user     0 1 2 ... s ... n-1      n events so far
    inactive (n < t*)    [ all n            ]     read by the inactive network; no user vector
    active   (n >= t*)   [ fold-in ][window ]     the user vector comes from the events before s,
                                                  the active network reads the rest

s = max(n - K, t* // 2): the window is at most K events, and at promotion it already holds the
latest ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.data.histories import gather_histories
from recsys_core.models.fold_in import FoldIn

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputSpec:
    """The numbers that shape a model's input.

    `n_items` is the model's vocabulary: items with a larger idx are unknown.
    """

    n_items: int
    dim: int
    t_star: int
    window: int

    @property
    def max_length(self) -> int:
        """The longest slice of a history that the model reads."""
        return max(self.t_star - 1, self.window)

    def is_active(self, history: Int64) -> npt.NDArray[np.bool_]:
        """Users with at least t* events are active. (B,)"""
        return history >= self.t_star

    def window_start(self, history: Int64) -> Int64:
        """Where the slice that the network reads begins. (B,)"""
        start = np.maximum(history - self.window, self.t_star // 2)
        return np.where(self.is_active(history), start, 0)


@dataclass(frozen=True)
class Requests:
    """A batch of model inputs, named like the graph's inputs."""

    items: Int64  # (B, T)
    gap_seconds: npt.NDArray[np.float32]  # (B, T)
    length: Int64  # (B,)
    user_vector: npt.NDArray[np.float32]  # (B, D) zero for inactive users
    active: npt.NDArray[np.bool_]  # (B,)

    def inputs(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by name."""
        return {
            "items": self.items,
            "gap_seconds": self.gap_seconds,
            "length": self.length,
            "user_vector": self.user_vector,
            "active": self.active,
        }


def make_requests(
    spec: InputSpec, fold_in: FoldIn, events: Events, *, user_idx: Int64, history: Int64
) -> Requests:
    """Inputs for users after their first `history` events, all of which must be known items."""
    start = spec.window_start(history)
    active = spec.is_active(history)
    batch = gather_histories(events, user_idx, start=start, stop=history)
    user_vector = fold_in.vectors(events, user_idx, count=np.where(active, start, 0))
    return Requests(
        items=batch.items,
        gap_seconds=batch.gap_seconds,
        length=batch.length,
        user_vector=user_vector,
        active=active,
    )


def known_events(events: Events, n_items: int) -> Events:
    """The events whose item the model knows: what a history is made of.

    Where all are known it is the very same object.
    """
    keep = np.asarray(events.item_idx) <= n_items
    return events if keep.all() else events.where(keep)


@dataclass(frozen=True)
class Remembered:
    """What a memory reads for a batch of users, beside the networks' logits."""

    latest: Int64  # (B, M) known items, the last one first, 0 after them
    active: npt.NDArray[np.bool_]  # (B,)
    history: Int64  # (B,) known events


def remember(
    spec: InputSpec, events: Events, *, user_idx: Int64, history: Int64, most: int
) -> Remembered:
    """The latest of each user's first `history` events, all of which must be known items.

    M is the longest history, but at most `most` and at least 2.
    """
    width = min(most, max(2, int(history.max(initial=0))))
    age = np.arange(width)
    there = age < history[:, None]  # (B, M)
    rows = np.where(there, events.offsets[user_idx][:, None] + history[:, None] - 1 - age, 0)
    latest = np.where(there, events.item_idx[rows], 0).astype(np.int64)
    return Remembered(latest=latest, active=spec.is_active(history), history=history)
