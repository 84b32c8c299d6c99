"""Recurrent networks behind one interface: a sequence at once, or one step at a time.

gru   nn.GRU                                                                  state h
lstm  nn.LSTM                                                                 state h and c
lru   r_t = softplus(c) * sigmoid(W_a x_t + b_a)      a_t = exp(-r_t)         state h
      u_t = sqrt(1 - a_t^2) * sigmoid(W_i x_t + b_i) * (W_x x_t + b_x)
      h_t = a_t * h_(t-1) + u_t
hgru  a unit for events and one for sessions (`hgru.py`)                      state g and h

lru is a linear recurrence with real, input-dependent decays: the linear recurrent units of LRURec
(Yue et al., WSDM 2024) in the gated form of Griffin's RG-LRU (De et al. 2024, equations 1 to 4).
Its decays start spread from .2 to .95, since what LRURec learns forgets fast (|lambda| .25 to .42).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from recsys_core.models.hgru import Hgru
from recsys_core.models.scan import linear_scan

BackboneName = Literal["gru", "lstm", "lru", "hgru"]

DECAYS = (0.2, 0.95)
"""Of lru before training, from the first channel to the last."""

SMALLEST_INPUT = 1e-6
"""Of 1 - a^2: the derivative of its root has no bound at 0."""


class Gru(nn.Module):
    """A gated recurrent unit; its output is its state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state_size = width
        self.cell = nn.GRU(width, width, batch_first=True)

    def forward(self, inputs: Tensor, initial: Tensor) -> Tensor:
        # an expanded or sliced view as the initial state is refused by cuDNN and by the exporter
        outputs: Tensor = self.cell(inputs, initial.unsqueeze(0).contiguous())[0]  # (B, T, W)
        return outputs

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        output = self(inputs.unsqueeze(1), state)[:, 0]  # (B, W)
        return output, output


class Lstm(nn.Module):
    """Long short-term memory; its state is the output h and the cell c, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state_size = 2 * width
        self.cell = nn.LSTM(width, width, batch_first=True)

    def forward(self, inputs: Tensor, initial: Tensor) -> Tensor:
        return self._run(inputs, initial)[0]

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, last = self._run(inputs.unsqueeze(1), state)
        return outputs[:, 0], last

    def _run(self, inputs: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, W) and the last state (B, S)."""
        hidden, cell = initial.unsqueeze(0).chunk(2, dim=-1)  # (1, B, W) twice
        outputs, last = self.cell(inputs, (hidden.contiguous(), cell.contiguous()))
        return outputs, torch.cat(last, dim=-1)[0]


class Lru(nn.Module):
    """A gated linear recurrence with real decays; its output is its state."""

    def __init__(self, width: int, *, max_length: int) -> None:
        super().__init__()
        self.state_size = width
        self._max_length = max_length
        self.gates = nn.Linear(width, 3 * width)
        # an open gate of one half: softplus(c) / 2 = -log(a)
        rate = -2.0 * torch.log(torch.linspace(*DECAYS, width))  # (W,)
        self.forget = nn.Parameter(torch.log(torch.expm1(rate)))  # (W,)

    def forward(self, inputs: Tensor, initial: Tensor) -> Tensor:
        decay, added = self._recurrence(inputs)  # (B, T, W) twice
        return linear_scan(decay, added, initial, max_length=self._max_length)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        decay, added = self._recurrence(inputs)  # (B, W) twice
        output = torch.addcmul(added, decay, state)
        return output, output

    def _recurrence(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """a and u of inputs (..., W)."""
        forget, admit, value = self.gates(inputs).chunk(3, dim=-1)  # (..., W) each
        decay = torch.exp(-nn.functional.softplus(self.forget) * torch.sigmoid(forget))
        scale = (1.0 - decay.square()).clamp_min(SMALLEST_INPUT).sqrt()
        return decay, scale * torch.sigmoid(admit) * value


def make_backbone(name: BackboneName, width: int, *, max_length: int) -> Gru | Lstm | Lru | Hgru:
    """A backbone by name; `max_length` is the longest sequence of an exported graph."""
    if name == "gru":
        return Gru(width)
    if name == "lstm":
        return Lstm(width)
    if name == "hgru":
        return Hgru(width, rerun=True, max_length=max_length)
    return Lru(width, max_length=max_length)
