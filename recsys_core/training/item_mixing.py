"""Item rows in training as a mixture of what ids and features say (HRNN-meta, eq. 2).

lambda is drawn anew for each batch, uniform between 0 and 1: the features then have to tell the
item by themselves, where a fixed share would let them merely fill in what the id leaves over.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.features import Encoded, FeatureEncoding
from recsys_core.models.item_decoder import (
    FeatureDecoder,
    FeatureDecoderConfig,
    item_lambda,
    mix,
)
from recsys_core.models.item_features import ItemFeatures, feature_rows, mixed_table
from recsys_core.sections import Features


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """The features of the items that a fit knows, 0 (PAD) to V, and what is done with them."""

    encoding: FeatureEncoding
    encoded: Encoded
    params: Features

    def decoder_config(self, dim: int) -> FeatureDecoderConfig:
        """The sizes of the decoder that reads them."""
        return FeatureDecoderConfig(
            dim=dim,
            hidden=self.params.decoder_hidden,
            n_codes=self.encoding.n_codes,
            n_numbers=self.encoding.n_numbers,
        )


class ItemMixing:
    """What a batch reads and scores items by, and what a finished model does."""

    def __init__(
        self,
        decoder: FeatureDecoder,
        known: KnownFeatures,
        *,
        counts: npt.NDArray[np.int64],
        device: torch.device,
    ) -> None:
        """`counts` are the events of each item (V + 1,)."""
        params = known.params
        self.decoder = decoder
        self._features = ItemFeatures.of(known.encoded, device=device)
        assert len(self._features) == len(counts), "the features of exactly the known items"
        self._share = params.training_share
        self._lam = item_lambda(counts, warm=params.warm_share, n0=params.share_events)

    def lam(self, draws: torch.Generator) -> float:
        """The batch's lambda."""
        return torch.rand((), generator=draws).item() if self._share is None else self._share

    def whole(self, id_rows: Tensor, lam: float) -> Tensor:
        """All items' rows in a batch: (V + 1, D + 1) to (V + 1, D + 1)."""
        return mix(id_rows, self._features.read_by(self.decoder), lam)

    def parts(self, id_rows: list[Tensor], items: list[Tensor], lam: float) -> list[Tensor]:
        """The rows (..., D + 1) of some items (...); each item's features are read once."""
        flat = torch.cat([one.flatten() for one in items])  # (M,)
        unique, place = torch.unique(flat, return_inverse=True)
        decoded = self._features.take(unique).read_by(self.decoder)  # (U, D + 1)
        each = decoded.index_select(0, place)  # (M, D + 1)
        split = torch.split(each, [one.numel() for one in items])
        return [
            mix(rows.flatten(0, -2), part, lam).view_as(rows)
            for rows, part in zip(id_rows, split, strict=True)
        ]

    def finished(self, id_rows: Tensor) -> Tensor:
        """All items' rows as a finished model has them, each with the lambda of its own history.
        (V + 1, D + 1) to (V + 1, D + 1)"""
        return mixed_table(id_rows, feature_rows(self.decoder, self._features), self._lam)
