"""Fits the few numbers of a memory on validation: how much each term counts, and for whom.

One day may be unlike all others, and what is fitted on it is then wrong for every other. So there
may be several origins: moments at which networks and tables knew what there was to know, and
targets of the time after each. The numbers are the same for all of them.

Loss: the mean over queries of -log softmax(s)[target] over the candidates, the targets of one query
sharing its weight, for targets that the tables have not counted; and the square of the weights of
the network that scores own items. Some thousand targets fix some hundred numbers, so nothing is
held back to stop by; but a few hundred steps are needed however few targets there are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.events import Events
from recsys_core.errors import ModelError
from recsys_core.evaluation.ranks import seen_items
from recsys_core.evaluation.scorers import Trend
from recsys_core.evaluation.targets import Targets
from recsys_core.models.memory import Memory
from recsys_core.models.own_items import Own, gather_own
from recsys_core.models.two_time_scale import TwoTimeScale

CELLS = 4_000_000
"""Scores worked on at once: 16 MB for each of the terms."""

BATCHES = 32
"""Of an epoch, at least: fewer targets than that many batches of 256 are taken in smaller ones."""

RATE, OWN_RATE = 0.05, 0.03
"""The highest learning rates of the schedule: of coefficients, which are of the size of 1, and of
the weights of the network that scores own items."""

OWN_L2 = 3e-4
"""Times the square of those weights."""


@dataclass(frozen=True)
class EpochOfMemory:
    """An epoch that is over, counted from 1, of how many, and its mean loss."""

    number: int
    of: int
    loss: float


@dataclass(frozen=True, eq=False)
class Origin:
    """What was known at a moment, and what was asked for after it.

    `memory` has the tables of that moment; `queries` (N, D) are the networks' for `targets`, all of
    which are `candidates` (V + 1,); `known` are the events of items that were known. `trend` is
    that of `targets`.
    """

    model: TwoTimeScale
    memory: Memory
    queries: npt.NDArray[np.float32]
    known: Events
    targets: Targets
    candidates: npt.NDArray[np.bool_]
    trend: Trend | None = None


def fit_memory(
    origins: Sequence[Origin],
    *,
    events: Events,
    seen_filter: bool,
    steps: int,
    rng: np.random.Generator,
) -> Iterator[EpochOfMemory]:
    """Fit the numbers that the memories of all origins share, in place, in whole epochs of `steps`
    steps at least.

    `events` are all of the log.
    """
    memory = origins[0].memory
    assert all(one.memory.network is memory.network for one in origins), "numbers are shared"
    asked = [_Asked.of(origin) for origin in origins]
    n_queries = sum(len(one.first) for one in asked)
    batch = _batch(n_queries, max(origin.memory.config.n_items for origin in origins))
    per_epoch = sum(-(-len(one.first) // batch) for one in asked)
    epochs = -(-steps // per_epoch)
    if memory.own is not None:
        memory.own.draw(rng)
    optimiser, schedule = _optimiser(memory, per_epoch * epochs)
    for epoch in range(1, epochs + 1):
        losses = 0.0
        for place, of_queries in _batches([len(one.first) for one in asked], batch, rng):
            loss = _loss(origins[place], asked[place], of_queries, events, seen_filter=seen_filter)
            optimiser.zero_grad(set_to_none=True)
            (loss + _penalty(memory)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses += float(loss.detach()) * len(of_queries)
        if not np.isfinite(losses):
            raise ModelError(
                f"train_memory: the loss is {losses} after epoch {epoch}; the networks' logits "
                "must be finite: lower the learning rates of train_rnn in params.yaml"
            )
        yield EpochOfMemory(epoch, epochs, losses / n_queries)


def _batches(
    n_queries: Sequence[int], batch: int, rng: np.random.Generator
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """An epoch: the place of an origin and some of its queries, rising, each query once."""
    orders = [rng.permutation(n) for n in n_queries]
    found = [
        (place, np.sort(order[start : start + batch]))
        for place, order in enumerate(orders)
        for start in range(0, len(order), batch)
    ]
    # the batches of one origin are in a drawn order already
    mixed = rng.permutation(len(found)) if len(orders) > 1 else np.arange(len(found))
    return [found[which] for which in mixed]


def _loss(
    origin: Origin,
    asked: "_Asked",
    of_queries: npt.NDArray[np.int64],
    events: Events,
    *,
    seen_filter: bool,
) -> Tensor:
    """The mean over some queries of an origin. ()"""
    model, memory, targets = origin.model, origin.memory, origin.targets
    rows, query = asked.targets_of(of_queries)
    first = asked.first[of_queries]
    with torch.no_grad():
        logits = model.scores(torch.from_numpy(origin.queries[first]))
        logits[:, 0] = 0.0  # minus infinity times a coefficient has no gradient
    scores = memory(logits, *asked.inputs(of_queries))
    if origin.trend is not None:
        scores = scores + torch.from_numpy(origin.trend(first))
    scores = scores.masked_fill(asked.excluded, -torch.inf)
    target = torch.from_numpy(targets.item_idx[rows].astype(np.int64))
    if seen_filter:
        seen = _seen(events, targets.take(first), n_items=memory.config.n_items)
        seen[query, target] = False
        scores = scores.masked_fill(seen, -torch.inf)
    share = 1.0 / torch.bincount(query).to(scores.dtype)  # (B,)
    found = scores.log_softmax(1)[query, target]
    mean: Tensor = -(found * share[query]).sum() / len(of_queries)
    return mean


@dataclass(frozen=True)
class _Asked:
    """What is read for each query, gathered once, and where its targets lie."""

    first: npt.NDArray[np.int64]  # (Q,) the first target of each query
    count: npt.NDArray[np.int64]  # (Q,)
    own: Own
    active: npt.NDArray[np.bool_]  # (Q,)
    excluded: Tensor  # (V + 1,) what is no candidate

    @classmethod
    def of(cls, origin: Origin) -> "_Asked":
        targets = origin.targets
        assert len(origin.queries) == len(targets) > 0, "a row for each target"
        _, first, count = np.unique(targets.query, return_index=True, return_counts=True)
        history = targets.history[first].astype(np.int64)
        own = gather_own(
            origin.known,
            user_idx=targets.user_idx[first].astype(np.int64),
            history=history,
            most=origin.memory.config.length,
        )
        active = origin.model.input_spec.is_active(history)
        return cls(first, count, own, active, torch.from_numpy(~origin.candidates))

    def targets_of(self, of_queries: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Tensor]:
        """The rows of the targets of some queries, and which of these each is of. (N,) twice"""
        count = self.count[of_queries]
        query = np.repeat(np.arange(len(of_queries)), count)
        within = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        return self.first[of_queries][query] + within, torch.from_numpy(query)

    def inputs(self, of_queries: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a memory reads beside logits."""
        own = self.own
        arrays = (self.active, own.items, own.numbers, own.user_numbers)
        active, items, numbers, users = (torch.from_numpy(array[of_queries]) for array in arrays)
        return active, items, numbers, users


def _batch(n_queries: int, n_items: int) -> int:
    most = min(256, CELLS // (n_items + 1))
    return max(1, min(most, max(8, n_queries // BATCHES)))


def _optimiser(
    memory: Memory, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    of_own = [] if memory.own is None else list(memory.own.parameters())
    others = [memory.network, memory.coefficients, memory.power, memory.log_scale]
    groups = [(others, RATE), (of_own, OWN_RATE)][: 2 if of_own else 1]
    optimiser = torch.optim.Adam([{"params": numbers} for numbers, _ in groups], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [rate for _, rate in groups], total_steps=steps + 1
    )
    return optimiser, schedule


def _penalty(memory: Memory) -> Tensor:
    total = torch.zeros(())
    if memory.own is not None:
        for weights in memory.own.parameters():
            total = total + weights.square().sum()
    return OWN_L2 * total


def _seen(events: Events, targets: Targets, *, n_items: int) -> Tensor:
    """Which items each target's user had before. (B, V + 1)"""
    seen = torch.zeros(len(targets), n_items + 1, dtype=torch.bool)
    row, item = seen_items(events, targets, n_items=n_items)
    seen[torch.from_numpy(row), torch.from_numpy(item)] = True
    return seen
