"""The linear part of an item decoder: columns wide enough to say what little data can tell.

    one                         the mean item
    code                        a category, a word: 1 where an item has it
    bump                        how near a number lies to one of a row of centres
    code x code                 two categories together: a children's musical is no sum of both
    code x broad bump           a category at its time, at its price

Each column is the product of two *atoms* (the first three kinds, and broad bumps), of which atom 0
is one. Which pairs are columns, and their rows of coefficients, comes from a regression
(`training/cold_rows.py`): a network that is to learn this from a thousand items knows them by heart
before it has learned anything of others, whereas a ridge shrinks what few items say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_core.data.features import FARTHEST

STEP = 0.25
"""Standard deviations of a number from one bump to the next, and its width."""

BROAD_STEP = 1.0
"""The same of the bumps that are multiplied with categories."""

CHUNK = 4096
"""Items whose atoms lie in memory at a time."""


@dataclass(frozen=True)
class Atoms:
    """How the atoms of items are numbered: one, the codes of each bag, bumps, broad bumps."""

    n_codes: tuple[int, ...]
    n_numbers: int
    """Columns of numbers, two for each: its value, and whether it is there."""

    @property
    def first_bump(self) -> int:
        """The atom behind those of codes."""
        return 1 + sum(self.n_codes)

    @property
    def first_broad(self) -> int:
        """The first of the broad bumps, of number after number; the last atoms."""
        return self.first_bump + self.n_numbers // 2 * len(_centres(STEP))

    @property
    def total(self) -> int:
        """How many there are."""
        return self.first_broad + self.n_numbers // 2 * len(_centres(BROAD_STEP))

    def of(self, codes: Sequence[Tensor], weights: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """The atoms of some items: codes and weights (N, L) of each bag, with an L of its own, and
        numbers (N, 2 F) to (N, A)."""
        rows = torch.arange(len(numbers), device=numbers.device).unsqueeze(1)  # (N, 1)
        parts = [numbers.new_ones(len(numbers), 1)]
        for n_codes, code, weight in zip(self.n_codes, codes, weights, strict=True):
            has = numbers.new_zeros(len(numbers), n_codes)
            there = weight > 0  # (N, L)
            has[rows.expand_as(there)[there], code[there].long()] = 1.0
            parts.append(has)  # (N, n_codes)
        for step in (STEP, BROAD_STEP):
            centres = _centres(step).to(numbers)  # (G,)
            far = (numbers[:, 0::2].unsqueeze(-1) - centres) / step  # (N, F, G)
            near = torch.exp(-0.5 * far.square()) * numbers[:, 1::2].unsqueeze(-1)  # (N, F, G)
            parts.append(near.flatten(1))  # (N, F G)
        return torch.cat(parts, dim=1)  # (N, A)


class WideRows(nn.Module):
    """What the columns say of items, linear in them; nothing before the regression."""

    columns: Tensor
    coefficients: Tensor

    def __init__(self, atoms: Atoms, *, columns: int, dim: int) -> None:
        super().__init__()
        self.atoms = atoms
        self.register_buffer("columns", torch.zeros(columns, 2, dtype=torch.int64))
        self.register_buffer("coefficients", torch.zeros(columns, dim + 1))

    def forward(
        self, codes: Sequence[Tensor], weights: Sequence[Tensor], numbers: Tensor
    ) -> Tensor:
        """Codes (N, L) and weights (N, L) of each bag, and numbers (N, 2 F), to (N, D + 1)."""
        found = [numbers.new_zeros(0, self.coefficients.shape[1])]
        for first in range(0, len(numbers), CHUNK):
            part = slice(first, first + CHUNK)
            own = [one[part] for one in codes], [one[part] for one in weights], numbers[part]
            found.append(columns_of(self.atoms.of(*own), self.columns) @ self.coefficients)
        return torch.cat(found)  # (N, D + 1)


def columns_of(atoms: Tensor, columns: Tensor) -> Tensor:
    """Products of two atoms: (N, A) and the numbers of both (F, 2) to (N, F)."""
    return atoms[:, columns[:, 0]] * atoms[:, columns[:, 1]]


def _centres(step: float) -> Tensor:
    return torch.arange(-FARTHEST, FARTHEST + step / 2, step)  # (G,)
