"""What is known of events and of users beside items and times, as rows of numbers for a network.

    event    device   dwell         row     code  z  there
    k        phone    12.5                  2    .4  1
    l        (none)   (none)                0     0  0

    user     interests      age     row     codes . .  weights . .   z  there
    u        {art, war}     34              1 2 0 ...  .71 .71 0 ... .3  1
    v        no row at all                  0 0 0 ...    1   0 0 ...  0  0

A row holds the bags one after the other, then the numbers. A category is one code, and weighs 1;
other bags are so many codes and as many weights. `data/features.py` says how values become codes
and numbers; codes are exact here up to 2^24. The context of an event is known once it has happened;
a user's row does not change through a history. PAD has rows too, which nobody reads.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FieldSizes:
    """The shape of a row: enough to build what reads it."""

    n_codes: tuple[int, ...] = ()
    """Of each bag, code 0 with them."""
    widths: tuple[int, ...] = ()
    """How many codes each bag has in a row; 1: a category, without weights."""
    tells_unknown: tuple[bool, ...] = ()
    """Whether code 0 counts in a bag of which nothing is known, as it does in all but texts."""
    n_numbers: int = 0
    """Two for each number: its value, and whether it is there."""

    @property
    def width(self) -> int:
        """Columns of a row; 0 where nothing is read."""
        return sum(width if width == 1 else 2 * width for width in self.widths) + self.n_numbers

    @property
    def unknown(self) -> Float32:
        """The row of whom nothing is known. (width,)"""
        row = np.zeros(self.width, dtype=np.float32)
        place = 0
        for width, told in zip(self.widths, self.tells_unknown, strict=True):
            if width > 1:
                row[place + width] = told
            place += width if width == 1 else 2 * width
        return row

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "FieldSizes":
        """The sizes as `dataclasses.asdict` and JSON give them."""
        return cls(
            n_codes=tuple(value["n_codes"]),
            widths=tuple(value["widths"]),
            tells_unknown=tuple(value["tells_unknown"]),
            n_numbers=value["n_numbers"],
        )


NO_FIELDS = FieldSizes()
"""Nothing is read."""


@dataclass(frozen=True, eq=False)
class FieldTable:
    """Encoded rows 0 (PAD) to N; bags may be narrower than `sizes` says, and are widened."""

    sizes: FieldSizes
    codes: tuple[Int32, ...]  # (N + 1, L) of each bag
    weights: tuple[Float32, ...]  # (N + 1, L) likewise
    numbers: Float32  # (N + 1, 2 F)

    def rows(self, row: npt.NDArray[np.integer]) -> Float32:
        """Some rows (...) in one piece. (..., width)"""
        out = np.zeros((*row.shape, self.sizes.width), dtype=np.float32)
        place = 0
        for width, codes, weights in zip(self.sizes.widths, self.codes, self.weights, strict=True):
            for values in (codes,) if width == 1 else (codes, weights):
                there = values[row]  # (..., L)
                out[..., place : place + there.shape[-1]] = there
                place += width
        out[..., place:] = self.numbers[row]
        return out


@dataclass(frozen=True, eq=False)
class FieldRows:
    """The fields that one model reads of the events of a log and of its users."""

    context: FieldTable
    context_row: npt.NDArray[np.int64]  # (N,) of each event
    users: FieldTable  # row u is that of user_idx u

    def where(self, keep: npt.NDArray[np.bool_]) -> "FieldRows":
        """Those of the events that `keep` (N,) marks, and of all users."""
        return replace(self, context_row=self.context_row[keep])

    def of_events(self, rows: Int64) -> Float32:
        """What is known of some events (...) once they have happened. (..., context width)"""
        return self.context.rows(self.context_row[rows])

    def of_users(self, user_idx: Int64) -> Float32:
        """What is known of users (B,). (B, user width)"""
        return self.users.rows(user_idx)
