"""The model with its memory as a `Scorer`; apart from the others, so that what trains networks does
not depend on the code of the memory."""

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.data.events import Events
from recsys_core.evaluation.ranks import Scorer
from recsys_core.evaluation.scorers import Trend
from recsys_core.evaluation.targets import Targets
from recsys_core.models.memory import Memory
from recsys_core.models.own_items import gather_own
from recsys_core.models.two_time_scale import TwoTimeScale

Float32 = npt.NDArray[np.float32]


def memory_scorer(
    model: TwoTimeScale,
    memory: Memory,
    queries: Float32,
    known: Events,
    targets: Targets,
    *,
    trend: Trend | None = None,
) -> Scorer:
    """The networks' logits with what the memory and the trend add; `queries` (N, D), a row per
    target.

    `known` are the events of known items, which the `history` of `targets` counts.
    """

    def scores(rows: slice, out: Float32) -> Float32:
        chunk = targets.take(rows)
        history = chunk.history.astype(np.int64)
        own = gather_own(
            known,
            user_idx=chunk.user_idx.astype(np.int64),
            history=history,
            most=memory.config.length,
        )
        with torch.inference_mode():
            query = torch.from_numpy(queries[rows])
            logits = torch.addmm(model.item_bias, query, model.item_vectors.T)  # (B, V + 1)
            both = memory(
                logits,
                torch.from_numpy(model.input_spec.is_active(history)),
                torch.from_numpy(own.items),
                torch.from_numpy(own.numbers),
                torch.from_numpy(own.user_numbers),
            )
        out[:] = both.numpy()
        if trend is not None:
            out += trend(rows)
        out[:, 0] = -np.inf
        return out

    return Scorer(n_items=model.config.n_items, is_softmax=True, scores=scores)
