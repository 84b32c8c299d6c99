"""The speed of a case's training by itself: an epoch of stage two, without validation.

Each is measured in a process of its own, all of them once a round, on the training events and from
the embeddings of the case's workspace.
"""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from benchmarks.measure import call, measure_and_listen
from benchmarks.training_case import Meter, heard, say_speed
from recsys_core.config import read_params
from recsys_core.layout import Layout
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.rewards import Rewards
from tasks.embedding_files import UNTIL_VALID, read_embeddings
from tasks.item_features import known_features
from tasks.training import TrainingData

Speeds = dict[str, dict[str, float]]


def measure_speeds(workspaces: Mapping[str, Layout], *, seconds: float, repeats: int) -> Speeds:
    """By case the targets of an epoch, those learned a second (the median of the runs), and the
    seconds that an epoch takes."""
    told: dict[str, list[dict[str, float]]] = {name: [] for name in workspaces}
    for _ in range(repeats):
        for name, layout in workspaces.items():
            command = call("benchmarks.hrnn_speed:train", str(layout.root.resolve()), seconds)
            told[name].append(heard(measure_and_listen(command)[1]))
    found: Speeds = {}
    for name, runs in told.items():
        speed = statistics.median(run["events_per_second"] for run in runs)
        targets = runs[0]["epoch_targets"]
        found[name] = {
            "epoch_targets": targets,
            "events_per_second": speed,
            "seconds_per_epoch": round(targets / speed, 2),
        }
    return found


def train(folder: str, seconds: float) -> None:
    """Train a workspace's case for some seconds, and tell how fast that was."""
    layout = Layout(Path(folder))
    params = read_params(layout.params)
    section = params.train_rnn
    if section.t_star == "auto":
        section = replace(section, t_star=10)  # nobody is routed in the phase together
    data = TrainingData.read(
        layout, "train_rnn", section, params.features, reward_rule=Rewards.of(section)
    )
    log = data.log_until(data.cuts.valid)
    trainer = RnnTrainer(
        log,
        section,
        embeddings=read_embeddings(layout.stage("train_embeddings") / UNTIL_VALID),
        seed=params.seed,
        device=data.device,
        validation=None,
        features=known_features(layout, params.features, data.cuts.valid),
    )
    meter = Meter(seconds)
    for number in count(1):
        before = 0
        for done, total, _ in trainer.epoch(number):
            if meter.tell(done - before):
                say_speed(meter, epoch_targets=total, threads=torch.get_num_threads())
                return
            before = done
