"""What a log suggests: the gap that it was made with, the tail that was put at its end."""

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.data.events import Events
from recsys_core.data.suggestions import (
    Incomplete,
    count_incomplete,
    suggest_cut_off,
    suggest_gap,
    suggest_split,
)
from recsys_core.sections_of_data import DaysSplit, QuantileSplit
from tests.event_rows import events_of

DAY = 86_400_000_000
START = 1_700_006_400_000_000
"""A midnight."""
ONE_DAY = DaysSplit(kind="days", days=1)
LAST_TENTH = QuantileSplit(kind="quantile", share=0.1)


def written(path: Path, gaps: npt.NDArray[np.float64]) -> Path:
    """The log of one user whose events lie these seconds apart."""
    times = START + 1 + np.cumsum(np.concatenate([[0], gaps]) * 1e6).astype(np.int64)
    stamps = pa.array(times).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"user_id": ["u"] * len(times), "timestamp": stamps}), path)
    return path


@pytest.mark.parametrize("valley", [1_200, 7_200])
def test_the_gap_lies_where_gaps_are_rare(tmp_path: Path, valley: int) -> None:
    rng = np.random.default_rng(0)
    within = valley / 2 ** (2 + 4 * rng.random(5_000))  # at most a quarter of it
    across = valley * 2 ** (2 + 6 * rng.random(3_000))
    path = written(tmp_path / "log.parquet", rng.permutation(np.concatenate([within, across])))
    gap = suggest_gap(duckdb.connect(), path)
    assert valley / 2 <= gap.seconds <= 2 * valley
    assert "rarest" in gap.why


def test_without_a_valley_it_is_half_an_hour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    even = 2 ** (20 * rng.random(5_000))
    gap = suggest_gap(duckdb.connect(), written(tmp_path / "even.parquet", even))
    assert (gap.seconds, gap.why[:19]) == (1_800, "the usual half hour")
    few = suggest_gap(duckdb.connect(), written(tmp_path / "few.parquet", even[:10]))
    assert few.seconds == 1_800
    assert "10 times between events are too few" in few.why


def test_midnights_are_sessions_of_a_day(tmp_path: Path) -> None:
    stamps = pa.array(START + DAY * np.arange(600)).cast(pa.timestamp("us", tz="UTC"))
    path = tmp_path / "days.parquet"
    pq.write_table(pa.table({"user_id": ["u"] * 600, "timestamp": stamps}), path)
    assert suggest_gap(duckdb.connect(), path).seconds == 86_400


def test_a_thin_tail_is_found() -> None:
    per_day = dict.fromkeys(range(100, 110), 1_000) | {110: 20, 112: 30}
    assert suggest_cut_off(per_day) == (110, 50)


@pytest.mark.parametrize(
    "per_day",
    [
        {},
        dict.fromkeys(range(30), 1_000),
        dict.fromkeys(range(30), 1_000) | {30: 5},  # one day is only not over yet
        dict.fromkeys(range(30), 10) | {3: 5_000},  # quiet for the most part, and so is its end
    ],
)
def test_an_ordinary_end_is_no_tail(per_day: dict[int, int]) -> None:
    assert suggest_cut_off(per_day) is None


def events_at(timestamp: npt.NDArray[np.int64]) -> Events:
    """One user's events at these times."""
    return events_of([(1, 1, int(time)) for time in timestamp])


def test_a_split_that_suits_is_left_alone() -> None:
    timestamp = START + DAY // 500 * np.arange(10_000)  # 20 days of 500
    assert suggest_split(events_at(timestamp), ONE_DAY, cut_off=None, least=400) == ONE_DAY
    assert suggest_split(events_at(timestamp), ONE_DAY, cut_off=None, least=600) == LAST_TENTH


def test_a_split_with_an_empty_part_is_replaced() -> None:
    timestamp = START + 1_000 * np.arange(1_000)
    assert suggest_split(events_at(timestamp), ONE_DAY, cut_off=None, least=1) == LAST_TENTH


def test_incomplete_rows_are_counted_once_and_by_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    at = pa.array([1, 2, None, 4, None], pa.timestamp("us", tz="UTC"))
    columns = {
        "user_id": ["u", None, "u", " ", None],
        "item_id": ["i", "i", "i", "i", ""],
        "timestamp": at,
        "session_id": ["s", "s", "s", "s", None],
    }
    pq.write_table(pa.table(columns), path)
    counted = count_incomplete(duckdb.connect(), path, given_sessions=True)
    assert counted == Incomplete(rows=4, user_id=3, item_id=1, timestamp=2, session_id=1)
    assert count_incomplete(duckdb.connect(), path, given_sessions=False).session_id == 0
