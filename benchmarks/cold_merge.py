"""What the seeds of the cold row found, as one table; what is no repetition is left aside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.cold_split import METRICS
from benchmarks.hrnn_cases import interval_of, told
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.quality_merge import DRAWS
from benchmarks.row import Row
from benchmarks.row import merged as merged_params
from recsys_core.artifacts import read_json
from recsys_core.evaluation.significance import mean_intervals
from recsys_core.rng import generator

Float64 = npt.NDArray[np.float64]

AGAINST = "ease_by_genre"
BY_GENRE = ("popularity_by_genre", "ease_by_genre")
AS_TRAINED = "_as_trained"
REQUIRED = ("random", *BY_GENRE, "fixed_lambda" + AS_TRAINED)
TIES_AGAINST = "_ties_against"
SAME = ("code", "experiment", "device", "versions", "cases", "params")
"""Facts that are the same for all seeds that are merged."""

TITLE = "Items that were held out of all training, in one list for each user that was too"
NOTE = (
    "Half of the items and a fifth of the users were drawn once (seed 1) and are in no training; "
    "ranks are among the held-out items alone, mrr counts the first hit. Powers and ridges are "
    "chosen by mrr on validation: the same protocol once more inside what may be learned from. "
    "By genres most scores are shared: there equal scores come in an order drawn once, which "
    "favours them; the conservative value, with ties against them, stands beside as "
    "`ties_against`; all else is ranked with ties against it. `as_trained` is the decoder without "
    "the regression that ends its training. The paper's P@5 .162, P@25 .133 and mrr .323 are of "
    "another draw; its NDCG is normalised otherwise."
)


def merged(row: Row, seed: int, *, runs: Path) -> Experiment:
    """What the finished seeds found, each model against EASE by genres.

    Seeds that differ from `seed` in more than their seed are left aside, and it is said in what.
    """
    facts, left_aside = _finished_like(seed, folder=runs / "cold")
    seeds = list(facts)
    values = _mean_of([pq.read_table(runs / "cold" / f"{one}.parquet") for one in seeds])
    asked = ~np.isnan(values["random"][:, 0])  # who has no held-out item is asked nothing
    cases = []
    for name, of in values.items():
        difference = None if name == AGAINST else of[asked] - values[AGAINST][asked]
        cases.append(
            {
                "name": f"{name} (required)" if name in REQUIRED else name,
                "params": _params_of(row, name),
                "metrics": dict(zip(METRICS, _intervals(of[asked]), strict=True)),
                "against": None if difference is None else AGAINST,
                "difference": None if difference is None else _intervals(difference)[0],
                "without_request": None,
                "numbers": {},
                "chosen": {str(s): one["chosen"].get(name, []) for s, one in facts.items()},
            }
        )
    table = {
        "log": "cold-ml1m",
        "title": row.title,
        "asked": "all held-out items of each user who was held out, in one list",
        "population": f"{int(asked.sum()):,} users",
        "first_metric": METRICS[0],
        "seeds": seeds,
        "left_aside": {str(s): differs for s, differs in left_aside.items()},
        "facts": {"all": [told(one) for one in facts.values()]},
        "cases": cases,
        "params": _without_seed(facts[seed]["params"]),
    }
    return experiment_of("cold", title=TITLE, note=NOTE, tables=[table])


def _finished_like(
    seed: int, *, folder: Path
) -> tuple[dict[int, dict[str, Any]], dict[int, list[str]]]:
    """The facts of the finished seeds that are repetitions of one, and in what the others differ.

    A seed of an older version of this experiment does not say what it was run with, and is none.
    """
    all_facts = {int(path.stem): read_json(path) for path in folder.glob("*.json")}
    expected = _compared(all_facts[seed])
    kept, left_aside = {}, {}
    for other, facts in sorted(all_facts.items()):
        found = _compared(facts)
        differs = [key for key in SAME if found[key] != expected[key]]
        if differs:
            left_aside[other] = differs
            print(
                f"event=left_aside seed={other} differs_in={','.join(differs)}; run it again: what "
                "is done is not run again",
                flush=True,
            )
        else:
            kept[other] = facts
    return kept, left_aside


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: facts.get(key) for key in SAME}, "params": _without_seed(facts["params"])}


def _without_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a run, but for its seed and where its log lies."""
    return {key: value for key, value in params.items() if key not in ("seed", "ingest")}


def _params_of(row: Row, name: str) -> dict[str, Any]:
    """What a model changes in the row's params."""
    case: dict[str, Any] = row.cases.get(name.removesuffix(AS_TRAINED), {})
    return (
        merged_params(case, {"features": {"cold_ridges": []}})
        if name.endswith(AS_TRAINED)
        else case
    )


def _mean_of(tables: list[pa.Table]) -> dict[str, Float64]:
    """Metrics of each user (U, M) by model, the mean over seeds."""
    names = tables[0]["model"].unique().to_pylist()
    found = {}
    for name in names:
        parts = [table.filter(pc.equal(table["model"], name)) for table in tables]
        columns = [[part[metric].to_numpy() for metric in METRICS] for part in parts]
        found[name] = np.mean(columns, axis=0).T
    return found


def _intervals(values: Float64) -> list[dict[str, Any]]:
    """The mean over users of each column, with its interval."""
    rng = generator(0, "hrnn", "bootstrap")
    found = mean_intervals(values, np.arange(len(values)), rng=rng, draws=DRAWS)
    return [interval_of(one) for one in found]
