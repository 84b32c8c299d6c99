"""`make bench-hrnn ROW=trend`: hourly frames over two days of news (HRNN-meta, figure 5).

    offline             trained once, with the trend as it was then
    offline_trend       the same weights, with the trend of each moment
    online              trained again every few frames, each with the trend as it was then
    online_trend        the same, with the trend of each moment
    recent_popularity   no model: what was clicked last, in a window chosen before the first frame

It is the product's own `twotempo backtest`, which goes on where it was interrupted; its picture
lies in the workspace. A value is the mean over seeds, target by target. Beside it stands what the
row day-globo-streaming found, where it was run.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from benchmarks.hrnn_cases import check_code, interval_of, read_cases, told
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.measure import RESULTS, ROOT, circumstances
from benchmarks.quality import PACKAGES
from benchmarks.quality_merge import DRAWS
from benchmarks.quality_stages import code_of, code_of_stages, digest_of_log, run_module
from benchmarks.results_row import OURS
from benchmarks.row import Row, log_folder, merged
from benchmarks.train_ours import device
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_params, read_yaml
from recsys_core.errors import ContractError
from recsys_core.evaluation.backtest import (
    BASELINE,
    CurveRow,
    Curves,
    curve_rows,
    frame_starts,
    join_curves,
    whole,
)
from recsys_core.evaluation.significance import Interval
from recsys_core.layout import Layout
from recsys_core.sections import Backtest
from tasks.backtest import asked_of, end_of, has_trend, origins, window_of

ROW = "trend"
DAY = "day-globo-streaming"
EDGES = ("tasks/edges/backtest.py", "flows/backtest.py")
TITLE = "What goes stale, and what a trend of each moment brings back"
NOTE = (
    "`{metric}` is the mean over the targets of all frames, `mean of frames` that over frames, "
    "each alike; `frames won` is the share of frames above recent popularity, whose window of "
    "{minutes} minutes was chosen before the first frame. `recovered` is the share of what stale "
    "weights lose that the trend alone brings back. The curve over time stands in "
    "`benchmarks/results/hrnn-trend.json`, its picture in the workspace, "
    "`benchmarks/runs/hrnn/trend/<seed>/reports/backtest/curve.svg`; one of other frames: "
    "`twotempo backtest`, docs/backtest.md."
)

Found = dict[str, Any]
Int64 = npt.NDArray[np.int64]


def run(seed: int, *, runs: Path, logs: Path) -> Experiment:
    """Run the backtest with a seed where it was not done with this code; returns what all finished
    seeds found."""
    row = read_cases(ROW)
    measured(row, seed, runs=runs, logs=logs)
    return merge_seeds(row, runs=runs)


def measured(row: Row, seed: int, *, runs: Path, logs: Path) -> Found:
    """How a seed's backtest came about; written last, when all of it is done."""
    layout, path = workspace_of_seed(row, seed, runs=runs), _facts_of(row, seed, runs=runs)
    params = {**row.params, "seed": seed}
    effective = merged(read_yaml(ROOT / "params.yaml"), params)
    check_params(effective, where=row.name)
    source = {"dataset": row.dataset, "path": os.path.relpath(log_folder(row, logs=logs), ROOT)}
    asked = {
        "code": code_of_backtest(),
        "params": effective,
        "log": digest_of_log(Layout(ROOT), {"ingest": source}),
        "device": device().type,
    }
    if path.exists():
        known: Found = read_json(path)
        if known["asked"] == asked:
            return known
    path.unlink(missing_ok=True)
    words = [word for one in overrides({**params, "ingest": source}) for word in ("-S", one)]
    run_module("flows.cli", "backtest", "-w", str(layout.root.resolve()), *words, folder=ROOT)
    facts = {
        **circumstances(*PACKAGES),
        "asked": asked,
        "code": asked["code"],
        "device": asked["device"],
        "seed": seed,
        "params": read_yaml(layout.params),
        "seconds": _seconds(layout),
    }
    found: Found = json.loads(json.dumps(facts, default=str))
    write_json(path, found)
    return found


