"""The validation metric of a model in training: next-item prediction, ranked in full."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.errors import DataError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import rank_targets
from recsys_core.evaluation.scorers import vector_scorer
from recsys_core.evaluation.targets import successive_targets

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
VectorsOf = Callable[[Int64, Int64], Float32]
"""User vectors (N, D) of users (N,) after their first known events (N,)."""

BATCH = 256


class Validation:
    """A fixed draw of at most `limit` validation targets, each ranked in the whole vocabulary."""

    def __init__(
        self,
        events: Events,
        *,
        start: int,
        end: int,
        n_items: int,
        metric_name: str,
        limit: int,
        rng: np.random.Generator,
    ) -> None:
        self.metric_name = metric_name
        self._events = events
        targets = successive_targets(events, start, end=end, n_items=n_items)
        if len(targets) == 0:
            raise DataError(
                "no event of the validation period has an earlier event of its user, so nothing "
                "can be chosen on it; make `split` in params.yaml longer, unless no user of this "
                "log ever comes back"
            )
        if len(targets) > limit:
            targets = targets.take(np.sort(rng.choice(len(targets), limit, replace=False)))
        self._targets = targets

    def metric(self, vectors_of: VectorsOf, item_vectors: Float32, item_bias: Float32) -> float:
        """Mean over the targets; an unknown target counts as a miss."""
        targets = self._targets
        vectors = vectors_of(targets.user_idx.astype(np.int64), targets.history.astype(np.int64))
        scorer = vector_scorer(vectors, item_vectors=item_vectors, item_bias=item_bias)
        ranks = rank_targets(scorer, targets, events=self._events, batch=BATCH, seen_filter=False)
        return float(metric_of(ranks.rank, self.metric_name).mean())
