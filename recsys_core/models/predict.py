"""User vectors, scores and expected ratings of a trained model, for many users at once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.models.requests import make_requests
from recsys_core.models.two_time_scale import TwoTimeScale

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

EVENTS_AT_ONCE = 2**17
"""Bounds the memory of a batch's outputs: 128 MiB a layer of 256 numbers."""


@torch.inference_mode()
def user_vectors(
    model: TwoTimeScale,
    events: Events,
    *,
    user_idx: Int64,
    history: Int64,
    request: RequestTimes | None = None,
    batch: int = 2048,
) -> Float32:
    """What each user's first `history` events ask of the item table at a request. (N, D)

    `events` holds known items only (`requests.known_events`). Rows are worked through in the order
    of their length, so that a batch pads little, and each by its own network alone.
    """
    vectors = np.zeros((len(user_idx), model.config.dim), dtype=np.float32)
    answers = _answers(
        model, events, user_idx=user_idx, history=history, request=request, batch=batch
    )
    for rows, queries, _ in answers:
        vectors[rows] = queries.float().cpu().numpy()
    return vectors


@torch.inference_mode()
def expected_ratings(
    model: TwoTimeScale,
    events: Events,
    *,
    user_idx: Int64,
    history: Int64,
    items: Int64,
    request: RequestTimes | None = None,
    batch: int = 2048,
) -> Float32:
    """What each user is expected to give one item (N,), after their first `history` events. (N,)

    Of a model that predicts ratings, and items that it knows; else like `user_vectors`.
    """
    ratings = np.zeros(len(user_idx), dtype=np.float32)
    answers = _answers(
        model, events, user_idx=user_idx, history=history, request=request, batch=batch
    )
    for rows, _, asked in answers:
        assert model.ratings is not None, "the model predicts ratings"
        assert asked is not None
        of_rows = torch.from_numpy(items[rows]).to(asked.device).unsqueeze(1)  # (B, 1)
        ratings[rows] = model.ratings(asked, of_rows).squeeze(1).float().cpu().numpy()
    return ratings


def _answers(
    model: TwoTimeScale,
    events: Events,
    *,
    user_idx: Int64,
    history: Int64,
    request: RequestTimes | None,
    batch: int,
) -> Iterator[tuple[Int64, Tensor, Tensor | None]]:
    """Rows of some users, and the answers of their network to them."""
    spec, fold_in = model.input_spec, model.transductive
    device = model.item_vectors.device
    length, active = history - spec.window_start(history), spec.is_active(history)
    size = max(1, min(batch, EVENTS_AT_ONCE // spec.max_length))
    for network, members in ((model.inactive, ~active), (model.active, active)):
        order = np.flatnonzero(members)
        order = order[np.argsort(length[order], kind="stable")]
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            requests = make_requests(
                spec,
                fold_in,
                events,
                user_idx=user_idx[rows],
                history=history[rows],
                request=None if request is None else request.take(rows),
            )
            queries, asked = model.cohort_answers(
                network,
                torch.from_numpy(requests.items).to(device),
                torch.from_numpy(requests.event_numbers).to(device),
                torch.from_numpy(requests.length).to(device),
                torch.from_numpy(requests.user_vector).to(device),
                torch.from_numpy(requests.user_fields).to(device),
            )
            yield rows, queries, asked