def workspace_of_seed(row: Row, seed: int, *, runs: Path) -> Layout:
    """Where a seed's backtest is run."""
    return Layout(runs / row.name / str(seed))


def code_of_backtest() -> str:
    """A digest of all code that what is found here depends on."""
    return f"{code_of_stages()} {code_of(*EDGES)}"


def overrides(params: Mapping[str, Any]) -> list[str]:
    """Params as the command line takes them, one `-S` each.

    >>> overrides({"seed": 1, "backtest": {"frames": 3}, "split": {"kind": "days", "days": 1}})
    ['seed=1', 'backtest.frames=3', 'split={days: 1, kind: days}']
    """
    found = []
    for section, value in params.items():
        if isinstance(value, dict) and "kind" not in value:
            found += [f"{section}.{key}={_yaml(one)}" for key, one in value.items()]
        else:
            found.append(f"{section}={_yaml(value)}")
    return found


def _check_alike(row: Row, facts: Sequence[Found]) -> None:
    """Raise `ContractError` where seeds differ in more than their seed."""
    asked = [{**one["asked"], "params": _unseeded(one)} for one in facts]
    kinds = {json.dumps(one, sort_keys=True) for one in asked}
    if len(kinds) > 1:
        raise ContractError(
            f"{row.name}: its {len(facts)} seeds were run in {len(kinds)} ways, with other params, "
            "another log or on another device; run each seed again: what is as it is now is kept"
        )


def _unseeded(facts: Found) -> Found:
    return {key: value for key, value in facts["asked"]["params"].items() if key != "seed"}


def merge_seeds(row: Row, *, runs: Path) -> Experiment:
    """What the finished seeds found, as one experiment."""
    paths = sorted((runs / row.name).glob("*.json"), key=lambda path: int(path.stem))
    facts = [read_json(path) for path in paths]
    check_code(row, {"all": facts})
    _check_alike(row, facts)
    seeds = [int(path.stem) for path in paths]
    layouts = [workspace_of_seed(row, seed, runs=runs) for seed in seeds]
    params = read_params(layouts[0].params)
    metric, backtest = params.first_metric, params.backtest
    curves = mean_curves([curves_of(one, backtest, metric=metric) for one in layouts])
    rows = curve_rows(curves, seed=0, draws=DRAWS)
    total = whole(curves, rows, seed=0, draws=DRAWS)
    frames = sorted({one.frame for one in rows})
    minutes = " or ".join(f"{of:g}" for of in sorted({60.0 * window_of(one) for one in layouts}))
    table = {
        "log": row.name,
        "title": row.title,
        "asked": "each event of a frame that has an earlier event of its user",
        "population": f"{len(curves.frame):,} targets in {len(frames)} frames of "
        f"{backtest.frame_hours:g} h; {len(set(curves.origin[BASELINE].tolist()))} trainings",
        "first_metric": metric,
        "seeds": seeds,
        "facts": {"all": [told(one) for one in facts]},
        "cases": [
            _case(name, of, rows, frames, metric=metric, recovered=total["trend_recovers"])
            for name, of in total["curves"].items()
        ],
        "curve": _curve(rows, starts_of(layouts[0], backtest)),
        "params": {key: value for key, value in facts[0]["params"].items() if key != "seed"},
    }
    note = NOTE.format(metric=metric, minutes=minutes)
    tables = [table, *_beside(RESULTS / f"{DAY}.json")]
    return experiment_of("trend", title=TITLE, note=note, tables=tables)


def curves_of(layout: Layout, backtest: Backtest, *, metric: str) -> Curves:
    """The curves of one finished backtest, target by target."""
    asked = {
        origin.first: asked_of(layout, backtest, origin, metric=metric)
        for origin in origins(layout, backtest)
    }
    return join_curves(asked, starts_of(layout, backtest), has_trend=has_trend(layout))


def starts_of(layout: Layout, backtest: Backtest) -> Int64:
    """Where the frames of a backtest begin, in microseconds. (F + 1,)"""
    return frame_starts(backtest, end_of(layout))


