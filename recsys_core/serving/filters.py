"""Which items may be recommended to whom: filters as masks over the items that the model knows.

    filter               a  b  c  d      left_out  alone
    deny lists/old.csv   .  x  .  .         1        0
    rule price < 20      .  x  x  .         2        1      c is left out by nothing else

A mask says what is the same for everybody of a group, and works before the top k: scores of what it
leaves out are -inf, so that k items come wherever k are left. What each user has seen is left out
beside it, by the engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Filter:
    """One filter: the items that it keeps, and what else is to be said of it."""

    name: str
    keeps: Bool  # (V,) item_idx j + 1 at place j
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Eligible:
    """What may be recommended to the users of each group; of every user_idx the group."""

    items: Bool  # (G, V + 1) PAD, item 0, never may be
    group: Int64  # (U + 1,)

    def scores(self, group: int, trend: Float32) -> Float32:
        """What is added to the scores of a group: the trend (V + 1,), -inf where nothing may be
        recommended. (V + 1,)"""
        return np.where(self.items[group], trend, np.float32(-np.inf))

    @property
    def counts(self) -> Int64:
        """How many items may be recommended to each group. (G,)"""
        return np.asarray(np.count_nonzero(self.items, axis=1), dtype=np.int64)


def everything(*, n_items: int, n_users: int) -> Eligible:
    """All items to everybody: one group."""
    items = np.ones((1, n_items + 1), dtype=bool)
    items[:, 0] = False
    return Eligible(items, np.zeros(n_users + 1, dtype=np.int64))


def kept_by_all(filters: Sequence[Filter], *, n_items: int) -> Bool:
    """The items that every filter keeps, as a row of `Eligible.items`. (V + 1,)"""
    kept = np.ones(n_items + 1, dtype=bool)
    kept[0] = False
    for one in filters:
        kept[1:] &= one.keeps
    return kept


def filter_counts(filters: Sequence[Filter]) -> dict[str, dict[str, int]]:
    """Of each filter how many items it leaves out, and how many of these nothing else does."""
    leaving = np.zeros(len(filters[0].keeps) if filters else 0, dtype=np.int64)
    for one in filters:
        leaving += ~one.keeps
    return {
        one.name: {
            "left_out": int(np.count_nonzero(~one.keeps)),
            "alone": int(np.count_nonzero(~one.keeps & (leaving == 1))),
            **one.counts,
        }
        for one in filters
    }


def listed(ids: pa.StringArray, wanted: pa.StringArray) -> tuple[Bool, int]:
    """Which of the items `ids` (V,) a list names, and how many of the list none of them is.

    (V,) and a count of different ids.
    """
    found = pc.is_in(ids, value_set=wanted).to_numpy(zero_copy_only=False)
    unknown = pc.invert(pc.is_in(pc.unique(wanted), value_set=ids))
    return np.asarray(found, dtype=bool), int(pc.sum(unknown).as_py() or 0)


def available_at(
    as_of: int, since: pa.ChunkedArray | None, until: pa.ChunkedArray | None
) -> tuple[Bool, int]:
    """Which items are within their time at `as_of`: from `since` on and before `until`, timestamps
    (V,) in which a null is no bound; and of how many there is no bound at all."""
    bounds = [(since, True), (until, False)]
    given = [(column, begins) for column, begins in bounds if column is not None]
    assert given, "without a column nothing is asked"
    keeps = np.ones(len(given[0][0]), dtype=bool)
    unbounded = np.ones(len(keeps), dtype=bool)
    for column, begins in given:
        there = column.is_valid().to_numpy()
        time = column.cast(pa.int64()).fill_null(0).to_numpy()
        keeps &= ~there | (time <= as_of if begins else time > as_of)
        unbounded &= ~there
    return keeps, int(np.count_nonzero(unbounded))


def rows_of(ids: pa.StringArray, table: pa.Table) -> tuple[pa.Table, int]:
    """The rows of the items `ids` in their order, all but the id null where the table has none, and
    how many those are. The first column of `table` holds its ids."""
    place = pc.index_in(ids, value_set=table.column(0).combine_chunks())
    name = table.schema.names[0]
    return table.take(place).set_column(0, name, ids), place.null_count
