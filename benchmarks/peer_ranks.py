"""Ranks the test targets by a peer's model (extra `[peers]`), in the workspace of a row.

`python -m benchmarks.peer_ranks --model als`, in the workspace: hyperparameters are chosen on the
validation targets of all models, by the first metric; the model is then fitted at the test cut, and
ranks beside it as fitted at the validation cut where the row asks for both.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.row import SETTINGS
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_params
from recsys_core.data.cuts import Cut, Cuts
from recsys_core.data.events import Events
from recsys_core.errors import TwotempoError
from recsys_core.evaluation.cohorts import cohorts
from recsys_core.evaluation.ranks import candidates_at, rank_targets
from recsys_core.evaluation.scorers import history_scorer
from recsys_core.evaluation.summary import Ranked, ranks_table
from recsys_core.evaluation.targets import Targets, targets_of
from recsys_core.layout import Layout
from recsys_core.models.history_model import HistoryModel
from recsys_core.models.requests import known_events
from recsys_core.sections import Evaluate
from recsys_core.tables import RANKS, read_events, write_table
from tasks.cuts import read_cuts, validation_of


def run(layout: Layout, name: str) -> None:
    """Write `peers/<name>.parquet`, and beside it what was chosen."""
    try:
        from benchmarks import peers  # the extra is asked for by the rows that need it alone
    except ImportError as error:
        raise TwotempoError(
            f"{name} needs the package implicit ({error}); install the extra: pip install -e "
            "'.[peers]', or name a Python that has it: --peers-python"
        ) from error
    fit: Any = {"als": peers.fit_als, "bpr": peers.fit_bpr}[name]
    grid: Any = {"als": peers.ALS_GRID, "bpr": peers.BPR_GRID}[name]
    params = read_params(layout.params)
    evaluate, seed, metric = params.evaluate, params.seed, params.first_metric
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    validation = validation_of(
        events, cuts.validation_period, evaluate=evaluate, metric_name=metric, seed=seed
    )

    def fitted(cut: Cut, settings: Any) -> Any:
        return fit(events, cut.counts, n_items=cut.n_items, settings=settings, seed=seed)

    values = []
    known = known_events(events, cuts.valid.n_items)
    for settings in grid:
        model = fitted(cuts.valid, settings)
        scorer = history_scorer(model, known, validation.targets, likelihood=False)
        values.append(validation.metric_of_scorer(scorer))
        print(f"event=peer model={name} {settings} {metric}={values[-1]:.4f}", flush=True)
    best = grid[int(np.argmax(values))]

    ranked = [_rank(name, fitted(cuts.test, best), events, cuts, evaluate, cut=cuts.test)]
    if evaluate.train_only:
        ending = SETTINGS["train_only"]
        before = fitted(cuts.valid, best)
        ranked.append(_rank(f"{name}{ending}", before, events, cuts, evaluate, cut=cuts.valid))
    targets = _targets(events, cuts, evaluate, n_items=cuts.test.n_items)
    groups = cohorts(
        targets,
        before=cuts.test,
        candidates=candidates_at(events, cuts.test),
        t_star=read_json(layout.stage("train_rnn") / "model.json")["t_star"],
    )
    folder = layout.root / "peers"
    write_table(folder / f"{name}.parquet", ranks_table(ranked, targets, groups), RANKS)
    tried = {str(settings): value for settings, value in zip(grid, values, strict=True)}
    found = {"chosen": str(best), "validation": tried, "implicit": version("implicit")}
    write_json(folder / f"{name}.json", found)


def _targets(events: Events, cuts: Cuts, evaluate: Evaluate, *, n_items: int) -> Targets:
    return targets_of(evaluate.targets, events, cuts.test_period, n_items=n_items)


def _rank(
    name: str, model: HistoryModel, events: Events, cuts: Cuts, evaluate: Evaluate, *, cut: Cut
) -> Ranked:
    """The ranks of all targets of the test period, by what was known at `cut`."""
    targets = _targets(events, cuts, evaluate, n_items=cut.n_items)
    known = known_events(events, cut.n_items)
    ranks = rank_targets(
        history_scorer(model, known, targets, likelihood=False),
        targets,
        events=events,
        candidates=candidates_at(events, cut),
        batch=evaluate.batch,
        seen_filter=evaluate.seen_filter,
    )
    return Ranked(name, ranks, np.ones(len(targets), dtype=bool))


def main() -> None:
    parser = argparse.ArgumentParser(description="Rank by a peer's model, in a row's workspace.")
    parser.add_argument("--model", choices=("als", "bpr"), required=True)
    arguments = parser.parse_args()
    try:
        run(Layout(Path()), arguments.model)
    except TwotempoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
