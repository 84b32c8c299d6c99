"""The memory: its item-item model chosen and its numbers fitted on validation beside the networks
chosen there, its tables then counted on everything before the test period."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cuts import Cut, Cuts
from recsys_core.data.events import Events
from recsys_core.evaluation.ranks import candidates_at, is_candidate
from recsys_core.evaluation.scorers import memory_scorer, vector_scorer
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.sections import Evaluate, TrainMemory, TrainRnn
from recsys_core.tables import read_events
from recsys_core.training.fit_memory import EpochOfMemory, fit_memory
from recsys_core.training.rewards import Rewards
from recsys_core.training.validation import Validation
from tasks.clock import check_clock, clock_of
from tasks.cuts import read_cuts, validation_of
from tasks.embedding_files import UNTIL_VALID
from tasks.fields import read_fields, with_fields_of
from tasks.memory import Similar, counted, new_memory, similar_models
from tasks.memory_files import write_memory
from tasks.model_files import read_model
from tasks.step import main

logger = logging.getLogger(__name__)

FEWER = 4
"""Item-item models are compared after so many times fewer steps."""


def run(
    *,
    layout: Layout,
    train_memory: TrainMemory,
    train_rnn: TrainRnn,
    evaluate: Evaluate,
    first_metric: str,
    seed: int,
) -> None:
    """Write the memory that knows everything before the test period, and the one of before
    validation.

    Of stage two's section the rewards are read: an event with none is not counted, and not fitted
    on.
    """
    check_clock(clock_of(layout), train_memory=train_memory)
    networks = layout.stage("train_rnn") / UNTIL_VALID
    events = with_fields_of(layout, read_fields(networks), read_events(layout.events))
    cuts = read_cuts(layout, events)
    rule, names = Rewards.of(train_rnn), tuple(read_json(layout.event_types)["names"])
    wanted = rule.wanted(events, names)
    fitting = Fitting(
        events=events,
        cuts=cuts,
        model=read_model(networks),
        validation=validation_of(
            events, cuts, evaluate, metric_name=first_metric, seed=seed, wanted=wanted
        ),
        counted_at=rule.wanted_part(events, cuts.valid, names),
        params=train_memory,
        seen_filter=evaluate.seen_filter,
        seed=seed,
    )
    similar, compared = fitting.choose_similar()
    memory, losses = fitting.fit(similar)
    folder = layout.stage("train_memory")
    write_memory(folder / UNTIL_VALID, memory)
    write_memory(folder, counted(memory, *rule.wanted_part(events, cuts.test, names)))
    report = {
        **fitting.validation.counted,
        "rows": fitting.rows_counted(),
        "similar": {"chosen": str(similar), "loss": compared},
        "loss": losses,
        f"validation {first_metric}": fitting.metrics(memory),
        "coefficients": memory.described(),
    }
    write_json(layout.report("train_memory"), report)


@dataclass(frozen=True)
class Fitting:
    """What a memory is fitted from: the validation targets that are candidates, or of these a draw
    of about `params.targets`."""

    events: Events
    cuts: Cuts
    model: TwoTimeScale
    validation: Validation
    counted_at: tuple[Events, Cut]
    """What the tables are counted on: the cut of validation, and the events in a log of those with
    a reward above 0."""
    params: TrainMemory
    seen_filter: bool
    seed: int

    @cached_property
    def known(self) -> Events:
        """The events whose items were known before validation."""
        return known_events(self.events, self.cuts.valid.n_items)

    @cached_property
    def candidates(self) -> npt.NDArray[np.bool_]:
        """Those of validation. (V + 1,)"""
        return candidates_at(self.events, self.cuts.valid)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The targets that are fitted on; all or none of a query's candidates."""
        targets = self.validation.targets
        rows = np.flatnonzero(is_candidate(self.candidates, targets.item_idx))
        if len(rows) > self.params.targets:
            queries = np.unique(targets.query[rows])
            share = max(1, self.params.targets * len(queries) // len(rows))
            drawn = generator(self.seed, "train_memory", "targets").choice(
                queries, share, replace=False
            )
            rows = rows[np.isin(targets.query[rows], drawn)]
        return rows

    @property
    def fitted(self) -> npt.NDArray[np.bool_]:
        """Which of the validation targets are `rows`. (N,)"""
        return np.isin(np.arange(len(self.validation.targets)), self.rows)

    @cached_property
    def queries(self) -> npt.NDArray[np.float32]:
        """The networks' for every validation target. (N, D)"""
        targets = self.validation.targets
        user_idx, history = targets.user_idx.astype(np.int64), targets.history.astype(np.int64)
        return user_vectors(
            self.model,
            self.known,
            user_idx=user_idx,
            history=history,
            request=self.validation.request,
        )

    def rows_counted(self) -> dict[str, int]:
        """Validation targets, those that are fitted on and those that are not."""
        n_targets, fitted = len(self.validation.targets), len(self.rows)
        return {"in": n_targets, "out": fitted, "not_fitted_on": n_targets - fitted}

    def choose_similar(self) -> tuple[Similar, dict[str, float]]:
        """The item-item model beside which the other terms fit best, own items left aside; and the
        loss of each that was compared."""
        models = similar_models(self.params, catalogue=self.cuts.end.n_items)
        if len(models) == 1 or len(self.rows) == 0:
            return models[0], {}
        fewer = replace(
            self.params,
            terms=tuple(term for term in self.params.terms if term != "own"),
            steps=max(1, self.params.steps // FEWER),
        )
        losses = {}
        for similar in models:
            memory = counted(new_memory(fewer, self.cuts.valid, similar), *self.counted_at)
            losses[similar] = [epoch.loss for epoch in self._epochs(memory, fewer)][-1]
            logger.info("stage=train_memory similar='%s' loss=%.4f", similar, losses[similar])
        return min(models, key=losses.__getitem__), {str(one): losses[one] for one in models}

    def fit(self, similar: Similar) -> tuple[Memory, list[float]]:
        """The memory of before validation, and the loss of each epoch."""
        params = self.params
        memory = counted(new_memory(params, self.cuts.valid, similar), *self.counted_at)
        losses = []
        if params.terms and len(self.rows):
            for epoch in self._epochs(memory, params):
                losses.append(epoch.loss)
                logger.info(
                    "stage=train_memory epoch=%d/%d targets=%d loss=%.4f",
                    epoch.number,
                    epoch.of,
                    len(self.rows),
                    epoch.loss,
                )
        return memory, losses

    def metrics(self, memory: Memory) -> dict[str, float]:
        """The validation metric without the memory and with it."""
        validation, model = self.validation, self.model
        table, bias = model.item_vectors.detach().numpy(), model.item_bias.detach().numpy()
        trend = validation.trend(model)
        alone = vector_scorer(self.queries, item_vectors=table, item_bias=bias, trend=trend)
        both = memory_scorer(
            model, memory, self.queries, self.known, validation.targets, trend=trend
        )
        return {
            "networks": validation.metric_of_scorer(alone),
            "networks_and_memory_fitted_on_it": validation.metric_of_scorer(both),
        }

    def _epochs(self, memory: Memory, params: TrainMemory) -> Iterator[EpochOfMemory]:
        return fit_memory(
            self.model,
            memory,
            queries=self.queries[self.rows],
            known=self.known,
            events=self.events,
            targets=self.validation.targets.take(self.rows),
            candidates=self.candidates,
            seen_filter=self.seen_filter,
            steps=params.steps,
            rng=generator(self.seed, "train_memory"),
            trend=self.validation.among(self.fitted).trend(self.model),
        )


if __name__ == "__main__":
    main(run)
