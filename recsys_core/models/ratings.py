"""What a user would say of an item: a second head on the networks' trunk (HRNN-meta, 2.2.9).

    z_j(h) = w_j . P h + u . h + b_j          r_j(h) = mean + deviation z_j(h)

h is the output of the user's network, so that both have a P and a u of their own, and the rows
[w, b] of items are shared. b_j begins as what item j is given beside the mean of all, u . h is what
this user gives beside that, and z is in deviations of the values that were trained on, beyond the
least and the greatest of which no rating goes. Where values are read as feedback, b_j is what they
are compared with (`event_reader.py`).
"""

import torch
from torch import Tensor, nn


class RatingTable(nn.Module):
    """The items' side: rows [w, b] (V + 1, D + 1), and what z is scaled by. PAD's row is zero."""

    rows: Tensor
    scale: Tensor

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(n_items + 1, dim + 1))
        # mean, deviation, least and greatest value
        self.register_buffer("scale", torch.tensor([0.0, 1.0, -1.0, 1.0]))

    def forward(self, asked: Tensor, items: Tensor) -> Tensor:
        """The expected values of items (N, K), asked for by (N, D + 1). (N, K)"""
        mean, deviation, least, greatest = self.scale
        ratings: Tensor = mean + deviation * deviations(asked.unsqueeze(1), self.rows[items])
        return torch.minimum(torch.maximum(ratings, least), greatest)

    def expected(self, items: Tensor) -> Tensor:
        """b of items (...), what anybody gives them, in deviations. (...)"""
        return self.rows[:, -1][items]


def deviations(asked: Tensor, rows: Tensor) -> Tensor:
    """z of rows [w, b] (..., D + 1) for [P h, u . h] (..., D + 1), which broadcast. (...)"""
    tastes = (asked[..., :-1] * rows[..., :-1]).sum(-1)
    return tastes + asked[..., -1] + rows[..., -1]
