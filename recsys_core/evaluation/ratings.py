"""How well values are predicted: the root of the mean squared error, on targets that have a value.

    targets of the period ─▶ with a value ─▶ of an item that the model knows: what is measured

The interval is that of every metric, a bootstrap over users: each draw has a mean squared error,
and a root of it; the difference of two models is one of roots, of the same draws.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.evaluation.significance import Interval, bootstrap_means
from recsys_core.evaluation.targets import Targets
from recsys_core.rng import generator

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RatedTargets:
    """Targets whose value can be predicted, and how many cannot and why."""

    targets: Targets  # (N,)
    rows: Int64  # (N,) of the events before which they are asked for
    value: Float64  # (N,)
    counts: dict[str, int]


def rated_targets(events: Events, targets: Targets, *, n_items: int) -> RatedTargets:
    """Those of `targets` that have a value and an item of the first `n_items`."""
    order = np.argsort(events.source_row, kind="stable")
    place = np.searchsorted(events.source_row, targets.source_row, sorter=order)
    value = events.value[order[place]].astype(np.float64)  # (all,)
    there, known = ~np.isnan(value), targets.item_idx <= n_items
    kept = targets.take(there & known)
    counts = {
        "in": len(targets),
        "out": len(kept),
        "without_value": int(np.count_nonzero(~there)),
        "unknown_item": int(np.count_nonzero(there & ~known)),
    }
    rows = events.offsets[kept.user_idx] + kept.position
    return RatedTargets(kept, rows, value[there & known], counts)


def rmse_report(
    predicted: Mapping[str, npt.NDArray[np.floating]],
    rated: RatedTargets,
    *,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """The RMSE of each model's ratings (N,), and the first one's less each other's, as a report.

    Where no target is rated, only the counts of rows.
    """
    report: dict[str, Any] = {"rows": rated.counts}
    if len(rated.value) == 0:
        return report
    errors = np.stack(
        [(of_one - rated.value) ** 2 for of_one in predicted.values()], axis=1
    )  # (N, M)
    users = rated.targets.user_idx
    drawn = np.sqrt(
        bootstrap_means(errors, users, rng=generator(seed, "bootstrap", "ratings"), draws=draws)
    )  # (draws, M)
    found = np.sqrt(errors.mean(axis=0))  # (M,)
    first, *others = predicted
    return {
        **report,
        "users": len(np.unique(users)),
        "rmse": {
            name: _interval(found[place], drawn[:, place]) for place, name in enumerate(predicted)
        },
        "difference": {
            name: _interval(found[0] - found[place], drawn[:, 0] - drawn[:, place])
            for place, name in enumerate(others, start=1)
        },
        "population": "targets with a value whose item the model knows; interval 95 %, bootstrap "
        f"over users; differences are of {first} less the other",
    }


def _interval(value: float, drawn: Float64) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = asdict(Interval(float(value), float(low), float(high)))
    return {name: float(f"{bound:.6g}") for name, bound in interval.items()}
