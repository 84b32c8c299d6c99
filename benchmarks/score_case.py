"""What the benchmark of top-k and the processes that it measures agree on.

Nothing but NumPy is imported: a peer runs in an environment of its own.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.training_case import say

Search = Callable[[], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
"""The items and scores of all users of a case, one row each, best first; items from 0."""


@dataclass(frozen=True)
class Case:
    """Vectors to search in and for: the same numbers wherever they are drawn."""

    engine: str
    items: int
    dim: int
    users: int
    seen: int  # items that are left out of each user
    k: int
    threads: int
    seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The case of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Drawn:
    """The vectors of a case, and what each user has seen, different items, in order."""

    items: np.ndarray[Any, Any]  # (V, D) float32
    users: np.ndarray[Any, Any]  # (N, D) float32
    seen: np.ndarray[Any, Any]  # (N, seen) int64

    @property
    def seen_rows(self) -> np.ndarray[Any, Any]:
        """The user of each seen item. (N * seen,)"""
        return np.repeat(np.arange(len(self.seen)), self.seen.shape[1])


def draw(case: Case) -> Drawn:
    """Normal vectors: no item is long enough to be left unread, as of a trained model some are."""
    rng = np.random.default_rng(case.items + case.dim)
    items = rng.standard_normal((case.items, case.dim), dtype=np.float32)
    users = rng.standard_normal((case.users, case.dim), dtype=np.float32)
    # a stretch of the items at a random start, every so many: different ones without a draw each
    start = rng.integers(0, case.items, (case.users, 1))
    stride = case.items // case.seen
    seen = np.sort((start + np.arange(case.seen) * stride) % case.items, axis=1)
    return Drawn(items, users, seen)


def say_search(case: Case, search: Search, **facts: Any) -> None:
    """Measure a search, the first call a warm-up, and tell what was found."""
    search()
    calls, began, cpu = 0, time.perf_counter(), time.process_time()
    while not calls or time.perf_counter() - began < case.seconds:
        _, scores = search()
        calls += 1
    seconds = time.perf_counter() - began
    say(
        users_per_second=round(calls * case.users / seconds, 1),
        cpu_seconds=round(time.process_time() - cpu, 6),
        seconds=round(seconds, 6),
        # of the whole answer: engines that find the same agree in it
        mean_score=float(scores.mean(dtype=np.float64)),
        **facts,
    )


def without_seen(
    items: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], *, drawn: Drawn, k: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first k of each row that the user has not seen, where k + seen were found. (N, k)"""
    n_items = len(drawn.items)
    row = np.arange(len(items))[:, None] * n_items
    keep = ~np.isin(items + row, drawn.seen + row)  # (N, k + seen)
    keep &= np.cumsum(keep, axis=1) <= k
    return items[keep].reshape(-1, k), scores[keep].reshape(-1, k)


def batches(count: int, *, size: int) -> Iterator[slice]:
    """Slices of at most `size` of `count` rows."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
