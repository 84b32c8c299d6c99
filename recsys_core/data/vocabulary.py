"""External ids and dense internal ones: they cross here and nowhere else.

idx 0 is PAD; real ones count from 1 in the order of first arrival (`sessions.py`): of the first
appearance in the log, or of the delivery that brought it where that came later. So what was known
before a time is a prefix, one integer, `known_before(time)`, is a model's whole vocabulary. A log
that grows at its end appends ids and never renumbers one; where rows come late only a snapshot
knows that they did, and a single file that is written anew renumbers what a late row's new id
stands before. An event whose row came late may lie before a time at which its item was not known.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.columns import FIRST_TIMESTAMP


@dataclass(frozen=True)
class Vocabulary:
    """Ids in the order of their idx: `ids[0]` has idx 1."""

    ids: pa.StringArray
    first_timestamp: npt.NDArray[np.int64]  # (V,) first arrival, microseconds, non-decreasing

    @classmethod
    def from_table(cls, table: pa.Table) -> "Vocabulary":
        """From a vocabulary table: (idx, id, first_timestamp)."""
        ids = table.column(1).combine_chunks()
        first = table.column(FIRST_TIMESTAMP).cast(pa.int64()).to_numpy()
        return cls(ids=ids, first_timestamp=first)

    def __len__(self) -> int:
        return len(self.ids)

    def known_before(self, timestamp: int) -> int:
        """How many ids arrived before `timestamp`; exactly those have idx <= this number."""
        return int(np.searchsorted(self.first_timestamp, timestamp, side="left"))

    def to_ids(self, idx: npt.NDArray[np.integer]) -> pa.StringArray:
        """The external ids of internal ones; PAD has none, so 0 is an error of the caller."""
        assert idx.size == 0 or int(idx.min()) > 0, "PAD has no external id"
        return self.ids.take(pa.array(idx.astype(np.int64) - 1))

    def to_idx(self, identifier: str) -> int | None:
        """The internal id of an external one, or None where the log never had it."""
        where = self.ids.index(pa.scalar(identifier, self.ids.type)).as_py()
        return None if where < 0 else where + 1
