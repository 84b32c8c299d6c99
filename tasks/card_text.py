"""A dataset card as text that a person reads: each guess with a comment that says why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from recsys_core.data.guess import Guess, Roles
from recsys_core.data.guess_features import Table
from recsys_core.data.suggestions import Gap, Incomplete
from recsys_core.sections_of_data import SplitParams
from tasks.sample import Sample

COMMENTS_FROM = 42
"""The column at which comments begin where the line leaves room."""
LEAST_BAD_SHARE = 0.01
"""A share that any log may have one day, although its first rows show none."""


@dataclass(frozen=True)
class Line:
    """A line of a card: its YAML, the reason behind it, and what it is called in a short list."""

    text: str
    why: str = ""
    said: str = ""


@dataclass(frozen=True)
class Found:
    """What the sample showed once it was read by the guessed roles."""

    rows: int
    whole: bool
    incomplete: Incomplete
    repeats: int
    days_alone: bool
    gap: Gap | None
    tail: tuple[int, int] | None
    split: SplitParams


def card_lines(
    name: str,
    folder: Path,
    sample: Sample,
    described: Mapping[str, tuple[Path, Table]],
    roles: Roles,
    found: Found | None,
) -> list[Line]:
    """The card's lines; without `found`, those of a first draft."""
    log = sample.origin.resolve().relative_to(folder).as_posix()
    files = {
        of: path.resolve().relative_to(folder).as_posix() for of, (path, _) in described.items()
    }
    source = {"kind": "files", "interactions": log, "items": None, "users": None, **files}
    rows = "all" if sample.whole else "the first"
    of = "; ".join(f"{of}: {table.why}" for of, (_, table) in described.items())
    return [
        Line(
            f"# Drafted from {rows} {sample.rows:,} rows. Comments say why; correct what is wrong."
        ),
        Line(f"name: {plain(name)}"),
        Line(f"title: {plain(f'Interactions of {sample.origin.name}')}"),
        Line(f"source: {_flow(source)}", of, "source" if of else ""),
        *_column_lines(roles),
        Line(
            f"time: {_flow({'kind': roles.clock.kind, 'unit': roles.clock.unit})}",
            roles.clock.why,
            "time",
        ),
        *_event_type_lines(roles),
        _session_line(roles, found),
        *mapping_lines("context", dict(roles.context), roles.left_out),
        *_feature_lines("item_features", described.get("items")),
        *_feature_lines("user_features", described.get("users")),
        _cut_off_line(found),
        _duplicates_line(found),
        _expected_line(found),
    ]


def _flow(value: Any) -> str:
    """A mapping on one line, its keys in their order."""
    return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"


def _column_lines(roles: Roles) -> list[Line]:
    lines = [Line("columns:")]
    guesses: dict[str, Guess | None] = {
        "user_id": roles.user_id,
        "item_id": roles.item_id,
        "timestamp": roles.timestamp,
        "event_type": roles.event_type,
        "value": roles.value,
        "session_id": roles.session_id,
    }
    for role, guess in guesses.items():
        if guess is None:
            lines.append(Line(f"  {role}: null", "no column looks like one"))
            continue
        others = ", ".join(map(repr, guess.others))
        why = f"{guess.why}; could also be {others}" if others else guess.why
        lines.append(Line(f"  {role}: {plain(guess.column)}", why, role))
    return lines


def _event_type_lines(roles: Roles) -> list[Line]:
    if roles.event_type is None:
        return [Line("event_types: null")]
    lines = [Line("event_types:", "those kept, each with its weight", "")]
    lines += [Line(f"  {plain(kind)}: 1.0", "", f"event type {kind}") for kind in roles.weights]
    lines += [
        Line(f"  # {plain(kind)}: 1.0 is left out: it is no interest in an item")
        for kind in roles.refused
    ]
    return lines


