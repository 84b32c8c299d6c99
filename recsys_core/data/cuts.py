"""What of a log is known at one moment, and the events between two such moments.

user 1   a a a | a | a        a cut is a number for each user: here 3, 2 and 0 events known,
user 2   a a | a              and the period after it holds 1, 1 and 2 events
user 3   | a a
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ConfigError

MICROSECONDS_PER_HOUR = 3_600_000_000

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cut:
    """What is known: the first `counts[u]` events of each user, and the items idx <= `n_items`.

    `time` (microseconds) is that of the cut where it is one for all users: no known event is later;
    None where each user is cut at a moment of their own.
    """

    counts: Int64  # (U + 1,)
    n_items: int
    time: int | None

    @classmethod
    def at(cls, events: Events, time: int, *, n_items: int) -> "Cut":
        """Everything earlier than `time`."""
        return cls(events.counts_before(time), n_items, time)

    def known(self, events: Events) -> Bool:
        """Which events are known. (N,)"""
        return events.within(self.counts)

    def as_of(self, events: Events) -> int:
        """When the latest known event was, in microseconds; 0 where there is none."""
        return int(np.max(events.timestamp, where=self.known(events), initial=0))

    def since(self, hours: float) -> int:
        """The moment `hours` before the cut, in microseconds.

        Raises `ConfigError` where the cut has no one time.
        """
        return self.one_time("a window of hours") - round(hours * MICROSECONDS_PER_HOUR)

    def one_time(self, what: str) -> int:
        """The cut's time, for `what` needs one.

        Raises `ConfigError` where each user is cut at a moment of their own.
        """
        if self.time is None:
            raise ConfigError(
                f"{what} needs one time at which everybody is cut, and leave_one_out has none; "
                "take it out of params.yaml, or choose another `split`"
            )
        return self.time


@dataclass(frozen=True, eq=False)
class Period:
    """The events between two cuts: those of user u at before.counts[u] <= position <
    until.counts[u]."""

    before: Cut
    until: Cut

    def holds(self, events: Events) -> Bool:
        """Which events lie in the period. (N,)"""
        return self.until.known(events) & ~self.before.known(events)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where the validation period begins, where the test period begins, and where it ends."""

    valid: Cut
    test: Cut
    end: Cut

    @property
    def validation_period(self) -> Period:
        return Period(self.valid, self.test)

    @property
    def test_period(self) -> Period:
        return Period(self.test, self.end)


def cuts_of(events: Events, split: Split, items: Vocabulary) -> Cuts:
    """The cuts that a split of this log means.

    A vocabulary is what had arrived by then; that of leave-one-out is the whole catalogue.
    """
    valid, test, end = _counts(events, split)
    if split.leaves_one_out:
        return Cuts(*(Cut(known, len(items), None) for known in (valid, test, end)))
    valid_items = _n_items(events, items, split.valid_start, split.valid_row)
    test_items = _n_items(events, items, split.test_start, split.test_row)
    return Cuts(
        valid=Cut(valid, valid_items, split.valid_start),
        test=Cut(test, test_items, split.test_start),
        end=Cut(end, items.known_before(split.end), split.end),
    )


def events_per_part(events: Events, split: Split) -> dict[str, int]:
    """How many events a split gives to each part; together they are all events of the log."""
    valid, test, _ = (int(counts.sum()) for counts in _counts(events, split))
    return {"train": valid, "validation": test - valid, "test": len(events) - test}


def known_part(events: Events, cut: Cut) -> tuple[Events, Cut]:
    """The events of the items that were known at a cut, and the cut among them.

    A late delivery may bring an event with a time before the cut, of an item that nobody knew then.
    Where there is none, it is the very same log.
    """
    strange = cut.known(events) & (events.item_idx > cut.n_items)
    if not strange.any():
        return events, cut
    return part_of_log(events, cut, np.asarray(events.item_idx) <= cut.n_items)


def part_of_log(events: Events, cut: Cut, keep: Bool) -> tuple[Events, Cut]:
    """The events that `keep` (N,) marks, and the cut among them."""
    left_out = cut.known(events) & ~keep
    lacking = np.bincount(events.user_idx[left_out], minlength=len(cut.counts))
    return events.where(keep), Cut(cut.counts - lacking, cut.n_items, cut.time)


def _counts(events: Events, split: Split) -> tuple[Int64, Int64, Int64]:
    """What each user has before validation, before test, and in all. (U + 1,) each"""
    if split.test_start is None or split.valid_start is None:
        all_of_them = np.diff(events.offsets)
        # who has two events is tested on the second; who has one is only learned from
        test = np.where(all_of_them >= 2, all_of_them - 1, all_of_them)
        return np.where(all_of_them >= 3, all_of_them - 2, test), test, all_of_them
    return (
        _counts_at(events, split.valid_start, split.valid_row),
        _counts_at(events, split.test_start, split.test_row),
        events.counts_before(split.end),
    )


def _counts_at(events: Events, time: int, row: int) -> Int64:
    """Events of each user before `time`, and at that time before the source row `row`. (U + 1,)"""
    counts = events.counts_before(time)
    if row > 0:
        at = (events.timestamp == time) & (events.source_row < row)
        counts = counts + np.bincount(events.user_idx[at], minlength=len(counts))
    return counts


def _n_items(events: Events, items: Vocabulary, time: int | None, row: int) -> int:
    """Items that are known before `time`, and at that time from the events before a row."""
    assert time is not None, "the split is by time"
    before = items.known_before(time)
    if row == 0:
        return before
    # items are numbered by time and row, so those of the events at that time come next
    at = (events.timestamp == time) & (events.source_row < row)
    new = events.item_idx[at]
    return max(before, int(new[new <= items.known_before(time + 1)].max(initial=0)))
