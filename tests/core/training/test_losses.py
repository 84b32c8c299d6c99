"""Losses against their formulas."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_core.training.losses import AddOffsets, bpr_max, full_softmax, pull, sampled_softmax
from recsys_core.training.samplers import Candidates, NegativeSampler

V, D = 50, 4
DRAWS = torch.Generator().manual_seed(1)
ITEMS = torch.randn(V + 1, D, generator=DRAWS)
BIAS = torch.randn(V + 1, generator=DRAWS)
VECTORS = torch.randn(6, D, generator=DRAWS)
TARGETS = torch.tensor([1, 50, 7, 7, 30, 2])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 3.0])
REWARDS = torch.tensor([0.0, 1.0, 0.3, 0.9, 0.5, 0.0])
OFFSETS = torch.randn(6, V + 1, generator=DRAWS)
ALL = Candidates(items=torch.arange(1, V + 1), log_expected=torch.zeros(V))


def loss(
    candidates: Candidates,
    *,
    vectors: torch.Tensor = VECTORS,
    items: torch.Tensor = ITEMS,
    bias: torch.Tensor = BIAS,
    rewards: torch.Tensor | None = None,
    offsets: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    return sampled_softmax(
        vectors,
        TARGETS,
        positive=(items[TARGETS], bias[TARGETS]),
        candidates=candidates,
        negative=(items[candidates.items], bias[candidates.items]),
        rewards=rewards,
        offsets=offsets,
    )


def full() -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        (VECTORS @ ITEMS.T + BIAS)[:, 1:], TARGETS - 1, reduction="none"
    )


def tracked() -> list[torch.Tensor]:
    """Vectors, items and bias, to take gradients of."""
    return [part.clone().requires_grad_() for part in (VECTORS, ITEMS, BIAS)]


def adding(offsets: torch.Tensor, *, of_all: float = 0.0) -> AddOffsets:
    """Adds rows of `offsets` (N, V), of which `of_all` is told apart."""

    def add(part: slice, logits: torch.Tensor) -> torch.Tensor:
        logits += offsets[part] - of_all
        return torch.full((len(logits),), of_all)

    return add


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


def test_the_full_softmax_and_its_gradients_are_the_naive_ones() -> None:
    for cells in (1, 2 * (V + 1), 10**6):  # a row at a time, two, all of them
        values = vectors, items, bias = tracked()
        loss = full_softmax(vectors, TARGETS, items=(items, bias), weights=WEIGHTS, cells=cells)
        found = torch.autograd.grad(3.0 * loss, values)
        nll = torch.nn.functional.cross_entropy(
            (vectors @ items.T + bias)[:, 1:], TARGETS - 1, reduction="none"
        )
        expected = (WEIGHTS * nll).mean()
        torch.testing.assert_close(loss, expected)
        for one, other in zip(found, torch.autograd.grad(3.0 * expected, values), strict=True):
            torch.testing.assert_close(one, other)
        assert not found[1][0].any(), "PAD is no candidate"


def test_the_full_softmax_of_huge_scores_is_finite() -> None:
    items = (1e4 * ITEMS).requires_grad_()
    loss = full_softmax(VECTORS, TARGETS, items=(items, BIAS), weights=torch.ones(6), cells=1)
    loss.backward()
    assert torch.isfinite(loss)
    assert items.grad is not None
    assert torch.isfinite(items.grad).all()


def test_the_full_softmax_never_holds_all_logits() -> None:
    """Of 1,000 rows and 50 items, with 500 cells: no tensor of more than those, the table or the
    vectors is made, forwards or backwards."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    vectors = torch.randn(1_000, D, generator=DRAWS).requires_grad_()
    targets = torch.randint(1, V + 1, (1_000,), generator=DRAWS)
    with Watch():
        loss = full_softmax(
            vectors, targets, items=(ITEMS, BIAS), weights=torch.ones(1_000), cells=500
        )
        loss.backward()
    assert largest == vectors.numel()


