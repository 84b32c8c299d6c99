"""The hierarchical network against a naive reference, user by user, in NumPy."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from recsys_core.models.hgru import Hgru

B, T, W = 5, 12, 6
RERUN = pytest.mark.parametrize("rerun", [False, True])

Array = npt.NDArray[np.float64]


def hgru(*, rerun: bool, max_length: int = T) -> Hgru:
    draws = torch.Generator().manual_seed(1)
    network = Hgru(W, rerun=rerun, max_length=max_length).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=draws))
    return network


def sequence() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, states and flags; user 0 has one session, user 1 a session a step."""
    draws = torch.Generator().manual_seed(2)
    inputs = torch.randn(B, T, W, generator=draws, dtype=torch.float64)
    initial = torch.tanh(torch.randn(B, 2 * W, generator=draws, dtype=torch.float64))
    starts = torch.rand(B, T + 1, generator=draws) < 0.3
    starts[0], starts[1] = False, True
    return inputs, initial, starts


def gru(cell: nn.GRUCell, inputs: Array, state: Array) -> Array:
    """One step of a gated recurrent unit for one user, gate by gate. (W,)"""
    weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    read = np.split(weights["weight_ih"] @ inputs + weights["bias_ih"], 3)
    kept = np.split(weights["weight_hh"] @ state + weights["bias_hh"], 3)
    reset = 1 / (1 + np.exp(-read[0] - kept[0]))
    update = 1 / (1 + np.exp(-read[1] - kept[1]))
    new = np.tanh(read[2] + reset * kept[2])
    return np.asarray((1 - update) * new + update * state)


def naive(network: Hgru, inputs: Tensor, initial: Tensor, starts: Tensor) -> tuple[Array, Array]:
    """Outputs (B, T, W) and states (B, T, 2 W), by the equations."""
    weight, bias = (value.detach().numpy() for value in network.begin.parameters())
    outputs, states = np.zeros((B, T, W)), np.zeros((B, T, 2 * W))
    for user in range(B):
        g, h = np.split(initial[user].numpy(), 2)
        for step in range(T):
            x = inputs[user, step].numpy()
            if starts[user, step]:
                g = gru(network.session, h, g)
                h = np.tanh(weight @ g + bias)
            h = gru(network.event, x, h)
            states[user, step] = np.concatenate([g, h])
            outputs[user, step] = h
            if network.rerun and starts[user, step + 1]:
                next_g = gru(network.session, h, g)
                outputs[user, step] = gru(network.event, x, np.tanh(weight @ next_g + bias))
    return outputs, states


@RERUN
@torch.no_grad()
def test_a_whole_pass_is_the_naive_one(rerun: bool) -> None:
    network, values = hgru(rerun=rerun), sequence()
    np.testing.assert_allclose(network(*values), naive(network, *values)[0], atol=1e-12)


@RERUN
@torch.no_grad()
def test_step_by_step_equals_the_whole_pass(rerun: bool) -> None:
    network, (inputs, state, starts) = hgru(rerun=rerun).float(), sequence()
    inputs, state = inputs.float(), state.float()
    whole = network(inputs, state, starts)
    for step in range(T):
        here, after = starts[:, step], starts[:, step + 1]
        output, state = network.step(inputs[:, step], state, here, after)
        torch.testing.assert_close(output, whole[:, step], rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_the_request_changes_its_output_and_no_state() -> None:
    network, (inputs, initial, starts) = hgru(rerun=True), sequence()
    nobody, everybody = torch.zeros(B, dtype=torch.bool), torch.ones(B, dtype=torch.bool)
    answers = [
        network.step(inputs[:, 0], initial, starts[:, 0], request)
        for request in (nobody, everybody)
    ]
    assert torch.equal(answers[0][1], answers[1][1])
    assert (answers[0][0] != answers[1][0]).any(dim=1).all()


@RERUN
@torch.no_grad()
def test_the_session_level_changes_at_breaks_alone(rerun: bool) -> None:
    network, (inputs, state, starts) = hgru(rerun=rerun), sequence()
    _, expected = naive(network, *sequence())
    for step in range(T):
        _, after = network.step(inputs[:, step], state, starts[:, step], starts[:, step + 1])
        changed = (after[:, :W] != state[:, :W]).any(dim=1)
        assert torch.equal(changed, starts[:, step])
        np.testing.assert_allclose(after, expected[:, step], atol=1e-12)
        state = after


@torch.no_grad()
def test_the_rerun_changes_the_outputs_before_a_session_and_no_other() -> None:
    values = sequence()
    with_it, without = hgru(rerun=True)(*values), hgru(rerun=False)(*values)
    assert torch.equal((with_it != without).any(dim=-1), values[2][:, 1:])


@torch.no_grad()
def test_without_sessions_it_is_a_plain_unit() -> None:
    network, (inputs, initial, _) = hgru(rerun=True), sequence()
    plain = nn.GRU(W, W, batch_first=True).double()
    for name, parameter in plain.named_parameters():
        parameter.copy_(network.event.get_parameter(name.removesuffix("_l0")))
    expected = plain(inputs, initial[:, W:].unsqueeze(0).contiguous())[0]
    found = network(inputs, initial, torch.zeros(B, T + 1, dtype=torch.bool))
    torch.testing.assert_close(found, expected)


@RERUN
@torch.no_grad()
def test_pad_changes_nothing_and_a_user_nobody_else(rerun: bool) -> None:
    """The first `length` steps, and the request behind them, alone or in a padded batch."""
    network, (inputs, initial, starts) = hgru(rerun=rerun), sequence()
    for user, length in enumerate((1, 5, T, 7, 3)):
        mine = slice(user, user + 1)
        alone = network(
            inputs[mine, :length], initial[mine], starts[mine, : length + 1]
        )  # (1, length, W)
        padded, flags = inputs.clone(), starts.clone()
        padded[mine, length:], flags[mine, length + 1 :] = 100.0, user % 2 == 0
        torch.testing.assert_close(network(padded, initial, flags)[mine, :length], alone)


@RERUN
def test_the_gradient_is_that_of_finite_differences(rerun: bool) -> None:
    network, (inputs, initial, starts) = hgru(rerun=rerun), sequence()
    inputs, initial = inputs[:3, :4].requires_grad_(), initial[:3].requires_grad_()

    def outputs(inputs: Tensor, initial: Tensor, *_: Tensor) -> Tensor:
        return network(inputs, initial, starts[:3, :5])

    assert starts[2, :5].any()
    assert torch.autograd.gradcheck(outputs, (inputs, initial, *network.parameters()))


def test_every_weight_has_a_gradient() -> None:
    network = hgru(rerun=True)
    network(*sequence()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@RERUN
@torch.no_grad()
def test_an_exported_graph_of_any_length_is_the_network(rerun: bool) -> None:
    network, (inputs, initial, starts) = hgru(rerun=rerun, max_length=5), sequence()
    rows, steps = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    program = torch.export.export(
        network,
        (inputs[:, :4], initial, starts[:, :5]),
        dynamic_shapes=({0: rows, 1: steps}, {0: rows}, {0: rows, 1: steps}),
    )
    # its guards are about sizes of 1 and memory layouts, which an ONNX graph knows nothing of
    graph = program.module(check_guards=False)
    for users, length in ((1, 1), (2, 3), (B, 5)):
        parts = inputs[:users, :length], initial[:users], starts[:users, : length + 1]
        torch.testing.assert_close(graph(*parts), network(*parts))
