"""The linear recurrence h_t = a_t * h_(t-1) + u_t, by channel, and its gradient.

    decay    a  (B, T, D)     initial  h_0       (B, D)
    inputs   u  (B, T, D)     states   h_1 ... h_T  (B, T, D)

The gradient is the same recurrence backwards, so nothing but the states is kept for it:

    du_t = g_t + a_(t+1) * du_(t+1)     da_t = du_t * h_(t-1)     dh_0 = a_1 * du_1
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def linear_scan(decay: Tensor, inputs: Tensor, initial: Tensor, *, max_length: int) -> Tensor:
    """The states after each input. (B, T, D)

    `max_length` is the longest T that an exported graph will meet: its steps are unrolled by
    doubling, and their number is fixed when it is exported. Elsewhere T alone counts.
    """
    if torch.compiler.is_exporting():
        return doubling_scan(decay, inputs, initial, max_length=max_length)
    states: Tensor = _Scan.apply(decay, inputs, initial)  # type: ignore[no-untyped-call]
    return states


def doubling_scan(decay: Tensor, inputs: Tensor, initial: Tensor, *, max_length: int) -> Tensor:
    """The states in log2(max_length) passes over all of T (Hillis and Steele 1986). (B, T, D)

    After the pass with shift s each step holds what the 2 s steps up to it add. T may be any length
    up to `max_length`, and need not be known.
    """
    length = inputs.shape[1]
    first = torch.addcmul(inputs[:, :1], decay[:, :1], initial.unsqueeze(1))  # (B, 1, D)
    total = torch.cat([first, inputs[:, 1:]], dim=1)  # (B, T, D)
    product, shift = decay, 1
    while shift < max_length:
        # steps before the first add nothing; cut to T, since a shift may be longer than that
        before = torch.nn.functional.pad(total, (0, 0, shift, 0))[:, :length]  # (B, T, D)
        total = torch.addcmul(total, product, before)
        if 2 * shift < max_length:
            earlier = torch.nn.functional.pad(product, (0, 0, shift, 0))[:, :length]
            product = product * earlier  # (B, T, D)
        shift *= 2
    return total


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, decay: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
        states = _states(decay, inputs, initial)
        ctx.save_for_backward(decay, initial, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, initial, states = ctx.saved_tensors  # type: ignore[attr-defined]
        # in reversed time step t takes up a_(t+1), and the last one nothing
        after = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)  # (B, T, D)
        of_inputs = _states(after, gradient, torch.zeros_like(initial), reverse=True)  # (B, T, D)
        before = torch.cat([initial.unsqueeze(1), states[:, :-1]], dim=1)  # (B, T, D)
        return of_inputs * before, of_inputs, decay[:, 0] * of_inputs[:, 0]


def _states(decay: Tensor, inputs: Tensor, initial: Tensor, *, reverse: bool = False) -> Tensor:
    """The recurrence, or with `reverse` that from the last step to the first. (B, T, D)"""
    if inputs.device.type == "cpu":
        return _loop(decay, inputs, initial, reverse=reverse)
    if reverse:
        flipped = doubling_scan(
            decay.flip(1), inputs.flip(1), initial, max_length=inputs.shape[1]
        )  # (B, T, D)
        return flipped.flip(1)
    return doubling_scan(decay, inputs, initial, max_length=inputs.shape[1])


def _loop(decay: Tensor, inputs: Tensor, initial: Tensor, *, reverse: bool) -> Tensor:
    """One multiplication and addition a step, in place."""
    states = inputs.clone(memory_format=torch.contiguous_format)  # (B, T, D)
    steps = list(zip(states.unbind(1), decay.unbind(1), strict=True))
    state = initial
    for here, factor in reversed(steps) if reverse else steps:
        state = here.addcmul_(factor, state)
    return states