def mean_curves(seeds: list[Curves]) -> Curves:
    """The mean over seeds, target by target; raises `ContractError` where they were not asked for
    the same."""
    first = seeds[0]
    for one in seeds:
        same = np.array_equal(one.frame, first.frame) and np.array_equal(
            one.user_idx, first.user_idx
        )
        if not same or set(one.values) != set(first.values):
            raise ContractError(
                "the seeds of a backtest were asked for other targets or have other curves; run "
                "each again by the same params"
            )
    values = {name: np.mean([one.values[name] for one in seeds], axis=0) for name in first.values}
    return replace(first, values=values)


def _case(
    name: str,
    found: Mapping[str, Any],
    rows: list[CurveRow],
    frames: list[int],
    *,
    metric: str,
    recovered: float | None,
) -> Found:
    """A curve's line: all frames together, and by frame."""
    is_baseline = name == BASELINE
    of_frames = [one.interval.value for one in rows if one.model == name]
    return {
        "name": name,
        "params": {},
        "metrics": {metric: interval_of(Interval(**found["interval"]))},
        "against": None if is_baseline else BASELINE,
        "difference": None if is_baseline else interval_of(Interval(**found[f"minus {BASELINE}"])),
        "without_request": None,
        "numbers": {
            "mean of frames": round(float(np.mean(of_frames)), 6),
            "frames won": None if is_baseline else found["frames_above"] / len(frames),
            "recovered": recovered if name == "offline_trend" else None,
        },
    }


def _curve(rows: list[CurveRow], starts: Int64) -> list[Found]:
    """By frame its start, how many targets it has, and each curve's value with its interval."""
    found: dict[int, Found] = {}
    for one in rows:
        start = datetime.fromtimestamp(int(starts[one.frame]) / 1e6, UTC).isoformat()
        frame = found.setdefault(
            one.frame, {"start": start, "targets": one.targets, "users": one.users, "curves": {}}
        )
        frame["curves"][one.model] = {**interval_of(one.interval), "known": one.known}
    return [{"frame": frame, **of} for frame, of in sorted(found.items())]


def _beside(path: Path) -> Iterator[Found]:
    """The row of the day, as a table: weights of the night before, counts up to each click."""
    if not path.exists():
        return
    found = read_json(path)
    names, population = found["row"]["metrics"], found["population"]
    models = {OURS: found["metrics"], **found["parts"], **found["baselines"]}
    seconds = {"machine": found["machine"], "seconds": found["seconds"]}
    yield {
        "log": DAY,
        "title": found["row"]["title"],
        "asked": population["protocol"]["targets"],
        "population": f"{population['targets']['all']:,} targets",
        "first_metric": names[0],
        "seeds": found["seeds"],
        "facts": {
            "all": [
                {
                    **{key: found[key] for key in ("commit", "changed_since", "device")},
                    **{key: of[str(seed)] for key, of in seconds.items()},
                }
                for seed in found["seeds"]
            ]
        },
        "cases": [
            {
                "name": name,
                "params": {},
                "metrics": {metric: of[metric] for metric in names},
                "against": BASELINE if name == OURS else None,
                "difference": found["differences"][BASELINE][names[0]] if name == OURS else None,
                "without_request": None,
                "numbers": {},
            }
            for name, of in models.items()
        ],
        "params": found["params"],
    }


def _seconds(layout: Layout) -> dict[str, float]:
    """By stage, the seconds of all origins' steps that ran in the last start."""
    found: dict[str, float] = {}
    for origin in origins(layout, read_params(layout.params).backtest):
        for step in read_json(layout.origin(origin.first) / "run.json")["steps"]:
            if step["outcome"] == "ran":
                seconds = found.get(step["step"], 0.0) + step["seconds"]
                found[step["step"]] = round(seconds, 2)
    return found


def _facts_of(row: Row, seed: int, *, runs: Path) -> Path:
    return runs / row.name / f"{seed}.json"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]