def naive(values: list[torch.Tensor], rewards: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """One against all of each row, by the definition. (N,)"""
    vectors, items, bias = values
    logits = vectors @ items.T + bias + offsets
    return torch.logsumexp(logits[:, 1:], dim=1) - rewards * logits[range(6), TARGETS]


@pytest.mark.parametrize("rewards", [torch.ones(6), REWARDS])
@pytest.mark.parametrize("offsets", [torch.zeros(6, V + 1), OFFSETS])
def test_rewards_and_offsets_and_their_gradients_are_the_naive_ones(
    rewards: torch.Tensor, offsets: torch.Tensor
) -> None:
    values = tracked()
    expected = (WEIGHTS * naive(values, rewards, offsets)).mean()
    gradients = torch.autograd.grad(expected, values)
    vectors, items, bias = values
    losses = [
        full_softmax(
            vectors,
            TARGETS,
            items=(items, bias),
            weights=WEIGHTS,
            cells=cells,
            rewards=rewards,
            offsets=adding(offsets[:, 1:], of_all=of_all),
        )
        for cells in (1, 4 * (V + 1), 10**6)  # a row at a time, four and then two, all of them
        for of_all in (0.0, 3.0)
    ]
    each = loss(
        ALL,
        vectors=vectors,
        items=items,
        bias=bias,
        rewards=rewards,
        offsets=(offsets[range(6), TARGETS], offsets[:, 1:]),
    )
    losses.append((WEIGHTS * each).mean())
    for found in losses:
        torch.testing.assert_close(found, expected)
        for one, other in zip(torch.autograd.grad(found, values), gradients, strict=True):
            torch.testing.assert_close(one, other)


def test_rewards_of_one_and_offsets_of_nothing_change_no_bit() -> None:
    some = Candidates(items=torch.tensor([3, 7, 2, 3, 41]), log_expected=torch.rand(5))
    nothing = {"rewards": torch.ones(6), "offsets": (torch.zeros(6), torch.zeros(6, 5))}
    found = []
    for options in ({}, nothing, {"rewards": torch.ones(6)}):
        values = vectors, items, bias = tracked()
        each = loss(some, vectors=vectors, items=items, bias=bias, **options)
        found.append([each, *torch.autograd.grad(each.sum(), values)])
        if "offsets" in options:
            options = {**options, "offsets": adding(torch.zeros(6, V))}
        whole = full_softmax(
            vectors, TARGETS, items=(items, bias), weights=WEIGHTS, cells=200, **options
        )
        found[-1] += [whole, *torch.autograd.grad(whole, values)]
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_under_an_offset_the_best_scores_are_what_it_leaves_to_explain() -> None:
    """Where items are asked for with shares p and the offset is log q, scores of log(p / q) cannot
    be bettered: the gradient is nothing."""
    shares, trend = (torch.rand(V, generator=DRAWS) + 0.1 for _ in range(2))
    shares, trend = shares / shares.sum(), trend / trend.sum()
    bias = torch.zeros(V + 1)
    bias[1:] = torch.log(shares / trend)
    bias.requires_grad_()
    value = full_softmax(
        torch.zeros(V, D),
        torch.arange(1, V + 1),
        items=(ITEMS, bias),
        weights=shares,
        cells=10**6,
        offsets=adding(torch.log(trend).expand(V, -1)),
    )
    value.backward()
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad, torch.zeros(V + 1), rtol=0.0, atol=1e-8)


def test_an_event_without_reward_pushes_its_item_down_and_one_without_weight_nothing() -> None:
    """Of one event of item 7, with everybody else's logits as they are."""
    row, item = VECTORS[:1], torch.tensor([7])

    def gradient(*, weight: float, reward: float) -> tuple[float, float]:
        found = []
        for sampled in (False, True):
            bias = BIAS.clone().requires_grad_()
            rewards = torch.tensor([reward])
            if sampled:
                each = sampled_softmax(
                    row,
                    item,
                    positive=(ITEMS[item], bias[item]),
                    candidates=ALL,
                    negative=(ITEMS[1:], bias[1:]),
                    rewards=rewards,
                )
                value = weight * each.sum()
            else:
                value = full_softmax(
                    row,
                    item,
                    items=(ITEMS, bias),
                    weights=torch.tensor([weight]),
                    cells=1,
                    rewards=rewards,
                )
            value.backward()
            assert bias.grad is not None
            found.append(float(bias.grad[7]))
        return found[0], found[1]

    share = float(torch.softmax((row @ ITEMS.T + BIAS)[0, 1:], dim=0)[6])
    # descent lowers a logit whose gradient is above 0
    for reward in (0.0, share / 2, 2 * share, 1.0):
        np.testing.assert_allclose(
            gradient(weight=1.0, reward=reward), [share - reward] * 2, atol=1e-6
        )
    assert gradient(weight=0.0, reward=1.0) == (0.0, 0.0)


def test_bpr_max_is_its_formula() -> None:
    candidates = Candidates(items=torch.tensor([3, 7, 2, 3]), log_expected=torch.zeros(4))
    found = bpr_max(
        VECTORS,
        TARGETS,
        positive=(ITEMS[TARGETS], BIAS[TARGETS]),
        candidates=candidates,
        negative=(ITEMS[candidates.items], BIAS[candidates.items]),
        score_penalty=0.3,
    )
    for row, target in enumerate(TARGETS.tolist()):
        score = {item: float(VECTORS[row] @ ITEMS[item] + BIAS[item]) for item in (target, 2, 3, 7)}
        others = [score[item] for item in candidates.items.tolist() if item != target]
        weight = np.exp(others) / np.exp(others).sum()
        above = 1 / (1 + np.exp(-(score[target] - np.array(others))))
        expected = -np.log(weight @ above) + 0.3 * weight @ np.square(others)
        np.testing.assert_allclose(float(found[row]), expected, rtol=1e-4)


def test_bpr_max_of_a_row_without_another_item_is_nothing() -> None:
    vectors, only = VECTORS.clone().requires_grad_(), torch.tensor([7, 7])
    loss = bpr_max(
        vectors,
        TARGETS,
        positive=(ITEMS[TARGETS], BIAS[TARGETS]),
        candidates=Candidates(items=only, log_expected=torch.zeros(2)),
        negative=(ITEMS[only], BIAS[only]),
        score_penalty=1.0,
    )
    loss.sum().backward()
    assert loss[2:4].tolist() == [0.0, 0.0]
    assert vectors.grad is not None
    assert not vectors.grad[2:4].any()
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad[[0, 1, 4, 5]].any(dim=1).all()


def test_pull() -> None:
    rows = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert pull(rows).tolist() == [12.5, 1.0]
    assert pull(rows, torch.ones(2, 2)).tolist() == [6.5, 0.0]
