"""STAN: neighbour sessions, by order and by time (Garg et al. 2019, eqs. 2 to 5).

    w(i)       = exp(-age(i) / own_events)             age 0 is the last event of the session s
    near(s, n) = sum of w(i) over items of both / sqrt(|s| |n|) * exp(-(t - t(n)) / days)
    score(j)   = sum over n of near(s, n) exp(-|place(j, n) - place(i*, n)| / between_events)

with n among the N nearest sessions, and i* the latest item of s that n has too. The session s is
that of the request's last event. t(n) is the time of the last event of n; t the latest known time:
another t would scale all scores of a user alike, so the time of the request is not needed.

An item that occurs again counts where it occurs last. Of each session the latest `LONGEST` events
are read, and for each item the latest `recent` sessions that have it: the cost of a request is
bounded whatever the log.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.data.events import Events
from recsys_core.models.history_model import (
    RequestHistories,
    in_blocks,
    latest_of_pairs,
    write_scores,
)
from recsys_core.models.user_items import PRODUCT_ENTRIES, known_rows, strongest_of_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

LONGEST = 100
"""Events of a session that are read; sessions of a log without sessions are whole users."""

MICROSECONDS_PER_DAY = 86_400_000_000
NOT_OWN = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SessionNeighboursSettings:
    """Three decays in events, days and events; None takes sessions of all times alike.

    Without `own_items` those of the session itself, which match best, are not scored. With
    `whole_users` all events of a user are one session, as in a log that has none.
    """

    own_events: float
    days: float | None
    between_events: float
    neighbours: int
    recent: int
    own_items: bool
    whole_users: bool


GRID = tuple(
    SessionNeighboursSettings(
        own_events=2.0,
        days=days,
        between_events=10.0,
        neighbours=neighbours,
        recent=2000,
        own_items=own_items,
        whole_users=whole_users,
    )
    for (whole_users, neighbours, choices), own_items in product(
        ((False, 500, (None, 3.0, 0.3, 0.1)), (True, 200, (None, 0.1))), (False, True)
    )
    for days in choices
)
TIMELESS_GRID = tuple(settings for settings in GRID if settings.days is None)
"""For logs whose times are ranks: a day is nothing there."""


@dataclass(frozen=True)
class SessionNeighbours:
    """The known sessions: their items with places, by session and by item.

    Sessions are numbered from the latest to the earliest, by their last event.
    """

    settings: SessionNeighboursSettings
    starts: Int64  # (S + 1,) session n: entries starts[n] to starts[n + 1]
    item_idx: Int32  # (E,) different items of a session, ascending
    place: Int32  # (E,) the last event of the item, counted from the session's first
    recency: Float32  # (S,) exp(-(t - t(n)) / days) / sqrt(|n|)
    items: sparse.csr_array  # (V + 1, S) 1 where one of the item's recent sessions has it

    @property
    def n_items(self) -> int:
        return int(self.items.shape[0]) - 1

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Scores from the session of each last event; 0 for items of no neighbour. (B, V + 1)"""
        session = _last_session(histories, whole_users=self.settings.whole_users)
        weight = np.exp(-session.age / self.settings.own_events).astype(np.float32)
        requests = session.item_matrix(self.n_items, weight)  # (B, V + 1)

        def nearest(block: slice) -> sparse.csr_array:
            near = (requests[block] @ self.items).tocsr()  # (rows of the block, S)
            near.data *= self.recency[near.indices]
            return strongest_of_rows(near, self.settings.neighbours)

        additions = (requests > 0) @ np.diff(self.items.indptr)
        near = in_blocks(additions.astype(np.int64), most=PRODUCT_ENTRIES, work=nearest)
        return write_scores(out, self._votes(session, near))

    def _votes(self, session: RequestHistories, near: sparse.csr_array) -> sparse.csr_array:
        """What the nearest sessions (B, S) have, by how far it lies from the matching item."""
        length = np.diff(self.starts)[near.indices]  # (P,) of each pair of request and neighbour
        pair_start = np.cumsum(length) - length
        pair = np.repeat(np.arange(len(length)), length)  # (E of the pairs,)
        entry = np.arange(len(pair)) + np.repeat(self.starts[near.indices] - pair_start, length)
        row = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))[pair]
        item, place = self.item_idx[entry], self.place[entry]

        age = self._age_of_items(session, row, item)  # (E of the pairs,)
        match = _least_of_pairs(age, pair_start)  # (P,)
        between = np.abs(place - place[match][pair])
        weight = near.data[pair] * np.exp(-between / self.settings.between_events)
        if not self.settings.own_items:
            weight[age < NOT_OWN] = 0.0
        shape = (near.shape[0], self.n_items + 1)
        return sparse.csr_array((weight.astype(np.float32), (row, item)), shape=shape)

    def _age_of_items(self, session: RequestHistories, row: Int64, item: Int32) -> Int64:
        """How old each item is in the session of the request `row`; `NOT_OWN` where it is not."""
        if len(row) == 0:
            return np.zeros(0, dtype=np.int64)
        width = self.n_items + 1
        own = session.latest_of_items
        own_key = session.row[own] * width + session.item_idx[own]  # ascending
        key = row * width + item
        at = np.minimum(np.searchsorted(own_key, key), len(own_key) - 1)
        shared = own_key[at] == key
        return np.where(shared, session.age[own][at], NOT_OWN)


