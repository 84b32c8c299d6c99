"""Guesses which column of a log has which role, from the columns' names and, more so, their values.

Every guess says why it was made and what else it could have been; what no guess can be made of is
an error that says what was seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from recsys_core.columns import REASON
from recsys_core.data.guess_clock import Clock, guess_clock, looks_like_a_date
from recsys_core.data.guess_words import (
    EVENT_NAMES,
    EVENT_VALUES,
    ITEM_NAMES,
    LOOKING_AHEAD,
    NOT_INTERACTIONS,
    NUMERIC_NAMES,
    SECOND_TIMES,
    SESSION_NAMES,
    TIME_NAMES,
    USER_NAMES,
    VALUE_NAMES,
    named_like,
    words,
)
from recsys_core.data.profiles import Profile, counts_up, head_share, nested, rising
from recsys_core.errors import DataError
from recsys_core.tables import INTERACTIONS

FEW = 20
"""More values than this are no event types."""
MANY = 1_000
"""More values than this are no categories."""


@dataclass(frozen=True)
class Guess:
    """A column, why it was taken, and the columns that it could have been as well."""

    column: str
    why: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """What the columns of a log are; `weights` are the event types kept, `refused` those not."""

    user_id: Guess
    item_id: Guess
    timestamp: Guess
    clock: Clock
    event_type: Guess | None
    weights: tuple[str, ...]
    refused: tuple[str, ...]
    value: Guess | None
    session_id: Guess | None
    context: Mapping[str, tuple[str, str]]
    left_out: Mapping[str, str]


def guess_roles(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    profiles: Sequence[Profile],
    *,
    given: Mapping[str, str],
) -> Roles:
    """The roles of a log's columns; `given` names columns for roles that need no guess.

    Raises `DataError` where no column can be the user, the item or the time.
    """
    by_name = {profile.name: profile for profile in profiles}
    for role, column in given.items():
        if column not in by_name:
            raise DataError(
                f"--{role.split('_')[0].replace('timestamp', 'time')} {column}: there is no such "
                f"column; the log has {list(by_name)}"
            )
    dated = _dated(profiles, given)
    taken = set(given.values()) | {profile.name for profile in dated[:1]}
    user, item = _user_and_item(connection, table, profiles, given=given, taken=taken)
    timestamp, clock = _time(connection, table, by_name, dated, given, user.column, item.column)
    taken = {user.column, item.column, timestamp.column}
    left = [profile for profile in profiles if profile.name not in taken]
    session = _session(connection, table, left, user.column)
    left = [profile for profile in left if session is None or profile.name != session.column]
    event_type, kept, refused = _event_type(left)
    left = [profile for profile in left if event_type is None or profile.name != event_type.column]
    value = _value(left)
    left = [profile for profile in left if value is None or profile.name != value.column]
    context, left_out = _context(left)
    return Roles(
        user_id=user,
        item_id=item,
        timestamp=timestamp,
        clock=clock,
        event_type=event_type,
        weights=kept,
        refused=refused,
        value=value,
        session_id=session,
        context=context,
        left_out=left_out,
    )


def is_a_log(profiles: Sequence[Profile]) -> bool:
    """Whether a table may be a log: a time, and two columns of ids that repeat."""
    times = [profile for profile in profiles if named_like(profile.name, TIME_NAMES)]
    times += [profile for profile in profiles if profile.is_date and profile not in times]
    ids = [profile for profile in profiles if _may_be_id(profile) and profile not in times]
    return bool(times) and len([profile for profile in ids if _repeats(profile)]) >= 2


def _dated(profiles: Sequence[Profile], given: Mapping[str, str]) -> list[Profile]:
    """The columns that may hold dates and times, the likeliest first."""
    if "timestamp" in given:
        return [profile for profile in profiles if profile.name == given["timestamp"]]
    scores = {}
    for profile in profiles:
        if guess_clock(profile) is None or profile.name in given.values():
            continue
        score = 2.0 * named_like(profile.name, TIME_NAMES) + 3.0 * profile.is_date
        score -= 3.0 * bool(SECOND_TIMES & set(words(profile.name)))
        if not named_like(profile.name, (*USER_NAMES, *ITEM_NAMES, *SESSION_NAMES)):
            score += 0.5  # numbers that are dates of our time are hardly anything else
        if score > 0:
            scores[profile.name] = score
    ranked = sorted(scores, key=lambda name: -scores[name])
    by_name = {profile.name: profile for profile in profiles}
    return [by_name[name] for name in ranked]


def _may_be_id(profile: Profile) -> bool:
    readable = profile.is_text or (profile.is_number and profile.whole)
    return readable and profile.filled > 0 and not profile.row_number and profile.longest <= 200


def _repeats(profile: Profile) -> bool:
    return 2 <= profile.distinct < profile.filled


def _user_and_item(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    profiles: Sequence[Profile],
    *,
    given: Mapping[str, str],
    taken: set[str],
) -> tuple[Guess, Guess]:
    ids = [profile for profile in profiles if _may_be_id(profile) and profile.name not in taken]
    user = _named(ids, USER_NAMES, given.get("user_id"), "--user")
    if user is not None:
        ids = [profile for profile in ids if profile.name != user.column]
    item = _named(ids, ITEM_NAMES, given.get("item_id"), "--item")
    if item is not None:
        ids = [profile for profile in ids if profile.name != item.column]
    # what is named otherwise is no user or item; ids of visits fall out by their name as well
    otherwise = (*SESSION_NAMES, *EVENT_NAMES, *VALUE_NAMES, *NUMERIC_NAMES, *TIME_NAMES)
    nameless = [
        profile
        for profile in ids
        if _repeats(profile) and profile.distinct > FEW and not named_like(profile.name, otherwise)
    ]
    nameless.sort(key=lambda profile: -profile.distinct)
    if user is None and item is None:
        if len(nameless) < 2:
            raise _nothing_found("user and no item", "--user and --item", profiles)
        one, other = nameless[:2]
        heads = {p.name: head_share(connection, table, p.name) for p in (one, other)}
        # a few items are known to everybody; hardly any user is that active
        first, second = sorted(heads, key=lambda name: heads[name])
        why = "one per cent of its ids has {:.0%} of the rows, of " + "{!r} {:.0%}; users are even"
        user = Guess(first, why.format(heads[first], second, heads[second]), (second,))
        item = Guess(second, f"the other column of ids; {first!r} is taken for the user", (first,))
    elif user is None:
        user = _only_left(nameless, "user", profiles, connection, table)
    elif item is None:
        nested_ones = {p.name: nested(connection, table, p.name, within=user.column) for p in ids}
        nameless = [profile for profile in nameless if nested_ones[profile.name] < 0.999]
        item = _only_left(nameless, "item", profiles, connection, table)
    assert user is not None, "set above"
    assert item is not None, "set above"
    return user, item


def _named(
    profiles: Sequence[Profile], names: Sequence[str], given: str | None, option: str
) -> Guess | None:
    """The column given, or that with the best name, which must not be constant."""
    if given is not None:
        return Guess(given, f"given by {option}")
    likeness = {p.name: named_like(p.name, names) for p in profiles if p.distinct > 1}
    found = sorted((name for name in likeness if likeness[name]), key=lambda name: -likeness[name])
    if not found:
        return None
    profile = next(profile for profile in profiles if profile.name == found[0])
    return Guess(
        found[0],
        f"by its name; {profile.distinct:,} distinct values in {profile.filled:,} rows",
        tuple(found[1:3]),
    )


def _only_left(
    nameless: Sequence[Profile],
    role: str,
    profiles: Sequence[Profile],
    connection: duckdb.DuckDBPyConnection,
    table: str,
) -> Guess:
    if not nameless:
        raise _nothing_found(role, f"--{role}", profiles)
    best = nameless[0]
    head = head_share(connection, table, best.name)
    return Guess(
        best.name,
        f"no name says {role}; of the columns of ids left it has most distinct values "
        f"({best.distinct:,}, {head:.0%} of the rows at the top one per cent)",
        tuple(profile.name for profile in nameless[1:3]),
    )


def _time(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    by_name: Mapping[str, Profile],
    dated: Sequence[Profile],
    given: Mapping[str, str],
    user: str,
    item: str,
) -> tuple[Guess, Clock]:
    if dated:
        clock = guess_clock(dated[0])
        if clock is not None:
            others = tuple(profile.name for profile in dated[1:3])
            named = named_like(dated[0].name, TIME_NAMES)
            why = "by its name and values" if named else "by its values"
            why = "given by --time" if "timestamp" in given else why
            return Guess(dated[0].name, why, others), clock
    if any(looks_like_a_date(profile) for profile in by_name.values()):
        raise _no_time(list(by_name.values()), given)
    counted = []
    for profile in by_name.values():
        named = named_like(profile.name, TIME_NAMES)
        wanted = profile.name == given.get("timestamp")
        if profile.name in (user, item) or ("timestamp" in given and not wanted):
            continue
        if not profile.is_number or profile.low is None or profile.low < 0:
            continue
        order = counts_up(connection, table, profile.name, by=user)
        if order >= 0.9 and (profile.whole and not profile.row_number):
            why = f"{order:.0%} of the users count 1, 2, 3, … in it: an order, no clock"
            counted.append((3.0 + named, profile.name, Clock("rank", None, why)))
            continue
        upward = rising(connection, table, profile.name)
        grows = upward >= 0.99 and profile.distinct > profile.filled / FEW
        if wanted or (not profile.row_number and (named or grows)):
            why = (
                f"numbers from {profile.low:,.0f} to {profile.high:,.0f} are no date, "
                f"and {upward:.0%} of the rows do not go back: seconds from the log's start"
            )
            counted.append((1.0 + named + upward, profile.name, Clock("relative", "s", why)))
    counted.sort(key=lambda one: -one[0])
    if not counted:
        raise _no_time(list(by_name.values()), given)
    _, name, clock = counted[0]
    why = "given by --time" if "timestamp" in given else "no column holds dates; this one counts"
    return Guess(name, why, tuple(one[1] for one in counted[1:3])), clock


def _session(
    connection: duckdb.DuckDBPyConnection, table: str, left: Sequence[Profile], user: str
) -> Guess | None:
    """A column whose ids hold several rows, all of one user."""
    found = []
    for profile in left:
        named = named_like(profile.name, SESSION_NAMES)
        counts = (SECOND_TIMES | LOOKING_AHEAD) - {"id", "session", "number", "code"}
        if not named or counts & set(words(profile.name)):
            continue
        if not _may_be_id(profile) or not _repeats(profile) or profile.distinct <= FEW:
            continue
        alone = nested(connection, table, profile.name, within=user)
        if alone >= 0.99:
            rows = profile.filled / profile.distinct
            why = f"by its name; {alone:.1%} of its ids are of one user alone, {rows:.1f} rows each"
            found.append((named, Guess(profile.name, why)))
    found.sort(key=lambda one: -one[0])
    return found[0][1] if found else None


def _event_type(
    left: Sequence[Profile],
) -> tuple[Guess | None, tuple[str, ...], tuple[str, ...]]:
    for profile in left:
        if not 2 <= profile.distinct <= FEW or (profile.is_number and not profile.whole):
            continue
        known = [value for value in profile.common if EVENT_VALUES & set(words(value))]
        named = named_like(profile.name, EVENT_NAMES)
        if not (named or (profile.is_text and 2 * len(known) >= profile.distinct)):
            continue
        refused = tuple(v for v in profile.common if NOT_INTERACTIONS & set(words(v)))
        kept = tuple(value for value in profile.common if value not in refused)
        if not kept:
            kept, refused = refused, ()
        values = ", ".join(profile.common[:5])
        source = "by its name" if named else "by its values"
        why = f"{source}; {profile.distinct} distinct: {values:.60}"
        return Guess(profile.name, why), kept, refused
    return None, (), ()


def _value(left: Sequence[Profile]) -> Guess | None:
    found = []
    for profile in left:
        likeness = named_like(profile.name, VALUE_NAMES)
        if likeness and profile.is_number and profile.distinct > 1:
            place = min(
                VALUE_NAMES.index(word) for word in words(profile.name) if word in VALUE_NAMES
            )
            found.append((place, profile))
    found.sort(key=lambda one: one[0])
    if not found:
        return None
    best = found[0][1]
    why = f"by its name; numbers from {best.low:g} to {best.high:g}"
    return Guess(best.name, why, tuple(one[1].name for one in found[1:3]))


def _context(left: Sequence[Profile]) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    context: dict[str, tuple[str, str]] = {}
    left_out: dict[str, str] = {}
    for profile in left:
        said = words(profile.name)
        if profile.name in (*INTERACTIONS.names, REASON):
            left_out[profile.name] = "the name is taken by a role; rename the column to use it"
        elif profile.distinct <= 1:
            left_out[profile.name] = "one value in all rows"
        elif profile.row_number:
            left_out[profile.name] = "it numbers the rows"
        elif profile.is_date or (guess_clock(profile) and SECOND_TIMES & set(said)):
            left_out[profile.name] = "a second time; one column can be the time"
        elif (LOOKING_AHEAD | {"size", "label", "target", "last", "next"}) & set(said):
            left_out[profile.name] = "by its name it knows what came later, which no request does"
        elif profile.is_number and (not profile.whole or named_like(profile.name, NUMERIC_NAMES)):
            context[profile.name] = ("numeric", f"numbers from {profile.low:g} to {profile.high:g}")
        elif profile.distinct <= min(MANY, profile.filled // 2):
            context[profile.name] = ("categorical", f"{profile.distinct:,} distinct values")
        elif profile.is_number and "id" not in said:
            context[profile.name] = ("numeric", f"numbers from {profile.low:g} to {profile.high:g}")
        else:
            left_out[profile.name] = (
                f"{profile.distinct:,} distinct values are too many for a category; a text about "
                "items belongs into a table of items"
            )
    return context, left_out


def _nothing_found(role: str, option: str, profiles: Sequence[Profile]) -> DataError:
    seen = "; ".join(str(profile) for profile in profiles)
    return DataError(f"no {role} found; name the column with {option}. Seen: {seen}")


def _no_time(profiles: Sequence[Profile], given: Mapping[str, str]) -> DataError:
    for profile in profiles:
        if looks_like_a_date(profile) and given.get("timestamp", profile.name) == profile.name:
            return DataError(
                f"no time found: {profile.name!r} looks like one ({profile.common[0]!r}), but not "
                "in a form that can be read; write it as 2024-03-31 18:05:00, or as seconds since "
                "1970"
            )
    return _nothing_found("time", "--time", profiles)
