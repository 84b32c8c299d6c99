"""Guesses what kind of clock a column shows: dates, or numbers since 1970 in some unit."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from recsys_core.data.profiles import Profile

FIRST_YEAR, LAST_YEAR = 1990, 2100
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_DATE = re.compile(r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b|^\w{3,9}[ .]+\d{1,2},? +\d{4}\b")

Unit = Literal["s", "ms", "us", "iso"]
NUMBERS_PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True)
class Clock:
    """A card's time, and why."""

    kind: Literal["absolute", "relative", "rank"]
    unit: Unit | None
    why: str


def guess_clock(profile: Profile) -> Clock | None:
    """The clock of a column of dates, or of numbers that are plausible ones; otherwise None."""
    if profile.is_time_type:
        return Clock("absolute", "us", f"its type is {profile.type}")
    if profile.is_date:
        return Clock("absolute", "iso", f"dates such as {profile.common[0]!r}")
    unit = plausible_unit(profile)
    if unit is None or profile.low is None or profile.high is None:
        return None
    first, last = (
        datetime.fromtimestamp(number / NUMBERS_PER_SECOND[unit], UTC).date()
        for number in (profile.low, profile.high)
    )
    return Clock("absolute", unit, f"as {unit} since 1970 nearly all are {first} to {last}")


def plausible_unit(profile: Profile) -> Unit | None:
    """The unit in which all numbers lie between 1990 and 2100; no two units do."""
    if not profile.is_number or profile.low is None or profile.high is None:
        return None
    for unit, per_second in NUMBERS_PER_SECOND.items():
        if _FIRST * per_second <= profile.low and profile.high < _LAST * per_second:
            return unit
    return None


def looks_like_a_date(profile: Profile) -> bool:
    """Whether most of the common values look like dates, readable or not."""
    dates = sum(bool(_DATE.match(value)) for value in profile.common)
    return bool(profile.common) and 2 * dates > len(profile.common)
