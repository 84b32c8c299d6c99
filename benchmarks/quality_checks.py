"""Refuses to merge what is no repetition: seeds that differ in more than their seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.row import Row, changes_of, merged
from recsys_core.errors import ContractError

MODEL = "two_time_scale"
SAME = ("code", "commit", "device", "versions", "t_star")
"""Facts of a run that are the same for all that is compared, beside its params."""
SAME_TARGETS = ("user_idx", "position", "target", "active", "new_user", "known", "history")


@dataclass(frozen=True)
class Runs:
    """What was found of a row, or of a change to it: by seed, `run.json` and the ranks of all
    models."""

    facts: Mapping[int, Mapping[str, Any]]
    ranks: Mapping[int, pd.DataFrame]

    @property
    def first(self) -> int:
        """The seed that the others are compared with."""
        return min(self.facts)

    def only(self, seeds: list[int]) -> "Runs":
        """Those of these seeds."""
        return Runs({s: self.facts[s] for s in seeds}, {s: self.ranks[s] for s in seeds})


def check_seeds(row: Row, runs: Runs) -> None:
    """Raise `ContractError` where the seeds of a row differ, and say in what."""
    _check_facts(row, runs, runs, change=None)
    _check_targets(row, runs, runs, what="")


def check_change(row: Row, runs: Runs, changed: Runs, *, change: str) -> None:
    """Raise `ContractError` where an ablation or a variant differs in more than it says."""
    if not set(changed.facts) <= set(runs.facts):
        raise ContractError(
            f"{row.name}: {change} has seeds {list(changed.facts)}, the row itself "
            f"{list(runs.facts)}; run the row with the others too, since they are paired"
        )
    _check_facts(row, runs, changed, change=change)
    _check_targets(row, runs, changed, what=f"{change}, ")


def _check_facts(row: Row, runs: Runs, others: Runs, *, change: str | None) -> None:
    one = runs.facts[runs.first]
    expected = _without_seed(merged(dict(one["params"]), changes_of(row, change)))
    for seed, other in others.facts.items():
        who = f"{row.name}: seed {seed}" if change is None else f"{row.name}: {change}, seed {seed}"
        if unsaid := [key for key in SAME if key not in one or key not in other]:
            raise ContractError(
                f"{who}: run.json does not say {', '.join(unsaid)}, it is of an older benchmark; "
                "run it again: what is done is not run again"
            )
        if one["t_star"] != other["t_star"]:
            raise ContractError(
                f"{who} has t* {other['t_star']}, seed {runs.first} has {one['t_star']}, so that "
                "their active users are not the same; set train_rnn.t_star to a number in "
                f"benchmarks/rows/{row.name}.yaml"
            )
        found = [key for key in SAME if one[key] != other[key]]
        found += _differing(expected, _without_seed(other["params"]), "params")
        if found:
            raise ContractError(
                f"{who} differs from seed {runs.first} in {', '.join(found)}; run both again at "
                "one commit on one kind of machine: what is done is not run again"
            )


def _check_targets(row: Row, runs: Runs, others: Runs, *, what: str) -> None:
    """The same targets and the same cohorts, whatever the model and the seed."""
    ranks = runs.ranks[runs.first]
    asked = ranks[ranks["model"] == MODEL]
    for seed, frame in others.ranks.items():
        for model, theirs in frame.groupby("model", sort=False):
            for column in SAME_TARGETS:
                if not np.array_equal(theirs[column].to_numpy(), asked[column].to_numpy()):
                    raise ContractError(
                        f"{row.name}: {what}seed {seed}: {model} has another `{column}` than "
                        f"{MODEL} of seed {runs.first}, so they were not asked for the same "
                        f"targets; delete benchmarks/runs/{row.name} and run it again"
                    )


def _without_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != "seed"}


def _differing(one: Any, other: Any, where: str) -> Iterator[str]:
    """The keys at which two nested mappings differ, with dots between."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _differing(one.get(key), other.get(key), f"{where}.{key}")
    elif one != other:
        yield where
