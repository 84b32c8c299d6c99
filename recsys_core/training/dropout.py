"""Dropout whose draws come from a generator of the epoch, so that a resumed fit draws the same."""

import torch
from torch import Tensor

from recsys_core.data.histories import EVENT_NUMBERS, UNKNOWN
from recsys_core.sections import Read

HIDDEN: dict[str, dict[str, float]] = {
    "request": {"request_seconds": UNKNOWN, "opens_session": UNKNOWN},
    "feedback": {"event_type": UNKNOWN, "value": 0.0, "has_value": 0.0},
}
"""What is hidden together, and what stands there then."""
FIELDS: dict[Read, str] = {
    "request": "request",
    "session": "request",
    "type": "feedback",
    "value": "feedback",
}
"""Where each is hidden with; a gap is always known."""


class Dropout:
    """Zeroes a share of the values and scales the rest, drawn where the values lie."""

    def __init__(self, share: float, draws: torch.Generator) -> None:
        """`draws` is on the device of the values."""
        self._share = share
        self._draws = draws

    def __call__(self, values: Tensor) -> Tensor:
        """Each value for itself: (...) to (...)."""
        return self._masked(values, values)

    def whole_vectors(self, values: Tensor) -> Tensor:
        """The vectors of the last dimension as a whole: (..., D) to (..., D)."""
        return self._masked(values, values[..., :1])

    def _masked(self, values: Tensor, shape: Tensor) -> Tensor:
        if self._share == 0.0:
            return values
        kept = 1.0 - self._share
        mask = torch.empty_like(shape, requires_grad=False).bernoulli_(kept, generator=self._draws)
        return values * mask.div_(kept)


def hide_fields(
    numbers: Tensor, reads: tuple[Read, ...], *, share: float, draws: torch.Generator
) -> Tensor:
    """Events' numbers (B, T, .) with those that may be missing left out of a share of the events.

    A model that is asked without a request time, or after an event without feedback or context, has
    met that in training. The request, the feedback and the context of an event are hidden each for
    itself.
    """
    fields = dict.fromkeys(FIELDS[read] for read in reads if read in FIELDS)
    context = numbers.shape[-1] > len(EVENT_NUMBERS)
    if share == 0.0 or not (fields or context):
        return numbers
    numbers = numbers.clone()
    for field in fields:
        hidden = torch.empty_like(numbers[..., 0]).bernoulli_(share, generator=draws) > 0.0
        for name, value in HIDDEN[field].items():
            numbers[..., EVENT_NUMBERS.index(name)].masked_fill_(hidden, value)
    if context:
        hidden = torch.empty_like(numbers[..., :1]).bernoulli_(share, generator=draws) > 0.0
        # all 0: categories are unknown, numbers not there
        numbers[..., len(EVENT_NUMBERS) :].masked_fill_(hidden, 0.0)
    return numbers


def hide_users(fields: Tensor, unknown: Tensor, *, share: float, draws: torch.Generator) -> Tensor:
    """Users' fields (B, .) with the `unknown` row (.) in place of a share of them."""
    if share == 0.0:
        return fields
    hidden = torch.empty_like(fields[:, :1]).bernoulli_(share, generator=draws) > 0.0  # (B, 1)
    return torch.where(hidden, unknown, fields)
