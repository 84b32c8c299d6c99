"""The trend: how popular each item was in the period just before a moment.

    q_j(t) = (1 + count of item j in the window before t) / (V + count of all items there)
    logits(t) = phi + log q(t) / temperature           HRNN-meta (Ma et al., KDD 2020), equation 5

Time is cut into slots of a 60th of the window, which begin at whole multiples of their length since
1970. A request at t sees the 60 slots before the one that t lies in:

    slot         s-61   s-60   s-59  ...  s-2    s-1     s
    counts         no    yes    yes  ...  yes    yes    no        t lies in s

So nothing of t's own time or later counts, and no target sees itself; what is newer than the 60th
of a window may not count yet. All requests of one slot see the same, and an item that is asked for
often has one count a slot instead of one an event: that is what makes a trend cheap to train with.
Training asks at the time of each event, evaluation at the cut at the latest or, streaming, at each
target's own time, scoring at its `as_of`, all by this one rule.

A table that is published once a day is asked all day by the trend of that morning. A network that
has learned beside a trend of the last minute trusts it too much then. So training may ask for the
trend as it was at the latest of some regular moments (`Refresh`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

SLOTS = 60
"""Of a window."""

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Refresh:
    """Moments at which a trend is counted anew: every `every_us` before and after `anchor`."""

    every_us: int
    anchor: int

    def latest(self, at: Int64) -> Int64:
        """The latest moment that is not after each of the times. (B,)"""
        return self.anchor + (at - self.anchor) // self.every_us * self.every_us


@dataclass(frozen=True)
class TrendIndex:
    """Counts of items by slot: one entry for each item and slot with an event of it.

    The entries lie there twice: by item, for a few items at many times, and by slot, for all items
    at a time. Times that are asked for are microseconds (B,), in any order.
    """

    slot_us: int
    until: int | None
    refresh: Refresh | None
    temperature: float
    first_slot: int
    span: int
    """More than the slots from the first to the last and a window: keys of items stay apart."""
    key: Int64  # (E,) item * span + slot - first_slot, rising
    count: Int32  # (E,) events of the item in the slot
    counted: Int64  # (E + 1,) events of the entries before
    item_start: Int64  # (V + 2,) item j has entries item_start[j] to item_start[j + 1]
    slot_by_time: Int64  # (E,) rising
    item_by_time: Int32  # (E,)
    count_by_time: Int32  # (E,)
    counted_by_time: Int64  # (E + 1,)

    @property
    def n_items(self) -> int:
        return len(self.item_start) - 2

    def offset(self, at: Int64, items: Int64 | None) -> Float32:
        """What the trend adds to logits: `log_share` over the temperature."""
        log_share = self.log_share(at, items)
        log_share /= np.float32(self.temperature)
        return log_share

    def offset_each(self, at: Int64, items: Int64) -> Float32:
        """What the trend adds to one logit a row: `log_share_each` over the temperature. (B,)"""
        log_share = self.log_share_each(at, items)
        log_share /= np.float32(self.temperature)
        return log_share

    def log_share(self, at: Int64, items: Int64 | None) -> Float32:
        """log q of `items` (M,), repeats allowed, at each of the times `at` (B,). (B, M)

        For None that of all items, (B, V + 1). PAD, item 0, has 0. B requests for all items cost
        O(B V), and one pass over the entries between them where they are within a window of each
        other, at most two windows' entries each where they are not. M items cost O(B M) and one
        pass over the entries of those items.
        """
        slots, row = np.unique(self.slot_of(at), return_inverse=True)  # (Q,) and (B,)
        return self._of_all(slots, row) if items is None else self._of_items(items, slots, row)

    def log_share_each(self, at: Int64, items: Int64) -> Float32:
        """log q of one item a row, each at its own time: (B,) and (B,) to (B,). PAD has 0."""
        slot = self.slot_of(at)
        # beyond the entries nothing is seen, and a row stays within its own item
        end = np.clip(slot - self.first_slot, 0, self.span - 1)
        begin = np.clip(slot - self.first_slot - SLOTS, 0, self.span - 1)
        base = items.astype(np.int64) * self.span
        after, before = (np.searchsorted(self.key, base + place) for place in (end, begin))
        log_share = np.log1p(self.counted[after] - self.counted[before]) - self._log_total(slot)
        return np.where(items == 0, 0.0, log_share).astype(np.float32)

    def slot_of(self, at: Int64) -> Int64:
        """The slot of each time that is asked for: of a frozen trend at most that of its end, of a
        refreshed one that of the latest refresh."""
        if self.until is not None:
            at = np.minimum(at, self.until)
        if self.refresh is not None:
            at = self.refresh.latest(at)
        return at // self.slot_us

    def _log_total(self, slots: Int64) -> Float64:
        """Logarithm of the events in the window, one added for each item. (Q,)"""
        begin, end = self._window(slots)
        log_total: Float64 = np.log(
            self.counted_by_time[end] - self.counted_by_time[begin] + self.n_items
        )
        return log_total

    def _window(self, slots: Int64) -> tuple[Int64, Int64]:
        """First entry by time of each slot's window, and the one after its last. (Q,) twice"""
        begin = np.searchsorted(self.slot_by_time, slots - SLOTS)
        return begin, np.searchsorted(self.slot_by_time, slots)

    def _of_all(self, slots: Int64, row: Int64) -> Float32:
        """Of all items: a window that slides from slot to slot. (B, V + 1)"""
        log_share = np.empty((len(row), self.n_items + 1), dtype=np.float32)
        slide = TrendSlide(self)
        rows = np.split(np.argsort(row, kind="stable"), np.cumsum(np.bincount(row))[:-1])
        for index, slot in enumerate(slots.tolist()):
            seen, log_count, log_total = slide.to(slot)
            first, *others = rows[index]
            line = log_share[first]
            line[:] = -log_total
            line[seen] += log_count
            line[0] = 0.0
            log_share[others] = line
        return log_share

    def _of_items(self, items: Int64, slots: Int64, row: Int64) -> Float32:
        """Of some items: what each of their entries adds and takes away, summed up. (B, M)"""
        # int32 as in the log would not hold the keys
        different, column = np.unique(items.astype(np.int64), return_inverse=True)
        first = self.item_start[different]  # (U,)
        many = self.item_start[different + 1] - first  # (U,)
        line = np.repeat(np.arange(len(different)), many)  # (E of the items,)
        entry = np.arange(len(line)) + np.repeat(first - (np.cumsum(many) - many), many)
        place = self.key[entry] - np.repeat(different * self.span, many)
        # an entry counts for the slots after its own, as many as are in a window
        width, count = len(slots) + 1, self.count[entry]
        change = np.zeros(len(different) * width, dtype=np.int32)
        np.add.at(change, line * width + self._not_later(slots, place), count)
        np.subtract.at(change, line * width + self._not_later(slots, place + SLOTS), count)
        # a line takes away whatever it adds, so one sum over all of them keeps them apart
        seen = np.cumsum(change, dtype=np.int32).reshape(len(different), width)[:, :-1]  # (U, Q)
        log_share = np.log(seen + np.float32(1.0), dtype=np.float32)
        log_share -= self._log_total(slots).astype(np.float32)
        log_share[different == 0] = 0.0
        return np.ascontiguousarray(log_share[column].T)[row]  # (B, M)

    def _not_later(self, slots: Int64, place: Int64) -> Int64:
        """How many of `slots` (Q,), rising, are not later than each place (slot - first_slot)."""
        requests = slots - self.first_slot
        if len(place) < self.span:
            return np.searchsorted(requests, place, "right")
        # many places: a table of all of them costs less than a search for each
        at_place = np.bincount(np.clip(requests, 0, self.span - 1), minlength=self.span)
        return np.cumsum(at_place)[place]


