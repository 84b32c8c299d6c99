"""The moments that cut a log into train, validation and test.

... train ...  valid_start  ... validation ...  test_start  ... test ...  end

| kind          | the test part, and the validation part once more in what lies before it       |
|---------------|--------------------------------------------------------------------------------|
| days          | the last days                                                                  |
| frame         | the hours before an end; validation is as long as is said                      |
| quantile      | the last share of the events by time; equal times stay on one side             |
| events        | the last share of the events by time, then row: a number of events, to the row |
| leave_one_out | each user's last event                                                         |

Leave-one-out looks ahead: what is learned from one user may be later than another's test event. It
is there to compare with published tables.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.errors import DataError
from recsys_core.sections_of_data import (
    DaysSplit,
    EventsSplit,
    FrameSplit,
    LeaveOneOutSplit,
    TimeSplit,
)

MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Split:
    """Microseconds since 1970; starts are inclusive, `end` is not, `as_of` is the latest event.

    Starts are None where each user's last events are left out. Of the events at the very time of
    a start, those of source rows before its row lie before it.
    """

    valid_start: int | None
    test_start: int | None
    end: int
    as_of: int
    valid_row: int = 0
    test_row: int = 0

    @property
    def leaves_one_out(self) -> bool:
        return self.test_start is None

    def to_json(self) -> dict[str, int | None]:
        return asdict(self)


def make_split(
    events: Events, params: TimeSplit | EventsSplit | LeaveOneOutSplit, *, cut_off: int | None
) -> Split:
    """The split of a log, which ends at the card's cut-off, or just after its last event.

    Raises `DataError` where a part would be empty.
    """
    if isinstance(params, LeaveOneOutSplit):
        return _leave_one_out(events, cut_off=cut_off)
    if isinstance(params, EventsSplit):
        return _split_by_event(events, params, cut_off=cut_off)
    return split_by_time(events.timestamp, params, cut_off=cut_off)


def split_by_time(
    timestamp: npt.NDArray[np.int64], params: TimeSplit, *, cut_off: int | None
) -> Split:
    """Cut a log by time; the validation cut is the test cut once more, inside what lies before it,
    but for a frame, which says how long validation is.

    `days`: the test period is the last `days` before the end, the cut-off where the card has one.
    `quantile`: it begins at the (1 - share) quantile (lower) of the timestamps, that time included.
    Where time is a rank, that is the last share of the events in the order of their ranks; where
    each user has a count of their own, it is the latest steps of whoever has many.

    Raises `DataError` where a part would be empty.
    """
    end, as_of = _end(timestamp, cut_off)
    if isinstance(params, DaysSplit):
        step = round(params.days * MICROSECONDS_PER_DAY)
        test_start, valid_start = end - step, end - 2 * step
    elif isinstance(params, FrameSplit):
        test_start = end - round(params.hours / 24 * MICROSECONDS_PER_DAY)
        valid_start = test_start - round(params.valid_hours / 24 * MICROSECONDS_PER_DAY)
    else:
        test_start = _quantile(timestamp, params.share)
        valid_start = _quantile(timestamp[timestamp < test_start], params.share)
    parts = {
        "train": np.count_nonzero(timestamp < valid_start),
        "validation": np.count_nonzero((timestamp >= valid_start) & (timestamp < test_start)),
        "test": np.count_nonzero(timestamp >= test_start),
    }
    _refuse_empty({part: int(events) for part, events in parts.items()}, len(timestamp))
    return Split(valid_start=valid_start, test_start=test_start, end=end, as_of=as_of)


def _split_by_event(events: Events, params: EventsSplit, *, cut_off: int | None) -> Split:
    end, as_of = _end(events.timestamp, cut_off)
    n = len(events)
    train, valid, _ = params.shares
    first, second = round(train * n), round((train + valid) * n)
    _refuse_empty({"train": first, "validation": second - first, "test": n - second}, n)
    order = np.lexsort((events.source_row, events.timestamp))
    valid_at, test_at = order[first], order[second]
    return Split(
        valid_start=int(events.timestamp[valid_at]),
        test_start=int(events.timestamp[test_at]),
        end=end,
        as_of=as_of,
        valid_row=int(events.source_row[valid_at]),
        test_row=int(events.source_row[test_at]),
    )


def _leave_one_out(events: Events, *, cut_off: int | None) -> Split:
    end, as_of = _end(events.timestamp, cut_off)
    counts = np.diff(events.offsets)
    tested, chosen_on = int((counts >= 2).sum()), int((counts >= 3).sum())
    trained = len(events) - tested - chosen_on
    _refuse_empty({"train": trained, "validation": chosen_on, "test": tested}, len(events))
    return Split(valid_start=None, test_start=None, end=end, as_of=as_of)


def _end(timestamp: npt.NDArray[np.int64], cut_off: int | None) -> tuple[int, int]:
    """The end of the log and the time of its latest event."""
    if len(timestamp) == 0:
        raise DataError(
            "the log has no events to split; check the dataset card's event types and cut-off"
        )
    as_of = int(timestamp.max())
    return as_of + 1 if cut_off is None else cut_off, as_of


def _refuse_empty(parts: dict[str, int], events: int) -> None:
    for part, of_part in parts.items():
        if of_part == 0:
            raise DataError(
                f"split: the {part} part would have no events of {events}; "
                "choose a smaller `split` in params.yaml"
            )


def _quantile(timestamp: npt.NDArray[np.int64], share: float) -> int:
    """The (1 - share) quantile (lower)."""
    if len(timestamp) == 0:
        raise DataError(
            "split: nothing lies before the test part; choose a smaller `split` in params.yaml"
        )
    return int(np.quantile(timestamp, 1.0 - share, method="lower"))
