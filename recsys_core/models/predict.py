"""User vectors and scores of a trained model, for many users at once."""

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.data.events import Events
from recsys_core.models.requests import make_requests
from recsys_core.models.two_time_scale import TwoTimeScale

Int64 = npt.NDArray[np.int64]


@torch.inference_mode()
def user_vectors(
    model: TwoTimeScale, events: Events, *, user_idx: Int64, history: Int64, batch: int = 2048
) -> npt.NDArray[np.float32]:
    """Each user's vector after their first `history` events. (N, D)

    `events` holds known items only (`requests.known_events`). Rows are worked through in the order
    of their length, so that a batch pads little.
    """
    spec, fold_in = model.input_spec, model.fold_in
    device = model.item_vectors.device
    vectors = np.zeros((len(user_idx), spec.dim), dtype=np.float32)
    order = np.argsort(history - spec.window_start(history), kind="stable")
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        requests = make_requests(
            spec, fold_in, events, user_idx=user_idx[rows], history=history[rows]
        )
        inputs = {
            name: torch.from_numpy(array).to(device) for name, array in requests.inputs().items()
        }
        vectors[rows] = model(**inputs).float().cpu().numpy()
    return vectors
