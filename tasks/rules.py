"""The rules of the door, by name: what must hold for every row of a log, and for all of it.

A new rule is added here, and nowhere else.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from recsys_core.columns import (
    CONTEXT,
    DAYS_AHEAD,
    EVENT_TYPE,
    FINITE_VALUE,
    ITEM_ID,
    REPEATS,
    SESSION_ID,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recsys_core.data.card_parts import GivenSessions
from recsys_core.data.cards import DatasetCard
from tasks.door import Rule, between, matches, matches_not, not_null

UNIT_FITS = "unit_fits"
"""1 where the timestamps look like times in the card's unit, 0 where they do in another."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)
CONTROL_CHARACTERS = r"[\x00-\x08\x0a-\x1f\x7f]"
"""All but the tab: a line break or a NUL in an id is what broken quoting leaves behind."""


def row_rules(card: DatasetCard, *, knows_future: bool) -> list[Rule]:
    """What must hold for every row of a card's log; `knows_future` where it is known of rows what
    lay in the future when they came."""
    rules = [
        not_null("user_id_missing", USER_ID),
        matches("user_id_blank", USER_ID, r"\S"),
        matches_not("user_id_has_control_characters", USER_ID, CONTROL_CHARACTERS),
        not_null("item_id_missing", ITEM_ID),
        matches("item_id_blank", ITEM_ID, r"\S"),
        matches_not("item_id_has_control_characters", ITEM_ID, CONTROL_CHARACTERS),
        not_null("timestamp_missing", TIMESTAMP),
        _time_in_range(card),
        not_null("event_type_missing", EVENT_TYPE),
    ]
    if knows_future and card.time.kind == "absolute":
        rules.append(between("timestamp_in_future", DAYS_AHEAD, below=0))
    if card.columns.value is not None:
        rules.append(between("value_not_finite", VALUE, low=-LARGEST_FLOAT, high=LARGEST_FLOAT))
    if isinstance(card.sessions, GivenSessions):
        rules += [
            not_null("session_id_missing", SESSION_ID),
            matches_not("session_id_has_control_characters", SESSION_ID, CONTROL_CHARACTERS),
        ]
    always = {rule.name for rule in rules}
    rules += [rule for rule in _rules_of_the_card(card) if rule.name not in always]
    if card.duplicates == "quarantine":
        rules.append(between("repeats_an_earlier_row", REPEATS, high=0))
    return rules


def log_rules(card: DatasetCard) -> list[Rule]:
    """What must hold for the log as a whole, by the name of the fact that each looks at."""
    expected = card.expected
    rules = [
        between("bad_share", "bad_share", high=expected.bad_share),
        between("rows", "rows", low=expected.rows),
    ]
    if card.time.kind == "absolute":
        # seconds read as milliseconds are days of January 1970, which a clock can show
        rules.append(between(UNIT_FITS, UNIT_FITS, low=1))
    for name in ("last_day_share", "items_described", "users_described"):
        least = getattr(expected, name)
        if least is not None:
            rules.append(between(name, name, low=least))
    return rules


def _time_in_range(card: DatasetCard) -> Rule:
    """The times that a clock, a count from the log's start or a rank can have."""
    name, start = "timestamp_out_of_range", datetime(1970, 1, 1, tzinfo=UTC)
    if card.time.kind == "rank":
        return between(name, TIMESTAMP, low=start)
    # a clock that was never set says 1970-01-01; what is counted from the log's start begins there
    first = datetime(1970, 1, 2, tzinfo=UTC) if card.time.kind == "absolute" else start
    return between(name, TIMESTAMP, low=first, below=datetime(2100, 1, 1, tzinfo=UTC))


def _rules_of_the_card(card: DatasetCard) -> Iterator[Rule]:
    for name, rule in card.rules.items():
        column = f"{CONTEXT}{name}" if name in card.context else name
        number = FINITE_VALUE if name == VALUE else column
        if rule.required:
            yield not_null(f"{name}_missing", column)
        if rule.matches is not None:
            yield matches(f"{name}_does_not_match", column, rule.matches)
        if rule.min is not None:
            yield between(f"{name}_below_min", number, low=_stored(name, rule.min))
        if rule.max is not None:
            yield between(f"{name}_above_max", number, high=_stored(name, rule.max))


def _stored(column: str, bound: float) -> float:
    """A bound as the column stores it: 0.7 in float32 is less than 0.7."""
    if column != VALUE:
        return bound
    return float(np.float32(min(max(bound, -LARGEST_FLOAT), LARGEST_FLOAT)))
