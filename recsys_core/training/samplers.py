"""Negatives for the softmax, drawn once for a whole batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Items that stand for the whole catalogue in one batch."""

    items: Tensor  # (M,) item_idx
    log_expected: Tensor  # (M,) log of how often each is expected; 0 where all are here


class NegativeSampler:
    """Draws items in proportion to frequency ** power, with replacement.

    Where the catalogue has no more items than draws, it gives the whole of it.
    """

    def __init__(self, frequency: Tensor, *, power: float, draws: int) -> None:
        """`frequency` (V + 1,) of each item, PAD first, greater than 0 for every real item."""
        n_items = len(frequency) - 1
        self._complete: Candidates | None = None
        if draws >= n_items:
            items = torch.arange(1, n_items + 1)
            self._complete = Candidates(items=items, log_expected=torch.zeros(n_items))
            return
        weight = frequency[1:].double() ** power  # (V,)
        share = weight / weight.sum()
        self._draws = draws
        self._cumulative = torch.cumsum(share, 0)  # (V,)
        self._log_expected = (torch.log(share) + torch.log(torch.tensor(float(draws)))).float()

    def draw(self, generator: torch.Generator) -> Candidates:
        """Candidates for one batch, on the CPU."""
        if self._complete is not None:
            return self._complete
        uniform = torch.rand(self._draws, generator=generator, dtype=torch.float64)
        # the last sum can fall short of 1 by a rounding
        position = torch.searchsorted(self._cumulative, uniform).clamp_max(
            len(self._cumulative) - 1
        )
        return Candidates(items=position + 1, log_expected=self._log_expected[position])
