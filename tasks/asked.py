"""What a memory is fitted on at one origin: networks, and what is asked of them afterwards."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.evaluation.memory_scorer import memory_scorer
from recsys_core.evaluation.ranks import candidates_at, is_candidate
from recsys_core.evaluation.scorers import vector_scorer
from recsys_core.models.memory import Memory
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.training.fit_memory import Origin
from recsys_core.training.validation import Validation


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
