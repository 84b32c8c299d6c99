"""Ranks the test targets by a peer's model (extra `[peers]`), in the workspace of a row.

`python -m benchmarks.peer_ranks --model als`, in the workspace: hyperparameters are chosen on the
validation targets of all models, by the first metric; the model is then fitted at the test cut.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_params
from recsys_core.data.cuts import Cut
from recsys_core.errors import TwotempoError
from recsys_core.evaluation.cohorts import cohorts
from recsys_core.evaluation.ranks import candidates_at, rank_targets
from recsys_core.evaluation.scorers import history_scorer
from recsys_core.evaluation.summary import Ranked, ranks_table
from recsys_core.evaluation.targets import targets_of
from recsys_core.layout import Layout
from recsys_core.models.requests import known_events
from recsys_core.tables import RANKS, read_events, write_table
from tasks.cuts import read_cuts, validation_of


def run(layout: Layout, name: str) -> None:
    """Write `peers/<name>.parquet`, and beside it what was chosen."""
    try:
        from benchmarks import peers  # the extra is asked for by the rows that need it alone
    except ImportError as error:
        raise TwotempoError(
            f"{name} needs the package implicit ({error}); install the extra: pip install -e "
            "'.[peers]'"
        ) from error
    fit: Any = {"als": peers.fit_als, "bpr": peers.fit_bpr}[name]
    grid: Any = {"als": peers.ALS_GRID, "bpr": peers.BPR_GRID}[name]
    params = read_params(layout.params)
    evaluate, seed, metric = params.evaluate, params.seed, params.first_metric
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    validation = validation_of(events, cuts, evaluate, metric_name=metric, seed=seed)

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

    cut = cuts.test
    targets = targets_of(evaluate.targets, events, cuts.test_period, n_items=cut.n_items)
    candidates = candidates_at(events, cut)
    scorer = history_scorer(
        fitted(cut, best), known_events(events, cut.n_items), targets, likelihood=False
    )
    ranks = rank_targets(
        scorer,
        targets,
        events=events,
        candidates=candidates,
        batch=evaluate.batch,
        seen_filter=evaluate.seen_filter,
    )
    t_star = read_json(layout.stage("train_rnn") / "model.json")["t_star"]
    groups = cohorts(targets, before=cut, candidates=candidates, t_star=t_star)
    everyone = np.ones(len(targets), dtype=bool)
    table = ranks_table([Ranked(name, ranks, everyone)], targets, groups)
    folder = layout.root / "peers"
    write_table(folder / f"{name}.parquet", table, RANKS)
    tried = {str(settings): value for settings, value in zip(grid, values, strict=True)}
    write_json(folder / f"{name}.json", {"chosen": str(best), "validation": tried})


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
