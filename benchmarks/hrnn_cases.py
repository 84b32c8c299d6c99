"""The cases of a row as the experiments of HRNN-meta compare them: models of their own, each in a
workspace beside the others, so that what they share is run once.

What is told of a case is the mean over seeds, target by target, with a 95 % interval from a
bootstrap over users; its difference to another case is paired on the same targets. The perplexity
is that of known targets.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import ROOT
from benchmarks.quality import run_row
from benchmarks.quality_checks import MODEL
from benchmarks.quality_merge import DRAWS
from benchmarks.row import LOGS, Row, read_row
from recsys_core.artifacts import read_json
from recsys_core.config import read_yaml
from recsys_core.errors import ContractError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.significance import Interval, mean_intervals
from recsys_core.evaluation.targets import queries
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.tables import RANKS, read_table

HRNN_ROWS = ROOT / "benchmarks" / "hrnn_rows"
PERPLEXITY = "perplexity"
POPULARITY = "popularity"
WITHOUT_REQUEST = f"{MODEL}_without_request"

Float64 = npt.NDArray[np.float64]
Found = dict[str, Any]


def read_cases(name: str) -> Row:
    """A row of the experiments, with its cases."""
    return read_row(name, folder=HRNN_ROWS)


def run_cases(row: Row, seed: int, *, runs: Path, logs: Path = LOGS) -> None:
    """Run all cases of a row with a seed; what is done is not run again."""
    if read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml")["source"]["kind"] == "simulator":
        logs = ROOT / "datasets"  # its words lie there
    for case in row.cases:
        run_row(row, seed, change=case, runs=runs, logs=logs)


def workspace_of_case(row: Row, case: str, seed: int, *, runs: Path) -> Layout:
    """Where a case was run."""
    return Layout(runs / row.name / f"{seed}-{case}")


def seeds_of(row: Row, *, runs: Path) -> list[int]:
    """The seeds of which every case is finished."""
    found = [
        {int(path.parent.name.partition("-")[0]) for path in (runs / row.name).glob(pattern)}
        for pattern in (f"*-{case}/run.json" for case in row.cases)
    ]
    return sorted(set.intersection(*found))


def merge_cases(row: Row, *, runs: Path, against: Mapping[str, str]) -> Found:
    """What the finished seeds found: a table for `experiment_of`, popularity as its first case.

    `against` names the case, or popularity, that a case is compared with. Raises `ContractError`
    where seeds or cases were not asked for the same targets, or not by the same code.
    """
    seeds = seeds_of(row, runs=runs)
    folders = {
        case: [workspace_of_case(row, case, seed, runs=runs) for seed in seeds]
        for case in row.cases
    }
    facts = {case: [read_json(one.root / "run.json") for one in of] for case, of in folders.items()}
    check_code(row, facts)
    ranks = {case: [_ranks(one) for one in of] for case, of in folders.items()}
    models = {POPULARITY: [_of_model(one, POPULARITY) for one in next(iter(ranks.values()))]}
    models |= {case: [_of_model(one, MODEL) for one in of] for case, of in ranks.items()}
    unasked = {
        case: [_of_model(one, WITHOUT_REQUEST) for one in of]
        for case, of in ranks.items()
        if (of[0]["model"] == WITHOUT_REQUEST).any()
    }
    _check_targets(row, {**models, **{f"{case} unasked": of for case, of in unasked.items()}})
    one = next(iter(facts.values()))[0]
    targets = one["population"]["targets"]
    names = [*row.metrics, PERPLEXITY]
    values = _intervals(models, names)
    told_unasked = _intervals(unasked, names) if unasked else {}
    return {
        "log": row.name,
        "title": row.title,
        "population": f"{targets['all']:,} targets, {targets['known']:,} of known items",
        "asked": one["population"]["protocol"]["targets"],
        "first_metric": row.metrics[0],
        "seeds": seeds,
        "facts": {case: [told(fact) for fact in of] for case, of in facts.items()},
        "cases": [
            {
                "name": case,
                "params": row.cases.get(case, {}),
                "metrics": values[case],
                "against": against.get(case),
                "difference": _difference(models, case, against.get(case), row.metrics[0]),
                "without_request": told_unasked.get(case),
                "numbers": {},
            }
            for case in models
        ],
        "params": {key: value for key, value in one["params"].items() if key != "seed"},
    }


def told(fact: Mapping[str, Any]) -> Found:
    """What a run says of how it came about."""
    return {key: fact[key] for key in ("machine", "commit", "changed_since", "device", "seconds")}


def check_code(row: Row, facts: Mapping[str, list[Found]]) -> None:
    """Raise `ContractError` where the cases of a row were not run by the same code."""
    codes = {fact["code"] for of in facts.values() for fact in of}
    if len(codes) > 1:
        raise ContractError(
            f"{row.name}: its cases were run by {len(codes)} versions of the stages' code; run "
            "each seed again: what is done by this version is not run again"
        )


def _ranks(layout: Layout) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(layout.ranks, RANKS).to_pandas()
    return frame


def _of_model(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    return frame[frame["model"] == model].reset_index(drop=True)


def _check_targets(row: Row, models: Mapping[str, list[pd.DataFrame]]) -> None:
    frames = [(name, frame) for name, of in models.items() for frame in of]
    first = frames[0][1]
    for name, frame in frames:
        for column in ("user_idx", "position", "target"):
            if not np.array_equal(frame[column].to_numpy(), first[column].to_numpy()):
                raise ContractError(
                    f"{row.name}: {name} has another `{column}` than popularity, so they were not "
                    "asked for the same targets; give all cases one split and one kind of target"
                )


def _intervals(models: Mapping[str, list[pd.DataFrame]], names: list[str]) -> dict[str, Found]:
    """Each model's metrics with their intervals."""
    return {
        model: {name: _interval(_values(frames, name), frames[0], name) for name in names}
        for model, frames in models.items()
    }


def _difference(
    models: Mapping[str, list[pd.DataFrame]], case: str, other: str | None, metric: str
) -> Found | None:
    if other is None:
        return None
    ours, theirs = (_values(models[name], metric) for name in (case, other))
    return _interval(ours - theirs, models[case][0], metric)


def _values(frames: list[pd.DataFrame], name: str) -> Float64:
    """A metric of each query, the mean over seeds; of perplexity the -log p of known targets."""
    if name == PERPLEXITY:
        return np.mean([frame["nll"].to_numpy(np.float64) for frame in frames], axis=0)
    return np.mean([_metric(frame, name) for frame in frames], axis=0)


def _metric(frame: pd.DataFrame, name: str) -> Float64:
    query = queries(frame["user_idx"].to_numpy(), frame["position"].to_numpy())
    return metric_of(frame["rank"].to_numpy(), name, query=query)


def _interval(values: Float64, frame: pd.DataFrame, name: str) -> Found:
    users = frame["user_idx"].to_numpy()
    if name != PERPLEXITY:
        query = queries(users, frame["position"].to_numpy())
        users = users[np.unique(query, return_index=True)[1]]
    known = ~np.isnan(values)
    (found,) = mean_intervals(
        values[known][:, None], users[known], rng=generator(0, "hrnn", "bootstrap"), draws=DRAWS
    )
    if name == PERPLEXITY:
        found = Interval(*np.exp([found.value, found.low, found.high]))
    return interval_of(found)


def interval_of(found: Interval) -> Found:
    """A value with its interval, as results have it."""
    return {"value": _short(found.value), "ci95": [_short(found.low), _short(found.high)]}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
