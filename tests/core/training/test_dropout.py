"""Dropout from a generator."""

import torch

from recsys_core.training.dropout import Dropout


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_zeroes_a_share_and_keeps_the_mean() -> None:
    values = torch.ones(100, 1000)
    dropped = Dropout(0.25, draws())(values)
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.01
    assert Dropout(0.0, draws())(values) is values


def test_whole_vectors_go_or_stay() -> None:
    values = torch.ones(50, 200, 7)
    dropped = Dropout(0.25, draws()).whole_vectors(values)
    gone = (dropped == 0).all(dim=-1)
    assert torch.equal(gone, (dropped == 0).any(dim=-1))
    assert abs(float(gone.float().mean()) - 0.25) < 0.02
    torch.testing.assert_close(dropped[~gone], torch.full_like(dropped[~gone], 1 / 0.75))


def test_draws_follow_the_generator_alone() -> None:
    values = torch.ones(1000)
    one = Dropout(0.5, draws())(values)
    torch.manual_seed(99)
    assert torch.equal(one, Dropout(0.5, draws())(values))
    assert not torch.equal(one, Dropout(0.5, draws(2))(values))


def test_what_was_dropped_has_no_gradient() -> None:
    values = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.5, draws())(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach())
