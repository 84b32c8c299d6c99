"""`make bench-merge`: what the seeds of each row found, as benchmarks/results/<protocol>.json.

The mean over seeds comes first, for each query; intervals are a bootstrap over users of these
means, and differences are paired, within a setting: what was fitted before the validation period is
never compared with what was fitted after it. How far the seeds lie apart stands beside.

Parts are our own (the networks without the memory) or look at the truth (the oracle): they are
shown, and are no baselines. An ablation is paired with the row on the seeds that it was run with.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import RESULTS, ROOT
from benchmarks.quality import RUNS, peer_path, peers_of
from benchmarks.quality_checks import MODEL, Runs, check_change, check_seeds
from benchmarks.row import SETTINGS, Row, read_row, row_names
from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError, TwotempoError
from recsys_core.evaluation.buckets import buckets
from recsys_core.evaluation.metrics import metric_names, metric_of
from recsys_core.evaluation.significance import Interval, mean_intervals
from recsys_core.evaluation.targets import queries
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.tables import RANKS, read_table

NETWORKS = "networks"
PARTS = (
    NETWORKS,
    "two_time_scale_at_scoring",
    "two_time_scale_without_request",
    "two_time_scale_frozen_trend",
    "oracle",
)
COHORTS = ("active", "inactive", "new_user", "known")
DRAWS = 1_000

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Value = dict[str, Any]
Models = Mapping[str, list[pd.DataFrame]]
"""Ranks by model, of each seed."""


def runs_of(row: Row, change: str | None = None, *, runs: Path = RUNS) -> Runs:
    """The finished seeds of a row, or of a change to it."""
    ending = "" if change is None else f"-{change}"
    folders = {
        int(path.parent.name.removesuffix(ending)): Layout(path.parent)
        for path in (runs / row.name).glob(f"*{ending}/run.json")
        if path.parent.name.removesuffix(ending).isdigit()
    }
    seeds = sorted(folders)
    return Runs(
        {seed: read_json(folders[seed].root / "run.json") for seed in seeds},
        {seed: read_ranks(folders[seed], peers_of(row, change)) for seed in seeds},
    )


def read_ranks(layout: Layout, peers: list[str]) -> pd.DataFrame:
    """The ranks of all models of one workspace."""
    paths = [layout.ranks, *(peer_path(layout, name) for name in peers)]
    frames: list[pd.DataFrame] = [read_table(path, RANKS).to_pandas() for path in paths]
    return pd.concat(frames, ignore_index=True)


def merge(row: Row, runs: Runs, changed: Mapping[str, Runs] | None = None) -> Value:
    """The results of a row, from what its seeds found and those of its ablations and variants."""
    check_seeds(row, runs)
    facts = runs.facts[runs.first]
    evaluate = facts["params"]["evaluate"]
    names = metric_names(tuple(evaluate["cutoffs"]))
    changed = changed or {}
    for change, others in changed.items():
        check_change(row, runs, others, change=change)
    return {
        "protocol": row.name,
        "row": {
            key: getattr(row, key) for key in ("title", "metrics", "required", "floor", "note")
        },
        "model": MODEL,
        "seeds": list(runs.facts),
        "params": {key: value for key, value in facts["params"].items() if key != "seed"},
        **{key: facts[key] for key in ("population", "t_star", "commit", "device", "versions")},
        "changed_since": any(one["changed_since"] for one in runs.facts.values()),
        **{
            key: {str(seed): one[key] for seed, one in runs.facts.items()}
            for key in ("machine", "seconds", "chosen")
        },
        **_setting(row, runs, names, setting="refit"),
        "train_only": _setting(row, runs, names, setting="train_only")
        if evaluate["train_only"]
        else None,
        "ablations": {
            name: _ablation(row, runs, changed[name]) for name in row.ablations if name in changed
        },
        "variants": {
            name: {"changes": changes, **_setting(row, changed[name], names, setting="refit")}
            for name, changes in row.variants.items()
            if name in changed
        },
    }


def _setting(row: Row, runs: Runs, names: list[str], *, setting: str) -> Value:
    """The model, its parts and the baselines as fitted in one setting; names are without ending."""
    models = _models(runs, setting)
    missing = [name for name in (MODEL, *row.required) if name not in models]
    if missing:
        raise ContractError(
            f"{row.name}: {missing} were not ranked in the setting {setting}; run the row again"
        )
    frame = models[MODEL][0]
    whole = _group(models, np.ones(len(frame), dtype=bool), names)
    baselines = [name for name in models if name not in (MODEL, *PARTS)]
    values = whole["metrics"]
    best = max(baselines, key=lambda name: values[name][row.metrics[0]]["value"])
    ours = [name for name in models if name in (MODEL, *PARTS)]
    by_history = {name: models[name] for name in (*ours, best)}
    return {
        "metrics": values[MODEL],
        "baselines": {name: values[name] for name in baselines},
        "parts": {name: values[name] for name in ours if name != MODEL},
        "best_baseline": best,
        "differences": whole["differences"],
        "by_cohort": {
            cohort: _group(models, members, row.metrics)
            for cohort, members in _cohorts(frame).items()
            if members.any()
        },
        "by_history": {
            bucket: _group(by_history, members, row.metrics)
            for bucket, members in buckets(frame["history"].to_numpy()).items()
            if members.any()
        },
        "seed_spread": {
            metric: [float(_of_seed(frame, metric).mean()) for frame in models[MODEL]]
            for metric in names
        },
    }


def _ablation(row: Row, runs: Runs, changed: Runs) -> Value:
    """What the row has more than the ablation, whole and by cohort, with and without memory."""
    whole, without = (_models(one, "refit") for one in (runs.only(list(changed.facts)), changed))
    frame = whole[MODEL][0]
    groups = {"all": np.ones(len(frame), dtype=bool), **_cohorts(frame)}
    found: Value = {"seeds": list(changed.facts), "metrics": {}, "differences": {}}
    for name in (MODEL, NETWORKS):
        if name not in without:
            continue
        compared = {MODEL: whole[name], "ablation": without[name]}
        by_group = {
            group: _group(compared, members, row.metrics)
            for group, members in groups.items()
            if members.any()
        }
        for kind in ("metrics", "differences"):
            found[kind][name] = {group: of[kind]["ablation"] for group, of in by_group.items()}
    return found


def _models(runs: Runs, setting: str) -> dict[str, list[pd.DataFrame]]:
    """The ranks of each model of a setting, by its name without the ending."""
    ending, others = SETTINGS[setting], [one for one in SETTINGS.values() if one]
    found: dict[str, list[pd.DataFrame]] = {}
    for model in dict.fromkeys(runs.ranks[runs.first]["model"]):
        if not model.endswith(ending) or (not ending and model.endswith(tuple(others))):
            continue
        found[model.removesuffix(ending)] = [
            frame[frame["model"] == model].reset_index(drop=True) for frame in runs.ranks.values()
        ]
    return found


def _cohorts(frame: pd.DataFrame) -> dict[str, Bool]:
    return {
        cohort: ~frame["active"].to_numpy() if cohort == "inactive" else frame[cohort].to_numpy()
        for cohort in COHORTS
    }


def _group(models: Models, members: Bool, names: list[str]) -> Value:
    """The metrics of all models on some of the targets, and of MODEL minus each other.

    All of them see the same draws of users.
    """
    kept = models[MODEL][0][members]
    query = queries(kept["user_idx"].to_numpy(), kept["position"].to_numpy())
    users = kept["user_idx"].to_numpy()[np.unique(query, return_index=True)[1]]  # (Q,)
    means = {name: _means(frames, members, names) for name, frames in models.items()}  # (Q, M)
    others = [name for name in models if name != MODEL]
    columns = [*means.values(), *(means[MODEL] - means[name] for name in others)]
    found = iter(
        mean_intervals(
            np.concatenate(columns, axis=1),
            users,
            rng=generator(0, "quality", "bootstrap"),
            draws=DRAWS,
        )
    )
    return {
        "targets": int(members.sum()),
        "metrics": {name: {metric: _value(next(found)) for metric in names} for name in models},
        "differences": {name: {metric: _value(next(found)) for metric in names} for name in others},
    }


def _means(frames: list[pd.DataFrame], members: Bool, names: list[str]) -> Float64:
    """Metrics of queries, the mean over seeds. (Q, M)"""
    values = [[_of_seed(frame[members], name) for name in names] for frame in frames]
    return np.asarray(np.mean(values, axis=0)).T


def _of_seed(frame: pd.DataFrame, metric: str) -> Float64:
    query = queries(frame["user_idx"].to_numpy(), frame["position"].to_numpy())
    return metric_of(frame["rank"].to_numpy(), metric, query=query)


def _value(interval: Interval) -> Value:
    low, high = (float(f"{bound:.6g}") for bound in (interval.low, interval.high))
    return {"value": float(f"{interval.value:.6g}"), "ci95": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge the seeds of the rows that were run.")
    parser.add_argument("--rows", nargs="+", default=row_names())
    for name in parser.parse_args().rows:
        try:
            row = read_row(name)
            runs = runs_of(row)
            if not runs.facts:
                continue
            changes = {one: runs_of(row, one) for one in (*row.ablations, *row.variants)}
            changed = {one: found for one, found in changes.items() if found.facts}
            path: Path = RESULTS / f"{name}.json"
            write_json(path, merge(row, runs, changed))
        except TwotempoError as error:
            sys.exit(f"error: {error}")
        print(f"{path.relative_to(ROOT)} seeds={list(runs.facts)} beside={list(changed)}")


if __name__ == "__main__":
    main()
