"""What stage two minimises, with the item table that its gradients reach.

Under the full softmax every item has a gradient in every step, and the table is updated dense;
under a sampled loss those of the batch alone, and it is updated by rows.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.models.trend import TrendIndex, TrendSlide
from recsys_core.sections import TrainRnn
from recsys_core.training.batches import Batch
from recsys_core.training.dense_table import DenseTable
from recsys_core.training.item_mixing import ItemMixing
from recsys_core.training.losses import (
    AddOffsets,
    Rows,
    SampledLoss,
    bpr_max,
    full_softmax,
    pull,
    sampled_softmax,
)
from recsys_core.training.row_table import RowTable
from recsys_core.training.samplers import Candidates, NegativeSampler

SOFTMAX_CELLS = {"cpu": 2**20, "cuda": 2**27}
"""Logits of the full softmax at a time: on a CPU they stay in its cache, on a GPU in its memory."""

Queries = Callable[[Tensor], Tensor]
"""From the item vectors of a batch (B, T, D) to what is asked of the table (N, D)."""

ItemRows = Callable[[Tensor], Tensor]
"""From item vectors as they are trained to those that are read and scored, (..., D) to (..., D)."""


class SoftmaxObjective:
    """The full softmax on a dense table (V + 1, D + 1), the last column a bias."""

    def __init__(
        self,
        values: Tensor,
        params: TrainRnn,
        *,
        item_rows: ItemRows,
        mixing: ItemMixing | None = None,
        trend: TrendIndex | None = None,
    ) -> None:
        self.table = DenseTable(values.clone(), learning_rate=params.learning_rate_items)
        self._anchor = values
        self._pull = params.item_pull if params.finetune_items else 0.0
        self._learns = params.finetune_items
        self._item_rows = item_rows
        self._mixing = mixing
        self._trend = trend

    def loss(self, batch: Batch, queries: Queries, draws: torch.Generator) -> Tensor:
        """The weighted mean loss of a batch; `draws` gives it the share of features. ()"""
        device = batch.target.device
        # a table that stands still has no gradient: a third of the work
        values = self.table.values if self._learns else self.table.values.detach()
        if self._mixing is not None:
            values = self._mixing.whole(values, self._mixing.lam(draws))
        table = self._item_rows(values[:, :-1])  # (V + 1, D)
        vectors = queries(torch.nn.functional.embedding(batch.items, table))  # (N, D)
        target, weight, reward = batch.target, batch.weight, batch.reward
        offsets = None
        if self._trend is not None:
            # in the order of time the window of the trend slides from one target to the next
            order = np.argsort(batch.at, kind="stable")
            offsets = _offsets(self._trend, batch.at[order])
            rows = torch.from_numpy(order).to(device)
            vectors, target, weight = vectors[rows], target[rows], weight[rows]
            reward = None if reward is None else reward[rows]
        with _bfloat16(device):
            loss = full_softmax(
                vectors,
                target,
                items=(table, values[:, -1]),
                weights=weight,
                rewards=reward,
                offsets=offsets,
                cells=SOFTMAX_CELLS[device.type],
            )
        if self._pull:
            (positive,) = self.table.gather([batch.target])  # (N, D + 1)
            loss = loss + self._pull * pull(positive, self._anchor[batch.target]).mean()
        return loss


class SampledObjective:
    """A loss against shared candidates on a table (V + 1, D + 1), the last column a bias."""

    def __init__(
        self,
        values: Tensor,
        params: TrainRnn,
        *,
        item_rows: ItemRows,
        sampler: NegativeSampler,
        mixing: ItemMixing | None = None,
        trend: TrendIndex | None = None,
    ) -> None:
        self.table = RowTable(values.clone(), learning_rate=params.learning_rate_items)
        self._anchor = values
        self._pull = params.item_pull if params.finetune_items else 0.0
        self._item_rows = item_rows
        self._sampler = sampler
        self._mixing = mixing
        self._trend = trend
        self._is_softmax = params.loss == "sampled_softmax"
        self._each: SampledLoss = sampled_softmax
        if params.loss == "bpr_max":
            self._each = partial(bpr_max, score_penalty=params.score_penalty)

    def loss(self, batch: Batch, queries: Queries, draws: torch.Generator) -> Tensor:
        """The weighted mean loss of a batch, its candidates drawn from `draws`. ()"""
        device = batch.target.device
        candidates = self._sampler.draw(draws).to(device)
        items = [batch.items, batch.target, candidates.items]
        rows = self.table.gather(items)
        own = rows[1]  # (N, D + 1)
        if self._mixing is not None:
            rows = self._mixing.parts(rows, items, self._mixing.lam(draws))
        read, positive, negative = rows
        vectors = queries(self._item_rows(read[..., :-1]))  # (N, D)
        with _bfloat16(device):
            told = {}
            if self._is_softmax:
                told = {"rewards": batch.reward, "offsets": self._offsets(batch, candidates)}
            each = self._each(
                vectors,
                batch.target,
                positive=self._scored(positive),
                candidates=candidates,
                negative=self._scored(negative),
                **told,
            ).float()  # (N,)
        loss = (batch.weight * each).mean()
        if self._pull:
            loss = loss + self._pull * pull(own, self._anchor[batch.target]).mean()
        return loss

    def _offsets(self, batch: Batch, candidates: Candidates) -> tuple[Tensor, Tensor] | None:
        """What the trend adds to the logits of targets (N,) and candidates (N, M)."""
        if self._trend is None:
            return None
        target, items = (one.cpu().numpy() for one in (batch.target, candidates.items))
        offsets = self._trend.offset_each(batch.at, target), self._trend.offset(batch.at, items)
        of_target, of_candidates = (
            torch.from_numpy(one).to(batch.target.device) for one in offsets
        )
        return of_target, of_candidates

    def _scored(self, rows: Tensor) -> Rows:
        return self._item_rows(rows[:, :-1]), rows[:, -1]


def _offsets(trend: TrendIndex, at: npt.NDArray[np.int64]) -> AddOffsets:
    """What a trend adds to the logits of targets at the times `at` (N,), which rise."""
    slide = TrendSlide(trend)

    def add(part: slice, logits: Tensor) -> Tensor:
        found = slide.offsets(at[part])
        place = torch.from_numpy(found.row * logits.shape[1] + found.item - 1)  # (E,) without PAD
        more = torch.from_numpy(found.more).to(logits.device)
        logits.view(-1).index_add_(0, place.to(logits.device), more)
        return torch.from_numpy(found.base).to(logits.device)

    return add


def _bfloat16(device: torch.device) -> torch.autocast:
    """On CUDA the large products run in bfloat16.

    The recurrence stays in float32, for autocast would run it in float16, whose gradients underflow
    without loss scaling.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
