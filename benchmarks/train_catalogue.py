"""The memory that a large catalogue takes: one epoch of stage two as the stage fits it, on a CPU.

The log is drawn: what counts is how many items there are, not what is liked. The epoch ends with
its validation and its checkpoint, which take memory too.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import ROOT
from benchmarks.train_ours import SEED, as_drawn, params_of
from benchmarks.training_case import STEPS_A_MESSAGE, Case, say
from recsys_core.config import read_params
from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events
from recsys_core.rng import generator
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Checkpoint, Fit
from recsys_core.training.validation import Validation

EVENTS_PER_USER = 15
MICROSECONDS = 1_000_000_000_000
"""The length of the drawn log, eleven and a half days."""

TRAINED = 0.95
"""The share of that time which is learned from; the rest is validation."""

TARGETS = 1_000


def fit(settings: str, items: int, events: int) -> None:
    """One epoch on a drawn log of `events` events and `items` items, nearly all without an event.

    Tells how many batches there were; the measuring process knows the memory.
    """
    case = Case.from_json(settings)
    params = read_params(ROOT / "params.yaml")
    drawn = drawn_events(events, items=items)
    cut, end = (
        Cut.at(drawn, time, n_items=items) for time in (int(TRAINED * MICROSECONDS), MICROSECONDS)
    )
    log = LogUntil(drawn, cut)
    validation = Validation(
        drawn,
        period=Period(cut, end),
        kind="successive",
        seen_filter=False,
        streaming=False,
        metric_name=params.first_metric,
        limit=TARGETS,
        rng=generator(SEED, "validation targets"),
    )
    cpu = torch.device("cpu")
    trainer = RnnTrainer(
        log,
        params_of(case, params.train_rnn),
        embeddings=as_drawn(log, params.train_embeddings, device=cpu),
        seed=SEED,
        device=cpu,
        validation=validation,
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", "measured")
        fitting = Fit(trainer, phase="t", max_epochs=1, patience=1, checkpoint=checkpoint)
        messages = sum(progress.metric is None for progress in fitting.run())
    say(
        items=items,
        events=int(log.counts.sum()),
        steps_at_least=STEPS_A_MESSAGE * (messages - 1),
        validation_targets=len(validation.targets),
    )


def drawn_events(events: int, *, items: int) -> Events:
    """About as many events of users who take any item, low numbers far more often."""
    rng = generator(SEED, "catalogue")
    users = max(1, events // EVENTS_PER_USER)
    user = np.sort(rng.integers(1, users + 1, events))
    timestamp = rng.integers(0, MICROSECONDS, events)
    order = np.lexsort((timestamp, user))  # by user, then time
    item = 1 + (items * rng.random(events) ** 2.0).astype(np.int32)
    return Events(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users + 1))]),
        item_idx=item,
        timestamp=timestamp[order],
        session_idx=np.zeros(events, dtype=np.int64),
        session_start=np.zeros(events, dtype=np.bool_),
        event_type=np.zeros(events, dtype=np.int8),
        value=np.full(events, np.nan, dtype=np.float32),
        source_row=np.arange(events, dtype=np.int64),
    )
