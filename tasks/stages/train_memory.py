"""The memory: its item-item model and factors chosen and its numbers fitted on validation beside
the networks chosen there, its tables then counted on everything before the test period."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cuts import Period
from recsys_core.data.events import Events
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.rng import generator
from recsys_core.sections import Evaluate, TrainMemory, TrainRnn
from recsys_core.tables import read_events
from recsys_core.training.fit_memory import EpochOfMemory, fit_memory
from recsys_core.training.rewards import Rewards
from tasks.asked import Asked
from tasks.clock import check_clock, clock_of
from tasks.cuts import read_cuts, validation_of
from tasks.embedding_files import UNTIL_VALID
from tasks.fields import read_fields, with_fields_of
from tasks.memory import NO_FACTORS, Chosen, counted, factors_named, new_memory, similar_models
from tasks.memory_files import write_memory
from tasks.model_files import read_model
from tasks.origins import earlier_periods, origin_folder
from tasks.step import main

logger = logging.getLogger(__name__)

FEWER = 4
"""What there is to choose from is compared after so many times fewer steps."""


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
    events = read_events(layout.events)
    cuts = read_cuts(layout, events)
    rule, names = Rewards.of(train_rnn), tuple(read_json(layout.event_types)["names"])
    wanted = rule.wanted(events, names)
    of_period = partial(
        validation_of, evaluate=evaluate, metric_name=first_metric, seed=seed, wanted=wanted
    )

    def asked(networks: Path, period: Period) -> Asked:
        read = with_fields_of(layout, read_fields(networks), events)
        return Asked(
            events=read,
            before=period.before,
            model=read_model(networks),
            validation=of_period(read, period),
            counted_at=rule.wanted_part(read, period.before, names),
            targets=max(1, train_memory.targets // train_memory.origins),
            seed=seed,
        )

    folder = layout.stage("train_rnn")
    periods = earlier_periods(layout, events, cuts, origins=train_memory.origins)
    fitting = Fitting(
        events=events,
        origins=[
            asked(folder / UNTIL_VALID, cuts.validation_period),
            *(asked(origin_folder(folder, at), one) for at, one in enumerate(periods, start=1)),
        ],
        params=train_memory,
        catalogue=cuts.end.n_items,
        seen_filter=evaluate.seen_filter,
        seed=seed,
    )
    chosen, compared = fitting.choose()
    memories, losses = fitting.fit(chosen)
    folder = layout.stage("train_memory")
    write_memory(folder / UNTIL_VALID, memories[0])
    write_memory(folder, counted(memories[0], *rule.wanted_part(events, cuts.test, names)))
    found = [one.metrics(memory) for one, memory in zip(fitting.origins, memories, strict=True)]
    report = {
        **fitting.origins[0].validation.counted,
        "rows": fitting.rows_counted(),
        "similar": {"chosen": str(chosen.similar), "loss": compared["similar"]},
        "factors": {"chosen": factors_named(chosen), "loss": compared["factors"]},
        "loss": losses,
        f"validation {first_metric}": found[0],
        **({f"earlier origins {first_metric}": found[1:]} if found[1:] else {}),
        "coefficients": memories[0].described(),
    }
    write_json(layout.report("train_memory"), report)


@dataclass(frozen=True)
class Fitting:
    """What a memory is fitted from: at each origin the targets that are candidates, or of these a
    draw; validation comes first."""

    events: Events
    origins: Sequence[Asked]
    params: TrainMemory
    catalogue: int
    """Items at the latest cut that tables will be counted at."""
    seen_filter: bool
    seed: int

    def rows_counted(self) -> dict[str, int]:
        """Targets of all origins, those that are fitted on and those that are not."""
        n_targets = sum(len(one.validation.targets) for one in self.origins)
        fitted = sum(len(one.rows) for one in self.origins)
        return {"in": n_targets, "out": fitted, "not_fitted_on": n_targets - fitted}

    def choose(self) -> tuple[Chosen, dict[str, dict[str, float]]]:
        """The item-item model, and then the item factors, beside which the other terms fit best,
        own items left aside, and of these two the other one; and the loss of each that was
        compared."""
        models = similar_models(self.params, catalogue=self.catalogue)
        pairs = self.params.factors if "factors" in self.params.terms else (NO_FACTORS,)
        chosen = Chosen(models[0], pairs[0])
        with_similar = {str(one): replace(chosen, similar=one) for one in models}
        chosen, of_similar = self._best(with_similar, aside=("own", "factors"))
        each = [replace(chosen, factors=pair) for pair in pairs]
        with_factors = {factors_named(one): one for one in each}
        chosen, of_factors = self._best(with_factors, aside=("own", "similar"))
        return chosen, {"similar": of_similar, "factors": of_factors}

    def _best(
        self, candidates: Mapping[str, Chosen], *, aside: tuple[str, ...]
    ) -> tuple[Chosen, dict[str, float]]:
        """The one with the least loss, and the losses; of one alone there is nothing to compare."""
        if len(candidates) == 1 or not self._has_rows:
            return next(iter(candidates.values())), {}
        fewer = replace(
            self.params,
            terms=tuple(term for term in self.params.terms if term not in aside),
            steps=max(1, self.params.steps // FEWER),
        )
        losses = {}
        for name, chosen in candidates.items():
            memories = self._memories(fewer, chosen)
            losses[name] = [epoch.loss for epoch in self._epochs(memories, fewer)][-1]
            logger.info("stage=train_memory compared='%s' loss=%.4f", name, losses[name])
        return candidates[min(losses, key=losses.__getitem__)], losses

    def fit(self, chosen: Chosen) -> tuple[list[Memory], list[float]]:
        """The memory of each origin, their numbers the same, and the loss of each epoch."""
        memories = self._memories(self.params, chosen)
        losses = []
        if self.params.terms and self._has_rows:
            for epoch in self._epochs(memories, self.params):
                losses.append(epoch.loss)
                logger.info(
                    "stage=train_memory epoch=%d/%d targets=%d loss=%.4f",
                    epoch.number,
                    epoch.of,
                    self.rows_counted()["out"],
                    epoch.loss,
                )
        return memories, losses

    @property
    def _has_rows(self) -> bool:
        return any(len(one.rows) > 0 for one in self.origins)

    def _memories(self, params: TrainMemory, chosen: Chosen) -> list[Memory]:
        """One for each origin with its tables, and nothing fitted: they share their numbers."""
        memories = [
            counted(new_memory(params, one.before, chosen), *one.counted_at) for one in self.origins
        ]
        for memory in memories[1:]:
            memory.share_numbers(memories[0])
        return memories

    def _epochs(self, memories: list[Memory], params: TrainMemory) -> Iterator[EpochOfMemory]:
        both = zip(self.origins, memories, strict=True)
        return fit_memory(
            [one.origin(memory) for one, memory in both if len(one.rows) > 0],
            events=self.events,
            seen_filter=self.seen_filter,
            steps=params.steps,
            rng=generator(self.seed, "train_memory"),
        )


if __name__ == "__main__":
    main(run)
