"""The trend against its definition, whichever way it is asked for."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from recsys_core.data.events import Events
from recsys_core.models.trend import SLOTS, Refresh, TrendIndex, TrendSlide, index_trend

V = 5
SECOND = 1_000_000
START = 1_700_000_000 * SECOND
"""A whole multiple of every slot length below."""

Int64 = npt.NDArray[np.int64]


def one_user(item_idx: Int64, timestamp: Int64) -> Events:
    """Events of one user: what else they hold is never read."""
    n = len(item_idx)
    return Events(
        offsets=np.array([0, 0, n]),
        item_idx=item_idx.astype(np.int32),
        timestamp=timestamp,
        session_idx=np.ones(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=np.bool_),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n),
    )


def events_of(item_idx: list[int], seconds: list[float]) -> Events:
    """Events by item and seconds since the start."""
    return one_user(np.array(item_idx, dtype=np.int64), at(*seconds))


def trend(
    events: Events,
    *,
    window_seconds: float = 60.0,
    temperature: float = 1.0,
    until: int | None = None,
    refresh: Refresh | None = None,
) -> TrendIndex:
    return index_trend(
        events,
        n_items=V,
        window_seconds=window_seconds,
        temperature=temperature,
        until=until,
        refresh=refresh,
    )


def at(*seconds: float) -> Int64:
    return START + (np.array(seconds) * SECOND).astype(np.int64)


def naive(events: Events, when: int, *, window_seconds: float, until: int | None) -> list[float]:
    """log q of all items at one time, by the definition: 0 for PAD."""
    slot = round(window_seconds * SECOND / SLOTS)
    end = (when if until is None else min(when, until)) // slot * slot
    begin = end - SLOTS * slot
    counts = [0] * (V + 1)
    for item, moment in zip(events.item_idx.tolist(), events.timestamp.tolist(), strict=True):
        if item <= V and begin <= moment < end:
            counts[item] += 1
    total = sum(counts) + V
    return [0.0, *(np.log((count + 1) / total) for count in counts[1:])]


def random_events(rng: np.random.Generator, *, n: int, seconds: float) -> Events:
    """Items 1 to 7, of which 6 and 7 are unknown, in no order of time."""
    return events_of(rng.integers(1, 8, n).tolist(), rng.uniform(0, seconds, n).tolist())


@pytest.mark.parametrize("until", [None, START + 250 * SECOND])
@pytest.mark.parametrize("window_seconds", [6.0, 60.0, 600.0])
@pytest.mark.parametrize(("n", "seconds"), [(3, 10.0), (300, 500.0), (2000, 40.0)])
def test_every_way_of_asking_gives_the_definition(
    n: int, seconds: float, window_seconds: float, until: int | None
) -> None:
    rng = np.random.default_rng(n)
    events = random_events(rng, n=n, seconds=seconds)
    index = trend(events, window_seconds=window_seconds, until=until)
    # long before the log, within it, twice the same, and long after it; in no order
    when = at(-1e6, -0.5, *rng.uniform(0, seconds, 20), 5.0, 5.0, seconds + 3.0, 1e6)
    when = rng.permutation(when)
    expected = np.array(
        [
            naive(events, moment, window_seconds=window_seconds, until=until)
            for moment in when.tolist()
        ]
    )
    np.testing.assert_allclose(index.log_share(when, None), expected, rtol=1e-5)
    items = np.array([4, 1, 0, 4, 5, 2], dtype=np.int32)
    some = index.log_share(when, items)
    np.testing.assert_allclose(some, expected[:, items], rtol=1e-5)
    for item in items.tolist():
        each = index.log_share_each(when, np.full(len(when), item))
        np.testing.assert_allclose(each, expected[:, item], rtol=1e-5)
    assert some.dtype == each.dtype == np.float32


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_window_that_slides_gives_the_offset_of_all_items(temperature: float) -> None:
    """Whether times rise, stand still, jump by more than a window, or go back."""
    events = random_events(np.random.default_rng(8), n=400, seconds=300.0)
    index = trend(events, temperature=temperature)
    slide = TrendSlide(index)
    for seconds in ([5.0, 5.0, 6.5, 40.0], [41.0, 250.0], [20.0, 260.0, 30.0], [1e6], [-5.0], []):
        found = slide.offsets(at(*seconds))
        whole = np.repeat(found.base[:, None], V + 1, axis=1)
        np.add.at(whole, (found.row, found.item), found.more)
        whole[:, 0] = 0.0
        np.testing.assert_allclose(whole, index.offset(at(*seconds), None), rtol=1e-5)
        assert (found.item > 0).all(), "PAD is never there"


def test_shares_of_all_items_add_up_to_one_whatever_is_unknown() -> None:
    events = random_events(np.random.default_rng(1), n=200, seconds=100.0)
    shares = np.exp(trend(events).log_share(at(0.0, 30.0, 90.0, 500.0), None)[:, 1:])
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-5)


def test_counts_are_of_the_sixty_slots_before_the_one_that_is_asked_in() -> None:
    """With slots of a second and an event of item 2 at 100.5 s, requests from 101 s until just
    before 161 s see it."""
    index = trend(events_of([2], [100.5]))
    seconds = (100.4, 100.5, 100.999999, 101.0, 160.999999, 161.0)
    seen = np.exp(index.log_share(at(*seconds), None)[:, 2])
    np.testing.assert_allclose(
        seen, [1 / V, 1 / V, 1 / V, 2 / (V + 1), 2 / (V + 1), 1 / V], rtol=1e-6
    )


def test_no_event_sees_itself_or_what_comes_later() -> None:
    """The log-share of each event's item at its own time stays the same when that event and all
    from it on become events of another item."""
    rng = np.random.default_rng(3)
    events = random_events(rng, n=60, seconds=30.0)
    order = np.argsort(events.timestamp)
    items, seconds = events.item_idx[order], (events.timestamp[order] - START) / SECOND
    items[items > V] = 1
    index = trend(events_of(items.tolist(), seconds.tolist()), window_seconds=20.0)
    for row in range(len(items)):
        changed = np.where(np.arange(len(items)) < row, items, items % V + 1)
        other = trend(events_of(changed.tolist(), seconds.tolist()), window_seconds=20.0)
        when, item = at(seconds[row]), items[row : row + 1].astype(np.int64)
        assert index.log_share_each(when, item) == other.log_share_each(when, item)


def test_a_frozen_trend_stays_what_it_was_at_the_cut() -> None:
    events = random_events(np.random.default_rng(4), n=400, seconds=200.0)
    cut = START + 100 * SECOND
    frozen, streaming = trend(events, until=cut), trend(events)
    later = at(100.0, 101.0, 150.0, 1e5)
    at_cut = streaming.log_share(at(100.0), None)
    np.testing.assert_array_equal(frozen.log_share(later, None), np.repeat(at_cut, 4, axis=0))
    earlier = at(20.0, 99.999)
    np.testing.assert_array_equal(
        frozen.log_share(earlier, None), streaming.log_share(earlier, None)
    )
    assert (streaming.log_share(at(150.0), None) != at_cut).any()


def test_another_trend_shifts_the_offset_by_the_difference_over_the_temperature() -> None:
    rng = np.random.default_rng(5)
    events = random_events(rng, n=300, seconds=100.0)
    now, then = at(90.0), at(40.0)
    items = np.array([1, 2, 3, 5])
    for temperature in (0.25, 1.0, 3.0):
        index = trend(events, temperature=temperature)
        shift = index.log_share(now, None) - index.log_share(then, None)
        assert shift.any()
        np.testing.assert_allclose(
            index.offset(now, None) - index.offset(then, None), shift / temperature, atol=2e-6
        )
        np.testing.assert_allclose(
            index.offset(now, items), index.log_share(now, items) / temperature, rtol=1e-6
        )
        np.testing.assert_allclose(
            index.offset_each(np.repeat(now, 4), items), index.offset(now, items)[0], rtol=1e-6
        )
    assert not trend(events, temperature=float("inf")).offset(now, None).any(), "infinity is off"


def test_without_events_all_items_are_alike() -> None:
    for events in (events_of([], []), events_of([6, 7], [1.0, 2.0])):
        index = trend(events)
        when = at(0.0, 3.0)
        np.testing.assert_allclose(index.log_share(when, None)[:, 1:], np.log(1 / V), rtol=1e-6)
        np.testing.assert_allclose(index.log_share(when, np.array([3])), np.log(1 / V), rtol=1e-6)
        np.testing.assert_allclose(
            index.log_share_each(when, np.array([3, 0])), [np.log(1 / V), 0.0], rtol=1e-6
        )


def test_nobody_asks_for_nothing() -> None:
    index, nobody = trend(events_of([1], [0.0])), np.zeros(0, dtype=np.int64)
    assert index.log_share(nobody, None).shape == (0, V + 1)
    assert index.log_share(nobody, np.array([1, 2])).shape == (0, 2)
    assert index.log_share(at(1.0), nobody).shape == (1, 0)
    assert index.log_share_each(nobody, nobody).shape == (0,)


def test_the_published_floors_of_a_day_of_news(shared_data: Path) -> None:
    """The trend alone, on `day-globo-streaming` with 20 minutes and on `day-globo` with an hour."""
    end = 17_456 * 86_400  # 2017-10-17 00:00 UTC; the test period is the day before
    day = end - 86_400
    table = pq.read_table(
        shared_data / "globo_news" / "events.parquet", columns=["user_id", "item_id", "timestamp"]
    )
    user, item_id, time = (table.column(name).to_numpy() for name in table.schema.names)
    kept = np.flatnonzero(time < end)
    user, item_id, time = (column[kept] for column in (user, item_id, time))
    _, code = np.unique(item_id, return_inverse=True)
    first = np.full(code.max() + 1, end)
    np.minimum.at(first, code, time)
    idx = np.argsort(np.argsort(first, kind="stable")) + 1  # by first appearance, known ones first
    item, n_items = idx[code], int(np.count_nonzero(first < day))
    by_user = np.lexsort((time, user))
    again = np.zeros(len(user), dtype=np.bool_)
    again[by_user[1:]] = user[by_user[1:]] == user[by_user[:-1]]
    targets = np.flatnonzero(again & (time >= day))
    targets = targets[np.argsort(time[targets])]
    assert len(targets) == 180_963
    events = one_user(item, time * SECOND)
    floors = [(1200.0, None, 0.2074, 0.5137), (3600.0, day * SECOND, 0.0792, 0.1563)]
    for window_seconds, until, mrr, recall in floors:
        index = index_trend(
            events, n_items=n_items, window_seconds=window_seconds, temperature=1.0, until=until
        )
        ranks = _ranks(index, at=time[targets] * SECOND, item=item[targets])
        found = ranks[ranks <= 20]
        assert (1 / found).sum() / len(ranks) == pytest.approx(mrr, abs=0.0002)
        assert len(found) / len(ranks) == pytest.approx(recall, abs=0.0002)


def _ranks(index: TrendIndex, *, at: Int64, item: Int64) -> Int64:
    """The rank of each item at its own time (rising), ties before it; of an unknown one beyond."""
    ranks = np.full(len(item), index.n_items + 1)
    slot = at // index.slot_us
    changes = np.flatnonzero(np.diff(slot, prepend=-1, append=-1))
    for begin, stop in itertools.pairwise(changes):
        shares = index.log_share(at[begin : begin + 1], None)[0]
        ahead = np.sort(shares[1:][shares[1:] > shares[1:].min()])  # what nobody reads is last
        rows = begin + np.flatnonzero(item[begin:stop] <= index.n_items)
        own = shares[item[rows]]
        place = len(ahead) - np.searchsorted(ahead, own)
        ranks[rows] = np.where(own > shares[1:].min(), place, index.n_items)
    return ranks


def test_a_refreshed_trend_is_as_old_as_the_latest_refresh() -> None:
    events = events_of([1, 2, 3], [30.0, 95.0, 155.0])
    index = trend(events, refresh=Refresh(every_us=60 * SECOND, anchor=int(at(180.0)[0])))
    # refreshed at 0, 60, 120 and 180 seconds, whatever is asked for between them
    asked, refreshed = at(59.0, 60.0, 119.0, 120.0, 179.5, 180.0), at(0, 60, 60, 120, 120, 180)
    fresh = trend(events).log_share(refreshed, None)
    np.testing.assert_array_equal(index.log_share(asked, None), fresh)
    items = np.array([1, 1, 3, 3, 2, 3])
    each = index.log_share_each(asked, items)
    np.testing.assert_array_equal(each, fresh[np.arange(6), items])
    assert each[0] < each[1], "the first event counts from 60 seconds on"
    np.testing.assert_array_equal(
        TrendSlide(index).offsets(asked).base, trend(events).offset(refreshed, np.array([5]))[:, 0]
    )
