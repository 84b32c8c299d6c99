"""The memory of the model: what a network cannot copy, added to its logits.

A softmax over item vectors says poorly that somebody comes back to what they had, or takes what
always comes next. With a_0, a_1, ... the different items of a user's history, the latest first, and
k_j the later events than the latest one of a_j, item i scores

    s(i) = c_network z(i) + sum over terms f of c_f f(i) + own(i)

    next      log(1 + sum over j < L of (k_j + 1)^-r T(a_j, i) / e)     what comes after it
    similar   sum over j < S of (k_j + 1)^-r W(a_j, i) / e              what goes together
    factors   < phi, y_i >  with  phi = sum over j of (k_j + 1)^-r (y_(a_j) - m)
              over (v sum over j of (k_j + 1)^-r + e)                   who the user is
    recent    log q(i)                                                  what is asked for now
    own       a small network's score of the user's own items a_0, a_1, ... (`own_score.py`)

with z the logits of the networks, T the shares of transitions, W the weights of an item-item model,
y the factors of items by least squares, m and v their mean and variance in each dimension
(`item_factors.py`; phi is the fold-in of `fold_in.py`), q popularity, and r and e fitted for each
term. T and q are counted in one or more windows before
the cut, each a term of its own. A coefficient is c = c_1 + c_2 [active] + c_3
log(1 + n) / 5, with n the user's events. All of these are some hundred numbers; they are fitted on
validation, since T, W, y and q have counted every event of the training period, what is asked for
among them. T, W, y and q are then counted anew, up to the time from which the model is used.

A log-linear mixture of what the networks say and of the simple methods that are hard to beat.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from recsys_core.models.own_items import ITEM_NUMBERS, USER_NUMBERS
from recsys_core.models.own_score import OwnScore

WINDOWED = ("next", "recent")
TERMS = ("own", "next", "similar", "factors", "recent")

STATES = 3
"""What a coefficient depends on: 1, active, and the number of events."""

EVENTS_SCALE = 5.0
"""log(1 + n) of 147 events."""

SHARE_SCALE = 50.0
"""One over a share of transitions that says something."""

INITIAL_SCALE = {"next": 0.02, "similar": 1.0, "factors": 0.2}
"""e of each term that has one: about the size of what it divides."""

INITIAL_POWER = {"factors": -2.0}
"""What r is begun with, before its softplus: 1 unless said. Who a user is changes slowly."""

AGO, EVENTS = ITEM_NUMBERS.index("ago"), USER_NUMBERS.index("events")


@dataclass(frozen=True)
class MemoryConfig:
    """The terms, and the sizes of what they read."""

    terms: tuple[str, ...]
    windows: tuple[float | None, ...]
    """Hours before the cut in which T and q are counted; None is the whole log."""
    n_items: int
    length: int
    """M, the own items of a user that are remembered."""
    next_length: int
    """L, how many of them have successors looked up."""
    similar_length: int
    """S, how many of them have similar items looked up."""
    neighbours: int
    """N, successors and similar items of each item."""
    hidden: int
    """Of the network that scores own items."""
    similar: str
    """What W is, one of `memory_tables.SIMILAR`; none without the term."""
    similar_l2: float
    """The ridge of `ease`, the shrinkage of `item_knn`."""
    factor_dim: int
    """Of y."""
    factor_alpha: float
    factor_l2: float
    """Those that y is fitted with."""

    @property
    def numbered_terms(self) -> list[tuple[str, int]]:
        """Each term with a coefficient, and the window that it is counted in; 0 where it has
        none."""
        return [
            (term, window)
            for term in self.terms
            if term != "own"
            for window in (range(len(self.windows)) if term in WINDOWED else (0,))
        ]


class Memory(nn.Module):
    """The tables of what follows and resembles each item, and the fitted numbers."""

    next_items: Tensor
    next_share: Tensor
    similar_items: Tensor
    similar_weight: Tensor
    log_recent: Tensor
    factor_items: Tensor
    factor_mean: Tensor
    factor_variance: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        rows, terms = config.n_items + 1, config.numbered_terms
        counted, wide = len(config.windows), (rows, config.neighbours)
        following = (counted, *wide) if "next" in config.terms else (0, 0, 0)
        similar = wide if "similar" in config.terms else (0, 0)
        recent = (counted, rows) if "recent" in config.terms else (0, 0)
        self.register_buffer("next_items", torch.zeros(following, dtype=torch.int32))
        self.register_buffer("next_share", torch.zeros(following))
        self.register_buffer("similar_items", torch.zeros(similar, dtype=torch.int32))
        self.register_buffer("similar_weight", torch.zeros(similar))
        self.register_buffer("log_recent", torch.zeros(recent))
        dim = config.factor_dim if "factors" in config.terms else 0
        self.register_buffer("factor_items", torch.zeros(rows if dim else 0, dim))
        self.register_buffer("factor_mean", torch.zeros(dim))
        self.register_buffer("factor_variance", torch.zeros(dim))
        network = torch.zeros(STATES)
        network[0] = 1.0
        self.network = nn.Parameter(network)
        self.coefficients = nn.Parameter(torch.zeros(len(terms), STATES))
        powers = [INITIAL_POWER.get(term, 1.0) for term, _ in terms]
        self.power = nn.Parameter(torch.tensor(powers))
        scales = torch.tensor([INITIAL_SCALE.get(term, 1.0) for term, _ in terms])
        self.log_scale = nn.Parameter(scales.log())
        windowed = [term for term, _ in terms if term in WINDOWED]
        self.own = (
            OwnScore(hidden=config.hidden, looked_up=len(windowed))
            if "own" in config.terms
            else None
        )

    def forward(
        self,
        logits: Tensor,
        active: Tensor,
        own_items: Tensor,
        own_numbers: Tensor,
        user_numbers: Tensor,
    ) -> Tensor:
        """The networks' logits (B, V + 1) with what is remembered added. (B, V + 1)

        `active` (B,) is that of the networks; `own_items` (B, M) and the numbers are those of
        `own_items.Own`, M at least 1 and at most that of the configuration. Column 0 (PAD) means
        nothing.
        """
        known = torch.log1p(user_numbers[:, EVENTS]) / EVENTS_SCALE  # (B,)
        state = torch.stack([torch.ones_like(known), active.to(logits.dtype), known], dim=1)
        scores = (state @ self.network).unsqueeze(1) * logits
        weights = state @ self.coefficients.T  # (B, F)
        ago, zero = own_numbers[:, :, AGO], torch.zeros_like(logits)  # (B, M)
        for place, (term, window) in enumerate(self.config.numbered_terms):
            found = self._term(term, place, window, zero, own_items, ago)
            scores = scores + weights[:, place : place + 1] * found
        if self.own is None:
            return scores
        # the networks' log-probabilities, PAD not among them
        said = logits.gather(1, own_items) - logits[:, 1:].logsumexp(1, keepdim=True)  # (B, M)
        looked_up = self._looked_up(zero, own_items)
        score = self.own(own_numbers, user_numbers, active, said, looked_up)  # (B, M)
        return scores.scatter_add(1, own_items, score)

    def _term(
        self, term: str, place: int, window: int, zero: Tensor, own_items: Tensor, ago: Tensor
    ) -> Tensor:
        """One term for all items. (B, V + 1), or (V + 1,) where it is the same for everybody"""
        if term == "recent":
            return self.log_recent[window]
        # a power of at least nothing: what is older never counts more
        decay = (ago + 1.0) ** -softplus(self.power[place])  # (B, M)
        scale = self.log_scale[place].exp()
        if term == "next":
            few, items, share = self.config.next_length, self.next_items, self.next_share
            return torch.log1p(
                _votes(zero, own_items[:, :few], decay, items[window], share[window]) / scale
            )
        if term == "factors":
            return self._factors(own_items, decay, scale)
        assert term == "similar", f"{term} is not one of {TERMS}"
        few, items = self.config.similar_length, self.similar_items
        return _votes(zero, own_items[:, :few], decay, items, self.similar_weight) / scale

    def _factors(self, own_items: Tensor, decay: Tensor, scale: Tensor) -> Tensor:
        """What the factors that a history implies say of all items. (B, V + 1)"""
        count = decay * (own_items > 0)  # (B, M)
        n = count.sum(1, keepdim=True)  # (B, 1)
        seen = (count.unsqueeze(1) @ self.factor_items[own_items]).squeeze(1)  # (B, D)
        folded = (seen - n * self.factor_mean) / (n * self.factor_variance + scale)
        return folded @ self.factor_items.T

    def _looked_up(self, zero: Tensor, own_items: Tensor) -> list[Tensor]:
        """What the tables say of own items: T(a_0, i) and log q(i) in each window. (B, M) each"""
        values = []
        last = own_items[:, :1]  # (B, 1)
        once = torch.ones_like(last, dtype=zero.dtype)
        for term, window in self.config.numbered_terms:
            if term == "next":
                items, share = self.next_items[window], self.next_share[window]
                following = _votes(zero, last, once, items, share)  # (B, V + 1)
                values.append(torch.log1p(following.gather(1, own_items) * SHARE_SCALE) / 3)
            if term == "recent":
                values.append(self.log_recent[window][own_items] / 5 + 1)
        return values

    def take_numbers(self, other: "Memory") -> None:
        """Take up the fitted numbers of another memory of the same terms."""
        with torch.no_grad():
            for mine, fitted in zip(self.parameters(), other.parameters(), strict=True):
                mine.copy_(fitted)

    def share_numbers(self, other: "Memory") -> None:
        """Have the fitted numbers of another memory of the same terms for one's own: what is
        learned by one is known to both."""
        self.network, self.coefficients = other.network, other.coefficients
        self.power, self.log_scale, self.own = other.power, other.log_scale, other.own

    def described(self) -> dict[str, dict[str, float]]:
        """The fitted numbers of terms that have a coefficient, for reports."""
        rows = [("networks", self.network, None), *self._numbers()]
        return {
            name: {
                **dict(zip(("one", "active", "events"), map(_shown, coefficients), strict=True)),
                **({} if place is None else {"r": _shown(softplus(self.power[place]))}),
                **({} if place is None else {"e": _shown(self.log_scale[place].exp())}),
            }
            for name, coefficients, place in rows
        }

    def _numbers(self) -> list[tuple[str, Tensor, int | None]]:
        """Each term's name, coefficients, and its place where it has a power and a scale."""
        return [
            (
                f"{term} {_hours(self.config.windows[window])}" if term in WINDOWED else term,
                self.coefficients[place],
                place if term in INITIAL_SCALE else None,
            )
            for place, (term, window) in enumerate(self.config.numbered_terms)
        ]

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All tables and numbers by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def to_json(self) -> dict[str, Any]:
        """The configuration, to build the memory again."""
        return asdict(self.config)

    @classmethod
    def from_arrays(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[np.generic]],
    ) -> "Memory":
        """The memory of `to_json` and `to_arrays`."""
        lists = {name: tuple(config[name]) for name in ("terms", "windows")}
        memory = cls(MemoryConfig(**{**config, **lists}))
        memory.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
        )
        return memory.eval()


def _votes(zero: Tensor, items: Tensor, decay: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """Each of `items` (B, K) votes for its entries of `table` (V + 1, N), by `weight` and `decay`.

    (B, V + 1)
    """
    entries = table[items].long()  # (B, K, N)
    votes = weight[items] * decay[:, : items.shape[1]].unsqueeze(2)  # (B, K, N)
    return zero.scatter_add(1, entries.flatten(1), votes.flatten(1))


def _hours(window: float | None) -> str:
    return "whole log" if window is None else f"{window:g}h"


def _shown(value: Tensor) -> float:
    return round(float(value.detach()), 4)
