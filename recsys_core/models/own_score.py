"""A score of each of a user's own items: whether they come back to it.

    score(i) = w2 . SiLU(W1 x(i) + b1) + w . x(i) + b2

with x(i) (F,) logarithms and shares.

What is read of an item: how lately and how often the user had it, in events, moments and seconds;
how often it came after the last item, in the user's own history and in everybody's; how popular it
is; what the networks say of it; and of the user: how much is known of them and how they repeat.
w2, w and b2 start at 0: unfitted, an own item is an item like any other.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from recsys_core.models.own_items import ITEM_NUMBERS, LATELY, USER_NUMBERS

INPUTS_OF_AN_ITEM = 18
"""Those that no table of a memory is needed for."""

INPUTS_OF_A_USER = 11
LEAST = 1e-3
"""Of a share: below it all are alike."""


class OwnScore(nn.Module):
    """A network of one hidden layer for each own item; `looked_up` inputs come from tables."""

    def __init__(self, *, hidden: int, looked_up: int) -> None:
        super().__init__()
        width = INPUTS_OF_AN_ITEM + looked_up + INPUTS_OF_A_USER
        self.inner = nn.Parameter(torch.zeros(hidden, width))
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        self.outer = nn.Parameter(torch.zeros(hidden))
        self.direct = nn.Parameter(torch.zeros(width))
        self.outer_bias = nn.Parameter(torch.zeros(1))

    def draw(self, rng: np.random.Generator) -> None:
        """Draw the hidden layer, so that there is something to learn from."""
        hidden, width = self.inner.shape
        with torch.no_grad():
            drawn = rng.standard_normal((hidden, width + 1)).astype(np.float32)
            self.inner.copy_(torch.from_numpy(drawn[:, :-1] / np.sqrt(np.float32(width))))
            self.inner_bias.copy_(torch.from_numpy(0.5 * drawn[:, -1]))

    def forward(
        self,
        numbers: Tensor,
        user_numbers: Tensor,
        active: Tensor,
        said: Tensor,
        looked_up: list[Tensor],
    ) -> Tensor:
        """`numbers` (B, M, .) and `user_numbers` (B, .) of `own_items.Own` to scores (B, M).

        `said` (B, M) are the networks' log-probabilities of the items, `looked_up` what tables say
        of them, (B, M) each.
        """
        of_items = _of_items(numbers, user_numbers, said)
        of_users = _of_users(user_numbers, active, said)
        x = torch.stack([*of_items, *looked_up, *of_users], dim=-1)  # (B, M, F)
        hidden = silu(linear(x, self.inner, self.inner_bias))  # (B, M, hidden)
        return hidden @ self.outer + x @ self.direct + self.outer_bias


def _of_items(numbers: Tensor, user_numbers: Tensor, said: Tensor) -> list[Tensor]:
    """Each (B, M) and of the size of 1."""
    of = dict(zip(ITEM_NUMBERS, numbers.unbind(-1), strict=True))
    user = dict(zip(USER_NUMBERS, user_numbers.unsqueeze(1).unbind(-1), strict=True))
    count, moments_ago = of["count"], of["moments_ago"]
    place = torch.arange(count.shape[1]).to(count.dtype).expand_as(count)
    between = (of["first_moments_ago"] - moments_ago) / count.clamp_min(1.0)
    inputs = [
        torch.log1p(place) / 2,
        torch.log1p(of["ago"]) / 3,
        torch.log1p(moments_ago) / 2,
        torch.log1p(count) / 2,
        torch.log1p(of["gap_seconds"]) / 8,
        (of["ago"] == 0).to(count.dtype),
        of["before_last"],
        torch.log1p(of["follows"]) / 2,
        of["follows"] / count[:, :1].clamp_min(1.0),
        torch.log1p(of["follows_both"]) / 2,
        _log(of["decayed"]) / 3,
        _log(of["decayed_moments"]) / 2,
        _log(of["decayed_slowly"]) / 2,
        count / user["events"].clamp_min(1.0),
        _log(count / user["moments"].clamp_min(1.0)) / 3,
        _log(count / (of["first_moments_ago"] + 1.0)) / 3,
        # how long it usually takes to come back, against how long it is since
        (torch.log1p(between) - torch.log1p(moments_ago)) / 2,
        said / 5,
    ]
    assert len(inputs) == INPUTS_OF_AN_ITEM, "as many as there are weights"
    return inputs


def _of_users(user_numbers: Tensor, active: Tensor, like: Tensor) -> list[Tensor]:
    """Each (B, M), like `like`."""
    of = dict(zip(USER_NUMBERS, user_numbers.unsqueeze(1).unbind(-1), strict=True))
    inputs = [
        torch.log1p(of["events"]) / 5,
        torch.log1p(of["moments"]) / 4,
        torch.log1p(of["different"]) / 4,
        torch.log1p(of["last_gap_seconds"]) / 8,
        of["repeated"],
        torch.log1p(of["run"]) / 3,
        of["repeats"] / of["events"].clamp_min(1.0),
        of["repeats_lately"] / LATELY,
        of["returns"] / of["events"].clamp_min(1.0),
        of["returns_lately"] / LATELY,
        active.unsqueeze(1).to(like.dtype),
    ]
    assert len(inputs) == INPUTS_OF_A_USER, "as many as there are weights"
    return [value.expand_as(like) for value in inputs]


def _log(share: Tensor) -> Tensor:
    return share.clamp_min(LEAST).log()
