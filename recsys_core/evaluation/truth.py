"""The simulator's own probabilities as a `Scorer`: a bound that no model of histories can reach."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys_core.data.oracle import Oracle
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.evaluation.ranks import Scorer
from recsys_core.evaluation.targets import Targets

Float32 = npt.NDArray[np.float32]


def oracle_scorer(oracle: Oracle, targets: Targets, *, items: Vocabulary, n_items: int) -> Scorer:
    """The true log-probabilities, restricted to items with `item_idx <= n_items` and renormalised.

    All targets must be covered. Where nothing that can occur is in the vocabulary, all scores
    are -inf.
    """
    found = pc.index_in(pa.array(oracle.item_ids, type=items.ids.type), value_set=items.ids)
    item_idx = found.fill_null(-1).to_numpy(zero_copy_only=False) + 1  # 0: it never occurs
    column = np.flatnonzero((item_idx >= 1) & (item_idx <= n_items))

    def scores(rows: slice, out: Float32) -> Float32:
        known = torch.from_numpy(oracle.log_probability(targets.source_row[rows])[:, column])
        total = torch.logsumexp(known, dim=1, keepdim=True)  # (B, 1)
        out[:] = -np.inf
        out[:, item_idx[column]] = torch.where(total > -torch.inf, known - total, known).numpy()
        return out

    return Scorer(n_items=n_items, is_softmax=True, scores=scores)
