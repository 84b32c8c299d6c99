"""How weights follow their gradients: AdamW, warm-up, decay, and what a checkpoint keeps of it."""

import math
from typing import Any

import torch
from torch import Tensor, nn


def network_optimiser(
    network: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over a network's weights.

    Matrices decay; biases, norms, gamma, priors and starts, all of fewer than two dimensions, do
    not.
    """
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [value for value in parameters if value.dim() >= 2]},
        {"params": [value for value in parameters if value.dim() < 2], "weight_decay": 0.0},
    ]
    # one kernel over all weights: a small network's step is otherwise mostly overhead
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def rate_factor(epoch: int, step: int, *, steps: int, warmup: float, decay: float) -> float:
    """What all learning rates are multiplied with in one step.

    They rise linearly over the first `warmup` share of the first epoch's `steps`, and fall by
    `decay` each epoch, so that the later ones settle the weights. Epochs count from 1, steps from
    0.
    """
    rising = math.ceil(warmup * steps) if epoch == 1 else 0
    return decay ** (epoch - 1) * min(1.0, (step + 1) / (rising + 1))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of an optimiser as flat named tensors."""
    flat = {}
    for index, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            flat[f"{index}.{name}"] = torch.as_tensor(value)
    return flat


def load_optimiser_state(optimiser: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Give an optimiser the moments of `optimiser_state`.

    Names without a number before the dot are not its own, and are passed over.
    """
    state: dict[int, dict[str, Tensor | int]] = {}
    for name, value in flat.items():
        index, _, moment = name.partition(".")
        if index.isdigit():
            state.setdefault(int(index), {})[moment] = (
                int(value)
                if isinstance(optimiser, torch.optim.SparseAdam) and moment == "step"
                else value
            )
    full = optimiser.state_dict()
    full["state"] = state
    optimiser.load_state_dict(full)
