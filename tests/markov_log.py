"""A log whose next item is known by construction: with `order` it is the last item's successor,
else any item; and one in which users have tastes instead."""

import dataclasses

import numpy as np
import torch

from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events, column_names
from recsys_core.rng import generator
from recsys_core.sections import TrainEmbeddings, TrainRnn
from recsys_core.training.log_until import LogUntil
from recsys_core.training.validation import Validation
from tests.serving_world import MINUTE, START

N_ITEMS = 30
CPU = torch.device("cpu")

STAGE_ONE = TrainEmbeddings(
    dim=16,
    batch=256,
    negatives=64,
    sampling_power=0.5,
    learning_rate=0.02,
    l2=0.01,
    half_life_days=None,
    max_epochs=3,
    patience=2,
)
STAGE_TWO = TrainRnn(
    t_star=6,
    rho=0.2,
    ablation="none",
    window=8,
    lead=0.5,
    backbone="gru",
    hidden=32,
    depth=1,
    ffn=2,
    reads=("gap",),
    time_dim=4,
    field_dropout=0.1,
    trend_hours=None,
    trend_temperature=1.0,
    trend_refresh_hours=None,
    rewards={},
    low_value=None,
    low_value_reward=0.0,
    rating=False,
    rating_weight=1.0,
    rating_pull=0.5,
    score="dot",
    temperature=0.1,
    dropout=0.0,
    embedding_dropout=0.0,
    gamma=0.1,
    finetune_items=True,
    item_pull=1e-4,
    batch=512,
    loss="sampled_softmax",
    negatives=64,
    sampling_power=0.5,
    score_penalty=1.0,
    learning_rate_inactive=0.01,
    learning_rate_active=0.01,
    learning_rate_items=0.01,
    warmup=0.1,
    rate_decay=0.9,
    weight_decay=0.01,
    grad_clip=5.0,
    half_life_days=None,
    max_epochs=8,
    max_epochs_apart=2,
    apart_rate=1.0,
    patience=8,
)


def markov_events(order: float, *, users: int = 200, seed: int = 1) -> Events:
    """Users of 2 to 21 events, interleaved in time; each next item is the successor with
    probability `order`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 22, users)
    items, times = [], []
    for length in lengths:
        item = int(rng.integers(N_ITEMS))
        history = []
        for _ in range(length):
            history.append(item + 1)
            item = (item + 1) % N_ITEMS if rng.random() < order else int(rng.integers(N_ITEMS))
        items.append(history)
        times.append(np.sort(rng.integers(0, 10_000, length)))
    n = int(lengths.sum())
    return Events(
        offsets=np.concatenate([[0, 0], np.cumsum(lengths)]),
        item_idx=np.concatenate(items).astype(np.int32),
        timestamp=START + MINUTE * np.concatenate(times).astype(np.int64),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


CUT = START + 8_000 * MINUTE
END = START + 10_000 * MINUTE


def log_of(events: Events, until: int = CUT) -> LogUntil:
    return LogUntil(events, Cut.at(events, until, n_items=N_ITEMS))


def period_of(events: Events) -> Period:
    """From `CUT` to `END`."""
    cuts = (Cut.at(events, time, n_items=N_ITEMS) for time in (CUT, END))
    return Period(*cuts)


def validation_of(events: Events, metric_name: str = "mrr@20") -> Validation:
    return Validation(
        events,
        period=period_of(events),
        kind="successive",
        seen_filter=False,
        streaming=False,
        metric_name=metric_name,
        limit=10_000,
        rng=generator(1, "validation"),
    )


def taste_events(*, users: int = 200) -> Events:
    """Users who each choose at random among five items: six tastes, and no order.

    Items i and j are of the same taste where i and j are equal modulo 6.
    """
    events = markov_events(0.0, users=users)
    items = (events.item_idx - 1) // 6 * 6 + 1 + events.user_idx % 6
    return dataclasses.replace(events, item_idx=items.astype(np.int32))


def other_future(events: Events, cut: int) -> Events:
    """The same log with another future from `cut` on.

    Every other event of it is gone and the rest have other items, some unknown before; all users
    but the first have new events, and twenty users are new.
    """
    rng = np.random.default_rng(9)
    past = np.flatnonzero(events.timestamp < cut)
    kept = np.flatnonzero(events.timestamp >= cut)[::2]
    old, new = np.arange(2, events.n_users + 1), events.n_users + np.arange(1, 21)
    added = np.concatenate([np.repeat(old, 2), np.repeat(new, 3)])
    future = len(kept) + len(added)
    user = np.concatenate([events.user_idx[past], events.user_idx[kept], added])
    item = np.concatenate([events.item_idx[past], rng.integers(1, N_ITEMS + 8, future)])
    later = cut + MINUTE * rng.integers(0, 5_000, future)
    timestamp = np.concatenate([events.timestamp[past], later])
    order = np.lexsort((timestamp, user))  # stable: events of the past stay as they are
    n = len(order)
    return Events(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=new[-1] + 1))]),
        item_idx=item[order].astype(np.int32),
        timestamp=timestamp[order],
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def without_item(events: Events, item: int) -> Events:
    """The same log, in which `item` never occurred."""
    keep = events.item_idx != item
    kept = np.concatenate([[0], np.cumsum(keep)])
    columns = {name: getattr(events, name)[keep] for name in column_names() if name != "offsets"}
    return Events(offsets=kept[events.offsets], **columns)
