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


def rolling_average(events: Events, cut: Cut, rows: Int64) -> Float64:
    """The expected value of each of the events `rows` (N,). (N,)

    Items are known as they were at `cut`; of the user every earlier event counts, those after the
    cut too. Raises `DataError` where no event before the cut has a value.
    """
    there = ~np.isnan(events.value)  # (E,)
    before = cut.known(events) & there
    if not before.any():
        raise DataError(
            "no event before the cut has a value, so ratings have no average; name the column of "
            "values in the dataset card (columns.value)"
        )
    mean = float(events.value[before].mean(dtype=np.float64))
    size = int(events.item_idx.max(initial=0)) + 1
    counts = np.bincount(events.item_idx[before], minlength=size)
    sums = np.bincount(events.item_idx[before], weights=events.value[before], minlength=size)
    of_item = _mean(sums[events.item_idx[rows]], counts[events.item_idx[rows]], otherwise=mean)

    # sums over all events before each row, those of the user's own first row taken away
    so_far = np.concatenate(
        [[0.0], np.cumsum(np.where(there, events.value, 0.0), dtype=np.float64)]
    )
    valued = np.concatenate([[0], np.cumsum(there)])
    first = events.offsets[events.user_idx[rows]]
    of_user = _mean(so_far[rows] - so_far[first], valued[rows] - valued[first], otherwise=mean)
    return (of_item + of_user) / 2.0


def _mean(
    sums: npt.NDArray[np.number], counts: npt.NDArray[np.integer], *, otherwise: float
) -> Float64:
    """sums / counts, and `otherwise` where nothing was counted. (N,)"""
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)