def fit_session_neighbours(
    events: Events, counts: Int64, *, n_items: int, settings: SessionNeighboursSettings
) -> SessionNeighbours:
    """The sessions by what is known of `events`: the first `counts` (U + 1,) of each user."""
    known = known_rows(events, counts, n_items=n_items, latest=None)
    rows, session, place = _sessions(events, known, whole_users=settings.whole_users)
    kept = latest_of_pairs(session, np.asarray(events.item_idx[rows]))
    rows, session, place = rows[kept], session[kept], place[kept]
    n_sessions = int(session.max(initial=-1)) + 1
    item = np.asarray(events.item_idx[rows], dtype=np.int32)
    last = _last_times(np.asarray(events.timestamp[rows]), session, n_sessions)
    length = np.bincount(session, minlength=n_sessions)
    return SessionNeighbours(
        settings=settings,
        starts=np.searchsorted(session, np.arange(n_sessions + 1)),
        item_idx=item,
        place=place.astype(np.int32),
        recency=(_decay(last, settings.days) / np.sqrt(length)).astype(np.float32),
        items=_recent_sessions(
            item, session, shape=(n_items + 1, n_sessions), recent=settings.recent
        ),
    )


def _least_of_pairs(age: Int64, pair_start: Int64) -> Int64:
    """Where the item of the least age stands, of each pair of request and neighbour. (P,)"""
    if len(pair_start) == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.minimum.reduceat(age, pair_start)  # (P,) each pair has an item in common
    pair_length = np.diff(np.append(pair_start, len(age)))
    # an age belongs to one item of the request, so one entry of each pair has the least
    return np.flatnonzero(age == np.repeat(least, pair_length))


def _sessions(events: Events, rows: Int64, *, whole_users: bool) -> tuple[Int64, Int64, Int64]:
    """Of `rows` those that are read, with their session and their place in it. Three (N,)

    Sessions of a user may overlap. They are numbered from the one whose last event is the latest;
    of equal ones the lowest user comes first.
    """
    user, given = events.user_idx[rows], np.asarray(events.session_idx[rows])
    if whole_users:
        given = np.zeros_like(given)
    order = np.lexsort((given, user))  # stable: events stay in the order of time
    rows, user, given = rows[order], user[order], given[order]
    begins = np.ones(len(rows), dtype=np.bool_)
    begins[1:] = (user[1:] != user[:-1]) | (given[1:] != given[:-1])
    session = np.cumsum(begins) - 1
    starts = np.append(np.flatnonzero(begins), len(rows))
    place = np.arange(len(rows)) - starts[session]
    number = np.empty(len(starts) - 1, dtype=np.int64)
    latest_first = np.argsort(-events.timestamp[rows[starts[1:] - 1]], kind="stable")
    number[latest_first] = np.arange(len(number))
    read = starts[session + 1] - np.arange(len(rows)) <= LONGEST
    return rows[read], number[session][read], place[read]


def _last_times(timestamp: Int64, session: Int64, n_sessions: int) -> Int64:
    """The time of each session's last event. (S,)"""
    last = np.full(n_sessions, np.iinfo(np.int64).min)
    np.maximum.at(last, session, timestamp)
    return last


def _decay(last: Int64, days: float | None) -> Float64:
    """exp(-(t - t(n)) / days), t the latest of all; 1 without `days`. (S,)"""
    if days is None or len(last) == 0:
        return np.ones(len(last))
    return np.asarray(np.exp((last - last.max()) / (days * MICROSECONDS_PER_DAY)))


def _recent_sessions(
    item: Int32, session: Int64, *, shape: tuple[int, int], recent: int
) -> sparse.csr_array:
    """1 where a session is one of the `recent` latest ones that have an item. (V + 1, S)"""
    order = np.argsort(item, kind="stable")  # of an item, the latest session first
    item, session = item[order], session[order]
    starts = np.searchsorted(item, np.arange(shape[0] + 1))
    kept = np.arange(len(item)) - starts[item] < recent
    starts = np.searchsorted(item[kept], np.arange(shape[0] + 1))
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    return sparse.csr_array((ones, session[kept], starts), shape=shape)


def _last_session(histories: RequestHistories, *, whole_users: bool) -> RequestHistories:
    """Of each history the events of its last event's session, or all; the latest `LONGEST`."""
    length = np.diff(histories.offsets)
    last = np.repeat(
        histories.session_idx[histories.offsets[1:][length > 0] - 1], length[length > 0]
    )
    own = np.flatnonzero(whole_users | (histories.session_idx == last))  # (H',)
    count = np.bincount(histories.row[own], minlength=len(histories))
    later = np.cumsum(count)[histories.row[own]] - 1 - np.arange(len(own))
    own = own[later < LONGEST]
    offsets = np.searchsorted(histories.row[own], np.arange(len(histories) + 1))
    return replace(
        histories,
        offsets=offsets,
        item_idx=histories.item_idx[own],
        timestamp=histories.timestamp[own],
        session_idx=histories.session_idx[own],
    )
