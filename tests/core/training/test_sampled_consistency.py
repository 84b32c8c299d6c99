"""What a sampled softmax learns is what the full one learns, whatever the sampler (2.7.4 to 2.7.6
of HRNN-meta)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_core.training.losses import full_softmax, sampled_softmax
from recsys_core.training.samplers import Candidates, NegativeSampler, draws_of
from tests.markov_log import STAGE_TWO

CONTEXTS, ITEMS, BATCH, STEPS, DRAWS = 8, 60, 512, 1_500, 30
"""The logarithm of a partition estimated from very few draws is biased, whatever the correction."""


def chances(seed: int = 1) -> tuple[Tensor, Tensor]:
    """p(item | context) (C, V) of a long-tailed catalogue, and the items' frequencies (V + 1,)."""
    draws = torch.Generator().manual_seed(seed)
    head = -1.0 * torch.log(torch.arange(1.0, ITEMS + 1.0))
    taste = 0.8 * torch.randn(CONTEXTS, ITEMS, generator=draws)
    chance = torch.softmax(head + taste, dim=1)
    return chance, torch.cat([torch.zeros(1), chance.mean(0)])


def learned(power: float | None, *, correct: bool = True) -> Tensor:
    """Scores (C, V), centred, after training on the same events; the full softmax for None."""
    chance, frequency = chances()
    draws = torch.Generator().manual_seed(2)
    scores = torch.zeros(CONTEXTS, ITEMS, requires_grad=True)
    # items are unit vectors: a query's score of item j is its j-th number
    table, bias = torch.cat([torch.zeros(1, ITEMS), torch.eye(ITEMS)]), torch.zeros(ITEMS + 1)
    sampler = NegativeSampler(frequency, power=power or 0.0, draws=DRAWS)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, STEPS)
    for _ in range(STEPS):
        context = torch.randint(CONTEXTS, (BATCH,), generator=draws)
        target = 1 + torch.multinomial(chance[context], 1, generator=draws)[:, 0]
        query = scores[context]
        if power is None:
            loss = full_softmax(
                query, target, items=(table, bias), weights=torch.ones(BATCH), cells=10**6
            )
        else:
            candidates = sampler.draw(draws)
            if not correct:
                none = torch.zeros_like(candidates.log_expected)
                candidates = Candidates(candidates.items, none)
            loss = sampled_softmax(
                query,
                target,
                positive=(table[target], bias[target]),
                candidates=candidates,
                negative=(table[candidates.items], bias[candidates.items]),
            ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = scores.detach()
    return found - found.mean(1, keepdim=True)


@pytest.fixture(scope="module")
def dense() -> Tensor:
    return learned(None)


def slope(sampled: Tensor, dense: Tensor) -> float:
    return float((sampled * dense).sum() / dense.square().sum())


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_sampled_scores_are_the_dense_ones(power: float, dense: Tensor) -> None:
    assert 0.9 < slope(learned(power), dense) < 1.1


def test_without_the_correction_the_head_is_held_down(dense: Tensor) -> None:
    """Items that are often drawn are often a negative: without log q they pay for it."""
    uncorrected = learned(1.0, correct=False)
    head, tail = slice(0, ITEMS // 6), slice(ITEMS // 2, None)

    def lead(scores: Tensor) -> float:
        return float(scores[:, head].mean() - scores[:, tail].mean())

    assert lead(dense) > 1.5
    assert lead(uncorrected) < 0.3 * lead(dense)
    assert slope(uncorrected, dense) < 0.7


def test_a_million_draws_pass_a_chi_square_test() -> None:
    _, frequency = chances()
    sampler = NegativeSampler(frequency, power=0.75, draws=ITEMS - 1)
    generator, counts = torch.Generator().manual_seed(5), np.zeros(ITEMS + 1)
    while counts.sum() < 10**6:
        counts += np.bincount(sampler.draw(generator).items.numpy(), minlength=ITEMS + 1)
    weight = frequency[1:].numpy().astype(np.float64) ** 0.75
    expected = counts.sum() * weight / weight.sum()
    statistic = float(((counts[1:] - expected) ** 2 / expected).sum())
    freedom = ITEMS - 1
    # five deviations above the mean of the distribution
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_auto_draws_the_root_of_the_catalogue() -> None:
    """As in the runs of the paper: 255, 362 and 1087 of catalogues of these sizes."""
    sizes = (65_134, 131_263, 1_183_451)
    assert [draws_of("auto", size) for size in sizes] == [255, 362, 1_087]
    assert draws_of(512, 10**6) == 512
    assert replace(STAGE_TWO, negatives="auto").negatives == "auto"
