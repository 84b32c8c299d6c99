"""The shell around a backbone: normalisation, gate, residual, feed-forward, as deep as one likes.

    n = LN(x)     x <- x + drop(W_o (backbone(n) * silu(W_g n)))
                  x <- x + drop(W_2 silu(W_1 LN(x)))

Without the shell a recurrent network loses a tenth to a half of its accuracy on sparse logs (the
ablations of LRURec, Yue et al., WSDM 2024, table 4).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys_core.models.backbones import BackboneName, make_backbone
from recsys_core.models.hgru import Hgru

Drop = Callable[[Tensor], Tensor]
"""What dropout makes of values; draws come from whoever trains."""


def keep_all(values: Tensor) -> Tensor:
    """The values as they are: a `Drop` for everything but training."""
    return values


class Block(nn.Module):
    """One backbone in its shell, from width W to W."""

    def __init__(self, backbone: BackboneName, *, width: int, ffn: int, max_length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.backbone = make_backbone(backbone, width, max_length=max_length)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn * width)
        self.ffn_out = nn.Linear(ffn * width, width)
        self.state_size = self.backbone.state_size

    def forward(
        self, inputs: Tensor, initial: Tensor, session_start: Tensor | None, drop: Drop
    ) -> Tensor:
        """(B, T, W), (B, S) and flags (B, T + 1) to (B, T, W)."""
        normed = self.norm(inputs)  # (B, T, W)
        if isinstance(self.backbone, Hgru):
            assert session_start is not None, "hgru is told where sessions begin"
            outputs = self.backbone(normed, initial, session_start)
        else:
            outputs = self.backbone(normed, initial)
        return self._shell(inputs, normed, outputs, drop)

    def step(
        self, inputs: Tensor, state: Tensor, session_start: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, W), (B, S) and flags (B, 2) to (B, W) and (B, S)."""
        normed = self.norm(inputs)  # (B, W)
        if isinstance(self.backbone, Hgru):
            assert session_start is not None, "hgru is told where sessions begin"
            output, after = self.backbone.step(normed, state, *session_start.unbind(dim=1))
        else:
            output, after = self.backbone.step(normed, state)
        return self._shell(inputs, normed, output, keep_all), after

    def _shell(self, inputs: Tensor, normed: Tensor, output: Tensor, drop: Drop) -> Tensor:
        """Everything around the backbone, step by step alike: (..., W) each."""
        gated = output * nn.functional.silu(self.gate(normed))
        mixed = inputs + drop(self.out(gated))
        wide = nn.functional.silu(self.ffn_in(self.ffn_norm(mixed)))  # (..., ffn W)
        return mixed + drop(self.ffn_out(wide))


class Stack(nn.Module):
    """Blocks one above the other, and a last normalisation.

    The states of all blocks are one vector of `state_size` numbers a row, the lowest block first.
    """

    def __init__(
        self, backbone: BackboneName, *, width: int, depth: int, ffn: int, max_length: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(backbone, width=width, ffn=ffn, max_length=max_length) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.state_size = sum(block.state_size for block in self._blocks())

    def forward(
        self,
        inputs: Tensor,
        initial: Tensor,
        drop: Drop = keep_all,
        session_start: Tensor | None = None,
    ) -> Tensor:
        """Outputs after each input: (B, T, W) and (B, S) to (B, T, W).

        `session_start` (B, T + 1) says which inputs open a session, the last one what is asked
        for behind them; hgru alone reads it.
        """
        values = inputs
        states = initial.chunk(len(self.blocks), dim=-1)
        for block, state in zip(self._blocks(), states, strict=True):
            values = block(values, state, session_start, drop)
        normed: Tensor = self.norm(values)
        return normed

    def step(
        self, inputs: Tensor, state: Tensor, session_start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One input more: (B, W) and (B, S) to the output (B, W) and the next state (B, S).

        `session_start` (B, 2): whether this input opens a session, and what is asked for behind it.

        Through a whole history this comes to what `forward` gives, at a cost for each event that
        does not depend on how many there were.
        """
        values, after = inputs, []
        for block, part in zip(self._blocks(), state.chunk(len(self.blocks), dim=-1), strict=True):
            values, next_part = block.step(values, part, session_start)
            after.append(next_part)
        return self.norm(values), torch.cat(after, dim=-1)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]
