"""The trainings of this project that are measured, and what the machine can do at most.

They run `RnnTrainer` in its first phase, as the stage does: one network that learns from
everybody. Stage one's vectors are as drawn: what they say changes no speed.
"""

import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from benchmarks.training_case import SEQUENCES, STEPS_A_MESSAGE, Case, Meter, say, say_speed
from recsys_core.config import read_params
from recsys_core.data.cuts import known_part
from recsys_core.layout import Layout
from recsys_core.models.backbones import BackboneName
from recsys_core.models.embeddings import Embeddings
from recsys_core.sections import TrainEmbeddings, TrainRnn
from recsys_core.tables import read_events
from recsys_core.training import fit_rnn
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.log_until import LogUntil
from tasks.cuts import read_cuts

SEED = 1


def write_sequences(folder: str) -> None:
    """Write what the peers learn from: the training events of a workspace, user by user."""
    log = _log_of(Layout(Path(folder)))
    offsets = np.concatenate([[0], np.cumsum(log.counts[log.counts > 0])])
    np.savez(
        Path(folder) / SEQUENCES,
        item=log.events.item_idx[log.rows],
        offsets=offsets,
        n_items=log.n_items,
    )
    say(events=int(offsets[-1]), users=len(offsets) - 1, items=log.n_items)


def train(settings: str) -> None:
    """Measure one training."""
    assert fit_rnn.STEPS_A_MESSAGE == STEPS_A_MESSAGE, "peers are looked at as often"
    case = Case.from_json(settings)
    layout = Layout(Path(case.folder))
    log, sections = _log_of(layout), read_params(layout.params)
    stage_one = replace(sections.train_embeddings, dim=case.width)
    params = params_of(case, sections.train_rnn)
    trainer = RnnTrainer(
        log,
        params,
        embeddings=as_drawn(log, stage_one, device=device()),
        seed=SEED,
        device=device(),
        validation=None,
    )
    meter = Meter(case.seconds)
    for number in count(1):
        before = 0
        for done, _, _ in trainer.epoch(number):
            if meter.tell(done - before):
                say_speed(
                    meter,
                    n_items=log.n_items,
                    device=device().type,
                    ffn=params.ffn,
                    device_peak_mb=device_peak_mb(),
                )
                return
            before = done


def params_of(case: Case, base: TrainRnn) -> TrainRnn:
    """The row's section at the width and window that are compared.

    Every event read is a target and its time is not read, as in the peers.
    """
    return replace(
        base,
        window=case.window,
        lead=0.0,
        backbone=cast("BackboneName", case.model),
        hidden=case.width,
        depth=1,
        reads=(),
        time_dim=4,
        field_dropout=0.0,
        trend_hours=None,
        trend_temperature=1.0,
        trend_refresh_hours=None,
        rewards={},
        low_value=None,
        low_value_reward=0.0,
        rating=False,
        rating_weight=1.0,
        rating_pull=0.5,
        dropout=case.dropout,
        embedding_dropout=0.0,
        batch=case.batch,
        loss=cast("Literal['softmax', 'sampled_softmax', 'bpr_max']", case.loss),
        negatives=case.negatives,
    )


def as_drawn(log: LogUntil, params: TrainEmbeddings, *, device: torch.device) -> Embeddings:
    """Stage one's vectors before it has learned anything."""
    trainer = EmbeddingTrainer(log, params, seed=SEED, device=device, validation=None)
    return trainer.embeddings(fold_in_l2=1.0)


def sgemm(size: int, repeats: int) -> None:
    """Tell how many multiply-adds of float32 a product of two square matrices does a second."""
    left, right = torch.rand(2, size, size, device=device()).unbind()
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    # the first one warms up; of the rest the fastest is what the machine can do
    say(multiply_adds_per_second=size**3 / min(seconds[1:]), threads=torch.get_num_threads())


def device() -> torch.device:
    """Where everything is measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The same as a name, a GPU's own among it: speeds of two GPUs are not one measurement."""
    return "cpu" if device().type == "cpu" else f"cuda {torch.cuda.get_device_name()}"


def device_peak_mb() -> int | None:
    """The most that was held on a GPU; None on a CPU, whose memory is the process's."""
    if device().type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20)


def _log_of(layout: Layout) -> LogUntil:
    """What the model that is chosen on validation learns from."""
    events = read_events(layout.events)
    return LogUntil(*known_part(events, read_cuts(layout, events).valid))
