"""What evaluation reports as JSON: numbers, nested as `dvc metrics` shows and compares them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_core.evaluation.baselines import Choice, label
from recsys_core.evaluation.significance import Interval
from recsys_core.evaluation.summary import Ranked, Row
from recsys_core.evaluation.targets import Targets
from recsys_core.sections import Evaluate, TargetKind

TARGETS: dict[TargetKind, str] = {
    "successive": "each event of the test period that has an earlier event of its user",
    "last": "each user's last event of the test period, where it has an earlier one",
    "session": "events of sessions that begin in the test period, from the second on; all earlier "
    "events of the user may be read",
    "basket": "the distinct items of each user's first session of the test period, where they had "
    "one before; asked for together, before it",
}
PROTOCOL = {
    "candidates": "all items with an event before the test period began",
    "rank": "1 + other candidates with a score >= the target's; an unknown target is a miss",
    "interval": "95 %, bootstrap over users; differences are paired",
}

KNOWN = {
    False: "what was known when the test period began, and the user's own history",
    True: "popularity, recent popularity, transitions and the model's trend: every event before "
    "the target's time; weights, the memory and whatever ends with frozen or frozen_trend: what "
    "was known when the test period began; histories: all earlier events of the user",
}
"""What stands behind a rank, by whether evaluation streams."""

Report = dict[str, Any]


def headline(rows: list[Row], compared: dict[str, Interval], *, model: str, metric: str) -> Report:
    """The model's metrics by cohort, the others' on all targets, intervals of the first metric."""
    of_all = [row for row in rows if row.cohort == "all"]
    report: Report = {model: {}, "baselines": {}, "interval": {}, "difference": {}}
    for row in rows:
        if row.model == model:
            report[model].setdefault(row.cohort, {})[row.metric] = _round(row.interval.value)
    for row in of_all:
        if row.model != model:
            report["baselines"].setdefault(row.model, {})[row.metric] = _round(row.interval.value)
        if row.metric == metric:
            report["interval"][row.model] = _interval(row.interval)
    for other, difference in compared.items():
        report["difference"][other] = _interval(difference)
    return report


def population(
    ranked: list[Ranked],
    groups: dict[str, npt.NDArray[np.bool_]],
    targets: Targets,
    *,
    in_period: int,
) -> Report:
    """How many events came in, how many became targets, what histories lack, and who covers what.

    `targets` have the histories that the model reads. An event of an item that it does not know is
    left out of the history of each later target of its user, and counted for each of them.
    """
    left_out = targets.position.astype(np.int64) - targets.history
    return {
        "rows": {
            "in": in_period,
            "out": len(targets),
            "not_asked": in_period - len(targets),
        },
        "targets": {cohort: int(members.sum()) for cohort, members in groups.items()},
        "history_events_left_out": int(left_out.sum()),
        "targets_without_known_history": int(np.count_nonzero(targets.history == 0)),
        "two_time_scales": two_time_scales(groups["active"]),
        "not_covered": {one.model: int((~one.covered).sum()) for one in ranked},
    }


def two_time_scales(active: npt.NDArray[np.bool_]) -> Report:
    """How the targets (N,) divide between the two networks.

    Where one has less than a tenth of them the metrics say little of it.
    """
    many = int(active.sum())
    few = min(many, len(active) - many)
    return {
        "active_share": _round(many / len(active)),
        "inactive_share": _round((len(active) - many) / len(active)),
        "both_at_least_a_tenth": 10 * few >= len(active),
    }


def choices(
    chosen: Mapping[str, Choice], evaluate: Evaluate, *, first_metric: str, t_star: int
) -> Report:
    """What was chosen on validation, and the rules.

    `transition_hours` null is the whole log, `recent_hours` null is popularity without a window.
    """
    windows = {
        name: chosen[name].setting if name in chosen else None
        for name in ("recent_popularity", "transitions")
    }
    return {
        "recent_hours": windows["recent_popularity"],
        "transition_hours": windows["transitions"],
        "chosen": {name: label(choice.setting) for name, choice in chosen.items()},
        "validation": {
            name: {label(setting): _round(value) for setting, value in choice.values.items()}
            for name, choice in chosen.items()
        },
        "first_metric": first_metric,
        "seen_filter": evaluate.seen_filter,
        "streaming": evaluate.streaming,
        "t_star": t_star,
        "protocol": {
            "targets": TARGETS[evaluate.targets],
            **PROTOCOL,
            "known": KNOWN[evaluate.streaming],
        },
    }


def bars(rows: list[Row], *, metric: str) -> list[Report]:
    """The first metric of each cohort and model, for `dvc plots`; `bar` names both."""
    return [
        {
            "bar": f"{row.cohort}: {row.model}",
            "cohort": row.cohort,
            "model": row.model,
            "metric": metric,
            "value": _round(row.interval.value),
        }
        for row in rows
        if row.metric == metric
    ]


def _interval(interval: Interval) -> dict[str, float]:
    return {name: _round(value) for name, value in asdict(interval).items()}


def _round(value: float) -> float:
    """Enough digits for any comparison, few enough to read."""
    return float(f"{value:.6g}")
