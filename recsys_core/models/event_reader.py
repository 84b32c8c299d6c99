"""What a network reads of an event beside its item: times, session, feedback, context.

    in_k = [ v_(i_k) ; emb(gap) ; emb(request) ; z(request) ; s ; unknown ; onehot(type) ;
             z(value) ; there ; z(value) - b_(i_k) ; fields ]

gap      since the event before it
request  until the request that the step answers: in training the next event, in scoring `as_of`
session  s: 1 where that request opens a session, the control bit of HRNN (equation 2.2.2 of its
         specification): a hierarchy of networks without the second one; and whether that is
         unknown
type     feedback: what kind of event it was
value    feedback: its rating, its quantity; where ratings are predicted (`ratings.py`), also beside
         what anybody gives that item
context  the card's columns of how the event came about (`field_reader.py`), as it happened: that
         of a request nobody knows before it is made

z standardises: log(1 + seconds) of a request, a value as it is, by mean and deviation of what is
trained on. A number that is not known has no part in the sum but for its own bucket.
"""

import torch
from torch import Tensor, nn

from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models.field_reader import FieldReader
from recsys_core.sections import Read

GAP_BUCKETS = 30

FARTHEST = 5.0
"""Deviations from the mean: one wild number must not outweigh all else."""


class EventReader(nn.Module):
    """The numbers of events as what a network reads; `size` numbers an event."""

    edges: Tensor
    request_scale: Tensor
    value_scale: Tensor

    def __init__(
        self,
        reads: tuple[Read, ...],
        *,
        time_dim: int,
        n_types: int,
        rating: bool = False,
        context: FieldSizes = NO_FIELDS,
    ) -> None:
        super().__init__()
        self._reads = reads
        self._n_types = n_types
        self._rating = rating
        times = sum(read in reads for read in ("gap", "request"))
        self.gap_embedding = _buckets(time_dim) if "gap" in reads else None
        self.request_embedding = _buckets(time_dim) if "request" in reads else None
        self.context = FieldReader(context)
        self.size = (
            times * time_dim
            + ("request" in reads)
            + 2 * ("session" in reads)
            + n_types * ("type" in reads)
            + (2 + rating) * ("value" in reads)
            + self.context.size
        )
        # bucket b holds 2^(b-1) - 1 up to 2^b - 2 seconds; comparisons, unlike a logarithm, fall
        # into the same bucket in every runtime
        edges = torch.tensor([2.0**power - 1.0 for power in range(GAP_BUCKETS)])
        self.register_buffer("edges", edges, persistent=False)
        # mean and deviation, of whom initial_model knows
        if "request" in reads:
            self.register_buffer("request_scale", torch.tensor([0.0, 1.0]))
        if "value" in reads:
            self.register_buffer("value_scale", torch.tensor([0.0, 1.0]))

    def forward(self, numbers: Tensor, expected: Tensor | None = None) -> list[Tensor]:
        """(B, T, len(EVENT_NUMBERS) + context width) to parts (B, T, .) that come to `size`
        numbers.

        `expected` (B, T) is what anybody gives the items, where ratings are predicted.
        """
        parts = []
        if self.gap_embedding is not None:
            parts.append(self.gap_embedding(self._bucket(_number(numbers, "gap_seconds"))))
        if self.request_embedding is not None:
            seconds = _number(numbers, "request_seconds")  # (B, T)
            parts.append(self.request_embedding(self._bucket(seconds)))
            mean, deviation = self.request_scale
            scaled = (torch.log1p(seconds.clamp_min(0.0)) - mean) / deviation
            scaled = scaled.clamp(-FARTHEST, FARTHEST)
            parts.append(torch.where(seconds < 0.0, 0.0, scaled).unsqueeze(-1))
        if "session" in self._reads:
            opens = _number(numbers, "opens_session").unsqueeze(-1)
            parts.append(torch.cat([opens == 1.0, opens < 0.0], dim=-1).to(numbers.dtype))
        if "type" in self._reads:
            kinds = torch.arange(self._n_types, device=numbers.device)
            parts.append((_number(numbers, "event_type").unsqueeze(-1) == kinds).to(numbers.dtype))
        if "value" in self._reads:
            there = _number(numbers, "has_value")
            mean, deviation = self.value_scale
            scaled = ((_number(numbers, "value") - mean) / deviation).clamp(-FARTHEST, FARTHEST)
            parts.append(torch.stack([there * scaled, there], dim=-1))
            if self._rating:
                assert expected is not None, "a value is read beside what was expected"
                parts.append((there * (scaled - expected)).unsqueeze(-1))
        if self.context.size:
            parts.extend(self.context(numbers[..., len(EVENT_NUMBERS) :]))
        return parts

    def _bucket(self, seconds: Tensor) -> Tensor:
        """(B, T) to the buckets' numbers, 0 for what is not known."""
        return (seconds.unsqueeze(-1) >= self.edges).sum(-1)


def _buckets(time_dim: int) -> nn.Embedding:
    return nn.Embedding(GAP_BUCKETS + 1, time_dim)


def _number(numbers: Tensor, name: str) -> Tensor:
    """One of `EVENT_NUMBERS`. (B, T)"""
    return numbers[..., EVENT_NUMBERS.index(name)]
