"""Cold lists against counting by hand."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.data.events import Events
from recsys_core.serving.cold import ColdShares, cold_lists
from tests.serving_world import MINUTE, START, make_events, random_histories

N = 12
HISTORIES = random_histories([30, 0, 5, 40, 8, 1], n_items=N - 2, seed=9)
SEGMENT = np.array([-1, 0, 0, 1, 1, -1, 2])
"""Of user 0, who is nobody, and of users 1 to 6."""
EVERYTHING = np.ones((1, N + 1), dtype=bool)
EVERYTHING[:, 0] = False


def counts(events: Events, users: list[int], *, since: int, until: int) -> np.ndarray:
    found = np.zeros(N + 1)
    for user in users:
        for place in range(events.offsets[user], events.offsets[user + 1]):
            if since <= events.timestamp[place] <= until:
                found[events.item_idx[place]] += 1
    return found


def naive(events: Events, segment: int, *, as_of: int, minutes: int | None) -> np.ndarray:
    """Counts of the segment, backed off by those of everybody, and these by those of ever."""
    everybody = list(range(1, len(HISTORIES) + 1))
    share = counts(events, everybody, since=0, until=as_of) + 1
    share[0] = 0
    share /= share.sum()
    since = 0 if minutes is None else as_of + 1 - minutes * MINUTE
    steps = [] if minutes is None else [everybody]
    steps += [[user for user in everybody if SEGMENT[user] == segment]] if segment >= 0 else []
    for users in steps:
        found = counts(events, users, since=since, until=as_of)
        different = max(1, np.count_nonzero(found))
        share = (found + different * share) / (found.sum() + different)
    return share


@pytest.mark.parametrize("minutes", [None, 60, 20])
@pytest.mark.parametrize("early", [0, 10])
def test_a_list_is_recent_popularity_among_the_users_of_a_segment(
    minutes: int | None, early: int
) -> None:
    events = make_events(HISTORIES)
    as_of = int(events.timestamp.max()) - early * MINUTE
    hours = None if minutes is None else minutes / 60
    shares = ColdShares(events, SEGMENT, n_items=N, as_of=as_of, hours=hours)
    wanted = [(segment, 0) for segment in (-1, 0, 1, 2, 3)]
    top = cold_lists(shares, wanted, items=EVERYTHING, k=5)
    for row, (segment, _) in enumerate(wanted):
        share = naive(events, segment, as_of=as_of, minutes=minutes)
        np.testing.assert_allclose(shares.of(segment), share, rtol=1e-12)
        best = sorted(range(1, N + 1), key=lambda item: (-round(share[item], 12), item))[:5]
        assert top.items[row].tolist() == best
        np.testing.assert_allclose(top.scores[row], np.log(share[best]), rtol=1e-5)
        assert np.isnan(top.ratings[row]).all()


def test_a_segment_that_wants_another_item_has_it_first() -> None:
    """Checkerboard: the users of segment 0 had item 1, those of segment 1 item 2."""
    events = make_events([[1] * 5, [2] * 3, [2] * 3])
    shares = ColdShares(events, np.array([-1, 0, 1, 1]), n_items=3, as_of=START * 2, hours=None)
    top = cold_lists(shares, [(-1, 0), (0, 0), (1, 0)], items=EVERYTHING[:, :4], k=3)
    assert top.items.tolist() == [[2, 1, 3], [1, 2, 3], [2, 1, 3]]


def test_filters_hold_for_cold_lists_and_fewer_are_left() -> None:
    events = make_events(HISTORIES)
    as_of = int(events.timestamp.max())
    shares = ColdShares(events, SEGMENT, n_items=N, as_of=as_of, hours=None)
    some = EVERYTHING.copy()
    some[0, 1:10] = False
    none = np.zeros_like(EVERYTHING)
    top = cold_lists(shares, [(0, 0), (0, 1)], items=np.concatenate([some, none]), k=4)
    assert sorted(top.items[0, :3].tolist()) == [10, 11, 12]
    assert top.items[0, 3] == 0
    assert np.isneginf(top.scores[0, 3])
    assert (top.items[1] == 0).all()
    assert np.isneginf(top.scores[1]).all()


def test_later_events_change_nothing() -> None:
    events = make_events(HISTORIES)
    as_of = int(events.timestamp.max()) - 30 * MINUTE
    later = np.asarray(events.timestamp) > as_of
    other = replace(events, item_idx=np.where(later, 1, events.item_idx).astype(np.int32))
    for segment in (-1, 0, 1):
        first, second = (
            ColdShares(log, SEGMENT, n_items=N, as_of=as_of, hours=1.0).of(segment)
            for log in (events, other)
        )
        np.testing.assert_array_equal(first, second)
