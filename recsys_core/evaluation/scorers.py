"""What evaluation ranks, each as a `Scorer` for given targets: models of histories, and vectors."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.data.events import Events
from recsys_core.evaluation.ranks import Scorer
from recsys_core.evaluation.targets import Targets
from recsys_core.models.history_model import LONGEST, HistoryModel, gather_request_histories
from recsys_core.models.trend import TrendIndex

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


Trend = Callable[[slice | Int64], Float32]
"""What is added to the logits of some targets, (B, V + 1)."""


def trend_at(index: TrendIndex | None, targets: Targets) -> Trend | None:
    """The trend when each of the targets is asked for; None where a model has none."""
    if index is None:
        return None
    return lambda rows: index.offset(targets.timestamp[rows], None)


def history_scorer(
    model: HistoryModel, known: Events, targets: Targets, *, likelihood: bool
) -> Scorer:
    """A model that reads histories, for `targets` whose `history` counts events of `known`.

    `known` are the events of the items that the model knows (`models.requests.known_events`); of a
    history the latest `LONGEST` are read. With `likelihood` scores are log-probabilities.
    """

    def scores(rows: slice, out: Float32) -> Float32:
        chunk = targets.take(rows)
        histories = gather_request_histories(
            known,
            chunk.user_idx.astype(np.int64),
            history=chunk.history.astype(np.int64),
            request_time=chunk.timestamp,
            limit=LONGEST,
        )
        return model.scores(histories, out=out)

    return Scorer(n_items=model.n_items, is_softmax=likelihood, scores=scores)


def vector_scorer(
    user_vectors: Float32, *, item_vectors: Float32, item_bias: Float32, trend: Trend | None = None
) -> Scorer:
    """Logits by dot product: (N, D), a row per target; (V + 1, D) and (V + 1,), row 0 is PAD.

    `trend` is added to them.
    """
    users, items = torch.from_numpy(user_vectors), torch.from_numpy(item_vectors)
    bias = torch.from_numpy(item_bias)

    def scores(rows: slice, out: Float32) -> Float32:
        torch.addmm(bias, users[rows], items.T, out=torch.from_numpy(out))  # (B, V + 1)
        if trend is not None:
            out += trend(rows)
        out[:, 0] = -np.inf
        return out

    return Scorer(n_items=len(item_bias) - 1, is_softmax=True, scores=scores)
