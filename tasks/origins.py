"""The moments from which a memory is fitted: the start of the validation period, and of periods as
long before it (`train_memory.origins`).

    ... | origin 2 | origin 1 | validation | test ...

At each stand networks that knew nothing later, and targets of the period after it. One period alone
may be unlike all others, as a Sunday is.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut, Cuts, Period
from recsys_core.data.events import Events
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import DataError
from recsys_core.evaluation.ranks import candidates_at, is_candidate
from recsys_core.evaluation.scorers import memory_scorer, vector_scorer
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.tables import ITEM_VOCABULARY, read_table
from recsys_core.training.fit_memory import Origin
from recsys_core.training.validation import Validation

ORIGINS = "origins"
"""The folder of what was fitted at earlier origins, beside what later stages read."""


def earlier_periods(layout: Layout, events: Events, cuts: Cuts, *, origins: int) -> list[Period]:
    """The `origins` - 1 periods before validation, each as long as it in time, the latest first.

    Raises `DataError` where nothing lies in one of them or before it, `ConfigError` where everybody
    is cut at a moment of their own.
    """
    if origins == 1:
        return []
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    start = cuts.valid.one_time("train_memory.origins above 1")
    length = cuts.test.one_time("train_memory.origins above 1") - start
    periods, until = [], cuts.valid
    for number in range(1, origins):
        time = start - number * length
        before = Cut.at(events, time, n_items=items.known_before(time))
        if before.counts.sum() == 0 or until.counts.sum() <= before.counts.sum():
            raise DataError(
                f"train_memory.origins is {origins}, but {number} periods before validation there "
                f"is nothing left to learn from or to ask for; set it to {number}"
            )
        periods.append(Period(before, until))
        until = before
    return periods


def origin_folder(folder: Path, number: int) -> Path:
    """Where a stage keeps what it fitted at the origin so many periods before validation."""
    return folder / ORIGINS / str(number)


@dataclass(frozen=True)
class Asked:
    """Networks, and what is asked of them in the period after they were fitted."""

    events: Events
    """With the fields that these networks read."""
    before: Cut
    model: TwoTimeScale
    validation: Validation
    counted_at: tuple[Events, Cut]
    """What tables are counted on: the cut, and the events in a log of those with a reward above
    0."""
    targets: int
    """Of the candidates among the targets that are fitted on, about."""
    seed: int

    @cached_property
    def known(self) -> Events:
        """The events whose items were known."""
        return known_events(self.events, self.before.n_items)

    @cached_property
    def candidates(self) -> npt.NDArray[np.bool_]:
        """Those of the period. (V + 1,)"""
        return candidates_at(self.events, self.before)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The targets that are fitted on; all or none of a query's candidates."""
        targets = self.validation.targets
        rows = np.flatnonzero(is_candidate(self.candidates, targets.item_idx))
        if len(rows) > self.targets:
            queries = np.unique(targets.query[rows])
            share = max(1, self.targets * len(queries) // len(rows))
            drawn = generator(self.seed, "train_memory", "targets").choice(
                queries, share, replace=False
            )
            rows = rows[np.isin(targets.query[rows], drawn)]
        return rows

    @cached_property
    def queries(self) -> npt.NDArray[np.float32]:
        """The networks' for every target. (N, D)"""
        targets = self.validation.targets
        user_idx, history = targets.user_idx.astype(np.int64), targets.history.astype(np.int64)
        return user_vectors(
            self.model,
            self.known,
            user_idx=user_idx,
            history=history,
            request=self.validation.request,
        )

    def origin(self, memory: Memory) -> Origin:
        """What a memory, with tables of the cut, is fitted on here."""
        fitted = np.isin(np.arange(len(self.validation.targets)), self.rows)
        return Origin(
            self.model,
            memory,
            queries=self.queries[self.rows],
            known=self.known,
            targets=self.validation.targets.take(self.rows),
            candidates=self.candidates,
            trend=self.validation.among(fitted).trend(self.model),
        )

    def metrics(self, memory: Memory) -> dict[str, float]:
        """The validation metric without a memory and with it."""
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
