"""Item rows from item features, and their mixture with the rows of ids: HRNN-meta, eq. 2.

    phi_j(h) = (1 - lambda) (w_j . h + b_j) + lambda (w(f_j) . h + b(f_j))

w(f) and b(f) are one network over the fields of an item:

    bag field      sum over its codes of weight E[code]        16 ─▶ 32 ┐
    bag field      the same with a table E of its own          16 ─▶ 32 ├ GELU(hidden) ─▶ D + 1
    all numbers                                                2 F ─▶ 32 ┘

w(f) and b(f) of an item without history have a linear part too (`wide_features.py`), which a
regression tells when all else has been learned.

phi is linear in the rows [w, b], so one lambda for each item turns both tables into one: whoever
scores with it needs no features. An item without history has nothing but its features, and an item
without features those of "unknown".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.errors import ModelError
from recsys_core.models.wide_features import Atoms, WideRows

EMBEDDING = 16
FIELD = 32


@dataclass(frozen=True)
class FeatureDecoderConfig:
    """The sizes of a decoder: enough to build it before its weights are loaded."""

    dim: int
    hidden: int
    n_codes: tuple[int, ...]
    """Of each bag field, code 0 with them; as the encoding of the features says."""
    n_numbers: int
    """Two for each number: its value, and whether it is there."""
    columns: int = 0
    """Of the linear part: none before its regression."""

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON."""
        return {**asdict(self), "n_codes": list(self.n_codes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FeatureDecoderConfig":
        """The sizes of `to_json`."""
        return cls(**{**value, "n_codes": tuple(value["n_codes"])})


class FeatureDecoder(nn.Module):
    """A row for each item from its features alone: the vector w(f), and behind it the bias b(f)."""

    def __init__(self, config: FeatureDecoderConfig) -> None:
        super().__init__()
        fields = len(config.n_codes) + (config.n_numbers > 0)
        if fields == 0:
            raise ModelError(
                "item features: no field to read, at least one is needed; declare item_features "
                "in the dataset card, or switch the features off"
            )
        tables = [nn.EmbeddingBag(codes, EMBEDDING, mode="sum") for codes in config.n_codes]
        for table in tables:
            # a fit may never have met "unknown", code 0: what it never learned then says nothing,
            # where a draw would speak for every later item that is unknown
            nn.init.zeros_(table.weight[0])
        self.tables = nn.ModuleList(tables)
        self.read = nn.ModuleList(nn.Linear(EMBEDDING, FIELD) for _ in config.n_codes)
        self.read_numbers = nn.Linear(config.n_numbers, FIELD) if config.n_numbers else None
        self.mix_fields = nn.Linear(fields * FIELD, config.hidden)
        self.out = nn.Linear(config.hidden, config.dim + 1)
        self.wide = None
        if config.columns:
            atoms = Atoms(config.n_codes, config.n_numbers)
            self.wide = WideRows(atoms, columns=config.columns, dim=config.dim)

    def forward(
        self, codes: Sequence[Tensor], weights: Sequence[Tensor], numbers: Tensor
    ) -> Tensor:
        """Rows of any items, each by its own features alone, as they were learned with the network.

        Codes (N, L) int and weights (N, L) for each bag field, with an L of its own, and numbers
        (N, 2 F), to (N, D + 1). Padding has weight 0.
        """
        parts = [
            read(table(code, per_sample_weights=weight))  # (N, 32)
            for table, read, code, weight in zip(
                self.tables, self.read, codes, weights, strict=True
            )
        ]
        if self.read_numbers is not None:
            parts.append(self.read_numbers(numbers))  # (N, 32)
        mixed = nn.functional.gelu(self.mix_fields(torch.cat(parts, dim=-1)))  # (N, hidden)
        rows: Tensor = self.out(mixed)
        return rows  # (N, D + 1)

    def of_new(self, codes: Sequence[Tensor], weights: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """The same of items without history: with what the regression adds. (N, D + 1)"""
        rows: Tensor = self(codes, weights, numbers)
        return rows if self.wide is None else rows + self.wide(codes, weights, numbers)


def mix(id_rows: Tensor, feature_rows: Tensor, lam: Tensor | float) -> Tensor:
    """Rows [w, b] whose scores are those of eq. 2; both (N, D + 1), lambda one number or (N,).

    Lambda 0 leaves the ids' rows and 1 the features' rows exactly as they are, whatever stands in
    the others, infinities too.
    """
    share = torch.as_tensor(lam, dtype=id_rows.dtype, device=id_rows.device)
    share = share.reshape(-1, 1)  # (1, 1) or (N, 1)
    both = (1.0 - share) * id_rows + share * feature_rows  # (N, D + 1)
    return torch.where(share == 0, id_rows, torch.where(share == 1, feature_rows, both))


def item_lambda(
    counts: npt.NDArray[np.int64], *, warm: float, n0: float | None
) -> npt.NDArray[np.float32]:
    """How much of each item is told by its features: counts of events (V + 1,) to (V + 1,).

    1 for items without an event. For others `warm`; or, with `n0`, the share n0 / (n0 + count):
    the features count as much as n0 events. Raises `ModelError` for a `warm` outside of 0 to 1 and
    an `n0` that is not a finite number from 0 on.
    """
    if not 0.0 <= warm <= 1.0:
        raise ModelError(f"item features: lambda {warm} of items with history; choose 0 to 1")
    if n0 is None:
        share = np.full(len(counts), warm)
    elif 0.0 <= n0 < np.inf:
        share = n0 / (n0 + np.maximum(counts, 1))
    else:
        raise ModelError(f"item features: n0 {n0}; choose a number of events, 0 or more")
    return np.where(counts > 0, share, 1.0).astype(np.float32)
