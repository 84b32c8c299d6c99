"""The different items of a user's history, the latest first, and numbers of each.

    history   4 9 9 2 4 9        own_items   9 4 2 0        0 where there are no more
                                 ago         0 1 2 0        later events than the latest one of it
                                 count       3 2 1 0

A moment is one timestamp: the events of one basket share theirs. All numbers are of known items
(`models.requests.known_events`). Of each history the latest `LONGEST` events are read; counting
them is a sort, and the graph reads a few items of whoever has thousands.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.models.history_model import LONGEST, blocks_of

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

ITEM_NUMBERS = (
    "ago",  # later events than the latest one of the item
    "moments_ago",  # later moments
    "before_last",  # 1 for the item of the last event but one
    "count",  # events of the item
    "gap_seconds",  # from its latest event to the user's
    "follows",  # events of it that came directly after one of the last item
    "follows_both",  # and that one after one of the last item but one
    "decayed",  # the sum over its events of (1 + ago)^-1
    "decayed_moments",  # the same of moments
    "decayed_slowly",  # the sum of (1 + moments ago)^-0.5
    "first_moments_ago",  # later moments than its first one
)
"""Of each own item."""

USER_NUMBERS = (
    "events",
    "moments",
    "different",  # items
    "last_gap_seconds",  # between the last two events
    "repeated",  # 1 where the last event is of the item of the one before it
    "run",  # events since the last one of another item
    "repeats",  # events of the item of the one before it
    "repeats_lately",  # of the last `LATELY` ones
    "returns",  # events of an item that the user had before
    "returns_lately",  # of the last `LATELY` ones
)
"""Of each user."""

LATELY = 8
EVENTS_AT_ONCE = 2**21
"""Of several users: some 300 MB of columns."""


@dataclass(frozen=True)
class Own:
    """What is known of B users and their own items."""

    items: Int64  # (B, M) different ones, the latest first, 0 after them
    numbers: Float32  # (B, M, len(ITEM_NUMBERS)) 0 where there is no item
    user_numbers: Float32  # (B, len(USER_NUMBERS))


def gather_own(events: Events, *, user_idx: Int64, history: Int64, most: int) -> Own:
    """The own items of users after their first `history` (B,) events, `most` at most of each.

    M is the most that a user has, and at least 1; with `most` 0 nothing is read and all is empty.
    """
    user_numbers = np.zeros((len(user_idx), len(USER_NUMBERS)), dtype=np.float32)
    if most == 0:
        nothing = np.zeros((len(user_idx), 0), dtype=np.int64)
        return Own(nothing, np.zeros((*nothing.shape, len(ITEM_NUMBERS)), np.float32), user_numbers)
    parts = []
    stop = events.offsets[user_idx] + history
    history = np.minimum(history, LONGEST)
    for block in blocks_of(history + 1, most=EVENTS_AT_ONCE):
        row, column, item, numbers, user_numbers[block] = _own_of(
            events, stop[block] - history[block], history[block]
        )
        kept = column < most
        parts.append((row[kept] + block.start, column[kept], item[kept], numbers[kept]))
    width = max([1, *(1 + int(column.max(initial=0)) for _, column, _, _ in parts)])
    own = Own(
        items=np.zeros((len(user_idx), width), dtype=np.int64),
        numbers=np.zeros((len(user_idx), width, len(ITEM_NUMBERS)), dtype=np.float32),
        user_numbers=user_numbers,
    )
    for row, column, item, numbers in parts:
        own.items[row, column] = item
        own.numbers[row, column] = numbers
    return own


def _own_of(
    events: Events, start: Int64, history: Int64
) -> tuple[Int64, Int64, Int64, Float32, Float32]:
    """Each different item (E,) with its row, its place there and its numbers; those of users.

    Read are `history` (B,) rows of the log from `start` (B,) on.
    """
    offsets = np.zeros(len(start) + 1, dtype=np.int64)
    np.cumsum(history, out=offsets[1:])
    row = np.repeat(np.arange(len(start)), history)  # (H,)
    place = np.arange(len(row)) - offsets[row]  # (H,) from 0 of each user
    log_row = start[row] + place
    item = np.asarray(events.item_idx[log_row], dtype=np.int64)
    timestamp = np.asarray(events.timestamp[log_row], dtype=np.int64)
    ago = history[row] - 1 - place  # (H,)
    before, before_that = (_earlier(item, place, steps) for steps in (1, 2))
    last, last_but_one = (_from_the_end(item, offsets, history, steps) for steps in (1, 2))
    follows = before == last[row]
    follows_both = follows & (before_that == last_but_one[row]) & (before_that > 0)
    moment = np.cumsum((place == 0) | (timestamp != np.roll(timestamp, 1)))  # (H,)
    moments_ago = _from_the_end(moment, offsets, history, 1)[row] - moment
    until_last = _from_the_end(timestamp, offsets, history, 1)[row] - timestamp

    key, own, count = np.unique(
        row * (int(item.max(initial=0)) + 1) + item, return_inverse=True, return_counts=True
    )
    first, latest = np.full(len(key), len(row)), np.zeros(len(key), dtype=np.int64)
    np.minimum.at(first, own, np.arange(len(row)))
    np.maximum.at(latest, own, np.arange(len(row)))

    def total(weight: npt.NDArray[np.float64] | Bool) -> npt.NDArray[np.float64]:
        weighted = weight.astype(np.float64)
        return np.bincount(own, weights=weighted, minlength=len(key)).astype(np.float64)

    by_name = {
        "ago": ago[latest],
        "moments_ago": moments_ago[latest],
        "before_last": item[latest] == last_but_one[row[latest]],
        "count": count,
        "gap_seconds": until_last[latest] / 1e6,
        "follows": total(follows),
        "follows_both": total(follows_both),
        "decayed": total((1.0 + ago) ** -1.0),
        "decayed_moments": total((1.0 + moments_ago) ** -1.0),
        "decayed_slowly": total((1.0 + moments_ago) ** -0.5),
        "first_moments_ago": moments_ago[first],
    }
    order = np.argsort(latest)[::-1]  # the latest first, of the last user first
    order = order[np.argsort(row[latest[order]], kind="stable")]
    numbers = np.stack([by_name[name] for name in ITEM_NUMBERS], axis=1).astype(np.float32)
    of = row[latest[order]]  # (E,)
    column = np.arange(len(of)) - np.searchsorted(of, of)
    returned = np.ones(len(row), dtype=bool)
    returned[first] = False
    user_numbers = _user_numbers(
        row,
        history,
        ago=ago,
        repeats=before == item,
        others=item != last[row],
        returns=returned,
        moments=_from_the_end(moment, offsets, history, 1)
        - _from_the_end(moment, offsets, history, history),
        different=np.bincount(of, minlength=len(history)),
        last_gap=_from_the_end(timestamp, offsets, history, 1)
        - _from_the_end(timestamp, offsets, history, np.minimum(history, 2)),
    )
    return of, column, item[latest[order]], numbers[order], user_numbers


def _user_numbers(
    row: Int64,
    history: Int64,
    *,
    ago: Int64,
    repeats: Bool,
    others: Bool,
    returns: Bool,
    moments: Int64,
    different: Int64,
    last_gap: Int64,
) -> Float32:
    """(B, len(USER_NUMBERS)); `moments` is one less than there are, for who has any."""

    def total(marked: Bool) -> npt.NDArray[np.float64]:
        return np.bincount(row[marked], minlength=len(history)).astype(np.float64)

    run = history.copy()
    np.minimum.at(run, row[others], ago[others])
    by_name = {
        "events": history,
        "moments": moments + (history > 0),
        "different": different,
        "last_gap_seconds": last_gap / 1e6,
        "repeated": total(repeats & (ago == 0)),
        "run": run,
        "repeats": total(repeats),
        "repeats_lately": total(repeats & (ago < LATELY)),
        "returns": total(returns),
        "returns_lately": total(returns & (ago < LATELY)),
    }
    return np.stack([by_name[name] for name in USER_NUMBERS], axis=1).astype(np.float32)


def _earlier(values: Int64, place: Int64, steps: int) -> Int64:
    """The value of the same user so many events earlier, 0 where there is none. (H,)"""
    return np.where(place >= steps, np.roll(values, steps), 0)


def _from_the_end(values: Int64, offsets: Int64, history: Int64, steps: int | Int64) -> Int64:
    """The last value of each user for 1, the one before it for 2; 0 where there is none. (B,)"""
    there = (history >= steps) & (history > 0)
    found = np.zeros(len(history), dtype=np.int64)
    found[there] = values[(offsets[1:] - steps)[there]]
    return found
