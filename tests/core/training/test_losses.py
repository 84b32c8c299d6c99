"""The sampled softmax."""

import numpy as np
import torch

from recsys_core.training.losses import pull, sampled_softmax
from recsys_core.training.samplers import Candidates, NegativeSampler

V, D = 50, 4
DRAWS = torch.Generator().manual_seed(1)
ITEMS = torch.randn(V + 1, D, generator=DRAWS)
BIAS = torch.randn(V + 1, generator=DRAWS)
VECTORS = torch.randn(6, D, generator=DRAWS)
TARGETS = torch.tensor([1, 50, 7, 7, 30, 2])


def loss(candidates: Candidates) -> torch.Tensor:
    return sampled_softmax(
        VECTORS,
        TARGETS,
        positive=(ITEMS[TARGETS], BIAS[TARGETS]),
        candidates=candidates,
        negative=(ITEMS[candidates.items], BIAS[candidates.items]),
    )


def full() -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        (VECTORS @ ITEMS.T + BIAS)[:, 1:], TARGETS - 1, reduction="none"
    )


def test_with_the_whole_catalogue_it_is_the_full_softmax() -> None:
    sampler = NegativeSampler(torch.ones(V + 1), power=0.5, draws=V)
    torch.testing.assert_close(loss(sampler.draw(DRAWS)), full())


def test_the_estimated_partition_is_unbiased_whatever_the_sampler() -> None:
    """Consistency of the log q correction: exp(loss + target score) averages to the full
    partition."""
    frequency = torch.from_numpy(np.random.default_rng(2).gamma(0.5, size=V + 1) + 0.01)
    target_score = (VECTORS * ITEMS[TARGETS]).sum(1) + BIAS[TARGETS]
    partition = torch.exp(full() + target_score)
    draws = torch.Generator().manual_seed(3)
    for power in (0.0, 0.5, 1.0):
        sampler = NegativeSampler(frequency, power=power, draws=40)
        mean = torch.stack(
            [torch.exp(loss(sampler.draw(draws)) + target_score) for _ in range(4000)]
        ).mean(0)
        torch.testing.assert_close(mean, partition, rtol=0.08, atol=0.0)


def test_an_empty_draw_of_others_leaves_no_loss() -> None:
    only = Candidates(items=torch.tensor([7]), log_expected=torch.zeros(1))
    assert loss(only)[2:4].tolist() == [0.0, 0.0], "the target itself is never its own negative"


def test_draws_follow_the_frequencies() -> None:
    frequency = torch.tensor([0.0, 1.0, 4.0, 9.0, 16.0, 0.25])
    sampler = NegativeSampler(frequency, power=0.5, draws=4)
    drawn = torch.cat([sampler.draw(DRAWS).items for _ in range(5000)])
    share = torch.bincount(drawn, minlength=6)[1:] / len(drawn)
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5]) / 10.5
    torch.testing.assert_close(share, expected, rtol=0.0, atol=0.02)
    candidates = sampler.draw(DRAWS)
    torch.testing.assert_close(
        candidates.log_expected, torch.log(4 * expected[candidates.items - 1])
    )


def test_pull() -> None:
    rows = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert pull(rows).tolist() == [12.5, 1.0]
    assert pull(rows, torch.ones(2, 2)).tolist() == [6.5, 0.0]
