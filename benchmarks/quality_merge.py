"""`make bench-merge`: what the seeds of each row found, as benchmarks/results/quality/<row>.json.

The mean over seeds comes first, for each query; intervals are a bootstrap over users of these
means, and differences are paired. How far the seeds lie apart stands beside.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import RESULTS, ROOT
from benchmarks.quality import RUNS
from benchmarks.row import Row, read_row, row_names
from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError, TwotempoError
from recsys_core.evaluation.metrics import metric_names, metric_of
from recsys_core.evaluation.significance import Interval, mean_intervals
from recsys_core.evaluation.targets import queries
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.tables import RANKS, read_table

QUALITY = RESULTS / "quality"
MODEL = "two_time_scale"
COHORTS = ("all", "active", "inactive", "new_user", "known")
DRAWS = 1_000

Float64 = npt.NDArray[np.float64]
Value = dict[str, Any]


def seeds_of(row: Row) -> dict[int, Layout]:
    """The workspaces of a row's finished seeds."""
    found = {int(path.parent.name): path.parent for path in (RUNS / row.name).glob("*/run.json")}
    return {seed: Layout(found[seed]) for seed in sorted(found)}


def read_ranks(layout: Layout) -> pd.DataFrame:
    """The ranks of all models of one seed."""
    paths = [layout.ranks, *sorted((layout.root / "peers").glob("*.parquet"))]
    return pd.concat([read_table(path, RANKS).to_pandas() for path in paths], ignore_index=True)


def merge(row: Row, ranks: Mapping[int, pd.DataFrame], runs: Mapping[int, Value]) -> Value:
    """The results of a row, from the ranks and the `run.json` of each of its seeds."""
    first = next(iter(ranks))
    cutoffs = tuple(runs[first]["params"]["evaluate"]["cutoffs"])
    names = metric_names(cutoffs)
    models = list(dict.fromkeys(ranks[first]["model"]))
    missing = [name for name in (MODEL, *row.required) if name not in models]
    if missing:
        raise ContractError(f"{row.name}: {missing} were not ranked; run the row again")
    of_model = {name: _seeds(ranks, name) for name in models}
    asked = of_model[MODEL][0][["user_idx", "position", "target"]]
    for frame in (frame for frames in of_model.values() for frame in frames):
        if not np.array_equal(frame[list(asked)].to_numpy(), asked.to_numpy()):
            raise ContractError(
                f"{row.name}: the seeds were not asked for the same targets; delete "
                f"benchmarks/runs/{row.name} and run them again"
            )
    values = {
        cohort: {name: _cohort(frames, names, cohort) for name, frames in of_model.items()}
        for cohort in COHORTS
        if bool(_members(of_model[MODEL][0], cohort).any())
    }
    ours = values["all"][MODEL]
    return {
        "protocol": row.name,
        "model": MODEL,
        "seeds": list(ranks),
        "params": {key: value for key, value in runs[first]["params"].items() if key != "seed"},
        "population": runs[first]["population"],
        "metrics": _intervals(ours, names),
        "by_cohort": {
            cohort: {
                "targets": int(_members(of_model[MODEL][0], cohort).sum()),
                "metrics": {name: _intervals(of, names) for name, of in models_of.items()},
            }
            for cohort, models_of in values.items()
            if cohort != "all"
        },
        "baselines": {
            name: _intervals(values["all"][name], names) for name in models if name != MODEL
        },
        "differences": {
            name: _intervals(_Means(ours.users, ours.values - values["all"][name].values), names)
            for name in models
            if name != MODEL
        },
        "seed_spread": {
            metric: [float(_of_seed(frame, metric).mean()) for frame in of_model[MODEL]]
            for metric in names
        },
        "seconds": {str(seed): run["seconds"] for seed, run in runs.items()},
        "chosen": {str(seed): run["chosen"] for seed, run in runs.items()},
        **{
            key: runs[first][key]
            for key in ("machine", "commit", "changed_since", "device", "versions")
        },
    }


class _Means:
    """Metrics of queries, the mean over seeds: (Q, M), and whose each query is. (Q,)"""

    def __init__(self, users: npt.NDArray[np.int64], values: Float64) -> None:
        self.users = users
        self.values = values


def _seeds(ranks: Mapping[int, pd.DataFrame], model: str) -> list[pd.DataFrame]:
    return [frame[frame["model"] == model].reset_index(drop=True) for frame in ranks.values()]


def _members(frame: pd.DataFrame, cohort: str) -> npt.NDArray[np.bool_]:
    if cohort == "all":
        return np.ones(len(frame), dtype=bool)
    marked: npt.NDArray[np.bool_] = frame["active" if cohort == "inactive" else cohort].to_numpy()
    return ~marked if cohort == "inactive" else marked


def _of_seed(frame: pd.DataFrame, metric: str) -> Float64:
    query = queries(frame["user_idx"].to_numpy(), frame["position"].to_numpy())
    return metric_of(frame["rank"].to_numpy(), metric, query=query)


def _cohort(frames: Sequence[pd.DataFrame], names: Sequence[str], cohort: str) -> _Means:
    kept = [frame[_members(frame, cohort)] for frame in frames]
    values = np.mean([[_of_seed(frame, name) for name in names] for frame in kept], axis=0).T
    query = queries(kept[0]["user_idx"].to_numpy(), kept[0]["position"].to_numpy())
    users = kept[0]["user_idx"].to_numpy()[np.unique(query, return_index=True)[1]]
    return _Means(users, values)


def _intervals(means: _Means, names: Sequence[str]) -> dict[str, Value]:
    # the same draws for every model of a row: what is compared is drawn together
    rng = generator(0, "quality", "bootstrap")
    found = mean_intervals(means.values, means.users, rng=rng, draws=DRAWS)
    return {name: _value(interval) for name, interval in zip(names, found, strict=True)}


def _value(interval: Interval) -> Value:
    low, high = (float(f"{bound:.6g}") for bound in (interval.low, interval.high))
    return {"value": float(f"{interval.value:.6g}"), "ci95": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge the seeds of the rows that were run.")
    parser.add_argument("--rows", nargs="+", default=row_names())
    for name in parser.parse_args().rows:
        row = read_row(name)
        layouts = seeds_of(row)
        if not layouts:
            continue
        runs = {seed: read_json(layout.root / "run.json") for seed, layout in layouts.items()}
        ranks = {seed: read_ranks(layout) for seed, layout in layouts.items()}
        path: Path = QUALITY / f"{name}.json"
        try:
            write_json(path, merge(row, ranks, runs))
        except TwotempoError as error:
            sys.exit(f"error: {error}")
        print(f"{path.relative_to(ROOT)} seeds={list(runs)}")


if __name__ == "__main__":
    main()
