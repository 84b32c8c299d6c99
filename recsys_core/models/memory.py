"""The memory of the model: what a network cannot copy, added to its logits.

A softmax over item vectors says poorly that somebody comes back to what they had, or takes what
always comes next. With a_0, a_1, ... a user's items, the last one first, item i scores

    s(i) = c_network z(i) + sum over terms f of c_f f(i)

    own         log(1 + sum over k of (k + 1)^-r [a_k = i] / e)             how often, how lately
    latest_own  log(1 + (d(i) + 1)^-r / e)                                  d: different items since
    last        [a_0 = i]                                                   once more
    again       log(1 + sum over k > 0 of k^-r [a_k = a_0, a_(k-1) = i] / e)  as the user went on
    next        log(1 + sum over k < L of (k + 1)^-r T(a_k, i) / e)         as others went on
    similar     sum over k of (k + 1)^-r W(a_k, i) / e                      what goes together
    recent      log q(i)                                                    what is asked for now

with z the logits of the networks, T the shares of transitions, W the weights of an item-item model,
q popularity, and r and e fitted for each term. T and q are counted in one or more windows before
the cut, each a term of its own. A coefficient is c = c_1 + c_2 [active] + c_3
log(1 + n) / 5, with n the user's events. All of these are a few dozen numbers; they are fitted on
validation, since T, W and q have counted every event of the training period, what is asked for
among them. T, W and q are then counted anew, up to the time from which the model is used.

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

WINDOWED = ("next", "recent")
TERMS = ("own", "latest_own", "last", "again", "next", "similar", "recent")

STATES = 3
"""What a coefficient depends on: 1, active, and the number of events."""

EVENTS_SCALE = 5.0
"""log(1 + n) of 147 events."""

INITIAL_SCALE = {"own": 0.1, "latest_own": 0.1, "again": 0.1, "next": 0.02, "similar": 1.0}
"""e of each term that has one: about the size of what it divides."""


@dataclass(frozen=True)
class MemoryConfig:
    """The terms, and the sizes of what they read."""

    terms: tuple[str, ...]
    windows: tuple[float | None, ...]
    """Hours before the cut in which T and q are counted; None is the whole log."""
    n_items: int
    length: int
    """M, the latest items of a user that are remembered."""
    next_length: int
    """L, how many of them have successors looked up."""
    neighbours: int
    """N, successors and similar items of each item."""

    @property
    def numbered_terms(self) -> list[tuple[str, int]]:
        """Each term, and the window that it is counted in; 0 for those that have none."""
        return [
            (term, window)
            for term in self.terms
            for window in (range(len(self.windows)) if term in WINDOWED else (0,))
        ]


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
        network = torch.zeros(STATES)
        network[0] = 1.0
        self.network = nn.Parameter(network)
        self.coefficients = nn.Parameter(torch.zeros(len(terms), STATES))
        self.power = nn.Parameter(torch.ones(len(terms)))
        scales = torch.tensor([INITIAL_SCALE.get(term, 1.0) for term, _ in terms])
        self.log_scale = nn.Parameter(scales.log())

    def forward(self, logits: Tensor, latest: Tensor, active: Tensor, history: Tensor) -> Tensor:
        """The networks' logits (B, V + 1) with what is remembered added. (B, V + 1)

        `latest` (B, M) are a user's known items, the last one first, 0 where there are no more: M
        at most that of the configuration, and at least 2. `active` (B,) and `history` (B,), the
        number of known events, are those of the networks. Column 0 (PAD) means nothing.
        """
        known = torch.log1p(history.to(logits.dtype)) / EVENTS_SCALE
        state = torch.stack([torch.ones_like(known), active.to(logits.dtype), known], dim=1)
        scores = (state @ self.network).unsqueeze(1) * logits
        weights = state @ self.coefficients.T  # (B, F)
        for place, (term, window) in enumerate(self.config.numbered_terms):
            found = self._term(term, place, window, torch.zeros_like(logits), latest)
            scores = scores + weights[:, place : place + 1] * found
        return scores

    def _term(self, term: str, place: int, window: int, zero: Tensor, latest: Tensor) -> Tensor:
        """One term for all items. (B, V + 1), or (V + 1,) where it is the same for everybody"""
        if term == "recent":
            return self.log_recent[window]
        if term == "last":
            return zero.scatter(1, latest[:, :1], 1.0)
        # a power of at least nothing: what is older never counts more
        power = softplus(self.power[place])
        age = torch.arange(latest.shape[1], device=latest.device)  # (M,)
        decay = (age + 1.0) ** -power  # (M,)
        scale = self.log_scale[place].exp()
        if term == "similar":
            return _votes(zero, latest, decay, self.similar_items, self.similar_weight) / scale
        if term == "next":
            few = latest[:, : self.config.next_length]
            items, share = self.next_items[window], self.next_share[window]
            return torch.log1p(_votes(zero, few, decay, items, share) / scale)
        if term == "own":
            votes = decay.expand(latest.shape[0], -1)
            return torch.log1p(zero.scatter_add(1, latest, votes) / scale)
        if term == "again":
            came = latest[:, 1:] == latest[:, :1]  # (B, M - 1)
            votes = came.to(decay.dtype) * decay[:-1]
            return torch.log1p(zero.scatter_add(1, latest[:, :-1], votes) / scale)
        assert term == "latest_own", f"{term} is not one of {TERMS}"
        same = latest.unsqueeze(2) == latest.unsqueeze(1)  # (B, M, M)
        newest = ~same.tril(-1).any(2)  # (B, M) no later event is of the same item
        since = newest.to(decay.dtype).cumsum(1)  # (B, M) d + 1
        votes = newest.to(decay.dtype) * since.clamp_min(1.0) ** -power
        return torch.log1p(zero.scatter_add(1, latest, votes) / scale)

    def take_numbers(self, other: "Memory") -> None:
        """Take up the fitted numbers of another memory of the same terms."""
        with torch.no_grad():
            for mine, fitted in zip(self.parameters(), other.parameters(), strict=True):
                mine.copy_(fitted)

    def described(self) -> dict[str, dict[str, float]]:
        """The fitted numbers by term, for reports."""
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
    votes = weight[items] * decay[: items.shape[1]].unsqueeze(1)  # (B, K, N)
    return zero.scatter_add(1, entries.flatten(1), votes.flatten(1))


def _hours(window: float | None) -> str:
    return "whole log" if window is None else f"{window:g}h"


def _shown(value: Tensor) -> float:
    return round(float(value.detach()), 4)
