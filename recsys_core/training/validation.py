"""The validation metric of a model in training: next items, ranked in full."""

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Period
from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.errors import DataError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import Scorer, candidates_at, rank_targets
from recsys_core.evaluation.scorers import Trend, trend_at, vector_scorer
from recsys_core.evaluation.targets import Targets, request_times, targets_of
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.trend import TrendIndex, trend_in_period
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import TargetKind
from recsys_core.training.log_until import LogUntil

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
VectorsOf = Callable[[Int64, Int64], Float32]
"""User vectors (N, D) of users (N,) after their first known events (N,)."""

BATCH = 256

EARLIER = " (or, where train_memory.origins is above 1, of one before it)"


class Validation:
    """A fixed draw of about `limit` validation targets at most, each ranked in the vocabulary."""

    def __init__(
        self,
        events: Events,
        *,
        period: Period,
        kind: TargetKind,
        seen_filter: bool,
        streaming: bool,
        metric_name: str,
        limit: int,
        rng: np.random.Generator,
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`wanted` (N,) marks the events that may be asked for; None: all."""
        self.metric_name = metric_name
        self._events = events
        self._seen_filter = seen_filter
        self._streaming = streaming
        self._before = period.before
        self._candidates = candidates_at(events, period.before)
        targets = targets_of(kind, events, period, n_items=period.before.n_items)
        if len(targets) == 0:
            raise DataError(
                f"the validation period{EARLIER} has no {kind} targets (an event with an earlier "
                "event of its user, at least), so nothing can be chosen on it; make `split` in "
                "params.yaml longer, unless no user of this log ever comes back"
            )
        self.unwanted = 0
        if wanted is not None:
            asked = np.isin(targets.source_row, events.source_row[wanted])
            self.unwanted = int(np.count_nonzero(~asked))
            targets = targets.take(asked)
            if len(targets) == 0:
                raise DataError(
                    f"all {self.unwanted} {kind} targets of the validation period{EARLIER} have a "
                    "reward of 0, so nothing can be chosen on it; make `split` in params.yaml "
                    "longer, or look at train_rnn.rewards and low_value"
                )
        self._wanted = len(targets)
        if len(targets) > limit:
            query = targets.query  # one query's targets stay together
            n_queries = int(query[-1]) + 1
            drawn = rng.choice(n_queries, max(1, limit * n_queries // len(targets)), replace=False)
            targets = targets.take(np.isin(query, drawn))
        self._targets = targets
        self._trends: dict[tuple[int, float | None, float], TrendIndex | None] = {}

    def among(self, members: npt.NDArray[np.bool_]) -> "Validation":
        """The same for some of the targets (N,) alone; of a query all or none."""
        part = copy.copy(self)
        part._targets = self._targets.take(np.flatnonzero(members))
        return part

    @property
    def targets(self) -> Targets:
        """What is ranked after each epoch."""
        return self._targets

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        """How many targets the period has, how many are asked for, and why not the rest."""
        found, asked = self._wanted + self.unwanted, len(self._targets)
        counts = {"in": found, "out": asked, "not_drawn": self._wanted - asked}
        if self.unwanted:
            counts["unwanted"] = self.unwanted
        return {"validation_targets": counts}

    @property
    def request(self) -> RequestTimes:
        """When the targets are asked for."""
        return request_times(self._events, self._targets, n_items=self._before.n_items)

    def trend(self, model: TwoTimeScale) -> Trend | None:
        """What the trend of a model adds to its logits, of what was known before the period, or
        where `streaming` before each target.

        It is counted once for all models with a trend like this one's, and for `among` too.
        """
        config = model.config
        key = (config.n_items, config.trend_hours, config.trend_temperature)
        if key not in self._trends:
            self._trends[key] = trend_in_period(
                config, self._events, self._before, streaming=self._streaming
            )
        return trend_at(self._trends[key], self._targets)

    def metric(
        self,
        vectors_of: VectorsOf,
        item_vectors: Float32,
        item_bias: Float32,
        *,
        trend: Trend | None = None,
    ) -> float:
        """Mean over the queries; a target that is no candidate counts as a miss."""
        targets = self._targets
        vectors = vectors_of(targets.user_idx.astype(np.int64), targets.history.astype(np.int64))
        return self.metric_of_scorer(
            vector_scorer(vectors, item_vectors=item_vectors, item_bias=item_bias, trend=trend)
        )

    def metric_of_model(self, model: TwoTimeScale, log: LogUntil) -> float:
        """That of a model which answers from the events of `log`."""
        known = known_events(log.events, log.n_items)

        def vectors(user_idx: Int64, history: Int64) -> Float32:
            return user_vectors(
                model, known, user_idx=user_idx, history=history, request=self.request
            )

        return self.metric(
            vectors,
            model.item_vectors.detach().cpu().numpy(),
            model.item_bias.detach().cpu().numpy(),
            trend=self.trend(model),
        )

    def metric_of_scorer(self, scorer: Scorer) -> float:
        """The same for any scores of `targets`."""
        targets = self._targets
        ranks = rank_targets(
            scorer,
            targets,
            events=self._events,
            candidates=self._candidates,
            batch=BATCH,
            seen_filter=self._seen_filter,
        )
        return float(metric_of(ranks.rank, self.metric_name, query=targets.query).mean())
