"""Dropout whose draws come from a generator of the epoch, so that a resumed fit draws the same."""

import torch
from torch import Tensor


class Dropout:
    """Zeroes a share of the values and scales the rest, drawn where the values lie."""

    def __init__(self, share: float, draws: torch.Generator) -> None:
        """`draws` is on the device of the values."""
        self._share = share
        self._draws = draws

    def __call__(self, values: Tensor) -> Tensor:
        """Each value for itself: (...) to (...)."""
        return self._masked(values, values)

    def whole_vectors(self, values: Tensor) -> Tensor:
        """The vectors of the last dimension as a whole: (..., D) to (..., D)."""
        return self._masked(values, values[..., :1])

    def _masked(self, values: Tensor, shape: Tensor) -> Tensor:
        if self._share == 0.0:
            return values
        kept = 1.0 - self._share
        mask = torch.empty_like(shape, requires_grad=False).bernoulli_(kept, generator=self._draws)
        return values * mask.div_(kept)
