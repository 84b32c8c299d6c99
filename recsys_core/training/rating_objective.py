"""What the rating head minimises: the squared error of values, beside the loss of next items.

The sum of both, as multi-task training has it: mean over the batch's targets that have a value, in
squared deviations of the values, times a weight.
"""

import numpy as np
import torch
from torch import Tensor

from recsys_core.data.features import mean_and_deviation
from recsys_core.errors import DataError
from recsys_core.models.ratings import RatingTable, deviations
from recsys_core.rng import derive_seed
from recsys_core.sections import TrainRnn
from recsys_core.training.batches import Batch
from recsys_core.training.log_until import LogUntil
from recsys_core.training.losses import pull
from recsys_core.training.row_table import RowTable

PRIOR_EVENTS = 5.0
"""An item begins at the mean of its values and of so many that are the mean of all."""

TASTE_SCALE = 0.1
"""Of the item vectors w that a fit begins with."""


class RatingObjective:
    """The loss of the values of targets, on rows [w, b] that begin as those of `table`."""

    def __init__(self, table: RatingTable, params: TrainRnn) -> None:
        begun = table.rows.detach()
        self.table = RowTable(begun.clone(), learning_rate=params.learning_rate_items)
        self._scale = table.scale
        self._anchor = begun.clone()
        self._anchor[:, :-1] = 0.0
        self._weight = params.rating_weight
        self._pull = params.rating_pull

    def expected(self, items: Tensor) -> Tensor:
        """b of items (...) as it is now, through which no gradient flows. (...)"""
        return self.table.values.detach()[items, -1]

    def loss(self, batch: Batch, asked: Tensor) -> Tensor:
        """Of what a network asks of the items at its targets: (N, D + 1) to ()."""
        mean, deviation, _, _ = self._scale
        there = ~batch.value.isnan()  # (N,)
        (rows,) = self.table.gather([batch.target])  # (N, D + 1)
        found = deviations(asked, rows)  # (N,)
        value = torch.where(there, (batch.value - mean) / deviation, found.detach())
        each = batch.weight * (found - value).square()  # (N,)
        loss = each.sum() / there.sum().clamp_min(1)
        if self._pull:
            loss = loss + self._pull * pull(rows, self._anchor[batch.target]).mean()
        return self._weight * loss


def begin_ratings(table: RatingTable, log: LogUntil, *, seed: int) -> None:
    """Give a table the scale of a log's values, the items' means as b, and small drawn w.

    Raises `DataError` where no known event has a value.
    """
    rows = log.rows
    rows = rows[~np.isnan(log.events.value[rows])]
    if len(rows) == 0:
        raise DataError(
            "train_rnn.rating is true, but no event before the cut has a value; name their column "
            "in the dataset card (columns.value), or run with -S train_rnn.rating=false"
        )
    values = log.events.value[rows].astype(np.float64)
    mean, deviation = mean_and_deviation(values)
    items, size = log.events.item_idx[rows], log.n_items + 1
    sums = np.bincount(items, weights=(values - mean) / deviation, minlength=size)
    bias = sums / (np.bincount(items, minlength=size) + PRIOR_EVENTS)
    draws = torch.Generator().manual_seed(derive_seed(seed, "train_rnn", "init ratings"))
    with torch.no_grad():
        table.scale.copy_(torch.tensor([mean, deviation, values.min(), values.max()]))
        table.rows.normal_(0.0, TASTE_SCALE, generator=draws)
        table.rows[:, -1] = torch.from_numpy(bias)
        table.rows[0] = 0.0
