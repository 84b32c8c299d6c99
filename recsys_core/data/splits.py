"""The times that cut a log into train, validation and test.

... train ...  valid_start  ... validation ...  test_start  ... test ...  end
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.errors import DataError
from recsys_core.sections import DaysSplit, SplitParams

MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Split:
    """Microseconds since 1970; starts are inclusive, `end` is not, `as_of` is the latest event."""

    valid_start: int
    test_start: int
    end: int
    as_of: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def split_by_time(
    timestamp: npt.NDArray[np.int64], params: SplitParams, *, cut_off: int | None
) -> Split:
    """Cut a log by time; the validation cut is the test cut once more, inside what lies before it.

    `days`: the test period is the last `days` before the end, the cut-off where the card has one.
    `quantile`: it begins at the (1 - share) quantile (lower) of the timestamps, that time included.
    Where time is a rank, that is the last share of the events in the order of their ranks; where
    each user has a count of their own, it is the latest steps of whoever has many.

    Raises `DataError` where a part would be empty.
    """
    if len(timestamp) == 0:
        raise DataError(
            "the log has no events to split; check the dataset card's event types and cut-off"
        )
    as_of = int(timestamp.max())
    end = as_of + 1 if cut_off is None else cut_off
    if isinstance(params, DaysSplit):
        step = round(params.days * MICROSECONDS_PER_DAY)
        test_start, valid_start = end - step, end - 2 * step
    else:
        test_start = _quantile(timestamp, params.share)
        valid_start = _quantile(timestamp[timestamp < test_start], params.share)
    parts = {
        "train": np.count_nonzero(timestamp < valid_start),
        "validation": np.count_nonzero((timestamp >= valid_start) & (timestamp < test_start)),
        "test": np.count_nonzero(timestamp >= test_start),
    }
    for part, events in parts.items():
        if events == 0:
            raise DataError(
                f"split: the {part} part would have no events of {len(timestamp)}; "
                "choose a smaller `split` in params.yaml"
            )
    return Split(valid_start=valid_start, test_start=test_start, end=end, as_of=as_of)


def _quantile(timestamp: npt.NDArray[np.int64], share: float) -> int:
    """The (1 - share) quantile (lower)."""
    if len(timestamp) == 0:
        raise DataError(
            "split: nothing lies before the test part; choose a smaller `split` in params.yaml"
        )
    return int(np.quantile(timestamp, 1.0 - share, method="lower"))
