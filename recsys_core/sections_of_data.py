"""The sections of params.yaml for what comes before training: the split, and the way of a log to
events. As in `sections.py` nothing here has a default."""

import math
from dataclasses import dataclass
from datetime import date
from typing import ClassVar, Literal

from recsys_core.section_checks import FORBID_EXTRA, positive, share


@dataclass(frozen=True)
class DaysSplit:
    """The last `days` days are test, the same before them validation."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["days"]
    days: float

    def __post_init__(self) -> None:
        positive(self, "days")


@dataclass(frozen=True)
class QuantileSplit:
    """The last `share` of the events by time is test, the same share of the rest validation."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["quantile"]
    share: float

    def __post_init__(self) -> None:
        positive(self, "share")
        share(self, "share")


@dataclass(frozen=True)
class EventsSplit:
    """The `shares` of the events, in the order of time and row, that are train, validation, test.

    The cuts fall between two rows, also where these have one time.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["events"]
    shares: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.shares) <= 0 or not math.isclose(sum(self.shares), 1.0):
            raise ValueError(
                f"shares is {list(self.shares)}, it must be three numbers above 0 that add up to 1"
            )


@dataclass(frozen=True)
class LeaveOneOutSplit:
    """Each user's last event is test, the one before it validation; it looks ahead."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["leave_one_out"]


@dataclass(frozen=True)
class FrameSplit:
    """The `hours` before `end` are test, the `valid_hours` before them validation. `end` is in
    microseconds since 1970, as the log has them: what lies later is cut off; null is the log's."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["frame"]
    hours: float
    valid_hours: float
    end: int | None

    def __post_init__(self) -> None:
        positive(self, "hours", "valid_hours")


TimeSplit = DaysSplit | QuantileSplit | FrameSplit
SplitParams = TimeSplit | EventsSplit | LeaveOneOutSplit


@dataclass(frozen=True)
class Snapshot:
    """`path` is the folder into which files are delivered, for a card that has a snapshot of files;
    null where none has."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    path: str | None


@dataclass(frozen=True)
class Ingest:
    """`dataset` names the card `datasets/<dataset>.yaml`; `path` is the folder that holds its
    files, or that the snapshot edge fills."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    dataset: str
    path: str


@dataclass(frozen=True)
class Validate:
    """`timestamps_before` (a date, UTC) is a day that no row can be of yet; null knows none. Rows
    of a snapshot are also judged by the day on which they came. `memory_mb` is what DuckDB may hold
    before it spills to disk."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    batch_rows: int
    timestamps_before: date | None
    memory_mb: int

    def __post_init__(self) -> None:
        positive(self, "batch_rows", "memory_mb")


@dataclass(frozen=True)
class Sessionize:
    """`ties`: events of one user at one time follow each other in the order of their rows
    (`first`), or the other way round (`last`), to see how much hangs on that order. `memory_mb` is
    what DuckDB may hold before it spills to disk."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    ties: Literal["first", "last"]
    memory_mb: int

    def __post_init__(self) -> None:
        positive(self, "memory_mb")
