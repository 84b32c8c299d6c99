"""What was measured of top-k as rows of text, for the terminal and for the page."""

from collections.abc import Mapping
from typing import Any

HEADERS = (
    "items",
    "d",
    "engine",
    "users/s",
    "/ ours",
    "share of sgemm",
    "users / CPU s",
    "share in CPU time",
    "peak MB",
    "runs",
)
OURS = "ours"


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A line for each engine, by size of the catalogue, the one with most users a second first."""
    ordered = sorted(
        found["rows"],
        key=lambda row: (int(row["items"]), int(row["dim"]), -float(row["users_per_second"])),
    )
    return [
        [
            f"{row['items']:,}",
            str(row["dim"]),
            row["engine"],
            f"{row['users_per_second']:,.0f}",
            f"{row['ratio_to_ours']:.2f}",
            f"{row['share_of_sgemm']:.2f}",
            f"{row['users_per_cpu_second']:,.0f}",
            f"{row['share_of_sgemm_cpu']:.2f}",
            f"{row['peak_mb']:,}",
            str(len(row["runs"])),
        ]
        for row in ordered
    ]
