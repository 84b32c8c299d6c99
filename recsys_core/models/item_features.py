"""The features of items as tensors, and the item table that they and the ids make together.

Row 0 is PAD: its features mean nothing, and its row of the table is the one of the ids.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.features import Encoded
from recsys_core.models.item_decoder import FeatureDecoder, mix

CHUNK = 65_536
"""Items whose features become rows at a time, where nothing is learned."""


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Codes and weights (N, L) of each bag field, with an L of its own, and numbers (N, 2 F)."""

    codes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    numbers: Tensor

    @classmethod
    def of(cls, encoded: Encoded, *, device: torch.device) -> "ItemFeatures":
        """Those of items 0 (PAD) to V."""
        return cls(
            tuple(torch.from_numpy(codes).to(device) for codes in encoded.codes),
            tuple(torch.from_numpy(weights).to(device) for weights in encoded.weights),
            torch.from_numpy(encoded.numbers).to(device),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Tensor | slice) -> "ItemFeatures":
        """Those of some rows."""
        return ItemFeatures(
            tuple(codes[rows] for codes in self.codes),
            tuple(weights[rows] for weights in self.weights),
            self.numbers[rows],
        )

    def read_by(self, decoder: FeatureDecoder) -> Tensor:
        """What features alone say of each row, and gradients flow back through. (N, D + 1)"""
        rows: Tensor = decoder(self.codes, self.weights, self.numbers)
        return rows


@torch.no_grad()
def feature_rows(decoder: FeatureDecoder, features: ItemFeatures) -> Tensor:
    """What features alone say of every item as it was learned with the network, for mixtures with
    ids: PAD among them, a chunk at a time. (N, D + 1)"""
    return torch.cat([part.read_by(decoder) for part in _chunks(features)])


@torch.no_grad()
def new_item_rows(decoder: FeatureDecoder, features: ItemFeatures) -> Tensor:
    """The rows of items without history, which have nothing but features. (N, D + 1)"""
    parts = [decoder.of_new(part.codes, part.weights, part.numbers) for part in _chunks(features)]
    return torch.cat(parts)


def mixed_table(id_rows: Tensor, rows: Tensor, lam: npt.NDArray[np.float32]) -> Tensor:
    """The item table of eq. 2 with a lambda for each item (V + 1,), of which PAD's is not read.

    `id_rows` and `rows`, those of `feature_rows`, are (V + 1, D + 1), and so is what comes out.
    """
    shares = torch.from_numpy(lam).to(id_rows.device)  # (V + 1,)
    mixed = mix(id_rows, rows, shares)  # (V + 1, D + 1)
    return torch.cat([id_rows[:1], mixed[1:]])


def _chunks(features: ItemFeatures) -> list[ItemFeatures]:
    """One at least, so that no item has no row of the right width."""
    firsts = range(0, max(len(features), 1), CHUNK)
    return [features.take(slice(first, first + CHUNK)) for first in firsts]
