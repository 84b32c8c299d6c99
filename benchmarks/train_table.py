"""What was measured of training as rows of text, for the terminal and for the page."""

from collections.abc import Mapping
from typing import Any

HEADERS = (
    "log",
    "model",
    "loss",
    "events/s",
    "/ plain GRU",
    "multiply-adds",
    "share of sgemm",
    "peak MB",
    "GPU MB",
    "runs",
)
NOT_KNOWN = "-"
PLAIN = "nn.GRU, plain loop"


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A line for each training, in the order in which they were measured.

    `/ plain GRU` is the speed over that of the plain loop on the same log; the share is that of the
    multiply-adds of a product of two large matrices in the same time, on the same threads.
    """
    most = found["product"]["multiply_adds_per_second"]
    plain = {row["log"]: row["events_per_second"] for row in found["rows"] if row["model"] == PLAIN}
    return [_line(row, most=most, plain=plain.get(row["log"])) for row in found["rows"]]


def share_of_product(row: Mapping[str, Any], *, most: float) -> float | None:
    """The share of `most` multiply-adds a second; None where a row's are not counted."""
    each = row["multiply_adds_per_event"]
    return None if each is None else float(row["events_per_second"] * each / most)


def _line(row: Mapping[str, Any], *, most: float, plain: float | None) -> list[str]:
    share = share_of_product(row, most=most)
    speed, on_device = row["events_per_second"], row["device_peak_mb"]
    negatives = "" if row["negatives"] is None else f", {row['negatives']}"
    return [
        row["log"],
        row["model"],
        row["loss"] + negatives,
        f"{speed:,}",
        NOT_KNOWN if plain is None else f"{speed / plain:.2f}",
        NOT_KNOWN if share is None else f"{row['multiply_adds_per_event']:,}",
        NOT_KNOWN if share is None else f"{share:.2f}",
        f"{row['peak_mb']:,}",
        NOT_KNOWN if on_device is None else f"{on_device:,}",
        str(len(row["runs"])),
    ]
