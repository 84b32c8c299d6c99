"""Ranks of targets among the whole vocabulary, one chunk of (B, V + 1) scores at a time.

    rank = 1 + number of other items whose score is greater than or equal to the target's

so ties count against the model, and one that scores all items alike ranks every target last. `ties`
counts the others of equal score: the most favourable rank is `rank - ties`. Rank 0 says that the
target was no candidate, a miss:

- its item is unknown to the model (`item_idx > n_items`),
- the item had no event when the period began: nothing could be learned of it,
- its score is -inf: the model never recommends it,
- the seen filter is on and the user already had it: what is filtered is recommended to nobody.

The negative log-likelihood takes the scores as logits of a softmax over the whole vocabulary,
before the seen filter. Rows are worked through one by one, since a row stays in the cache where a
whole chunk passes through memory: among 46,000 items a rank takes some 20 microseconds, a
likelihood 50.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import ModelError
from recsys_core.evaluation.targets import Targets

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scorer:
    """What can be ranked: scores of all items for the user of each target, just before the target.

    `scores(rows, out)` gives the (B, V + 1) scores of the targets `rows`, column 0 (PAD) at -inf.
    `out` is room of that shape that they may be written to; a result that lies elsewhere stays as
    it is. `is_softmax`: the softmax of the scores is the model's distribution, it has a likelihood.
    """

    n_items: int
    is_softmax: bool
    scores: Callable[[slice, Float32], Float32]


@dataclass(frozen=True)
class Ranks:
    """One entry per target."""

    rank: Int32  # (N,) from 1; 0 where the target is no candidate
    ties: Int32  # (N,) other candidates of equal score
    nll: Float32 | None  # (N,) NaN where the target is no candidate; None without a likelihood

    @classmethod
    def empty(cls, n: int, *, likelihood: bool) -> "Ranks":
        """All misses, to be filled."""
        nll = np.full(n, np.nan, dtype=np.float32) if likelihood else None
        return cls(np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.int32), nll)


def candidates_at(events: Events, cut: Cut) -> Bool:
    """The items of the vocabulary that have an event before the cut. (V + 1,)"""
    item_idx = events.item_idx[cut.known(events)]
    counts = np.bincount(item_idx[item_idx <= cut.n_items], minlength=cut.n_items + 1)
    return counts > 0


def is_candidate(candidates: Bool, item_idx: Int32) -> Bool:
    """Whether each item is a candidate; one beyond the vocabulary is none. (N,)"""
    inside = item_idx < len(candidates)
    return inside & candidates[np.where(inside, item_idx, 0)]


def rank_targets(
    scorer: Scorer,
    targets: Targets,
    *,
    events: Events,
    candidates: Bool,
    batch: int,
    seen_filter: bool,
) -> Ranks:
    """Rank each target among the `candidates` (V + 1,), `batch` targets at a time.

    Candidates are a mask over the scorer's vocabulary or over a larger one. With `seen_filter` the
    items of a user's earlier events are none.
    Raises `ModelError` for a score that is NaN or +inf, and for a distribution in which a known
    target is impossible.
    """
    assert len(candidates) > scorer.n_items, "each item of the scorer is a candidate or is not"
    ranks = Ranks.empty(len(targets), likelihood=scorer.is_softmax)
    never = 1 + np.flatnonzero(~candidates[1 : scorer.n_items + 1])
    # one room for all chunks: new pages for each would cost more than the scores themselves
    room = np.empty((min(batch, len(targets)), scorer.n_items + 1), dtype=np.float32)
    for start in range(0, len(targets), batch):
        rows = slice(start, min(start + batch, len(targets)))
        chunk = targets.take(rows)
        out = room[: len(chunk)]
        scores = scorer.scores(rows, out)  # (B, V + 1)
        assert scores.shape == out.shape, "scores are (B, V + 1)"
        _refuse_bad_scores(scores)
        if ranks.nll is not None:
            nll = negative_log_likelihood(scores, chunk.item_idx)
            ranks.nll[rows] = np.where(is_candidate(candidates, chunk.item_idx), nll, np.nan)
        if seen_filter or len(never):
            if scores is not out:
                out[:] = scores
            out[:, never] = -np.inf
            if seen_filter:
                out[seen_items(events, chunk, n_items=scorer.n_items)] = -np.inf
            scores = out
        ranks.rank[rows], ranks.ties[rows] = rank_in_rows(scores, chunk.item_idx)
    return ranks


def rank_in_rows(scores: Float32, item_idx: Int32) -> tuple[Int32, Int32]:
    """Rank and ties of one item per row of `scores` (B, V + 1). (B,), (B,)

    Column 0 is no candidate; an item beyond the last column, or with score -inf, has rank 0.

    >>> scores = np.array([[-np.inf, 3, 1, 2, 2], [-np.inf, 5, 5, 5, 5]], dtype=np.float32)
    >>> rank_in_rows(scores, np.array([3, 1], dtype=np.int32))
    (array([3, 4], dtype=int32), array([1, 3], dtype=int32))
    """
    n_items = scores.shape[1] - 1
    rank = np.zeros(len(scores), dtype=np.int32)
    ties = np.zeros(len(scores), dtype=np.int32)
    for row in np.flatnonzero(item_idx <= n_items):
        target = scores[row, item_idx[row]]
        if target == -np.inf:
            continue
        candidates = scores[row, 1:]
        not_below = np.count_nonzero(candidates >= target)  # the target itself among them
        rank[row] = not_below
        ties[row] = not_below - 1 - np.count_nonzero(candidates > target)
    return rank, ties


def negative_log_likelihood(scores: Float32, item_idx: Int32) -> Float32:
    """-log softmax(scores)[item] of each row, natural logarithm; NaN for an unknown item. (B,)

    Raises `ModelError` where a known item has probability 0, for that has no finite likelihood.
    """
    nll = np.full(len(scores), np.nan, dtype=np.float32)
    known = np.flatnonzero(item_idx < scores.shape[1])
    shifted = np.empty(scores.shape[1], dtype=np.float32)
    for row in known:
        logits = scores[row]
        largest = logits.max()
        if largest > -np.inf:
            np.subtract(logits, largest, out=shifted)
            total = np.exp(shifted, out=shifted).sum()
            nll[row] = largest + np.log(total) - logits[item_idx[row]]
    impossible = int(np.count_nonzero(~np.isfinite(nll[known])))
    if impossible:
        raise ModelError(
            f"{impossible} targets that occurred have probability 0; "
            "a model with a likelihood must give every item of its vocabulary a finite score"
        )
    return nll


def seen_items(events: Events, targets: Targets, *, n_items: int) -> tuple[Int64, Int64]:
    """(row, item_idx) of every known item that a target's user had before it. (S,), (S,)

    An item that the user had twice comes twice.
    """
    position = targets.position.astype(np.int64)
    row = np.repeat(np.arange(len(targets)), position)
    within = np.arange(len(row)) - np.repeat(np.cumsum(position) - position, position)
    item = events.item_idx[np.repeat(events.offsets[targets.user_idx], position) + within]
    known = item <= n_items
    return row[known], item[known].astype(np.int64)


def _refuse_bad_scores(scores: Float32) -> None:
    largest = scores.max(axis=1)  # (B,) NaN where a row has one
    bad = int(np.count_nonzero(~(largest < np.inf)))
    if bad:
        raise ModelError(
            f"{bad} of {len(scores)} rows of scores hold NaN or +inf; "
            "the model has diverged: train it again with a smaller learning rate"
        )
    assert np.all(scores[:, 0] == -np.inf), "PAD is never a candidate"
