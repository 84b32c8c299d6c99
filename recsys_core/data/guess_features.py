"""Guesses the kinds of the columns in a table of items or users: one row per id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from recsys_core.data.guess_clock import guess_clock
from recsys_core.data.guess_words import (
    LOOKING_AHEAD,
    NUMERIC_NAMES,
    named_like,
    words,
)
from recsys_core.data.profiles import Profile, overlap, separated
from recsys_core.errors import DataError

SEPARATORS = ("|", ";", ",", " ")
"""Most telling first: a comma or a space may belong to a text."""
FEW_NUMBERS = 30
"""Whole numbers with at most this many values are codes rather than amounts."""
MOST_PARTS = 2_000


@dataclass(frozen=True)
class FeatureGuess:
    kind: str
    separator: str | None
    why: str


@dataclass(frozen=True)
class Table:
    """A table of features: of what, its column of ids, the kinds, and what was left out and why."""

    of: str
    key: str
    why: str
    features: Mapping[str, FeatureGuess]
    left_out: Mapping[str, str]


def guess_table(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    profiles: Sequence[Profile],
    *,
    name: str,
    log: str,
    user: str,
    item: str,
    timestamp_unit: str | None,
) -> Table:
    """Whether a table is of items or users, and its features.

    Its ids stand in the column that is called as in the log; `name` is what errors call the table.
    Raises `DataError` where there is no such column.
    """
    names = [profile.name for profile in profiles]
    found = []
    for of, key in (("items", item), ("users", user)):
        if any(profile.name == key and profile.distinct == profile.filled for profile in profiles):
            found.append((overlap(connection, table, key, log=log, log_column=key), of, key))
    if not found:
        raise DataError(
            f"{name}: neither {item!r} (items) nor {user!r} (users) of the log is a column here "
            f"with one row per id; it has {names}; rename its column of ids to that of the log"
        )
    share, of, key = max(found)
    features: dict[str, FeatureGuess] = {}
    left_out: dict[str, str] = {}
    for profile in profiles:
        if profile.name == key:
            continue
        guess = _feature(connection, table, profile, timestamp_unit)
        if isinstance(guess, str):
            left_out[profile.name] = guess
        else:
            features[profile.name] = guess
    why = f"one row per {key!r}, and {share:.1%} of the log's are in it"
    return Table(of=of, key=key, why=why, features=features, left_out=left_out)


def _feature(
    connection: duckdb.DuckDBPyConnection, table: str, profile: Profile, timestamp_unit: str | None
) -> FeatureGuess | str:
    """A guess, or why the column is left out."""
    said = set(words(profile.name))
    if profile.name in ("item_id", "user_id"):
        return "the name is taken by a role; rename the column to use it"
    if profile.distinct <= 1:
        return "one value in all rows"
    if LOOKING_AHEAD & said:
        return "by its name it is counted over the whole log, so it knows the future"
    clock = guess_clock(profile)
    if clock is not None and (profile.is_date or clock.unit == timestamp_unit):
        return FeatureGuess("timestamp", None, clock.why)
    if profile.is_number:
        return _numeric(profile)
    for separator in SEPARATORS:
        share, parts = separated(connection, table, profile.name, separator)
        # the same parts come back in many values; the words of titles hardly do
        if share >= 0.2 and parts <= MOST_PARTS and parts <= _parts_allowed(profile, separator):
            why = f"{share:.0%} of the values are cut by {separator!r}, into {parts:,} parts in all"
            return FeatureGuess("multi_categorical", separator, why)
    if profile.distinct <= max(FEW_NUMBERS, profile.filled // 2):
        return FeatureGuess("categorical", None, f"{profile.distinct:,} distinct values")
    if profile.spaced >= 0.3:
        why = f"words, {profile.distinct:,} distinct in {profile.filled:,} rows"
        return FeatureGuess("text", None, why)
    return f"{profile.distinct:,} distinct values in {profile.filled:,} rows say nothing of others"


def _parts_allowed(profile: Profile, separator: str) -> float:
    """How many distinct parts a list's values may have: of true lists, fewer than there are lists,
    far fewer where the separator may belong to a name."""
    return profile.distinct / 2 if separator in (" ", ",") else max(profile.distinct, FEW_NUMBERS)


def _numeric(profile: Profile) -> FeatureGuess | str:
    said = words(profile.name)
    span = f"numbers from {profile.low:g} to {profile.high:g}"
    few = profile.whole and profile.distinct <= FEW_NUMBERS
    if few and not named_like(profile.name, NUMERIC_NAMES):
        return FeatureGuess(
            "categorical", None, f"{profile.distinct} distinct whole numbers; could be numeric"
        )
    if profile.whole and {"id", "code", "zip"} & set(said):
        if profile.distinct <= profile.filled // 2:
            return FeatureGuess("categorical", None, f"{profile.distinct:,} distinct codes")
        return (
            f"{profile.distinct:,} distinct codes in {profile.filled:,} rows say nothing of others"
        )
    return FeatureGuess("numeric", None, span)
