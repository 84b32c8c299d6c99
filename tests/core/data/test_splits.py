"""Splits by time: the cuts by hand, conservation, and no look ahead."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.splits import MICROSECONDS_PER_DAY as DAY
from recsys_core.data.splits import split_by_time
from recsys_core.errors import DataError
from recsys_core.sections_of_data import DaysSplit, FrameSplit, QuantileSplit


def test_days_are_counted_from_the_cut_off() -> None:
    time = np.array([0, 7 * DAY, 8 * DAY, 8 * DAY + 1, 9 * DAY, 10 * DAY - 7], dtype=np.int64)
    cuts = split_by_time(time, DaysSplit(kind="days", days=1), cut_off=10 * DAY)
    assert (cuts.valid_start, cuts.test_start, cuts.end) == (8 * DAY, 9 * DAY, 10 * DAY)
    assert cuts.as_of == 10 * DAY - 7


def test_without_a_cut_off_the_end_is_just_after_the_last_event() -> None:
    time = np.array([0, 3 * DAY, 4 * DAY], dtype=np.int64)
    cuts = split_by_time(time, DaysSplit(kind="days", days=1), cut_off=None)
    assert cuts.end == cuts.as_of + 1 == 4 * DAY + 1
    assert (cuts.valid_start, cuts.test_start) == (2 * DAY + 1, 3 * DAY + 1)


def test_a_quantile_takes_its_share_of_the_events_by_time() -> None:
    cuts = split_by_time(np.arange(100), QuantileSplit(kind="quantile", share=0.1), cut_off=None)
    # 0.9 of the way from row 0 to row 99 lies after row 89; of 0..88 after row 79
    assert (cuts.valid_start, cuts.test_start) == (79, 89)


def test_equal_times_stay_on_one_side() -> None:
    time = np.array([1] * 5 + [2] * 5 + [3] * 5, dtype=np.int64)
    cuts = split_by_time(time, QuantileSplit(kind="quantile", share=0.25), cut_off=None)
    assert cuts.test_start == 3
    assert cuts.valid_start == 2


def test_a_frame_says_how_long_validation_is() -> None:
    time = np.arange(0, 100 * DAY, DAY // 4)
    params = FrameSplit(kind="frame", hours=6, valid_hours=36, end=90 * DAY)
    cuts = split_by_time(time[time < 90 * DAY], params, cut_off=90 * DAY)
    assert (cuts.test_start, cuts.end) == (90 * DAY - DAY // 4, 90 * DAY)
    assert cuts.valid_start == cuts.test_start - DAY * 3 // 2
    whole = split_by_time(time, replace(params, end=None), cut_off=None)
    assert whole.end == time.max() + 1
    assert whole.test_start == whole.end - DAY // 4


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_an_empty_part_is_named(part: str) -> None:
    days = {"train": [8, 9], "validation": [0, 9], "test": [0, 8]}[part]
    time = np.array(days, dtype=np.int64) * DAY
    with pytest.raises(DataError, match=f"the {part} part would have no events"):
        split_by_time(time, DaysSplit(kind="days", days=1), cut_off=10 * DAY)


def test_no_events_cannot_be_split() -> None:
    with pytest.raises(DataError, match="no events"):
        split_by_time(np.array([], dtype=np.int64), DaysSplit(kind="days", days=1), cut_off=None)


def test_all_events_at_one_time_cannot_be_split_by_quantile() -> None:
    with pytest.raises(DataError, match="split"):
        split_by_time(np.full(9, 7), QuantileSplit(kind="quantile", share=0.5), cut_off=None)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.05, 0.6))
def test_parts_are_in_order_and_add_up(times: list[int], share: float) -> None:
    time = np.array(times, dtype=np.int64)
    try:
        cuts = split_by_time(time, QuantileSplit(kind="quantile", share=share), cut_off=None)
    except DataError:
        return
    assert cuts.valid_start < cuts.test_start < cuts.end
    train = np.count_nonzero(time < cuts.valid_start)
    valid = np.count_nonzero((time >= cuts.valid_start) & (time < cuts.test_start))
    test = np.count_nonzero((time >= cuts.test_start) & (time < cuts.end))
    assert min(train, valid, test) > 0
    assert train + valid + test == len(time)


def test_the_validation_cut_is_the_test_cut_once_more() -> None:
    time = np.random.default_rng(3).integers(0, 10_000, 500)
    rule = QuantileSplit(kind="quantile", share=0.2)
    cuts = split_by_time(time, rule, cut_off=None)
    again = split_by_time(time[time < cuts.test_start], rule, cut_off=None)
    assert again.test_start == cuts.valid_start
