"""Negatives for the softmax, drawn once for a whole batch."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Items that stand for the whole catalogue in one batch."""

    items: Tensor  # (M,) item_idx
    log_expected: Tensor  # (M,) log of how often each is expected; 0 where all are here

    def to(self, device: torch.device) -> "Candidates":
        """The same on a device."""
        return Candidates(self.items.to(device), self.log_expected.to(device))


def draws_of(negatives: int | Literal["auto"], n_items: int) -> int:
    """How many candidates a batch has; auto: the root of the catalogue, as in HRNN-meta."""
    return math.isqrt(n_items) if negatives == "auto" else negatives


class NegativeSampler:
    """Draws items in proportion to frequency ** power, with replacement; with power 0 all alike.

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
        keep, other = alias_table(share.numpy())
        self._keep, self._other = torch.from_numpy(keep), torch.from_numpy(other)
        self._log_expected = (torch.log(share) + torch.log(torch.tensor(float(draws)))).float()

    def draw(self, generator: torch.Generator) -> Candidates:
        """Candidates for one batch, on the CPU, at the same cost whatever the catalogue."""
        if self._complete is not None:
            return self._complete
        n_items = len(self._keep)
        place = torch.rand(self._draws, generator=generator, dtype=torch.float64) * n_items
        # the product can be rounded up to n_items
        cell = place.long().clamp_max(n_items - 1)
        kept = place - cell < self._keep[cell]
        position = torch.where(kept, cell, self._other[cell])
        return Candidates(items=position + 1, log_expected=self._log_expected[position])


def alias_table(share: Float64) -> tuple[Float64, npt.NDArray[np.int64]]:
    """For each cell the share of it that is its own item's, and whose the rest is. (V,) twice

    A cell drawn uniformly and then one of its two items gives item i with probability `share[i]`
    (Walker 1977, in the linear time of Vose 1991). `share` (V,) is positive and sums to 1.
    """
    n_items = len(share)
    scaled = (share * n_items).tolist()
    keep, other = [1.0] * n_items, list(range(n_items))
    small = [item for item, value in enumerate(scaled) if value < 1.0]
    large = [item for item, value in enumerate(scaled) if value >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], other[low] = scaled[low], high
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            small.append(large.pop())
    # what is left in either list is 1 but for rounding, and keeps its whole cell
    return np.array(keep), np.array(other, dtype=np.int64)
