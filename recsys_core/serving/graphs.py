"""The graphs that read histories, as modules: networks, memory and top-k, and popularity alone."""

import torch
from torch import Tensor, nn

from recsys_core.models.memory import Memory
from recsys_core.models.own_items import ITEM_NUMBERS, USER_NUMBERS
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.bundle import INPUTS, OUTPUTS


class TwoTimeScaleTop(nn.Module):
    """The two-time-scale model and the memory beside it, with their top k."""

    def __init__(self, model: TwoTimeScale, memory: Memory, k: int) -> None:
        super().__init__()
        self.model = model
        self.memory = memory
        self.k = k

    def forward(
        self,
        items: Tensor,
        event_numbers: Tensor,
        user_fields: Tensor,
        length: Tensor,
        user_vector: Tensor,
        active: Tensor,
        own_items: Tensor,
        own_numbers: Tensor,
        user_numbers: Tensor,
        trend: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the graph to its outputs."""
        vectors, asked = self.model.answers(
            items, event_numbers, length, user_vector, active, user_fields
        )
        return answered(
            self.model,
            self.memory,
            (vectors, asked),
            (active, own_items, own_numbers, user_numbers),
            trend,
            (seen_rows, seen_items),
            k=self.k,
        )


def answered(
    model: TwoTimeScale,
    memory: Memory,
    queries: tuple[Tensor, Tensor | None],
    remembered: tuple[Tensor, Tensor, Tensor, Tensor],
    trend: Tensor,
    seen: tuple[Tensor, Tensor],
    *,
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of a graph: from the networks' queries, with what is asked of ratings, what the
    memory reads, the trend and the seen pairs."""
    vectors, asked = queries
    # `linear` reads the table as it lies; the transpose of `model.scores` would be stored
    # beside it
    logits = nn.functional.linear(vectors, model.item_vectors, model.item_bias)  # (B, V + 1)
    # after the memory, which scales what the networks say: the trend counts as it is
    scores = memory(logits, *remembered) + trend  # (B, V + 1)
    # PAD is no candidate: as if everybody had seen it
    rows = torch.arange(len(vectors))  # (B,)
    out_rows = torch.cat([rows, seen[0]])  # (B + S,)
    out_items = torch.cat([torch.zeros_like(rows), seen[1]])  # (B + S,)
    top, best = best_items(scores, out_rows, out_items, k=k)
    if model.ratings is None or asked is None:
        return top, best, unrated(best)
    return top, best, model.ratings(asked, top)


class PopularityTop(nn.Module):
    """One ranking for everybody, less what each has seen."""

    score: Tensor

    def __init__(self, score: Tensor, k: int) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("score", score)  # (V + 1,)

    def forward(
        self,
        items: Tensor,  # noqa: ARG002 (the inputs of every graph are the same)
        event_numbers: Tensor,  # noqa: ARG002
        user_fields: Tensor,  # noqa: ARG002
        length: Tensor,
        user_vector: Tensor,  # noqa: ARG002
        active: Tensor,  # noqa: ARG002
        own_items: Tensor,  # noqa: ARG002
        own_numbers: Tensor,  # noqa: ARG002
        user_numbers: Tensor,  # noqa: ARG002
        trend: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the graph to its outputs; of the history only the number of rows is read."""
        # what is added is no trend here but who may be recommended
        scores = (self.score + trend).unsqueeze(0).expand(length.shape[0], -1)  # (B, V + 1)
        top, best = best_items(scores, seen_rows, seen_items, k=self.k)
        return top, best, unrated(best)


def unrated(scores: Tensor) -> Tensor:
    """The ratings of a model that predicts none: NaN for each of the scores (B, k). (B, k)"""
    return torch.full_like(scores, torch.nan)


def best_items(
    scores: Tensor, seen_rows: Tensor, seen_items: Tensor, *, k: int
) -> tuple[Tensor, Tensor]:
    """The k best items of each row and their scores, seen pairs left out.

    (B, V + 1), (S,), (S,) to (B, k) twice. Of equal scores the graph takes the lower idx first.
    """
    left = scores.index_put((seen_rows, seen_items), torch.tensor(-torch.inf))  # (B, V + 1)
    values, items = torch.topk(left, k)  # (B, k)
    return items, values


def input_sizes(spec: InputSpec) -> dict[str, tuple[str | int, ...]]:
    """The inputs of a graph that reads histories."""
    sizes: dict[str, tuple[str | int, ...]] = {
        "items": ("B", "T"),
        "event_numbers": ("B", "T", spec.event_columns),
        "user_fields": ("B", spec.user_columns),
        "length": ("B",),
        "user_vector": ("B", spec.dim),
        "active": ("B",),
        "own_items": ("B", "M"),
        "own_numbers": ("B", "M", len(ITEM_NUMBERS)),
        "user_numbers": ("B", len(USER_NUMBERS)),
        "trend": (spec.n_items + 1,),
        "seen_rows": ("S",),
        "seen_items": ("S",),
    }
    assert tuple(sizes) == INPUTS, "the engine feeds these"
    return sizes


def output_sizes(k: int) -> dict[str, tuple[str | int, ...]]:
    """The outputs of every graph."""
    return {name: ("B", k) for name in OUTPUTS}


def example_of(spec: InputSpec) -> tuple[Tensor, ...]:
    """Inputs to trace with: all sizes differ, none is 1: the tracer takes that as a constant."""
    return (
        torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]),
        torch.zeros(3, 4, spec.event_columns),
        torch.zeros(3, spec.user_columns),
        torch.tensor([2, 4, 0]),
        torch.ones(3, spec.dim),
        torch.tensor([False, True, False]),
        torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]),
        torch.ones(3, 7, len(ITEM_NUMBERS)),
        torch.ones(3, len(USER_NUMBERS)),
        torch.zeros(spec.n_items + 1),
        torch.tensor([0, 0, 1, 1, 1]),
        torch.tensor([1, 1, 1, 1, 1]),
    )
