"""Results by activity: targets in buckets of how many known events their user had before them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_core.evaluation.summary import Row

FIRST_OF_BUCKET = (0, 1, 3, 5, 10, 20, 50, 100)
"""The shortest history of each bucket; the last one has no longest."""

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def buckets(history: Int64) -> dict[str, Bool]:
    """A mask over targets for each bucket, named by its lengths: "1-2", "100+". Each target, of
    `history` (N,) known events, is in one of them."""
    bucket = np.searchsorted(FIRST_OF_BUCKET, history, side="right") - 1
    return {name: bucket == place for place, name in enumerate(_names())}


def bucket_rows(rows: list[Row], *, metric: str) -> list[dict[str, Any]]:
    """One metric of each bucket and model, with its 95 % interval, for `dvc plots`.

    `rows` are those of the buckets as cohorts; one without targets has none.
    """
    return [
        {
            "history": row.cohort,
            "model": row.model,
            "metric": metric,
            "value": _round(row.interval.value),
            "low": _round(row.interval.low),
            "high": _round(row.interval.high),
            "targets": row.targets,
            "users": row.users,
        }
        for row in rows
        if row.metric == metric
    ]


def _names() -> list[str]:
    following = [*FIRST_OF_BUCKET[1:], None]
    names = []
    for first, after in zip(FIRST_OF_BUCKET, following, strict=True):
        if after is None:
            names.append(f"{first}+")
        else:
            names.append(str(first) if after - first == 1 else f"{first}-{after - 1}")
    return names


def _round(value: float) -> float:
    """As many digits as in the other reports."""
    return float(f"{value:.6g}")
