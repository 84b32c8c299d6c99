"""Windows as tensors: what is read, and what is asked for at which of the outputs.

events of a window     start . . first_target . . stop     items  start ... stop - 2
outputs, T + 1 a row   |before start|  ...  |before stop - 1|
asked for                      the event at first_target ... the event at stop - 1
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes, gather_histories
from recsys_core.models.fold_in import UserVectors
from recsys_core.sections import Read
from recsys_core.training.windows import Windows


@dataclass(frozen=True)
class Batch:
    """Windows of one network, on its device."""

    items: Tensor  # (B, T) item_idx, PAD on the right
    numbers: Tensor  # (B, T, .) `histories.EVENT_NUMBERS`, context
    user_fields: Tensor  # (B, .)
    user_vector: Tensor  # (B, D) zero where nothing is folded in
    place: Tensor  # (N,) of the outputs (B, T + 1), flat: those that are asked for
    row: Tensor  # (N,) of the B windows: whose they are
    target: Tensor  # (N,) item_idx
    weight: Tensor  # (N,) of the target's event in the loss
    reward: Tensor | None  # (N,) of the target's event, from 0 to 1; None: all are 1
    value: Tensor  # (N,) of the target's event, NaN where it has none
    at: npt.NDArray[np.int64]  # (N,) when the targets happened, in microseconds


def make_batch(
    events: Events,
    windows: Windows,
    *,
    weights: npt.NDArray[np.float32],
    rewards: npt.NDArray[np.float32] | None,
    fold_in: UserVectors,
    reads: tuple[Read, ...],
    device: torch.device,
) -> Batch:
    """The batch of some windows; `weights` and `rewards` are those of all events.

    Each target is its own request.
    """
    users = windows.user_idx
    final = events.offsets[users] + windows.stop - 1  # (B,) the rows of the last targets
    inputs = gather_histories(
        events,
        users,
        start=windows.start,
        stop=windows.stop - 1,
        reads=reads,
        request=RequestTimes(events.timestamp[final], events.session_start[final]),
    )
    width = inputs.items.shape[1] + 1
    position = windows.start[:, None] + np.arange(width)  # (B, T + 1)
    asked = (position >= windows.first_target[:, None]) & (position < windows.stop[:, None])
    place = np.flatnonzero(asked)  # (N,)
    row = place // width  # (N,)
    rows = events.offsets[users][row] + position.reshape(-1)[place]  # (N,)
    user_vector = fold_in.vectors(events, users, count=windows.folded)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "items": inputs.items,
        "numbers": inputs.numbers,
        "user_fields": inputs.user_fields,
        "user_vector": user_vector,
        "place": place,
        "row": row,
        "target": events.item_idx[rows].astype(np.int64),
        "weight": weights[rows],
        "value": events.value[rows],
    }
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    reward = None if rewards is None else torch.from_numpy(rewards[rows]).to(device)
    return Batch(**tensors, reward=reward, at=events.timestamp[rows])
