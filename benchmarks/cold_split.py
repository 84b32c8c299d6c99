"""The protocol `cold-ml1m`: half of the items, and a fifth of the users, held out of all training.

                     warm items       cold items
    train users      learned from     never seen
    test users       their history    asked for, in one list a user

Validation is the same once more inside the part that is learned from, so that nothing of the test's
users or cold items has a say in any choice. Ranks are among the cold items alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.errors import DataError
from recsys_core.rng import generator

Level = Literal["validation", "test"]
Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

COLD_ITEMS = 0.5
TRAIN_USERS = 0.8
METRICS = ("mrr", "precision@5", "precision@25", "ndcg@5", "ndcg@25")


@dataclass(frozen=True, eq=False)
class ColdSplit:
    """Ids as texts, each in the order of its draw."""

    warm_items: pa.Array
    cold_items: pa.Array
    train_users: pa.Array
    test_users: pa.Array

    def learned(self, log: pa.Table) -> pa.Table:
        """The rows that may be learned from: of train users and warm items."""
        return _rows(log, self.train_users, self.warm_items)

    def histories(self, log: pa.Table) -> pa.Table:
        """What is known of the test users: their rows of warm items, in their own order."""
        rows = _rows(log, self.test_users, self.warm_items)
        return rows.sort_by([("user_id", "ascending"), ("time_rank", "ascending")])

    def wanted(self, log: pa.Table) -> Bool:
        """Which cold items each test user has. (U, C)"""
        rows = _rows(log, self.test_users, self.cold_items)
        return incidence(rows, self.test_users, self.cold_items) > 0


def draw_split(log: pa.Table, level: Level, *, seed: int) -> ColdSplit:
    """The split of a log's items and users; that of validation lies inside what the test leaves.

    `log` has `user_id`, `item_id` and `time_rank`; ids are texts. Raises `DataError` for a log that
    is too small to be halved twice.
    """
    test = _draw(log, generator(seed, "cold", "test"))
    found = test if level == "test" else _draw(test.learned(log), generator(seed, "cold", level))
    smallest = min(len(found.warm_items), len(found.cold_items), len(found.test_users))
    if smallest == 0:
        raise DataError(
            f"the cold split for {level} leaves {len(found.warm_items)} warm items, "
            f"{len(found.cold_items)} cold ones and {len(found.test_users)} users to ask about; "
            "give it a larger log"
        )
    return found


def metrics_of(scores: Float32, wanted: Bool, *, rng: np.random.Generator | None) -> Float64:
    """`METRICS` of each user's list, from scores of the cold items and which are theirs.

    Both (U, C) to (U, M); who wants nothing has NaN. A rank is 1 + the others with a score greater
    or equal; with `rng` items of equal scores come in an order drawn once for all users, since by
    genres alone most scores are shared and such a list would otherwise begin nowhere.
    """
    rank = _ranks_in_order(scores, rng) if rng is not None else _ranks(scores)  # (U, C)
    found = np.full((len(scores), len(METRICS)), np.nan)
    gain = 1.0 / np.log2(1.0 + np.arange(1, 26))
    for user in np.flatnonzero(wanted.any(axis=1)):
        hits = rank[user, wanted[user]]
        found[user] = [
            1.0 / hits.min(),
            *(np.count_nonzero(hits <= k) / k for k in (5, 25)),
            *(
                (1.0 / np.log2(1.0 + hits[hits <= k])).sum() / gain[: min(k, len(hits))].sum()
                for k in (5, 25)
            ),
        ]
    return found


def incidence(rows: pa.Table, users: pa.Array, items: pa.Array) -> Float32:
    """1 where a user has a row of an item. (U, I)"""
    user = pc.index_in(rows["user_id"], value_set=users).to_numpy()
    item = pc.index_in(rows["item_id"], value_set=items).to_numpy()
    matrix = np.zeros((len(users), len(items)), dtype=np.float32)
    matrix[user, item] = 1.0
    return matrix


def read_log(folder: Path) -> pa.Table:
    """The rows of a log that have a place in their user's order, with ids as texts."""
    events = pq.read_table(folder / "events.parquet")
    events = events.filter(pc.is_valid(events["time_rank"]))
    for name in ("user_id", "item_id"):
        place = events.schema.get_field_index(name)
        events = events.set_column(place, name, events[name].cast(pa.string()))
    return events


def _draw(log: pa.Table, rng: np.random.Generator) -> ColdSplit:
    items, users = (_drawn(log[name], rng) for name in ("item_id", "user_id"))
    cold, train = int(COLD_ITEMS * len(items)), int(TRAIN_USERS * len(users))
    return ColdSplit(
        warm_items=items.slice(cold),
        cold_items=items.slice(0, cold),
        train_users=users.slice(0, train),
        test_users=users.slice(train),
    )


def _drawn(ids: pa.ChunkedArray, rng: np.random.Generator) -> pa.Array:
    """The different ids in a drawn order, whatever the order of rows."""
    unique = pc.unique(ids)
    return unique.take(pc.sort_indices(unique)).take(pa.array(rng.permutation(len(unique))))


def _rows(log: pa.Table, users: pa.Array, items: pa.Array) -> pa.Table:
    kept = pc.and_(
        pc.is_in(log["user_id"], value_set=users), pc.is_in(log["item_id"], value_set=items)
    )
    return log.filter(kept)


def _ranks(scores: Float32) -> Int64:
    """1 + the others with a score greater or equal. (U, C)"""
    ordered = np.sort(scores, axis=1)
    below = [np.searchsorted(row, own, "left") for row, own in zip(ordered, scores, strict=True)]
    return scores.shape[1] - np.asarray(below)


def _ranks_in_order(scores: Float32, rng: np.random.Generator) -> Int64:
    """Ranks where equal scores come in one drawn order. (U, C)"""
    order = rng.permutation(scores.shape[1])
    ranks = np.empty(scores.shape, dtype=np.int64)
    place = np.argsort(-scores[:, order], axis=1, kind="stable")
    np.put_along_axis(ranks, order[place], np.arange(1, scores.shape[1] + 1)[None, :], axis=1)
    return ranks
