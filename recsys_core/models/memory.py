"""What a network cannot copy, added to its logits: the memory of the two-time-scale model.

A softmax over item vectors says poorly that somebody comes back to what they had, or takes what
always comes next. So the score of item i for a user whose latest items are a_0, a_1, ... (a_0 the
last) is

    s(i)      = c_0 z(i) + sum over f of c_f f(i)
    own       = log(1 + A(i) / e_own)         A(i) = sum over k     of (1 + k)^-r_own      [a_k = i]
    last      = [a_0 = i]
    next      = log(1 + S(i) / e_next)        S(i) = sum over k < L of (1 + k)^-r_next     T(a_k, i)
    similar   = E(i) / e_similar              E(i) = sum over k     of (1 + k)^-r_similar  W(a_k, i)
    recent    = log q(i)

with z the network's logits, T the transitions, W the weights of similar items, and q recent
popularity. Each coefficient is linear in what is known of the user: 1, whether they are active, and
the logarithm of their number of events. All of it is a few dozen numbers, fitted on validation,
where T, W and q have not counted what is asked for; q, T and W are then counted anew up to the
time from which the model is used. (A log-linear mixture; the terms are those of the baselines.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FEATURES = ("network", "own", "last", "next", "similar", "recent")
STATES = 3
"""One, active, and the logarithm of the number of events."""


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes: how many latest items are remembered, how many of them have successors looked up, and
    how many successors and similar items each item has."""

    n_items: int
    length: int
    next_length: int
    n_next: int
    n_similar: int


class Memory(nn.Module):
    """The tables of what follows and resembles each item, and the fitted numbers."""

    next_items: Tensor
    next_share: Tensor
    similar_items: Tensor
    similar_weight: Tensor
    log_recent: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.n_items + 1
        self.register_buffer("next_items", torch.zeros(rows, config.n_next, dtype=torch.int32))
        self.register_buffer("next_share", torch.zeros(rows, config.n_next))
        self.register_buffer(
            "similar_items", torch.zeros(rows, config.n_similar, dtype=torch.int32)
        )
        self.register_buffer("similar_weight", torch.zeros(rows, config.n_similar))
        self.register_buffer("log_recent", torch.zeros(rows))
        coefficients = torch.zeros(len(FEATURES), STATES)
        coefficients[0, 0] = 1.0
        self.coefficients = nn.Parameter(coefficients)
        # of own, next, similar: the powers by which older items count less
        self.power = nn.Parameter(torch.ones(3))
        # of own, next, similar: the logarithms of e
        self.log_scale = nn.Parameter(torch.tensor([-2.0, -4.0, 0.0]))

    def forward(self, logits: Tensor, latest: Tensor, active: Tensor, history: Tensor) -> Tensor:
        """The network's logits (B, V + 1) with what is remembered added. (B, V + 1)

        `latest` (B, M) are a user's known items, the last one first, 0 where there are no more;
        `active` (B,) and `history` (B,), the number of known events, say whose coefficients.
        """
        weight = self.state(active, history) @ self.coefficients.T  # (B, F)
        place = torch.arange(latest.shape[1], device=latest.device) + 1.0  # (M,)
        decay = place.unsqueeze(0) ** -self.power.unsqueeze(1)  # (3, M)
        scale = self.log_scale.exp()  # (3,)
        zero = torch.zeros_like(logits)
        own = zero.scatter_add(1, latest, decay[0].expand(latest.shape[0], -1))
        last = zero.scatter(1, latest[:, :1], 1.0)
        few = latest[:, : self.config.next_length]
        following = _votes(zero, few, self.next_items, self.next_share, decay[1])
        similar = _votes(zero, latest, self.similar_items, self.similar_weight, decay[2])
        return (
            weight[:, 0:1] * logits
            + weight[:, 1:2] * torch.log1p(own / scale[0])
            + weight[:, 2:3] * last
            + weight[:, 3:4] * torch.log1p(following / scale[1])
            + weight[:, 4:5] * (similar / scale[2])
            + weight[:, 5:6] * self.log_recent
        )

    def state(self, active: Tensor, history: Tensor) -> Tensor:
        """What the coefficients depend on. (B,), (B,) to (B, STATES)"""
        events = torch.log1p(history.float()) / 5.0  # about 1 at 150 events
        return torch.stack([torch.ones_like(events), active.float(), events], dim=1)


def _votes(zero: Tensor, items: Tensor, table: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    """Each of `items` (B, K) votes for its entries of `table` (V + 1, N), by `weight` and `decay`.

    (B, V + 1)
    """
    entries = table[items].long()  # (B, K, N)
    votes = weight[items] * decay[: items.shape[1]].unsqueeze(1)  # (B, K, N)
    return zero.scatter_add(1, entries.flatten(1), votes.flatten(1))
