"""What every model stands beside: popularity, recent popularity, last-item transitions.

Each is fitted on the first `counts[u]` (U + 1,) events of every user, for the items known by then,
and scores from the user's last known item alone. Scores are log-probabilities over the vocabulary,
(B, V + 1) float32; column 0, PAD, is -inf. `out` is room for them; what is the same for everybody
is a read-only view instead.

What was counted rarely is backed off (Witten and Bell, 1991): a count of n events on d different
items leaves the weight of d events to what is known more surely, so every item has a probability.

    popularity          p(j)     = (n(j) + 1) / (n + V)
    recent popularity   p_h(j)   = (n_h(j) + d_h p(j)) / (n_h + d_h)
    transitions         p(j | i) = (n(i, j) + d(i) p_h(j)) / (n(i) + d(i))
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Popularity:
    """The same scores for everybody: how often an item occurred."""

    share: Float64  # (V + 1,) sums to 1; 0 for PAD

    @property
    def n_items(self) -> int:
        return len(self.share) - 1

    @cached_property
    def log_probability(self) -> Float32:
        """Natural logarithm of the shares. (V + 1,)"""
        return _log(self.share)

    def scores(self, last_item: Int32, *, out: Float32) -> Float32:  # noqa: ARG002 (as for transitions)
        """The same scores for each user of `last_item` (B,). (B, V + 1)"""
        return np.broadcast_to(self.log_probability, out.shape)


def fit_popularity(events: Events, counts: Int64, *, n_items: int) -> Popularity:
    """Popularity by all known events, one added to each item's count."""
    of_item = _counts(events.item_idx[events.within(counts)], n_items)
    of_item[1:] += 1.0
    return Popularity(of_item / of_item.sum())


def fit_recent_popularity(events: Events, counts: Int64, *, n_items: int, since: int) -> Popularity:
    """Popularity by the known events from `since` (microseconds) on, backed off by overall
    popularity."""
    recent = events.within(counts) & (events.timestamp >= since)
    of_item = _counts(events.item_idx[recent], n_items)
    different = max(1, int(np.count_nonzero(of_item)))
    smoothed = of_item + different * fit_popularity(events, counts, n_items=n_items).share
    return Popularity(smoothed / smoothed.sum())


def fit_popularity_within(
    events: Events, counts: Int64, *, n_items: int, since: int | None
) -> Popularity:
    """Recent popularity from `since` on; None has no window: popularity."""
    if since is None:
        return fit_popularity(events, counts, n_items=n_items)
    return fit_recent_popularity(events, counts, n_items=n_items, since=since)


@dataclass(frozen=True)
class Transitions:
    """How often an item came directly after the user's last one; a row per last item, sparse."""

    backoff: Popularity
    starts: Int64  # (V + 2,) row of last item i: entries starts[i] to starts[i + 1]; row 0 is empty
    next_item: Int32  # (E,)
    count: Float64  # (E,)

    @property
    def n_items(self) -> int:
        return self.backoff.n_items

    def scores(self, last_item: Int32, *, out: Float32) -> Float32:
        """Scores for users with the last known items `last_item` (B,), in `out`. (B, V + 1)

        For a user without one (0), and where nothing ever followed it, they are the back-off's.
        """
        first = self.starts[last_item]  # (B,)
        different = self.starts[last_item + 1] - first  # (B,)
        row = np.repeat(np.arange(len(last_item)), different)  # (E of the chunk,)
        within = np.arange(len(row)) - np.repeat(np.cumsum(different) - different, different)
        entry = np.repeat(first, different) + within
        weight = np.maximum(different, 1).astype(np.float64)  # (B,)
        total = np.bincount(row, weights=self.count[entry], minlength=len(last_item)) + weight
        np.add(_log(weight / total)[:, None], self.backoff.log_probability, out=out)  # (B, V + 1)
        item = self.next_item[entry]
        smoothed = self.count[entry] + weight[row] * self.backoff.share[item]
        out[row, item] = _log(smoothed / total[row])
        return out


def fit_transitions(
    events: Events, counts: Int64, *, backoff: Popularity, since: int | None
) -> Transitions:
    """Transitions between consecutive known events of a user, across sessions too.

    With `since` (microseconds) only those whose later event lies at or after it; None counts all.
    """
    user = events.user_idx
    pair = user[1:] == user[:-1]  # events are in order: where the later is known, the first is too
    pair &= events.within(counts)[1:]
    if since is not None:
        pair &= events.timestamp[1:] >= since
    last = events.item_idx[:-1][pair].astype(np.int64)
    following = events.item_idx[1:][pair].astype(np.int64)
    # an item that arrived later, in a late delivery, has no row and no column
    known = (last <= backoff.n_items) & (following <= backoff.n_items)
    last, following = last[known], following[known]
    width = backoff.n_items + 1
    cells, counts = np.unique(last * width + following, return_counts=True)
    rows, columns = np.divmod(cells, width)
    return Transitions(
        backoff=backoff,
        starts=np.searchsorted(rows, np.arange(width + 1)),
        next_item=columns.astype(np.int32),
        count=counts.astype(np.float64),
    )


def _counts(item_idx: Int32, n_items: int) -> Float64:
    """Events per known item; one that arrived later, in a late delivery, has none. (V + 1,)"""
    counts = np.bincount(item_idx[item_idx <= n_items], minlength=n_items + 1)
    return counts.astype(np.float64)


def _log(probability: Float64) -> Float32:
    """Natural logarithm in float32; 0 becomes -inf."""
    with np.errstate(divide="ignore"):
        return np.log(probability).astype(np.float32)
