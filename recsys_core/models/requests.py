"""What the two-time-scale model reads for a user, in validation, evaluation, export and scoring.

    events of a user     0 1 2 ... s ... n-1      n events so far
    inactive (n < t*)    [ all n            ]     read by the inactive network; no user vector
    active   (n >= t*)   [ fold-in ][window ]     the user vector comes from the events before the
                                                  window, the active network reads the rest

The window is the latest min(n, K) events: who has K events costs what who has 10,000 does. The
fold-in has the first t* // 2 events at least; as long as n is small, the window holds some of these
too, and nothing that is asked for. The memory beside the networks reads the latest items of
everybody, the last one first.

An ablation (`models/ablations.py`) changes who is answered by which network, from what.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.data.histories import gather_histories
from recsys_core.models.ablations import Ablation
from recsys_core.models.fold_in import UserVectors

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputSpec:
    """The numbers that shape a model's input.

    `n_items` is the model's vocabulary: items with a larger idx are unknown. `remembered` is how
    many latest items the memory reads at most; 0 for what the networks alone read.
    """

    n_items: int
    dim: int
    t_star: int
    window: int
    remembered: int
    ablation: Ablation

    @property
    def max_length(self) -> int:
        """The longest slice of a history that the model reads."""
        return max(self.t_star - 1, self.window)

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
        count = np.maximum(self.window_start(history), self.t_star // 2)
        return np.where(self.is_active(history), np.minimum(count, history), 0)


@dataclass(frozen=True)
class Requests:
    """A batch of model inputs, named like the graph's inputs."""

    items: Int64  # (B, T)
    gap_seconds: npt.NDArray[np.float32]  # (B, T)
    length: Int64  # (B,)
    user_vector: npt.NDArray[np.float32]  # (B, D) zero for inactive users
    active: npt.NDArray[np.bool_]  # (B,)
    latest: Int64  # (B, M) known items, the last one first, 0 after them
    history: Int64  # (B,) known events

    def inputs(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by name."""
        return {
            "items": self.items,
            "gap_seconds": self.gap_seconds,
            "length": self.length,
            "user_vector": self.user_vector,
            "active": self.active,
            "latest": self.latest,
            "history": self.history,
        }


def make_requests(
    spec: InputSpec, fold_in: UserVectors, events: Events, *, user_idx: Int64, history: Int64
) -> Requests:
    """Inputs for users after their first `history` events, all of which must be known items."""
    start, folded = spec.window_start(history), spec.folded(history)
    asked = remember(spec, events, user_idx=user_idx, history=history, most=spec.remembered)
    batch = gather_histories(events, user_idx, start=start, stop=history)
    user_vector = fold_in.vectors(events, user_idx, count=folded)
    return Requests(
        items=batch.items,
        gap_seconds=batch.gap_seconds,
        length=batch.length,
        user_vector=user_vector,
        active=asked.active,
        latest=asked.latest,
        history=asked.history,
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

    M is the longest history, but at least 2 and at most `most`.
    """
    width = min(most, max(2, int(history.max(initial=0))))
    age = np.arange(width)
    there = age < history[:, None]  # (B, M)
    rows = np.where(there, events.offsets[user_idx][:, None] + history[:, None] - 1 - age, 0)
    latest = np.where(there, events.item_idx[rows], 0).astype(np.int64)
    return Remembered(latest=latest, active=spec.is_active(history), history=history)
