"""Own items and their numbers against a walk over each user's events."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.events import Events
from recsys_core.models import own_items
from recsys_core.models.own_items import ITEM_NUMBERS, LATELY, USER_NUMBERS, Own, gather_own
from tests.event_rows import events_of

SECOND = 1_000_000

Log = list[list[tuple[int, int]]]
"""Of each user (item, seconds since the event before)."""


def events_like(log: Log) -> Events:
    rows = [(len(log) + 1, 1, 0)]  # one more user, so that the last one may have nothing
    for user, history in enumerate(log, start=1):
        times = np.cumsum([0, *(gap for _, gap in history[1:])]) * SECOND
        rows += [(user, item, int(time)) for (item, _), time in zip(history, times, strict=False)]
    return events_of(rows)


def walked(history: list[tuple[int, int]]) -> tuple[list[int], list[list[float]], list[float]]:
    """Own items, their numbers and the user's, as the comments beside the names say."""
    items = [item for item, _ in history]
    times = np.cumsum([0, *(gap for _, gap in history[1:])])[: len(items)].tolist()
    n, moments = len(items), sorted(set(times))
    later = [sum(moment > time for moment in moments) for time in times]
    own = list(dict.fromkeys(reversed(items)))
    numbers = []
    for item in own:
        places = [place for place in range(n) if items[place] == item]
        after = [place for place in places if place > 0 and items[place - 1] == items[-1]]
        both = [place for place in after if place > 1 and items[place - 2] == items[-2]]
        values = {
            "ago": n - 1 - places[-1],
            "moments_ago": later[places[-1]],
            "before_last": n > 1 and items[-2] == item,
            "count": len(places),
            "gap_seconds": times[-1] - times[places[-1]],
            "follows": len(after),
            "follows_both": len(both),
            "decayed": sum(1 / (n - place) for place in places),
            "decayed_moments": sum(1 / (1 + later[place]) for place in places),
            "decayed_slowly": sum((1 + later[place]) ** -0.5 for place in places),
            "first_moments_ago": later[places[0]],
        }
        numbers.append([float(values[name]) for name in ITEM_NUMBERS])
    repeats = [place > 0 and items[place - 1] == items[place] for place in range(n)]
    returns = [items[place] in items[:place] for place in range(n)]
    of_user = {
        "events": n,
        "moments": len(moments),
        "different": len(own),
        "last_gap_seconds": times[-1] - times[-2] if n > 1 else 0,
        "repeated": n > 0 and repeats[-1],
        "run": next((k for k, item in enumerate(items[::-1]) if item != items[-1]), n),
        "repeats": sum(repeats),
        "repeats_lately": sum(repeats[-LATELY:]),
        "returns": sum(returns),
        "returns_lately": sum(returns[-LATELY:]),
    }
    return own, numbers, [float(of_user[name]) for name in USER_NUMBERS]


def gathered(log: Log, history: list[int], *, most: int) -> Own:
    users = np.arange(1, len(log) + 1)
    return gather_own(events_like(log), user_idx=users, history=np.array(history), most=most)


@settings(max_examples=150, deadline=None)
@given(
    log=st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=25),
        min_size=1,
        max_size=5,
    ),
    known=st.floats(0, 1),
    most=st.integers(1, 6),
)
def test_all_numbers_are_those_of_a_walk(log: Log, known: float, most: int) -> None:
    """After the whole history and after a part of it; users with nothing among the others."""
    history = [round(known * len(events)) for events in log]
    found = gathered(log, history, most=most)
    for row, (events, count) in enumerate(zip(log, history, strict=True)):
        own, numbers, of_user = walked(events[:count])
        kept = min(len(own), most)
        assert found.items[row].tolist() == own[:kept] + [0] * (found.items.shape[1] - kept)
        expected = np.reshape(numbers[:kept], (kept, len(ITEM_NUMBERS)))
        np.testing.assert_allclose(found.numbers[row, :kept], expected, rtol=1e-5)
        assert not found.numbers[row, kept:].any()
        np.testing.assert_allclose(found.user_numbers[row], of_user, rtol=1e-5)


def test_by_hand() -> None:
    """Of baskets 4 9 | 9 2 | 4 9: the picture at the head of `own_items.py`."""
    own = gathered([[(4, 0), (9, 0), (9, 60), (2, 0), (4, 30), (9, 0)]], [6], most=9)
    assert own.items.tolist() == [[9, 4, 2]]
    numbers = dict(zip(ITEM_NUMBERS, own.numbers[0].T.tolist(), strict=True))
    assert numbers["ago"] == [0, 1, 2]
    assert numbers["moments_ago"] == [0, 0, 1]
    assert numbers["count"] == [3, 2, 1]
    assert numbers["before_last"] == [0, 1, 0]
    assert numbers["gap_seconds"] == [0, 0, 30]
    assert numbers["follows"] == [1, 0, 1], "after a 9 came a 9 and a 2"
    assert numbers["follows_both"] == [1, 0, 0], "after 4 9 came a 9"
    assert numbers["first_moments_ago"] == [2, 2, 1]


def test_blocks_of_users_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    log = [[(int(item), 1) for item in rng.integers(1, 9, length)] for length in (5, 0, 30, 1, 12)]
    history = [len(events) for events in log]
    whole = gathered(log, history, most=4)
    monkeypatch.setattr(own_items, "EVENTS_AT_ONCE", 7)
    parts = gathered(log, history, most=4)
    np.testing.assert_array_equal(parts.items, whole.items)
    np.testing.assert_array_equal(parts.numbers, whole.numbers)
    np.testing.assert_array_equal(parts.user_numbers, whole.user_numbers)


def test_of_a_long_history_the_latest_events_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    log = [[(int(item), 1) for item in rng.integers(1, 9, length)] for length in (40, 3, 12)]
    monkeypatch.setattr(own_items, "LONGEST", 12)
    bounded = gathered(log, [40, 3, 12], most=4)
    latest = gathered([events[-12:] for events in log], [12, 3, 12], most=4)
    np.testing.assert_array_equal(bounded.items, latest.items)
    np.testing.assert_array_equal(bounded.numbers, latest.numbers)
    np.testing.assert_array_equal(bounded.user_numbers, latest.user_numbers)


def test_nothing_is_read_where_nothing_is_remembered() -> None:
    own = gathered([[(1, 0), (2, 1)], [(3, 0)]], [2, 1], most=0)
    assert own.items.shape == (2, 0)
    assert own.numbers.shape == (2, 0, len(ITEM_NUMBERS))
    assert own.user_numbers.shape == (2, len(USER_NUMBERS))
    assert not own.user_numbers.any()


def test_who_has_nothing_has_room_for_one() -> None:
    events = events_like([[(1, 0)]])
    own = gather_own(events, user_idx=np.array([1, 1]), history=np.array([0, 0]), most=8)
    assert own.items.tolist() == [[0], [0]]
    assert not own.numbers.any()
