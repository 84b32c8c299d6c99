"""How many rows the last run of the snapshot edge took in, by what became of them."""

from recsys_core.artifacts import read_json
from recsys_core.layout import Layout


def snapshot_counts(layout: Layout) -> dict[str, int]:
    """What the edge wrote of its last run; nothing where the card has no snapshot."""
    report = layout.report("snapshot")
    counts: dict[str, int] = read_json(report) if report.exists() else {}
    return counts