def _session_line(roles: Roles, found: Found | None) -> Line:
    if roles.session_id is not None:
        return Line("sessions: {kind: given}", f"by {roles.session_id.column!r}", "sessions")
    if roles.clock.kind == "rank":
        return Line("sessions: {kind: none}", "an order has no gaps", "sessions")
    gap = Gap(1_800, "") if found is None or found.gap is None else found.gap
    return Line(f"sessions: {{kind: gap, gap_seconds: {gap.seconds}}}", gap.why, "sessions")


def _feature_lines(section: str, described: tuple[Path, Table] | None) -> list[Line]:
    if described is None:
        return [Line(f"{section}: {{}}")]
    _, table = described
    rows: dict[str, tuple[Any, str]] = {}
    for name, guess in table.features.items():
        value = {"kind": guess.kind, "separator": guess.separator}
        rows[name] = (guess.kind if guess.separator is None else value, guess.why)
    return mapping_lines(section, rows, table.left_out)


def _cut_off_line(found: Found | None) -> Line:
    if found is None or found.tail is None:
        return Line("cut_off: null")
    start, rows = found.tail
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=start)).date()
    why = (
        f"consider {day}T00:00:00Z: from then on a thin tail runs on, {rows:,} rows; "
        "a test period in it would say little"
    )
    return Line("cut_off: null", why, "cut-off")


def _duplicates_line(found: Found | None) -> Line:
    if found is None:
        return Line("duplicates: quarantine")
    share = found.repeats / found.rows
    said = f"{share:.2%} of the rows equal an earlier one in every column read"
    if _keeps(found):
        return Line("duplicates: keep", f"{said}, and times know days alone", "duplicates")
    return Line("duplicates: quarantine", said, "duplicates" if found.repeats else "")


def _keeps(found: Found) -> bool:
    """Whether equal rows may well be one thing done twice: on the same day, that is."""
    return found.days_alone and found.repeats > 0.01 * found.rows


def _expected_line(found: Found | None) -> Line:
    if found is None:
        return Line("expected: {bad_share: 0.0}")
    missing = found.incomplete
    parts = {
        "without a user": missing.user_id,
        "without an item": missing.item_id,
        "without a readable time": missing.timestamp,
        "without a session": missing.session_id,
        "repeated": 0 if _keeps(found) else found.repeats,
    }
    bad = missing.rows + parts["repeated"]
    share = max(LEAST_BAD_SHARE, math.ceil(110 * bad / found.rows) / 100)
    seen = ", ".join(f"{n / found.rows:.2%} {what}" for what, n in parts.items() if n)
    why = f"in these rows: {seen}" if seen else "these rows show none; a few may come"
    return Line(f"expected: {{bad_share: {min(share, 0.99):g}}}", why, "bad rows")


def plain(value: Any) -> str:
    """A value as YAML on one line.

    >>> plain("a: b"), plain(None), plain({"kind": "gap"})
    ("'a: b'", 'null', '{kind: gap}')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip()


def commented(text: str, why: str) -> str:
    """A line with its comment behind it, or before it where the line is long.

    >>> commented("user_id: who", "by its name")
    'user_id: who                              # by its name'
    """
    reason = " ".join(why.split())
    if not reason:
        return text
    indent = " " * (len(text) - len(text.lstrip()))
    if len(text) >= COMMENTS_FROM:
        return f"{indent}# {reason}\n{text}"
    return f"{text:<{COMMENTS_FROM}}# {reason}"


def mapping_lines(
    key: str, rows: Mapping[str, tuple[Any, str]], left_out: Mapping[str, str]
) -> list[Line]:
    """A mapping's lines, one for each of its rows; what was left out stands there as comments."""
    lines = [Line(f"{key}:" if rows else f"{key}: {{}}")]
    for name, (value, why) in rows.items():
        lines.append(Line(f"  {plain(name)}: {plain(value)}", why, f"{key} {name}"))
    for name, why in left_out.items():
        lines.append(Line(f"  # {name} is left out: {' '.join(why.split())}"))
    return lines
