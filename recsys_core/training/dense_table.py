"""A table of which every row has a gradient in every step, as under the full softmax."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_core.training.optimisers import load_optimiser_state, optimiser_state, set_learning_rate


class DenseTable:
    """Rows and the whole table are read as often as one likes; `step` applies Adam to all of it.

    The same calls as those of `RowTable`, and the same names in a checkpoint.
    """

    def __init__(self, values: Tensor, *, learning_rate: float) -> None:
        self.values = nn.Parameter(values)  # (R, W)
        self._optimiser = torch.optim.Adam([self.values], lr=learning_rate, fused=True)

    def set_learning_rate(self, rate: float) -> None:
        """The rate of the next step."""
        set_learning_rate(self._optimiser, rate)

    def gather(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """The rows of each index tensor; gradients flow back to them until `step`."""
        return [nn.functional.embedding(index, self.values) for index in indices]

    def step(self) -> None:
        """Apply the gradient of what was read since the last step."""
        assert self.values.grad is not None, "backward comes before step"
        self._optimiser.step()
        self._optimiser.zero_grad()

    def forget(self) -> None:
        """Leave the table as it is, whatever was read."""
        self.values.grad = None

    def state(self) -> dict[str, Tensor]:
        """Values and moments, by name."""
        return {"values": self.values.detach(), **optimiser_state(self._optimiser)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up a state of `state`."""
        self.values.data.copy_(state["values"])
        load_optimiser_state(self._optimiser, state)
