"""How many recommendations cannot be there, and why: known before anything is scored.

    k = 5, a model of 4 items, 3 of them left by the filters, 2 of these seen: 1 row of 5

    catalogue 1   filters 1   seen 2

What the seen filter costs comes last, so that a part never counts twice. Since it is known, a run
whose rows are fewer has lost some: a model that gives NaN or -inf to items that may be recommended,
and to so many that no k others are left.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.serving.filters import Eligible

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortfall:
    """Rows that are missing from k for each user, by what costs them."""

    catalogue: int = 0
    filters: int = 0
    seen: int = 0

    @property
    def total(self) -> int:
        return self.catalogue + self.filters + self.seen

    def __add__(self, other: "Shortfall") -> "Shortfall":
        return Shortfall(
            self.catalogue + other.catalogue, self.filters + other.filters, self.seen + other.seen
        )


def expected_shortfall(
    eligible: Eligible, *, group: Int64, rows: Int64, items: Int64, k: int
) -> Shortfall:
    """What is missing for N users of the groups `group` (N,), who have seen the items of the pairs
    `rows`, `items` (S,), repeats allowed."""
    n_items = eligible.items.shape[1] - 1
    left = eligible.counts[group]  # (N,)
    catalogue = max(0, k - n_items) * len(group)
    most = min(k, n_items)
    filters = int(np.maximum(most - left, 0).sum())
    # only who has seen so many that fewer than k may be left is worth a closer look
    events = np.bincount(rows, minlength=len(group))
    close = np.flatnonzero(left - events < most)
    if len(close) == 0:
        return Shortfall(catalogue, filters)
    place = np.full(len(group), -1, dtype=np.int64)
    place[close] = np.arange(len(close))
    of_close = place[rows] >= 0
    pairs = np.unique(place[rows[of_close]] * (n_items + 1) + items[of_close])
    row, item = np.divmod(pairs, n_items + 1)
    counted = eligible.items[group[close[row]], item]
    seen = np.bincount(row[counted], minlength=len(close))
    there = np.minimum(most, left[close])
    lost = there - np.minimum(most, left[close] - seen)
    return Shortfall(catalogue, filters, int(lost.sum()))