class TrendSlide:
    """A window that moves from one request to the next: where these rise in time, each entry comes
    in once and goes out once."""

    def __init__(self, index: TrendIndex) -> None:
        self.index = index
        self._counts = np.zeros(index.n_items + 1, dtype=np.int32)
        self._begin = self._end = 0

    def to(self, slot: int) -> tuple[Int64, Float32, float]:
        """The items of the window before a slot (E,), log(1 + count) of each, and the logarithm of
        what all are divided by: log q of an item is the one, or 0, less the other."""
        index = self.index
        begin = int(np.searchsorted(index.slot_by_time, slot - SLOTS))
        end = int(np.searchsorted(index.slot_by_time, slot))
        if begin < self._begin:
            self._counts[:] = 0
            self._begin = self._end = begin
        self._add(np.add, slice(max(self._end, begin), end))
        self._add(np.subtract, slice(self._begin, min(begin, self._end)))
        self._begin, self._end = begin, end
        seen = np.flatnonzero(self._counts != 0)  # of bools it takes an eighth of the time
        log_count = np.log(self._counts[seen] + np.float32(1.0), dtype=np.float32)
        total = index.counted_by_time[end] - index.counted_by_time[begin] + index.n_items
        return seen, log_count, float(np.log(total))

    def _add(self, change: np.ufunc, entries: slice) -> None:
        index = self.index
        change.at(self._counts, index.item_by_time[entries], index.count_by_time[entries])

    def offsets(self, at: Int64) -> "Offsets":
        """What the trend adds to the logits of requests (B,), best in the order of time."""
        index = self.index
        rows, items, logs = [], [], []
        base = np.empty(len(at), dtype=np.float32)
        last = None
        for row, slot in enumerate(index.slot_of(at).tolist()):
            if slot != last:
                seen, log_count, log_total = self.to(slot)
                last = slot
            rows.append(len(seen))
            items.append(seen)
            logs.append(log_count)
            base[row] = -log_total
        temperature = np.float32(index.temperature)
        return Offsets(
            row=np.repeat(np.arange(len(at)), rows),
            item=np.concatenate([*items, np.zeros(0, dtype=np.int64)]),
            more=np.asarray(np.concatenate([*logs, base[:0]]) / temperature, dtype=np.float32),
            base=base / temperature,
        )


