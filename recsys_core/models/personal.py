"""What a user had before: models of people who come back to their own items.

    repeat last          the last item, then the rest
    own recent           own items by their latest event, then the rest
    own frequent         own items by how often, of equal ones the latest, then the rest
    personal frequency   n(u, j) + p_h(j): own items by how often, of equal ones the more popular,
                         then recent popularity

The rest follows by the probabilities of another model, recent popularity or transitions; without
one it is all alike. Where own items and transitions are weighed against each other,

    own recent + transitions    weight (1 + age(j))^-power + p(j | i)

with age(j) the events since the user's latest one of j, and i their last item.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys_core.models.baselines import Popularity, Transitions
from recsys_core.models.history_model import LastItemScores, RequestHistories

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

OwnOrder = Literal["last", "recent", "frequent"]


@dataclass(frozen=True)
class OwnItems:
    """Own items first, in an order, then `rest`; None leaves the rest tied."""

    order: OwnOrder
    catalogue: int
    rest: LastItemScores | None

    @property
    def n_items(self) -> int:
        return self.catalogue

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """2, 3, ... from the last own item to the first, at most 1 for others. (B, V + 1)"""
        if self.rest is None:
            out[:] = 0.0
            out[:, 0] = -np.inf
        else:
            _write_probabilities(self.rest, histories, out)
        entry = histories.latest_of_items  # (E,) by request
        row, age = histories.row[entry], histories.age[entry]
        if self.order == "frequent":
            ranked = np.lexsort((age, -_times(histories), row))
        else:
            ranked = np.lexsort((age, row))
        place = np.empty(len(entry), dtype=np.int64)  # 0 for the first
        place[ranked] = np.arange(len(entry)) - np.searchsorted(row, row)
        after = np.searchsorted(row, row, side="right") - np.searchsorted(row, row) - 1 - place
        if self.order == "last":
            entry, row, after = entry[place == 0], row[place == 0], after[place == 0]
        out[row, histories.item_idx[entry]] = after + np.float32(2.0)  # whole: none are tied
        return out


@dataclass(frozen=True)
class PersonalFrequency:
    """How often a user had an item, and recent popularity for all others."""

    popularity: Popularity

    @property
    def n_items(self) -> int:
        return self.popularity.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Events of the user's on each item, plus its share of recent popularity. (B, V + 1)"""
        out[:] = self.popularity.share
        entry = histories.latest_of_items
        out[histories.row[entry], histories.item_idx[entry]] += _times(histories)
        out[:, 0] = -np.inf
        return out


@dataclass(frozen=True)
class OwnAndTransitionsSettings:
    """How much own items weigh beside transitions, and the power by which older ones weigh less."""

    weight: float
    power: float


GRID = tuple(
    OwnAndTransitionsSettings(weight=weight, power=power)
    for weight, power in product((0.01, 0.1, 1.0, 10.0), (0.5, 1.0, 2.0))
)


@dataclass(frozen=True)
class OwnAndTransitions:
    """Own items by how recent they are, weighed against what follows the last one."""

    settings: OwnAndTransitionsSettings
    transitions: Transitions

    @property
    def n_items(self) -> int:
        return self.transitions.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """The probability of transitions, plus the weight of an own item. (B, V + 1)"""
        _write_probabilities(self.transitions, histories, out)
        entry = histories.latest_of_items
        own = np.float32(self.settings.weight) * histories.recency(self.settings.power)[entry]
        out[histories.row[entry], histories.item_idx[entry]] += own
        return out


def _times(histories: RequestHistories) -> Int64:
    """How often each different item of a request occurs, in the order of `latest_of_items`. (E,)"""
    if len(histories.item_idx) == 0:
        return np.zeros(0, dtype=np.int64)
    key = histories.row * (int(histories.item_idx.max()) + 1) + histories.item_idx
    _, times = np.unique(key, return_counts=True)
    return np.asarray(times, dtype=np.int64)


def _write_probabilities(model: LastItemScores, histories: RequestHistories, out: Float32) -> None:
    """The probabilities of a model whose scores are their logarithms; -inf for PAD. (B, V + 1)"""
    np.exp(model.scores(histories.last_item, out=out), out=out)
    out[:, 0] = -np.inf
