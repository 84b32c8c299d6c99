"""The rolling average: what a rating is expected to be, without any model of taste.

    r(u, j) = ( mean of item j before the cut + mean of the user's earlier values ) / 2

The baseline of HRNN-meta's rating tables (Ma et al., KDD 2020, tables 4 and 5). An item without a
value before the cut, or a user without an earlier one, has the mean of all values before the cut.
"""

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import DataError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def rolling_average(
    events: Events, cut: Cut, rows: Int64, *, item_idx: npt.NDArray[np.integer]
) -> Float64:
    """The expected values of the items `item_idx` (N,), asked for before the events `rows`. (N,)

    Items are known as they were at `cut`; of the user every earlier event counts, those after the
    cut too. Raises `DataError` where no event before the cut has a value.
    """
    of_item, mean = _of_items(events, cut, item_idx)
    there = ~np.isnan(events.value)  # (E,)
    # sums over all events before each row, those of the user's own first row taken away
    so_far = np.concatenate(
        [[0.0], np.cumsum(np.where(there, events.value, 0.0), dtype=np.float64)]
    )
    valued = np.concatenate([[0], np.cumsum(there)])
    first = events.offsets[events.user_idx[rows]]
    of_user = _mean(so_far[rows] - so_far[first], valued[rows] - valued[first], otherwise=mean)
    return (of_item + of_user) / 2.0


def item_average(events: Events, cut: Cut, *, item_idx: npt.NDArray[np.integer]) -> Float64:
    """The mean of each item (N,) before the cut, and of all values where it has none. (N,)"""
    return _of_items(events, cut, item_idx)[0]


def _of_items(events: Events, cut: Cut, item_idx: npt.NDArray[np.integer]) -> tuple[Float64, float]:
    """`item_average`, and the mean of all values before the cut."""
    before = cut.known(events) & ~np.isnan(events.value)
    if not before.any():
        raise DataError(
            "no event before the cut has a value, so ratings have no average; name the column of "
            "values in the dataset card (columns.value)"
        )
    mean = float(events.value[before].mean(dtype=np.float64))
    size = int(events.item_idx.max(initial=0)) + 1
    counts = np.bincount(events.item_idx[before], minlength=size)
    sums = np.bincount(events.item_idx[before], weights=events.value[before], minlength=size)
    return _mean(sums[item_idx], counts[item_idx], otherwise=mean), mean


def _mean(
    sums: npt.NDArray[np.number], counts: npt.NDArray[np.integer], *, otherwise: float
) -> Float64:
    """sums / counts, and `otherwise` where nothing was counted. (N,)"""
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)
