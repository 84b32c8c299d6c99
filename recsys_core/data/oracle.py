"""The simulator's truth: the probability of each item at an event, given all but the coin flips.

Its state holds what no history shows (taste at that time, the session's intent, today's shelf), so
a model that reads histories stays below it. Stored as the parts of the distribution, and put
together on request, in chunks:

    P(item) = repeat [item = previous]  +  (1 - repeat) P(topic) P(item | topic)
    P(item | topic) = softmax over the topic's items, but not the previous one, of
                      query . factors + appeal[period]
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys_core.artifacts import atomic_path, read_json, write_json
from recsys_core.errors import ContractError

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

ITEMS = "items.json"


@dataclass(frozen=True)
class Oracle:
    """The state behind C events; V items as in `item_ids`, K topics, F factors, P periods."""

    item_ids: list[str]
    topic_offsets: Int64  # (K + 1,) a topic's items are a slice
    factors: Float32  # (V, F)
    appeal: Float32  # (P, V) log popularity; -inf for items that could not be seen
    source_row: Int64  # (C,) ascending
    period: Int64  # (C,) row of `appeal`
    query: Float32  # (C, F)
    topic_log_probability: Float32  # (C, K)
    previous_item: npt.NDArray[np.int32]  # (C,) position in `item_ids`, -1 for none
    repeat_probability: Float32  # (C,) that the event is the next funnel step of the previous item

    def covers(self, source_row: Int64) -> npt.NDArray[np.bool_]:
        """Whether the true probabilities of each event are known. (B,)"""
        return np.isin(source_row, self.source_row)

    def log_probability(self, source_row: Int64) -> Float32:
        """Natural log of each item's probability at each event, -inf if it cannot occur. (B, V)

        Raises `ContractError` where an event is not covered.
        """
        missing = int(np.count_nonzero(~self.covers(source_row)))
        if missing:
            raise ContractError(
                f"oracle: {missing} of {len(source_row)} events are not covered; ask `covers` first"
            )
        rows = np.searchsorted(self.source_row, source_row)  # (B,)
        logit = self.query[rows].astype(np.float64) @ self.factors.T.astype(np.float64)
        logit += self.appeal[self.period[rows]]  # (B, V)
        follows = np.flatnonzero(self.previous_item[rows] >= 0)
        previous = self.previous_item[rows[follows]]
        logit[follows, previous] = -np.inf
        starts = self.topic_offsets[:-1]
        sizes = np.diff(self.topic_offsets)
        # in place, as far as it goes: (B, V) is the memory
        logit -= np.repeat(np.maximum.reduceat(logit, starts, axis=1), sizes, axis=1)
        total = np.log(np.add.reduceat(np.exp(logit), starts, axis=1))  # (B, K)
        logit += np.repeat(self.topic_log_probability[rows] - total, sizes, axis=1)

        repeat = self.repeat_probability[rows].astype(np.float64)
        logit += np.log1p(-repeat)[:, None]
        with np.errstate(divide="ignore"):
            logit[follows, previous] = np.log(repeat[follows])
        return logit.astype(np.float32)


def write_oracle(folder: Path, oracle: Oracle) -> None:
    """Write an oracle: an npy file for each array, and the ids of its items as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _arrays():
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, getattr(oracle, name), allow_pickle=False)
    write_json(folder / ITEMS, oracle.item_ids)


def read_oracle(folder: Path) -> Oracle:
    """The oracle of a folder; what grows with the log is mapped and not read.

    Raises `ContractError` where a part is missing or does not fit the others.
    """
    arrays = {}
    for name in _arrays():
        path = folder / f"{name}.npy"
        if not path.exists():
            raise ContractError(f"{path}: no such part of the oracle; run `ingest` again")
        # numpy refuses to map an empty array
        empty = np.load(path, allow_pickle=False) if path.stat().st_size <= 128 else None
        arrays[name] = (
            empty if empty is not None else np.load(path, mmap_mode="r", allow_pickle=False)
        )
    oracle = Oracle(item_ids=read_json(folder / ITEMS), **arrays)
    events, items = len(oracle.source_row), len(oracle.item_ids)
    for name in ("period", "query", "topic_log_probability", "previous_item", "repeat_probability"):
        if len(arrays[name]) != events:
            raise ContractError(
                f"{folder}: {name} has {len(arrays[name])} rows, source_row has {events}"
            )
    if len(oracle.factors) != items or oracle.appeal.shape[1] != items:
        raise ContractError(
            f"{folder}: factors or appeal do not fit {items} items; run `ingest` again"
        )
    return oracle


def _arrays() -> Iterator[str]:
    return (field.name for field in fields(Oracle) if field.name != "item_ids")
