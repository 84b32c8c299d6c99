"""Popularity and transitions as they are at each request: every earlier event counts.

They are `models.baselines` fitted anew just before each request, in the same equations,

    popularity          p(j)     = (n(j) + 1) / (n + V)
    recent popularity   p_h(j)   = (n_h(j) + d_h p(j)) / (n_h + d_h)
    transitions         p(j | i) = (n(i, j) + d(i) p_h(j)) / (n(i) + d(i))

where n counts the events with a time before the request's, n_h those of them in the window before
it; of a transition the time is that of its later event. Nothing of the request's own time counts.
The items are those of a vocabulary that stays: events of others count nowhere.

Counts slide from one request of a batch to the next in time, so a batch costs one pass over the
events up to its last request, and B V for its scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import MICROSECONDS_PER_HOUR
from recsys_core.data.events import Events
from recsys_core.models.history_model import RequestHistories

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StreamingPopularity:
    """Popularity before each request; with a window recent popularity, backed off by it."""

    n_items: int
    window_us: int | None
    timestamp: Int64  # (E,) of the events of known items, rising
    item_idx: Int32  # (E,)

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Log-probabilities of all items when each request is made, in `out`. (B, V + 1)"""
        moments, row = np.unique(histories.request_time, return_inverse=True)  # (Q,) and (B,)
        for moment, log_share in enumerate(self._log_shares(moments)):
            out[row == moment] = log_share
        out[:, 0] = -np.inf
        return out

    def _log_shares(self, moments: Int64) -> Iterator[Float32]:
        """That of all items at each of the moments (Q,), rising. (V + 1,) each, one room for all"""
        end = np.searchsorted(self.timestamp, moments)  # (Q,) events before each
        since = moments if self.window_us is None else moments - self.window_us
        begin = np.searchsorted(self.timestamp, since)  # (Q,) where each one's window begins
        before_begin, before_end = int(begin[0]), int(end[0])
        counts, recent = (  # (V + 1,) until the first moment, and in its window
            np.bincount(self.item_idx[start:before_end], minlength=self.n_items + 1)
            for start in (0, before_begin)
        )
        log_counts = np.log1p(counts).astype(np.float32)
        room = np.empty_like(log_counts)
        for first, last in zip(begin.tolist(), end.tolist(), strict=True):
            new = self.item_idx[before_end:last]
            np.add.at(counts, new, 1)
            log_counts[new] = np.log1p(counts[new])
            log_total = np.log(last + self.n_items)
            if self.window_us is None:
                yield np.subtract(log_counts, np.float32(log_total), out=room)
            else:
                np.add.at(recent, new, 1)
                np.subtract.at(recent, self.item_idx[before_begin:first], 1)
                seen = np.flatnonzero(recent)
                different, total = max(1, len(seen)), last - first
                weight = np.log(different) - np.log(total + different) - log_total
                np.add(log_counts, np.float32(weight), out=room)
                share = (counts[seen] + 1.0) / (last + self.n_items)
                room[seen] = np.log((recent[seen] + different * share) / (total + different))
                yield room
            before_begin, before_end = first, last


@dataclass(frozen=True)
class StreamingTransitions:
    """What came directly after the last item of each request, before it; backed off."""

    backoff: StreamingPopularity
    window_us: int | None
    timestamp: Int64  # (P,) of the later event of each pair, rising
    key: Int64  # (P,) last item * (P + 1) + the pair's place in `timestamp`, rising
    next_item: Int32  # (P,) in the order of `key`

    @property
    def n_items(self) -> int:
        return self.backoff.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Log-probabilities of all items when each request is made, in `out`. (B, V + 1)"""
        self.backoff.scores(histories, out=out)
        at, base = histories.request_time, histories.last_item.astype(np.int64) * self._width
        since = np.zeros_like(at) if self.window_us is None else self._place(at - self.window_us)
        begin = np.searchsorted(self.key, base + since)  # (B,) pairs of the last item
        end = np.searchsorted(self.key, base + self._place(at))
        for row in np.flatnonzero(end > begin):
            item, count = np.unique(self.next_item[begin[row] : end[row]], return_counts=True)
            different, total = len(item), int(end[row] - begin[row]) + len(item)
            smoothed = count + different * np.exp(out[row, item].astype(np.float64))
            out[row] += np.float32(np.log(different / total))
            out[row, item] = np.log(smoothed / total)
        return out

    @property
    def _width(self) -> int:
        return len(self.timestamp) + 1

    def _place(self, moments: Int64) -> Int64:
        """How many pairs are earlier than each moment."""
        return np.searchsorted(self.timestamp, moments)


def stream_popularity(events: Events, *, n_items: int, hours: float | None) -> StreamingPopularity:
    """Popularity of the first `n_items` items before each request, in the `hours` before it; None
    counts all that lies before."""
    kept = np.flatnonzero(np.asarray(events.item_idx) <= n_items)
    rows = kept[np.argsort(events.timestamp[kept], kind="stable")]
    return StreamingPopularity(
        n_items=n_items,
        window_us=_microseconds(hours),
        timestamp=np.asarray(events.timestamp[rows], dtype=np.int64),
        item_idx=np.asarray(events.item_idx[rows], dtype=np.int32),
    )


def stream_transitions(
    events: Events, *, backoff: StreamingPopularity, hours: float | None
) -> StreamingTransitions:
    """Transitions between consecutive events of a user, as `baselines.fit_transitions` has them."""
    item, time = np.asarray(events.item_idx), np.asarray(events.timestamp)
    pair = events.user_idx[1:] == events.user_idx[:-1]
    pair &= (item[1:] <= backoff.n_items) & (item[:-1] <= backoff.n_items)
    later = 1 + np.flatnonzero(pair)
    later = later[np.argsort(time[later], kind="stable")]  # (P,) in the order of time
    key = item[later - 1].astype(np.int64) * (len(later) + 1) + np.arange(len(later))
    by_key = np.argsort(key)
    return StreamingTransitions(
        backoff=backoff,
        window_us=_microseconds(hours),
        timestamp=np.asarray(time[later], dtype=np.int64),
        key=key[by_key],
        next_item=np.asarray(item[later[by_key]], dtype=np.int32),
    )


def _microseconds(hours: float | None) -> int | None:
    return None if hours is None else round(hours * MICROSECONDS_PER_HOUR)
