"""What evaluation ranks, each as a `Scorer` for given targets: baselines, and vectors of users."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.evaluation.ranks import Scorer
from recsys_core.evaluation.targets import Targets

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class LastItemModel(Protocol):
    """A baseline: log-probabilities of all items from the user's last known item."""

    @property
    def n_items(self) -> int: ...

    def scores(self, last_item: Int32, *, out: Float32) -> Float32: ...


def baseline_scorer(model: LastItemModel, targets: Targets, *, likelihood: bool = True) -> Scorer:
    """A baseline of `models.baselines`; `last_item` of the targets must be of its own vocabulary.

    Without `likelihood` ranks alone are worked out, in half the time.
    """

    def scores(rows: slice, out: Float32) -> Float32:
        return model.scores(targets.last_item[rows], out=out)

    return Scorer(n_items=model.n_items, is_softmax=likelihood, scores=scores)


def vector_scorer(user_vectors: Float32, *, item_vectors: Float32, item_bias: Float32) -> Scorer:
    """Logits by dot product: (N, D), a row per target; (V + 1, D) and (V + 1,), row 0 is PAD."""
    users, items = torch.from_numpy(user_vectors), torch.from_numpy(item_vectors)
    bias = torch.from_numpy(item_bias)

    def scores(rows: slice, out: Float32) -> Float32:
        torch.addmm(bias, users[rows], items.T, out=torch.from_numpy(out))  # (B, V + 1)
        out[:, 0] = -np.inf
        return out

    return Scorer(n_items=len(item_bias) - 1, is_softmax=True, scores=scores)
