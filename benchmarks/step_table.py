"""What was measured of every step as rows of text, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

HEADERS = (
    "step",
    "log's events",
    "seconds",
    "per second",
    "inside",
    "CPU s",
    "peak MB",
    "cost / size before",
    "runs",
)
NOT_KNOWN = "-"


def table_rows(sizes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each step and size, the sizes of a step below one another.

    `cost / size before` is seconds per event (per user, per target) divided by the same at the next
    smaller size where the step was measured: 1 is a cost that grows as the log does.
    """
    ordered = sorted(sizes, key=lambda size: int(size["size"]))
    names = dict.fromkeys(step["step"] for size in ordered for step in size["steps"])
    lines = []
    for name in names:
        before: Mapping[str, Any] | None = None
        for size in ordered:
            for step in size["steps"]:
                if step["step"] == name:
                    lines.append(_line(size, step, before))
                    before = step
    return lines


def cost_ratio(step: Mapping[str, Any], before: Mapping[str, Any]) -> float | None:
    """Seconds per unit of one measurement over those of another; None where one has no units."""
    if not step["count"] or not before["count"]:
        return None
    return float(step["seconds"] / step["count"] / (before["seconds"] / before["count"]))


def _line(
    size: Mapping[str, Any], step: Mapping[str, Any], before: Mapping[str, Any] | None
) -> list[str]:
    inside = step["inside_per_second"]
    ratio = None if before is None else cost_ratio(step, before)
    return [
        step["step"],
        f"{size['events']:,}",
        f"{step['seconds']:,.1f}",
        f"{step['per_second']:,} {step['unit']}",
        NOT_KNOWN if inside is None else f"{inside:,}",
        f"{step['cpu_seconds']:,.1f}",
        f"{step['peak_mb']:,}",
        NOT_KNOWN if ratio is None else f"{ratio:.2f}",
        str(len(step["runs"])),
    ]
