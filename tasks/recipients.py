"""Who gets rows: users with an event, users that the card's table alone knows, and nobody.

    user_id    user_idx  list
    cold/          0       0    what is shown to whoever is not known: no user
    cold/DE        0       1    the same for a segment: `cold/` and its value
    u1            17      -1    has events: scored by the model
    u9             0       1    a row in the table of users and no event: the list of the segment

A user whose own id begins with `cold/` gets no rows, and is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_core.data.events import Events
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import DataError
from recsys_core.sections_of_scoring import Cold
from recsys_core.serving.shards import RESERVED
from tasks.segments import UserTable

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Recipients:
    """Everybody who gets rows, in the order of their ids (as bytes)."""

    ids: pa.StringArray  # (N,)
    user_idx: Int64  # (N,) 0: no user with an event
    cold_list: Int64  # (N,) row of `lists`; -1: scored by the model
    lists: tuple[tuple[int, int], ...]
    """Of each cold list the segment, -1 for everybody, and the group of the filters."""
    counts: dict[str, int]


def active_users(events: Events, *, as_of: int, within_days: float | None) -> tuple[Int64, int]:
    """The user_idx of everybody with an event, whose last one is at most so many days before
    `as_of`, and how many are left out since theirs is older.

    Raises `DataError` where nobody has an event, or all are left out.
    """
    user_idx = np.flatnonzero(np.diff(events.offsets))
    if len(user_idx) == 0:
        raise DataError(
            "no user has an event: there is nobody to score; look at the reports of validate "
            "and sessionize"
        )
    if within_days is None:
        return user_idx, 0
    last = events.timestamp[events.offsets[user_idx + 1] - 1]
    active = last >= as_of - round(within_days * MICROSECONDS_PER_DAY)
    if not active.any():
        raise DataError(
            f"score.active_within is {within_days:g} days, and none of {len(user_idx)} users has "
            "an event in the last of the log: there is nobody to score; raise it"
        )
    return user_idx[active], int(np.count_nonzero(~active))


def recipients(
    events: Events,
    vocabulary: Vocabulary,
    *,
    active: Int64,
    cold: Cold | None,
    users: UserTable,
    group_of_row: Int64,
    group_of_value: Mapping[str, int],
) -> Recipients:
    """Everybody who gets rows: the `active` users, and where there is a cold list nobody for each
    segment, and those of the table of users without an event.

    `group_of_row` is the filters' group of each row of that table, `group_of_value` that of nobody
    in particular of a segment, 0 where it names none.
    """
    own = vocabulary.to_ids(active)
    scored = np.full(len(active), -1, dtype=np.int64)
    if cold is None:
        none = dict.fromkeys(("without_an_event", "cold_lists", "left_out_with_a_reserved_id"), 0)
        counts = {"with_an_event": len(active), **none}
        return _in_order([own], [active], [scored], (), counts)
    values = [] if cold.segment is None else users.values(cold.segment)
    names = pa.array([RESERVED, *(f"{RESERVED}{value}" for value in values)], pa.string())
    lists = [(-1, 0), *((code, group_of_value.get(one, 0)) for code, one in enumerate(values))]
    with_events = vocabulary.to_ids(np.flatnonzero(np.diff(events.offsets)))
    new = _marked(pc.invert(pc.is_in(users.ids, value_set=with_events)))
    taken = _marked(pc.starts_with(own, RESERVED)), _marked(pc.starts_with(users.ids, RESERVED))
    new_here, own_here = new & ~taken[1], ~taken[0]
    codes = np.full(len(new), -1, dtype=np.int64)
    if cold.segment is not None:
        codes = users.codes(cold.segment, values)
    places = {pair: place for place, pair in enumerate(lists)}
    pairs = np.stack([codes, group_of_row], axis=1)[new_here]  # (C, 2)
    different, row = np.unique(pairs, axis=0, return_inverse=True)
    place = [places.setdefault((int(one), int(of)), len(places)) for one, of in different]
    counts = {
        "with_an_event": int(np.count_nonzero(own_here)),
        "without_an_event": len(pairs),
        "cold_lists": len(names),
        "left_out_with_a_reserved_id": int(np.count_nonzero(taken[0]))
        + int(np.count_nonzero(taken[1] & new)),
    }
    return _in_order(
        [own.filter(pa.array(own_here)), names, users.ids.filter(pa.array(new_here))],
        [active[own_here], np.zeros(len(names) + len(pairs), dtype=np.int64)],
        [scored[own_here], np.arange(len(names)), np.array(place, dtype=np.int64)[row.ravel()]],
        tuple(places),
        counts,
    )


def _in_order(
    ids: list[pa.StringArray],
    user_idx: list[Int64],
    cold_list: list[Int64],
    lists: tuple[tuple[int, int], ...],
    counts: dict[str, int],
) -> Recipients:
    together = pa.concat_arrays(ids)
    order = pc.sort_indices(together)
    of, place = np.concatenate(user_idx), np.concatenate(cold_list)
    rows = order.to_numpy()
    return Recipients(together.take(order), of[rows], place[rows], lists, counts)


def _marked(mask: pa.Array) -> Bool:
    marked: Bool = mask.to_numpy(zero_copy_only=False).astype(bool)
    return marked
