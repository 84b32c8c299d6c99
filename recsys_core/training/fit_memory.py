"""Fits the few numbers of a memory on validation: how much each term counts, and for whom.

Loss: the mean of -log softmax(s)[target] over the candidates, for targets that the tables have not
counted. A few thousand targets fix a few dozen numbers, so nothing is held back to stop by.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.data.events import Events
from recsys_core.evaluation.ranks import seen_items
from recsys_core.evaluation.targets import Targets
from recsys_core.models.memory import Memory
from recsys_core.models.requests import remember
from recsys_core.models.two_time_scale import TwoTimeScale

CELLS = 4_000_000
"""Scores worked on at once: 16 MB for each of the terms."""

RATE = 0.08
"""The highest learning rate of the schedule; numbers here are of the size of 1."""


def fit_memory(
    model: TwoTimeScale,
    memory: Memory,
    *,
    queries: npt.NDArray[np.float32],
    known: Events,
    events: Events,
    targets: Targets,
    candidates: npt.NDArray[np.bool_],
    seen_filter: bool,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[tuple[int, float]]:
    """Fit the numbers of `memory` in place; yields each epoch and its mean loss.

    `queries` (N, D) are the networks' for `targets`, all of which are `candidates` (V + 1,);
    `known` are the events of known items, `events` all of them.
    """
    n_items = memory.config.n_items
    batch = int(np.clip(CELLS // (n_items + 1), 16, 256))
    steps = -(-len(targets) // batch)
    optimiser = torch.optim.Adam(memory.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps * epochs + 1)
    excluded = torch.from_numpy(~candidates)
    for epoch in range(1, epochs + 1):
        order, losses = rng.permutation(len(targets)), 0.0
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            chunk = targets.take(rows)
            asked = remember(
                model.input_spec,
                known,
                user_idx=chunk.user_idx.astype(np.int64),
                history=chunk.history.astype(np.int64),
                most=memory.config.length,
            )
            with torch.no_grad():
                logits = model.scores(torch.from_numpy(queries[rows]))
                logits[:, 0] = 0.0  # minus infinity times a coefficient has no gradient
            scores = memory(
                logits,
                torch.from_numpy(asked.latest),
                torch.from_numpy(asked.active),
                torch.from_numpy(asked.history),
            )
            scores = scores.masked_fill(excluded, -torch.inf)
            if seen_filter:
                scores = scores.masked_fill(_seen(events, chunk, n_items=n_items), -torch.inf)
            target = torch.from_numpy(chunk.item_idx.astype(np.int64))
            loss = nn.functional.cross_entropy(scores, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses += float(loss.detach()) * len(rows)
        yield epoch, losses / len(targets)


def _seen(events: Events, targets: Targets, *, n_items: int) -> Tensor:
    """Which items a target's user had before, the target itself not among them. (B, V + 1)"""
    seen = torch.zeros(len(targets), n_items + 1, dtype=torch.bool)
    row, item = seen_items(events, targets, n_items=n_items)
    seen[torch.from_numpy(row), torch.from_numpy(item)] = True
    seen[torch.arange(len(targets)), torch.from_numpy(targets.item_idx.astype(np.int64))] = False
    return seen
