"""How the page of results writes numbers, tables and settings."""

from collections.abc import Mapping, Sequence
from typing import Any

SETTING_WORDS = {"refit": "refit", "train_only": "train only"}


def of_setting(found: Mapping[str, Any], setting: str) -> Any:
    """The part of a row's results that is of one setting; None where the row has not got it."""
    return found if setting == "refit" else found[setting]


def verdict(difference: Mapping[str, Any]) -> str:
    """A word for a paired difference.

    >>> verdict({"value": 0.1, "ci95": [0.05, 0.2]}), verdict({"value": 0.1, "ci95": [-0.05, 0.2]})
    ('ahead', 'level')
    """
    low, high = difference["ci95"]
    if low > 0:
        return "ahead"
    return "behind" if high < 0 else "level"


def with_interval(value: Mapping[str, Any], *, sign: bool = False) -> str:
    """
    >>> with_interval({"value": 0.1, "ci95": [0.05, 0.2]}, sign=True)
    '+0.1000 [+0.0500, +0.2000]'
    """
    form = "{:+.4f}" if sign else "{:.4f}"
    low, high = value["ci95"]
    return f"{form.format(value['value'])} [{form.format(low)}, {form.format(high)}]"


def short(value: float) -> str:
    return f"{value:.4f}"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all but its first column to the right."""
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