@dataclass(frozen=True)
class Offsets:
    """What a trend adds to the logits of B requests: `base` to those of each, `more` to some."""

    row: Int64  # (E,)
    item: Int64  # (E,)
    more: Float32  # (E,)
    base: Float32  # (B,)


class HasTrend(Protocol):
    """What says whether a model has a trend, and which: its configuration."""

    @property
    def n_items(self) -> int: ...

    @property
    def trend_hours(self) -> float | None: ...

    @property
    def trend_temperature(self) -> float: ...


def trend_of(
    config: HasTrend, events: Events, *, until: int | None, refresh: Refresh | None = None
) -> TrendIndex | None:
    """The trend of a model's configuration; None where it has none. See `index_trend`."""
    if config.trend_hours is None:
        return None
    return index_trend(
        events,
        n_items=config.n_items,
        window_seconds=config.trend_hours * SECONDS_PER_HOUR,
        temperature=config.trend_temperature,
        until=until,
        refresh=refresh,
    )


def trend_in_period(
    config: HasTrend, events: Events, cut: Cut, *, streaming: bool
) -> TrendIndex | None:
    """The trend of a model in the period after a cut: as it was known at the cut, whenever it is
    asked for, or where `streaming` as it is at each request.

    Raises `ConfigError` where it is frozen and each user is cut at a moment of their own.
    """
    if config.trend_hours is None:
        return None
    return trend_of(config, events, until=None if streaming else cut.one_time("a trend"))


def index_trend(
    events: Events,
    *,
    n_items: int,
    window_seconds: float,
    temperature: float,
    until: int | None,
    refresh: Refresh | None = None,
) -> TrendIndex:
    """The index of all events of the first `n_items` items; those of other items count nowhere.

    With `until` (microseconds) what happened then or later is unknown, and later requests see the
    window that ends there: a trend frozen at a cut. None: each sees whatever came before it, with
    `refresh` before the latest refresh. A temperature below 1 makes more of the trend, one above 1
    less, infinity nothing.
    """
    kept = np.asarray(events.item_idx) <= n_items
    slot_us = max(1, round(window_seconds * 1e6 / SLOTS))
    slot = events.timestamp[kept] // slot_us
    first_slot, last_slot = (int(slot.min()), int(slot.max())) if len(slot) else (0, 0)
    span = last_slot - first_slot + SLOTS + 2
    key, count = np.unique(
        events.item_idx[kept].astype(np.int64) * span + (slot - first_slot), return_counts=True
    )
    count = count.astype(np.int32)
    item, place = np.divmod(key, span)
    by_time = np.argsort(place, kind="stable")
    return TrendIndex(
        slot_us=slot_us,
        until=until,
        refresh=refresh,
        temperature=temperature,
        first_slot=first_slot,
        span=span,
        key=key,
        count=count,
        counted=_before(count),
        item_start=np.searchsorted(item, np.arange(n_items + 2)),
        slot_by_time=place[by_time] + first_slot,
        item_by_time=item[by_time].astype(np.int32),
        count_by_time=count[by_time],
        counted_by_time=_before(count[by_time]),
    )


def _before(count: Int32) -> Int64:
    """The sum before each, and that of all. (E + 1,)"""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count, dtype=np.int64)])
