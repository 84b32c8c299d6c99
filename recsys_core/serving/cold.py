"""The cold list: what users without an event get, and whoever asks without being known.

    events in the window      everybody: a 3, b 2, c 1      list of everybody: a b c
    of users in DE            c 1                           list of DE:        c a b

A list is recent popularity (`models/baselines.py`) among the users of one segment, backed off by
that of everybody, so that a segment of few events still has k items; without the items that may not
be recommended. Its scores are log-probabilities; items of equal score come in the order of their
idx.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.models.baselines import fit_popularity_within
from recsys_core.serving.engine import TopItems, nothing

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MICROSECONDS_PER_HOUR = 3_600_000_000


class ColdShares:
    """How popular items were at `as_of`, in the last `hours` (None: ever), by segment.

    `segment` (U + 1,) says the segment of each user_idx, -1 where there is none.
    """

    def __init__(
        self, known: Events, segment: Int64, *, n_items: int, as_of: int, hours: float | None
    ) -> None:
        since = None if hours is None else as_of + 1 - round(hours * MICROSECONDS_PER_HOUR)
        counts = known.counts_before(as_of + 1)  # (U + 1,)
        self.everybody = fit_popularity_within(known, counts, n_items=n_items, since=since).share
        recent = np.asarray(known.timestamp) <= as_of
        if since is not None:
            recent &= np.asarray(known.timestamp) >= since
        place = np.flatnonzero(recent)
        of_event = segment[known.user_idx[place]]
        order = np.argsort(of_event, kind="stable")
        self._segment = of_event[order]
        self._items = known.item_idx[place[order]]

    def of(self, segment: int) -> Float64:
        """The shares in a segment; of -1 those of everybody. (V + 1,)"""
        if segment < 0:
            return self.everybody
        first, last = np.searchsorted(self._segment, [segment, segment + 1])
        count = np.bincount(self._items[first:last], minlength=len(self.everybody))
        different = max(1, int(np.count_nonzero(count)))
        smoothed: Float64 = (count + different * self.everybody) / (last - first + different)
        return smoothed


def cold_lists(
    shares: ColdShares, wanted: Sequence[tuple[int, int]], *, items: Bool, k: int
) -> TopItems:
    """The k best items of each pair of a segment and a row of `items` (G, V + 1), which says what
    may be recommended; item 0 with the score -inf where fewer are left. (L, k)"""
    top = nothing(len(wanted), k=k)
    for row, (segment, group) in enumerate(wanted):
        share = shares.of(segment)
        candidates = np.flatnonzero(items[group])
        best = candidates[np.argsort(-share[candidates], kind="stable")[:k]]
        top.items[row, : len(best)] = best
        top.scores[row, : len(best)] = np.log(share[best])
    return top
