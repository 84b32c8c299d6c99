"""A large table of which a batch touches few rows: gathered dense, updated sparse."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_core.training.optimisers import load_optimiser_state, optimiser_state, set_learning_rate


class RowTable:
    """Rows are gathered once a batch; `step` applies SparseAdam to those rows alone.

    A row that no batch touches keeps its value and its moments, bit for bit.
    """

    def __init__(self, values: Tensor, *, learning_rate: float) -> None:
        self.values = nn.Parameter(values)  # (R, W)
        self._optimiser = torch.optim.SparseAdam([self.values], lr=learning_rate)
        self._rows: Tensor | None = None
        self._gathered: Tensor | None = None

    def set_learning_rate(self, rate: float) -> None:
        """The rate of the next step."""
        set_learning_rate(self._optimiser, rate)

    def gather(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """The rows of each index tensor; gradients flow back to them until `step`."""
        flat = torch.cat([index.reshape(-1) for index in indices])
        self._rows, inverse = torch.unique(flat, return_inverse=True)
        self._gathered = self.values.detach()[self._rows].requires_grad_()
        out, begin = [], 0
        for index in indices:
            part = inverse[begin : begin + index.numel()].view(index.shape)
            out.append(nn.functional.embedding(part, self._gathered))
            begin += index.numel()
        return out

    def step(self) -> None:
        """Apply the gradient of the gathered rows."""
        rows, gathered = self._rows, self._gathered
        assert rows is not None, "gather comes before step"
        assert gathered is not None
        assert gathered.grad is not None, "backward comes before step"
        self.values.grad = torch.sparse_coo_tensor(
            rows.unsqueeze(0),
            gathered.grad,
            self.values.shape,
            is_coalesced=True,
            check_invariants=False,
        )
        self._optimiser.step()  # type: ignore[no-untyped-call]
        self.forget()

    def forget(self) -> None:
        """Leave the table as it is, whatever was gathered."""
        self.values.grad = None
        self._rows = self._gathered = None

    def state(self) -> dict[str, Tensor]:
        """Values and moments, by name."""
        return {"values": self.values.detach(), **optimiser_state(self._optimiser)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up a state of `state`."""
        self.values.data.copy_(state["values"])
        load_optimiser_state(self._optimiser, state)
