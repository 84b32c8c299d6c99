"""What a table of interactions suggests for its card and its split: gap, cut-off, days or quantile.

A suggestion comes with its reason, for a person to judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import events_per_part
from recsys_core.data.duck import parquet_sql
from recsys_core.data.events import Events
from recsys_core.data.log_facts import DAY_MICROSECONDS
from recsys_core.data.splits import make_split
from recsys_core.errors import DataError
from recsys_core.sections_of_data import QuantileSplit, SplitParams

MINUTE, HOUR = 60, 3_600
HALF_AN_HOUR = 30 * MINUTE
GAPS = tuple(MINUTE * n for n in (10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480))
"""Seconds that a session's gap may be."""
FEW_GAPS = 500
QUIET = 0.1
"""A day with at most this share of the median day's rows is quiet."""


@dataclass(frozen=True)
class Gap:
    """Seconds after which a session ends, and why."""

    seconds: int
    why: str


@dataclass(frozen=True)
class Incomplete:
    """Rows that lack something that every event needs; `rows` lack at least one of them."""

    rows: int
    user_id: int
    item_id: int
    timestamp: int
    session_id: int


def count_incomplete(
    connection: duckdb.DuckDBPyConnection, path: Path, *, given_sessions: bool
) -> Incomplete:
    """Counts of a table of interactions; a session is missed only where sessions are given."""
    session = "coalesce(trim(session_id), '') = ''" if given_sessions else "false"
    found = connection.execute(
        "SELECT count(*) FILTER (WHERE no_user OR no_item OR no_time OR no_session), "
        "count(*) FILTER (WHERE no_user), count(*) FILTER (WHERE no_item), "
        "count(*) FILTER (WHERE no_time), count(*) FILTER (WHERE no_session) FROM "
        "(SELECT coalesce(trim(user_id), '') = '' AS no_user, "
        "coalesce(trim(item_id), '') = '' AS no_item, timestamp IS NULL AS no_time, "
        f"{session} AS no_session FROM {parquet_sql(path)})"
    ).fetchall()[0]
    return Incomplete(*found)


def knows_days_alone(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether (nearly) every time is a midnight."""
    times, midnights = connection.execute(
        f"SELECT count(timestamp), count(*) FILTER (WHERE epoch_us(timestamp) % {DAY_MICROSECONDS} "
        f"= 0) FROM {parquet_sql(path)}"
    ).fetchall()[0]
    return bool(times > 0 and midnights >= 0.99 * times)


def suggest_gap(connection: duckdb.DuckDBPyConnection, path: Path) -> Gap:
    """Where the times between a user's events are rarest, between those within and those across.

    Their density, on a scale of doublings, is looked at around each of `GAPS`; without a clear
    valley it is half an hour. Times that are all midnights make a session of a day.
    """
    if knows_days_alone(connection, path):
        return Gap(24 * HOUR, "every time is a midnight: a session is what a user does on one day")
    gaps = connection.execute(
        "SELECT gap FROM (SELECT (epoch_us(timestamp) - lag(epoch_us(timestamp)) OVER "
        f"(PARTITION BY user_id ORDER BY timestamp)) / 1e6 AS gap FROM {parquet_sql(path)} "
        "WHERE user_id IS NOT NULL AND timestamp IS NOT NULL) WHERE gap > 0"
    ).fetchnumpy()["gap"]
    if len(gaps) < FEW_GAPS:
        why = f"the usual half hour; {len(gaps)} times between events are too few to say more"
        return Gap(HALF_AN_HOUR, why)
    doublings = np.log2(np.asarray(gaps, dtype=np.float64))
    around = np.array([_density(doublings, gap) for gap in GAPS])
    rarest = np.flatnonzero(around == around.min())
    place = int(rarest[len(rarest) // 2])  # the middle of an empty valley
    within = max(_density(doublings, gap) for gap in (5, 10, 30, 60, 120, 300))
    across = max(_density(doublings, gap * HOUR) for gap in (12, 24, 48, 96, 192, 384))
    if min(within, across) < 2 * around[place]:
        return Gap(HALF_AN_HOUR, "the usual half hour; times between events show no clear valley")
    shorter = np.mean(gaps < GAPS[place])
    why = (
        f"the times between a user's events are rarest around {GAPS[place] / HOUR:.2g} h; "
        f"{shorter:.0%} of them are shorter"
    )
    return Gap(GAPS[place], why)


def suggest_cut_off(per_day: Mapping[int, int]) -> tuple[int, int] | None:
    """The day (from 1970-01-01) on which a thin tail begins, and the tail's rows; None without one.

    A tail is two quiet days or more at the end, fewer than half of all days, with less than a tenth
    of the rows.
    """
    if len(per_day) < 4:
        return None
    first, last = min(per_day), max(per_day)
    counts = np.array([per_day.get(day, 0) for day in range(first, last + 1)])
    busy = np.flatnonzero(counts > QUIET * np.median(counts[counts > 0]))
    days, start = len(counts), int(busy[-1]) + 1
    tail = int(counts[start:].sum())
    if not 2 <= days - start < days / 2 or tail >= 0.1 * counts.sum():
        return None
    return first + start, tail


def suggest_split(
    events: Events, params: SplitParams, *, cut_off: int | None, least: int
) -> SplitParams:
    """`params` where test and validation get `least` events and train most; else the last tenth."""
    try:
        parts = events_per_part(events, make_split(events, params, cut_off=cut_off))
    except DataError:
        return QuantileSplit(kind="quantile", share=0.1)
    enough = min(parts["validation"], parts["test"]) >= least
    if enough and 2 * parts["train"] >= len(events):
        return params
    return QuantileSplit(kind="quantile", share=0.1)


def _density(doublings: npt.NDArray[np.float64], seconds: float) -> float:
    """The share of gaps within half a doubling of `seconds`."""
    return float(np.mean(np.abs(doublings - np.log2(seconds)) < 0.5))
