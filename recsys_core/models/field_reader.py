"""What a network reads of a row of fields (`data/field_rows.py`): an embedding for each bag, and
the numbers as they are.

    bag       sum over its codes of weight E[code], with a table E of its own     16 each
    numbers   how far each lies from the mean, and whether it is there            2 each
"""

import torch
from torch import Tensor, nn

from recsys_core.data.field_rows import FieldSizes

EMBEDDING = 16


class FieldReader(nn.Module):
    """Rows of fields as `size` numbers; no weight where nothing is read."""

    def __init__(self, sizes: FieldSizes) -> None:
        super().__init__()
        self._sizes = sizes
        self.tables = nn.ModuleList(nn.Embedding(codes, EMBEDDING) for codes in sizes.n_codes)
        self.size = EMBEDDING * len(sizes.n_codes) + sizes.n_numbers

    def forward(self, rows: Tensor) -> list[Tensor]:
        """(..., width) to parts (..., .) that come to `size` numbers."""
        parts, place = [], 0
        for table, width in zip(self.tables, self._sizes.widths, strict=True):
            codes = rows[..., place : place + width].long()  # (..., L)
            place += width
            if width == 1:
                parts.append(table(codes.squeeze(-1)))  # (..., 16)
                continue
            weights = rows[..., place : place + width].unsqueeze(-1)  # (..., L, 1)
            place += width
            parts.append((table(codes) * weights).sum(-2))  # (..., 16)
        if self._sizes.n_numbers:
            parts.append(rows[..., place:])
        return parts

    @torch.no_grad()
    def forget_unknown(self) -> None:
        """Make code 0 of every bag say nothing: a fit may never meet what it does not know."""
        for table in self.tables:
            assert isinstance(table, nn.Embedding), "one for each bag"
            table.weight[0].zero_()
