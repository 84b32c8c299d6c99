"""Losses as plain functions.

    s_i = <phi, v_i> + b_i      phi a query (D,), v_i and b_i an item's row and bias

softmax           -log p(target), p = softmax(s) over the whole catalogue
sampled_softmax   the same, with the partition estimated from shared candidates
bpr_max           the target above the strongest of the candidates

Both softmaxes take rewards (non-uniform rewards of HRNN-meta, Ma et al., KDD 2020: one against all)

    loss = log sum_j exp(s_j) - r * s_target        r in [0, 1]

of which r = 1 is -log p(target). The partition is not multiplied by r: the gradient in s_target is
p(target) - r, so an event with a smaller reward than what its item is given already pushes the item
down. A weight multiplies the whole: one of 0 has no gradient. Where r < 1 the loss has no lower
bound, since all s may fall together, which changes no p.

Both take offsets, which are added to s of each item and have no gradient (`models/trend.py`).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from recsys_core.training.samplers import Candidates

Rows = tuple[Tensor, Tensor]
"""Vectors (N, D) and biases (N,) of items."""


AddOffsets = Callable[[slice, Tensor], Tensor]
"""Adds offsets to the logits (N', V) of some rows of a batch, of all items but PAD, in place; and
returns what besides is added to all logits of a row, which no softmax sees: (N',)."""


class SampledLoss(Protocol):
    """A loss of each row against candidates that all rows share."""

    def __call__(
        self,
        vectors: Tensor,
        targets: Tensor,
        *,
        positive: Rows,
        candidates: Candidates,
        negative: Rows,
    ) -> Tensor:
        """`vectors` (N, D), `targets` (N,) item_idx, `positive` the rows of the targets, `negative`
        those of the candidates, (M, D) and (M,). (N,)"""


def full_softmax(
    vectors: Tensor,
    targets: Tensor,
    *,
    items: Rows,
    weights: Tensor,
    cells: int,
    rewards: Tensor | None = None,
    offsets: AddOffsets | None = None,
) -> Tensor:
    """The mean over rows of weight * loss in the full softmax: -log p(target), or by rewards. ()

    `vectors` (N, D), `targets` (N,) item_idx, `items` the whole table (V + 1, D) and (V + 1,), row
    0 PAD and left out, `weights` (N,), `rewards` (N,), None for all 1. `offsets` are asked for one
    block of rows after the other. At most `cells` logits, or those of one row, exist at any time.
    Since the weights are given, the gradients are worked out along with the loss, so nothing is
    computed twice and only they are kept.
    """
    table, bias = items
    loss: Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        vectors, targets, table, bias, weights, cells, rewards, offsets
    )
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        vectors: Tensor,
        targets: Tensor,
        table: Tensor,
        bias: Tensor,
        weights: Tensor,
        cells: int,
        rewards: Tensor | None,
        offsets: AddOffsets | None,
    ) -> Tensor:
        rows = max(1, cells // len(table))
        real, real_bias, target = table[1:], bias[1:], targets - 1
        share = weights / len(weights)  # (N,)
        rewarded = share if rewards is None else share * rewards  # (N,)
        of_vectors = torch.empty_like(vectors)
        of_table, of_bias = torch.zeros_like(table), torch.zeros_like(bias)
        learns_table = any(ctx.needs_input_grad[2:4])  # type: ignore[attr-defined]
        loss = torch.zeros((), device=vectors.device, dtype=vectors.dtype)
        for first in range(0, len(vectors), rows):
            part = slice(first, first + rows)
            # under autocast the three products run in bfloat16, all else in float32
            logits = torch.addmm(real_bias, vectors[part], real.T).to(vectors.dtype)  # (N', V)
            if offsets is not None:
                of_all = offsets(part, logits)  # (N',)
                loss += (of_all * (share[part] - rewarded[part])).sum()
            at_target = logits.gather(1, target[part].unsqueeze(1))  # (N', 1)
            if rewards is not None:
                at_target *= rewards[part].unsqueeze(1)
            largest = logits.amax(1, keepdim=True)  # (N', 1)
            wanted = logits.sub_(largest).exp_()  # (N', V)
            total = wanted.sum(1, keepdim=True)  # (N', 1)
            loss += (share[part] * (total.log() + largest - at_target).squeeze(1)).sum()
            wanted *= share[part].unsqueeze(1) / total
            # d loss / d logits = share * (p - reward at the target)
            wanted.scatter_add_(1, target[part].unsqueeze(1), -rewarded[part].unsqueeze(1))
            of_vectors[part] = wanted @ real
            if learns_table:
                of_table[1:] += wanted.T @ vectors[part]
                of_bias[1:] += wanted.sum(0)
        ctx.save_for_backward(of_vectors, of_table, of_bias)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        of_vectors, of_table, of_bias = ctx.saved_tensors  # type: ignore[attr-defined]
        of_rows = gradient * of_table, gradient * of_bias
        return gradient * of_vectors, None, *of_rows, None, None, None, None


def sampled_softmax(
    vectors: Tensor,
    targets: Tensor,
    *,
    positive: Rows,
    candidates: Candidates,
    negative: Rows,
    rewards: Tensor | None = None,
    offsets: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """-log p(target) for each row, with the partition estimated from shared candidates. (N,)

        Z = exp(s_target) + sum over candidates j other than the target of exp(s_j - log E_j)

    E_j is how often the sampler expects to draw j, so that the sum is unbiased for that over the
    whole catalogue, whatever the sampler (log q correction). With every item as a candidate and
    E = 1 this is the full softmax, exactly. See `SampledLoss`; `rewards` (N,), None for all 1,
    `offsets` of the targets (N,) and of the candidates (N, M).
    """
    target_score = _target_scores(vectors, positive)  # (N,)
    negative_vectors, negative_bias = negative
    corrected = negative_bias - candidates.log_expected  # (M,)
    scores = torch.addmm(corrected, vectors, negative_vectors.T)  # (N, M)
    if offsets is not None:
        target_offset, candidate_offset = offsets
        target_score, scores = target_score + target_offset, scores + candidate_offset
    scores = scores.masked_fill(targets.unsqueeze(1) == candidates.items, -torch.inf)
    partition = torch.logaddexp(torch.logsumexp(scores, dim=1), target_score)  # (N,)
    return partition - (target_score if rewards is None else rewards * target_score)


def bpr_max(
    vectors: Tensor,
    targets: Tensor,
    *,
    positive: Rows,
    candidates: Candidates,
    negative: Rows,
    score_penalty: float,
) -> Tensor:
    """The target against the candidates, each weighted by its own softmax. (N,)

        L = -log sum_j w_j sigmoid(s_target - s_j) + score_penalty * sum_j w_j s_j^2

    w is the softmax of the candidates' scores (BPR-max with score regularisation, of GRU4Rec:
    Hidasi and Karatzoglou, CIKM 2018). The target is never its own candidate; a row without any
    other has no loss. See `SampledLoss`.
    """
    target_score = _target_scores(vectors, positive)  # (N,)
    negative_vectors, negative_bias = negative
    scores = torch.addmm(negative_bias, vectors, negative_vectors.T)  # (N, M)
    same = targets.unsqueeze(1) == candidates.items  # (N, M)
    alone = same.all(dim=1)  # (N,)
    # a row that is left out keeps its scores: minus infinity in all of them has no gradient
    barred = same & ~alone.unsqueeze(1)
    log_weight = torch.log_softmax(scores.masked_fill(barred, -torch.inf), dim=1)  # (N, M)
    above = torch.nn.functional.logsigmoid(target_score.unsqueeze(1) - scores)  # (N, M)
    ranking = -torch.logsumexp(log_weight + above, dim=1)  # (N,)
    penalty = (log_weight.exp() * scores.square()).sum(dim=1)  # (N,)
    return (ranking + score_penalty * penalty).masked_fill(alone, 0.0)


def _target_scores(vectors: Tensor, positive: Rows) -> Tensor:
    positive_vectors, positive_bias = positive
    return (vectors * positive_vectors).sum(-1) + positive_bias  # (N,)


def pull(rows: Tensor, anchor: Tensor | float = 0.0) -> Tensor:
    """|row - anchor|^2 / 2 of each row: (N, W) to (N,)."""
    return (rows - anchor).square().sum(-1) / 2
