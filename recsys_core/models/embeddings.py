"""The output of stage one: a free vector per user and item seen in training, and item biases."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Transductive embeddings; row 0 of each table is PAD and zero."""

    users: Float32  # (U + 1, D)
    items: Float32  # (V + 1, D)
    item_bias: Float32  # (V + 1,)
    fold_in_l2: float
    """The ridge with which folding in predicts best on validation."""

    @property
    def n_items(self) -> int:
        return len(self.items) - 1

    @property
    def dim(self) -> int:
        return int(self.items.shape[1])
