"""Losses as plain functions."""

import torch
from torch import Tensor

from recsys_core.training.samplers import Candidates


def sampled_softmax(
    vectors: Tensor,
    targets: Tensor,
    *,
    positive: tuple[Tensor, Tensor],
    candidates: Candidates,
    negative: tuple[Tensor, Tensor],
) -> Tensor:
    """-log p(target) for each row, with the partition estimated from shared candidates. (N,)

        s_i = <phi, v_i> + b_i
        Z   = exp(s_target) + sum over candidates j other than the target of exp(s_j - log E_j)

    E_j is how often the sampler expects to draw j, so that the sum is unbiased for that over the
    whole catalogue, whatever the sampler (log q correction). With every item as a candidate and
    E = 1 this is the full softmax, exactly.

    `vectors` (N, D), `targets` (N,) item_idx, `positive` the vectors (N, D) and biases (N,) of the
    targets, `negative` those of the candidates, (M, D) and (M,).
    """
    positive_vectors, positive_bias = positive
    negative_vectors, negative_bias = negative
    target_score = (vectors * positive_vectors).sum(-1) + positive_bias  # (N,)
    offset = negative_bias - candidates.log_expected  # (M,)
    scores = torch.addmm(offset, vectors, negative_vectors.T)  # (N, M)
    scores = scores.masked_fill(targets.unsqueeze(1) == candidates.items, -torch.inf)
    partition = torch.logaddexp(torch.logsumexp(scores, dim=1), target_score)  # (N,)
    return partition - target_score


def pull(rows: Tensor, anchor: Tensor | float = 0.0) -> Tensor:
    """|row - anchor|^2 / 2 of each row: (N, W) to (N,)."""
    return (rows - anchor).square().sum(-1) / 2
