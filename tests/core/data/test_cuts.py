"""Cuts: what of a log is known at a moment, by hand and for any log."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.cuts import Cut, Cuts, cuts_of, events_per_part, known_part
from recsys_core.data.events import Events
from recsys_core.data.splits import make_split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ConfigError, DataError
from recsys_core.sections_of_data import EventsSplit, LeaveOneOutSplit, QuantileSplit, SplitParams
from tests.event_rows import HOUR, events_of

LEAVE_ONE_OUT = LeaveOneOutSplit(kind="leave_one_out")
BY_EVENT = EventsSplit(kind="events", shares=(0.6, 0.2, 0.2))


def vocabulary_of(events: Events) -> Vocabulary:
    """Items numbered as in these events, each known from its first event on."""
    n = int(events.item_idx.max())
    first = [int(events.timestamp[events.item_idx == item].min()) for item in range(1, n + 1)]
    return Vocabulary(pa.array([f"i{item}" for item in range(1, n + 1)]), np.array(first))


def cut_up(events: Events, params: SplitParams) -> Cuts:
    split = make_split(events, params, cut_off=None)
    return cuts_of(events, split, vocabulary_of(events))


def numbered(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same rows in the order of time, with items numbered by their first appearance."""
    rows = sorted(rows, key=lambda row: row[2])
    number: dict[int, int] = {}
    return [(user, number.setdefault(item, len(number) + 1), time) for user, item, time in rows]


# users of one, two, three and five events
LOO = events_of(
    [
        (1, 1, 0),
        *((2, 2, time) for time in (1, 2)),
        *((3, item, 3 + item) for item in (1, 2, 3)),
        *((4, item, 10 + item) for item in (4, 1, 2, 3, 5)),
    ]
)


def test_leave_one_out_by_hand() -> None:
    cuts = cut_up(LOO, LEAVE_ONE_OUT)
    assert cuts.valid.counts.tolist() == [0, 1, 1, 1, 3]
    assert cuts.test.counts.tolist() == [0, 1, 1, 2, 4]
    assert cuts.end.counts.tolist() == [0, 1, 2, 3, 5]
    assert {cut.n_items for cut in (cuts.valid, cuts.test, cuts.end)} == {5}, "the whole catalogue"
    assert {cut.time for cut in (cuts.valid, cuts.test, cuts.end)} == {None}
    tested = cuts.test_period.holds(LOO)
    assert LOO.user_idx[tested].tolist() == [2, 3, 4]
    assert LOO.item_idx[tested].tolist() == [2, 3, 5]
    split = make_split(LOO, LEAVE_ONE_OUT, cut_off=None)
    assert events_per_part(LOO, split) == {"train": 6, "validation": 2, "test": 3}


def test_nobody_left_out_is_said() -> None:
    with pytest.raises(DataError, match="the validation part would have no events of 3"):
        make_split(events_of([(1, 1, 0), (2, 1, 1), (2, 1, 2)]), LEAVE_ONE_OUT, cut_off=None)


def test_by_event_a_cut_falls_between_two_rows_of_one_time() -> None:
    # ten events, all at one time: rows alone tell them apart
    events = events_of([(row % 2 + 1, row + 1, 7) for row in range(10)])
    cuts = cut_up(events, BY_EVENT)
    assert np.sort(events.source_row[cuts.valid.known(events)]).tolist() == list(range(6))
    assert np.sort(events.source_row[cuts.validation_period.holds(events)]).tolist() == [6, 7]
    assert (cuts.valid.n_items, cuts.test.n_items, cuts.end.n_items) == (6, 8, 10)
    assert cuts.valid.time == 7


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.9, 0.2, -0.1)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="three numbers above 0 that add up to 1"):
        EventsSplit(kind="events", shares=shares)


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(0, 20)),
        min_size=6,
        max_size=60,
    ),
    st.sampled_from([LEAVE_ONE_OUT, BY_EVENT, QuantileSplit(kind="quantile", share=0.25)]),
)
def test_a_cut_never_leaks(rows: list[tuple[int, int, int]], params: SplitParams) -> None:
    """What is known grows from cut to cut, is a prefix of every user, and, where all are cut at one
    time, holds nothing that is later and no item that is met later for the first time."""
    events = events_of(numbered(rows))
    try:
        cuts = cut_up(events, params)
    except DataError:
        return
    known = [cut.known(events) for cut in (cuts.valid, cuts.test, cuts.end)]
    assert known[-1].all()
    parts = [known[0], cuts.validation_period.holds(events), cuts.test_period.holds(events)]
    assert (np.sum(parts, axis=0) == 1).all(), "each event is in one part"
    for cut, of_it in zip((cuts.valid, cuts.test), known[:2], strict=True):
        for user in range(1, events.n_users + 1):
            mine = of_it[events.offsets[user] : events.offsets[user + 1]]
            assert (np.diff(mine.astype(int)) <= 0).all()
        if cut.time is not None:
            assert events.timestamp[of_it].max() <= events.timestamp[~of_it].min()
            if of_it.any():
                assert events.timestamp[of_it].max() <= cut.time
            assert set(events.item_idx[of_it].tolist()) == set(range(1, cut.n_items + 1))
    assert (cuts.valid.counts <= cuts.test.counts).all()


def test_what_arrived_later_is_taken_out_of_the_log_and_of_the_counts() -> None:
    events = events_of([(1, 1, 0), (1, 3, 1), (1, 2, 4), (2, 2, 6), (2, 3, 9)])
    log, cut = known_part(events, Cut.at(events, 5, n_items=2))
    assert log.item_idx[cut.known(log)].tolist() == [1, 2]
    assert cut.counts.tolist() == [0, 2, 0]
    same = Cut.at(events, 5, n_items=3)
    assert known_part(events, same) == (events, same)


def test_a_window_needs_one_time() -> None:
    assert Cut(np.zeros(2, dtype=np.int64), 1, 10 * HOUR).since(2.5) == 10 * HOUR - 2.5 * HOUR
    with pytest.raises(ConfigError, match="a window of hours needs one time"):
        Cut(np.zeros(2, dtype=np.int64), 1, None).since(1.0)
