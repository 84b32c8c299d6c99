"""The linear recurrence against a plain loop, forwards and backwards."""

from functools import partial

import pytest
import torch
from torch import Tensor

from recsys_core.models.scan import doubling_scan, linear_scan

LENGTHS = [1, 2, 3, 8, 13, 64, 65]
DOUBLE = partial(torch.randn, dtype=torch.float64)


def naive(decay: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
    state, states = initial, []
    for step in range(inputs.shape[1]):
        state = decay[:, step] * state + inputs[:, step]
        states.append(state)
    return torch.stack(states, dim=1)


def operands(length: int, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    decay = torch.rand(3, length, 4, generator=draws, dtype=torch.float64)
    decay[:, :, 0], decay[:, :, 1] = 0.0, 1.0  # forgets all, forgets nothing
    inputs, initial = (DOUBLE(shape, generator=draws) for shape in ((3, length, 4), (3, 4)))
    return decay.requires_grad_(), inputs.requires_grad_(), initial.requires_grad_()


def scans(length: int) -> list[object]:
    return [partial(linear_scan, max_length=length), partial(doubling_scan, max_length=length)]


@pytest.mark.parametrize("length", LENGTHS)
def test_states_and_gradients_are_those_of_a_loop(length: int) -> None:
    values = operands(length)
    expected = naive(*values)
    weight = DOUBLE(expected.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((weight * expected).sum(), values)
    for scan in scans(length):
        states = scan(*values)
        torch.testing.assert_close(states, expected)
        found = torch.autograd.grad((weight * states).sum(), values)
        for one, other in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("length", [1, 5])
def test_the_gradient_is_that_of_finite_differences(length: int) -> None:
    for scan in scans(length):
        assert torch.autograd.gradcheck(scan, operands(length))


def test_in_float32_it_stays_close_over_many_steps() -> None:
    values = operands(500)
    expected = naive(*values)
    for scan in scans(500):
        states = scan(*(value.detach().float() for value in values))
        assert states.dtype == torch.float32
        torch.testing.assert_close(states.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_longer_limit_than_the_sequence_changes_nothing() -> None:
    values = operands(5)
    for limit in (5, 8, 1000):
        torch.testing.assert_close(doubling_scan(*values, max_length=limit), naive(*values))


def test_what_is_scanned_is_left_as_it_is() -> None:
    for length in (1, 6):
        values = operands(length)
        before = [value.detach().clone() for value in values]
        linear_scan(*values, max_length=length).sum().backward()
        assert all(torch.equal(*pair) for pair in zip(values, before, strict=True))
