"""Batches of histories and logs with sessions, for tests of the models that read them."""

import dataclasses

import numpy as np

from recsys_core.data.events import Events
from recsys_core.models.history_model import (
    HistoryModel,
    RequestHistories,
    gather_request_histories,
)
from tests.event_rows import events_of


def histories_of(*histories: list[int]) -> RequestHistories:
    """Requests with these items, ten seconds apart, in one session each."""
    length = np.array([len(history) for history in histories], dtype=np.int64)
    item = np.array([item for history in histories for item in history], dtype=np.int32)
    return RequestHistories(
        user_idx=np.arange(1, len(histories) + 1),
        request_time=np.full(len(histories), 10_000_000_000),
        offsets=np.concatenate([[0], np.cumsum(length)]),
        item_idx=item,
        timestamp=10_000_000 * np.arange(len(item), dtype=np.int64),
        session_idx=np.repeat(np.arange(1, len(histories) + 1), length),
    )


def scores_of(model: HistoryModel, histories: RequestHistories) -> np.ndarray:
    """The model's scores without PAD, in a room that held other numbers. (B, V)"""
    out = np.full((len(histories), model.n_items + 1), np.nan, dtype=np.float32)
    scores = model.scores(histories, out=out)
    assert scores.dtype == np.float32
    assert scores.shape == out.shape
    assert np.all(scores[:, 0] == -np.inf)
    assert np.all(np.isfinite(scores[:, 1:]))
    return scores[:, 1:]


def log_of_sets(*users: list[int]) -> Events:
    """A log in which each user had these items, one after the other."""
    return events_of(
        [
            (user, item, step)
            for user, items in enumerate(users, 1)
            for step, item in enumerate(items)
        ]
    )


def log_of_sessions(*sessions: tuple[int, int, list[int]]) -> Events:
    """A log of (user, time of the first event, items); items follow one microsecond apart."""
    rows = [
        (user, item, time + step)
        for user, time, items in sessions
        for step, item in enumerate(items)
    ]
    number = [which for which, (_, _, items) in enumerate(sessions, 1) for _ in items]
    events = events_of(rows)
    return dataclasses.replace(
        events, session_idx=np.array(number, dtype=np.int64)[events.source_row]
    )


def everything(events: Events) -> np.ndarray:
    """The counts that know all of a log."""
    return np.diff(events.offsets)


def gathered(events: Events, users: list[int], history: list[int]) -> RequestHistories:
    """The first `history` events of each user."""
    count = np.array(history, dtype=np.int64)
    user = np.array(users, dtype=np.int64)
    at = np.zeros(len(users), dtype=np.int64)
    return gather_request_histories(events, user, history=count, request_time=at, limit=None)
