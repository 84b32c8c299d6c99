"""Stacks of every backbone: step by step they say what they say of a whole sequence."""

import pytest
import torch
from torch import Tensor

from recsys_core.models.backbones import DECAYS, BackboneName, Lru, make_backbone
from recsys_core.models.blocks import Stack

BACKBONES: tuple[BackboneName, ...] = ("gru", "lstm", "lru", "hgru")
B, T, W = 3, 20, 8
STARTS = torch.rand(B, T + 1, generator=torch.Generator().manual_seed(3)) < 0.3
"""Which inputs open a session, and what is asked for behind the last; hgru alone reads it."""


def stack_of(backbone: BackboneName, *, depth: int, seed: int = 1) -> Stack:
    draws = torch.Generator().manual_seed(seed)
    stack = Stack(backbone, width=W, depth=depth, ffn=2, max_length=T)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    return stack


def sequence(stack: Stack, *, seed: int = 2) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.randn(B, T, W, generator=draws)
    return inputs, torch.tanh(torch.randn(B, stack.state_size, generator=draws))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_step_by_step_equals_the_whole_sequence(backbone: BackboneName, depth: int) -> None:
    stack = stack_of(backbone, depth=depth)
    inputs, state = sequence(stack)
    whole = stack(inputs, state, session_start=STARTS)
    for step in range(T):
        output, state = stack.step(inputs[:, step], state, STARTS[:, step : step + 2])
        torch.testing.assert_close(output, whole[:, step], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_a_state_carries_all_that_came_before(backbone: BackboneName) -> None:
    """Acceptance behaviour 2.7.12 of HRNN-meta, truncated backpropagation: chunks of a sequence,
    each from the state that the one before ended with, give what one long pass gives."""
    stack = stack_of(backbone, depth=2)
    inputs, state = sequence(stack)
    whole = stack(inputs, state, session_start=STARTS)
    for first, stop in ((0, 7), (7, 14), (14, T)):
        part = stack(inputs[:, first:stop], state, session_start=STARTS[:, first : stop + 1])
        torch.testing.assert_close(part, whole[:, first:stop], rtol=1e-4, atol=1e-5)
        for step in range(first, stop):
            _, state = stack.step(inputs[:, step], state, STARTS[:, step : step + 2])


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_outputs_depend_on_the_past_alone_and_on_all_of_it(backbone: BackboneName) -> None:
    stack = stack_of(backbone, depth=2)
    inputs, state = sequence(stack)
    whole = stack(inputs, state, session_start=STARTS)
    other = inputs.clone()
    other[:, 10, 0] += 1.0
    changed = (stack(other, state, session_start=STARTS) != whole).any(dim=-1)
    assert not changed[:, :10].any()
    assert changed[:, 10:].all()
    assert (stack(inputs, state + 0.1, session_start=STARTS) != whole).any(dim=-1).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_has_a_gradient(backbone: BackboneName) -> None:
    stack = stack_of(backbone, depth=2)
    inputs, state = sequence(stack)
    stack(inputs, state, session_start=STARTS).square().mul(torch.arange(W)).sum().backward()
    for name, parameter in stack.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_dropout_reaches_both_branches_of_each_block_and_nothing_else() -> None:
    stack = stack_of("gru", depth=3)
    inputs, state = sequence(stack)
    seen = []

    def nothing(values: Tensor) -> Tensor:
        seen.append(values.shape)
        return torch.zeros_like(values)

    torch.testing.assert_close(stack(inputs, state, nothing), stack.norm(inputs))
    assert seen == [(B, T, W)] * 6


@torch.no_grad()
def test_decays_of_lru_begin_spread_from_fast_to_slow() -> None:
    lru = make_backbone("lru", 16, max_length=T)
    assert isinstance(lru, Lru)
    for layer in (lru.gates.weight, lru.gates.bias):
        layer.zero_()
    lru.gates.bias[-16:] = 1.0
    # with u_t = sqrt(1 - a^2) / 2 each step, h_2 - h_1 = a u
    states = lru(torch.zeros(1, 2, 16), torch.zeros(1, 16))[0]
    torch.testing.assert_close(
        (states[1] - states[0]) / states[0], torch.linspace(*DECAYS, 16), rtol=1e-4, atol=1e-5
    )
