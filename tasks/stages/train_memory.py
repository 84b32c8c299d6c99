"""The memory: its numbers fitted on validation beside the networks chosen there, its tables then
counted on everything before the test period."""

import logging

import numpy as np

from recsys_core.artifacts import write_json
from recsys_core.data.cuts import Cuts
from recsys_core.data.events import Events
from recsys_core.evaluation.ranks import candidates_at
from recsys_core.evaluation.scorers import memory_scorer, vector_scorer
from recsys_core.evaluation.targets import Targets
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.sections import Evaluate, TrainMemory
from recsys_core.tables import read_events
from recsys_core.training.fit_memory import fit_memory
from recsys_core.training.validation import Validation
from tasks.clock import check_clock, clock_of
from tasks.cuts import read_cuts, validation_of
from tasks.embedding_files import UNTIL_VALID
from tasks.memory import counted, new_memory
from tasks.memory_files import write_memory
from tasks.model_files import read_model
from tasks.step import main

logger = logging.getLogger(__name__)


def run(
    *, layout: Layout, train_memory: TrainMemory, evaluate: Evaluate, first_metric: str, seed: int
) -> None:
    """Write the memory that knows everything before the test period, and the one of before
    validation."""
    check_clock(clock_of(layout), train_memory=train_memory)
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    model = read_model(layout.stage("train_rnn") / UNTIL_VALID)
    validation = validation_of(events, cuts, evaluate, metric_name=first_metric, seed=seed)
    memory = counted(new_memory(train_memory, cuts.valid), train_memory, events, cuts.valid)
    report = _fit(memory, model, validation, events, cuts, train_memory, evaluate, seed=seed)
    folder = layout.stage("train_memory")
    write_memory(folder / UNTIL_VALID, memory)
    write_memory(folder, counted(memory, train_memory, events, cuts.test))
    write_json(layout.report("train_memory"), report)


def _fit(
    memory: Memory,
    model: TwoTimeScale,
    validation: Validation,
    events: Events,
    cuts: Cuts,
    params: TrainMemory,
    evaluate: Evaluate,
    *,
    seed: int,
) -> dict[str, object]:
    """Fit the numbers in place; returns the report."""
    known = known_events(events, cuts.valid.n_items)
    candidates = candidates_at(events, cuts.valid)
    everything = validation.targets
    askable = everything.item_idx <= cuts.valid.n_items
    askable[askable] = candidates[everything.item_idx[askable]]
    rows = np.flatnonzero(askable)
    rng = generator(seed, "train_memory")
    if len(rows) > params.targets:
        rows = np.sort(rng.choice(rows, params.targets, replace=False))
    queries = _queries(model, known, everything)
    losses = []
    if params.terms and len(rows):
        for epoch, loss in fit_memory(
            model,
            memory,
            queries=queries[rows],
            known=known,
            events=events,
            targets=everything.take(rows),
            candidates=candidates,
            seen_filter=evaluate.seen_filter,
            epochs=params.epochs,
            rng=rng,
        ):
            losses.append(loss)
            logger.info(
                "stage=train_memory epoch=%d/%d targets=%d loss=%.4f",
                epoch,
                params.epochs,
                len(rows),
                loss,
            )
    table, bias = model.item_vectors.detach().numpy(), model.item_bias.detach().numpy()
    alone = vector_scorer(queries, item_vectors=table, item_bias=bias)
    both = memory_scorer(model, memory, queries, known, everything)
    name = validation.metric_name
    return {
        "rows": {
            "in": len(everything),
            "out": len(rows),
            "not_fitted_on": len(askable) - len(rows),
        },
        "loss": losses,
        f"validation {name}": {
            "networks": validation.metric_of_scorer(alone),
            "networks_and_memory": validation.metric_of_scorer(both),
        },
        "coefficients": memory.described(),
    }


def _queries(
    model: TwoTimeScale, known: Events, targets: Targets
) -> "np.typing.NDArray[np.float32]":
    user_idx, history = targets.user_idx.astype(np.int64), targets.history.astype(np.int64)
    return user_vectors(model, known, user_idx=user_idx, history=history)


if __name__ == "__main__":
    main(run)
