"""A dataset card as text that a person reads: each guess with a comment that says why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

COMMENTS_FROM = 42
"""The column at which comments begin where the line leaves room."""


@dataclass(frozen=True)
class Line:
    """A line of a card: its YAML, the reason behind it, and what it is called in a short list."""

    text: str
    why: str = ""
    said: str = ""


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
