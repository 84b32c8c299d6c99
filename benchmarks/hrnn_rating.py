"""`make bench-hrnn ROW=rating`: what a user gives an item (HRNN-meta, tables 4 and 5).

    rolling_average       mean of the item and the user's mean so far; it needs no model
    item_average          the mean of the item alone
    without_feedback      reads which items a user had, and never what was given to them
    with_feedback         reads the values of earlier events as well
    hrnn_with_feedback    and the rest of HRNN's input: what is known of the user, and whether an
                          event opens a session, where the log has clock times

Each is the second head of one network (`models/ratings.py`). The error of a target is the mean over
seeds of its squared errors; what is told is the root of their mean, the lower the better, with a
95 % interval from a bootstrap over users; a difference is one of roots, of the same draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.hrnn_cases import (
    WITHOUT_REQUEST,
    check_code,
    interval_of,
    read_cases,
    run_cases,
    seeds_of,
    told,
    workspace_of_case,
)
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.quality_checks import MODEL
from benchmarks.quality_merge import DRAWS
from benchmarks.row import Row
from recsys_core.artifacts import read_json
from recsys_core.config import read_params
from recsys_core.errors import ContractError
from recsys_core.evaluation.ratings import RatedTargets
from recsys_core.evaluation.significance import Interval, bootstrap_means
from recsys_core.evaluation.targets import targets_of
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.tables import read_events
from tasks.cuts import read_cuts
from tasks.embedding_files import UNTIL_VALID
from tasks.fields import read_fields, with_fields_of
from tasks.model_files import read_model
from tasks.ratings import predicted_ratings

ROWS = ("rating-ml100k", "rating-ml1m")
RMSE = "rmse"
AVERAGES = ("rolling_average", "item_average")
WITHOUT, WITH = "without_feedback", "with_feedback"
AGAINST = {WITHOUT: AVERAGES[0], WITH: AVERAGES[0], f"hrnn_{WITH}": AVERAGES[0]}
TITLE = "What a user gives an item: averages, and networks without and with feedback"
NOTE = (
    "One network (`one_rnn`), which ranks as well; RMSE of targets that have a value and a known "
    "item: the lower the better, so that **ahead** is below the rolling average. A network without "
    "feedback cannot know who gives much and who gives little, which is half of the rolling "
    "average; what it can be compared with is the average of the item, and the paper's, too, is "
    "behind the rolling average (.941 and .933 on its log). Epochs are chosen by ndcg@10; "
    "`rating_pull` was chosen on ml-100k, by the RMSE on its validation period, and is the same on "
    "the other log. That RMSE stands beside, of the model that knows nothing of the period."
)

Float64 = npt.NDArray[np.float64]


def run(seed: int, *, runs: Path, logs: Path) -> Experiment:
    """Run the cases of both logs with a seed; returns what all finished seeds found."""
    rows = [read_cases(name) for name in ROWS]
    for row in rows:
        run_cases(row, seed, runs=runs, logs=logs)
    return merged(rows, runs=runs)


def merged(rows: list[Row], *, runs: Path) -> Experiment:
    """What the finished seeds of these rows found, of each log that has one."""
    tables = [_table(row, runs=runs) for row in rows if seeds_of(row, runs=runs)]
    return experiment_of("rating", title=TITLE, note=NOTE, tables=tables)


@dataclass(frozen=True)
class Errors:
    """The squared errors (N,) of models on the same rated targets."""

    rated: RatedTargets
    of: dict[str, Float64]


def errors_of(layout: Layout, *, validation: bool = False) -> Errors:
    """Those of a workspace's model, and of averages, on the test period; or on the validation
    period, of what was known before it."""
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    period = cuts.validation_period if validation else cuts.test_period
    folder = layout.stage("train_rnn")
    if validation:
        folder = folder / UNTIL_VALID
    model = read_model(folder)
    kind = read_params(layout.params).evaluate.targets
    rated, predicted = predicted_ratings(
        model,
        with_fields_of(layout, read_fields(folder), events),
        targets_of(kind, events, period, n_items=model.input_spec.n_items),
        cut=period.before,
        names=(MODEL, WITHOUT_REQUEST),
    )
    return Errors(rated, {name: (of - rated.value) ** 2 for name, of in predicted.items()})


def _table(row: Row, *, runs: Path) -> dict[str, Any]:
    """What the finished seeds of a row found, for `experiment_of`."""
    seeds = seeds_of(row, runs=runs)
    layouts = {
        case: [workspace_of_case(row, case, seed, runs=runs) for seed in seeds]
        for case in row.cases
    }
    facts = {case: [read_json(one.root / "run.json") for one in of] for case, of in layouts.items()}
    check_code(row, facts)
    found = {case: [errors_of(one) for one in of] for case, of in layouts.items()}
    rated = _same_targets(row, found)
    before = {case: [errors_of(one, validation=True) for one in of] for case, of in layouts.items()}
    intervals, differences = _intervals(_means(found), rated)
    validation = {name: float(np.sqrt(of.mean())) for name, of in _means(before).items()}
    counts, users = rated.counts, len(np.unique(rated.targets.user_idx))
    one = next(iter(facts.values()))[0]
    return {
        "log": row.name,
        "title": row.title,
        "population": f"{counts['out']:,} of {counts['in']:,} targets, of {users:,} users "
        f"({counts['without_value']:,} have no value, {counts['unknown_item']:,} an unknown item)",
        "asked": one["population"]["protocol"]["targets"],
        "first_metric": RMSE,
        "lower_is_better": True,
        "seeds": seeds,
        "facts": {case: [told(fact) for fact in of] for case, of in facts.items()},
        "cases": [
            {
                "name": name,
                "params": row.cases.get(name, {}),
                "metrics": {RMSE: interval},
                "against": AGAINST.get(name),
                "difference": differences.get(name),
                "without_request": None,
                "numbers": {f"{RMSE} on validation": round(validation[name], 4)},
            }
            for name, interval in intervals.items()
        ],
        "params": {key: value for key, value in one["params"].items() if key != "seed"},
    }


def _same_targets(row: Row, found: Mapping[str, list[Errors]]) -> RatedTargets:
    """The targets that all cases and seeds were asked for; raises `ContractError` where they were
    not the same."""
    first = next(iter(found.values()))[0].rated
    for case, of in found.items():
        for one in of:
            if not np.array_equal(one.rated.targets.source_row, first.targets.source_row):
                raise ContractError(
                    f"{row.name}: {case} was asked for other ratings than the first case; give all "
                    "cases one split and one kind of target"
                )
    return first


def _means(found: Mapping[str, list[Errors]]) -> dict[str, Float64]:
    """Squared errors (N,) of averages, which no seed changes, and of cases, the mean over seeds."""
    averages = next(iter(found.values()))[0].of
    means = {name: averages[name] for name in AVERAGES}
    return means | {
        case: np.mean([one.of[MODEL] for one in of], axis=0) for case, of in found.items()
    }


def _intervals(
    errors: Mapping[str, Float64], rated: RatedTargets
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The RMSE of each, and the difference of each that is compared, all of the same draws."""
    stacked = np.stack(list(errors.values()), axis=1)  # (N, M)
    rng = generator(0, "hrnn", "bootstrap")
    means = bootstrap_means(stacked, rated.targets.user_idx, rng=rng, draws=DRAWS)
    drawn = dict(zip(errors, np.sqrt(means).T, strict=True))  # (draws,) each
    value = {name: float(np.sqrt(of.mean())) for name, of in errors.items()}
    intervals = {name: _interval(value[name], drawn[name]) for name in errors}
    differences = {
        name: _interval(value[name] - value[other], drawn[name] - drawn[other])
        for name, other in AGAINST.items()
        if name in errors
    }
    return intervals, differences


def _interval(value: float, drawn: Float64) -> dict[str, Any]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return interval_of(Interval(value, float(low), float(high)))
