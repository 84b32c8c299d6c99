"""Negatives: drawn in the proportions that their log q says."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from recsys_core.training.samplers import NegativeSampler, alias_table

FREQUENCY = torch.from_numpy(np.random.default_rng(1).gamma(0.5, size=201) + 1e-3)


def drawn_by(sampler: NegativeSampler, times: int, *, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.cat([sampler.draw(draws).items for _ in range(times)])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_draws_have_the_distribution_of_the_frequencies(power: float) -> None:
    sampler = NegativeSampler(FREQUENCY, power=power, draws=100)
    counts = torch.bincount(drawn_by(sampler, 2_000, seed=3), minlength=201)
    share = (FREQUENCY[1:] ** power).numpy()
    share /= share.sum()
    assert counts[0] == 0, "PAD is no candidate"
    assert chisquare(counts[1:].numpy(), share * 200_000).pvalue > 0.001
    even = np.full(200, 1 / 200)
    if power > 0:
        wrong = chisquare(counts[1:].numpy(), even * 200_000).pvalue
        assert wrong < 1e-9, "the test tells a wrong distribution"


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_log_expected_is_exact(power: float) -> None:
    sampler = NegativeSampler(FREQUENCY, power=power, draws=100)
    candidates = sampler.draw(torch.Generator().manual_seed(1))
    share = FREQUENCY[1:] ** power / (FREQUENCY[1:] ** power).sum()
    expected = torch.log(100 * share)[candidates.items - 1].float()
    torch.testing.assert_close(candidates.log_expected, expected)
    if power == 0.0:
        torch.testing.assert_close(candidates.log_expected.exp(), torch.full((100,), 100 / 200))


@pytest.mark.parametrize("seed", range(5))
def test_the_alias_table_holds_exactly_the_shares(seed: int) -> None:
    share = np.random.default_rng(seed).pareto(0.7, size=1_000) + 1e-9
    share /= share.sum()
    keep, other = alias_table(share)
    assert ((keep >= 0) & (keep <= 1)).all()
    found = keep + np.bincount(other, weights=1 - keep, minlength=1_000)
    np.testing.assert_allclose(found / 1_000, share, rtol=1e-9, atol=1e-15)


def test_an_alias_table_of_one_and_of_equal_shares() -> None:
    for n_items in (1, 7):
        keep, other = alias_table(np.full(n_items, 1 / n_items))
        np.testing.assert_allclose(
            keep + np.bincount(other, weights=1 - keep, minlength=n_items), 1.0
        )


def test_with_as_many_draws_as_items_it_gives_each_once() -> None:
    sampler = NegativeSampler(FREQUENCY, power=0.5, draws=200)
    candidates = sampler.draw(torch.Generator())
    assert candidates.items.tolist() == list(range(1, 201))
    assert not candidates.log_expected.any()


def test_draws_follow_the_generator() -> None:
    sampler = NegativeSampler(FREQUENCY, power=0.5, draws=50)
    assert torch.equal(drawn_by(sampler, 2, seed=1), drawn_by(sampler, 2, seed=1))
    assert not torch.equal(drawn_by(sampler, 2, seed=1), drawn_by(sampler, 2, seed=2))
