"""What the training stages share: their data, the device, checkpoints, and the fits with progress
shown."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.artifacts import read_json, sha256
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.layout import Layout
from recsys_core.models.requests import known_events
from recsys_core.rng import generator
from recsys_core.sections import TrainEmbeddings, TrainRnn
from recsys_core.tables import ITEM_VOCABULARY, read_events, read_table
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Checkpoint, Fit, Trainer
from recsys_core.training.validation import Validation
from tasks.code import RUNNING, code_digest
from tasks.progress import show

logger = logging.getLogger(__name__)

VALIDATION_TARGETS = 20_000
"""Targets that are ranked after each epoch; the standard error of their mean metric is below
.003."""


@dataclass(frozen=True)
class TrainingData:
    """The log with its split and vocabulary, the device, and where an interrupted fit is kept."""

    events: Events
    split: Split
    items: Vocabulary
    type_weights: npt.NDArray[np.float32]  # of each event type
    device: torch.device
    checkpoints: Path
    fingerprint: str

    @classmethod
    def read(
        cls, layout: Layout, stage: str, *sections: TrainEmbeddings | TrainRnn | int | str
    ) -> "TrainingData":
        """The sessionized log; checkpoints belong to it, to the sections and to this number of
        threads."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        facts: dict[str, Any] = {
            "sections": [
                value if isinstance(value, int | str) else asdict(value) for value in sections
            ],
            "inputs": _digests(layout, stage),
            "code": code_digest(f"stages.{stage}", root=RUNNING),
            "torch": torch.__version__,
            "device": device.type,
            "threads": torch.get_num_threads(),
        }
        text = json.dumps(facts, sort_keys=True)
        logger.info("event=device device=%s threads=%d", device.type, torch.get_num_threads())
        return cls(
            events=read_events(layout.events),
            split=Split(**read_json(layout.split)),
            items=Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY)),
            type_weights=np.array(read_json(layout.event_types)["weights"], dtype=np.float32),
            device=device,
            checkpoints=layout.checkpoints / stage,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )

    def log_until(self, until: int) -> LogUntil:
        """The log as it was known just before `until`.

        An event with an earlier time whose item arrived later, in a late delivery, is not in it.
        """
        n_items = self.items.known_before(until)
        late = (self.events.timestamp < until) & (self.events.item_idx > n_items)
        events = known_events(self.events, n_items) if late.any() else self.events
        return LogUntil(events, until, n_items, self.type_weights)

    def validation(self, *, metric_name: str, seed: int) -> Validation:
        """Targets of the validation period for a model of what was known before it."""
        start = self.split.valid_start
        return Validation(
            self.events,
            start=start,
            end=self.split.test_start,
            n_items=self.items.known_before(start),
            metric_name=metric_name,
            limit=VALIDATION_TARGETS,
            rng=generator(seed, "validation targets"),
        )

    def fit(self, trainer: Trainer, *, phase: str, max_epochs: int, patience: int | None) -> Fit:
        """Train to the end, showing progress and keeping a checkpoint after each epoch."""
        checkpoint = Checkpoint(
            self.checkpoints / f"{trainer.stage}-{phase}.safetensors", self.fingerprint
        )
        fit = Fit(
            trainer, phase=phase, max_epochs=max_epochs, patience=patience, checkpoint=checkpoint
        )
        for _ in show(fit.run()):
            pass
        return fit

    def forget_checkpoints(self) -> None:
        """Once its output is written, a stage's checkpoints have served."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def rows_trained(data: TrainingData) -> dict[str, dict[str, int]]:
    """How many events came in, how many the evaluated model learns from, and why not the rest."""
    learned = int(data.log_until(data.split.test_start).counts.sum())
    test = int(np.count_nonzero(data.events.timestamp >= data.split.test_start))
    # of items that a later delivery brought: nobody could know them before the test period
    late = len(data.events) - learned - test
    return {"rows": {"in": len(data.events), "out": learned, "test": test, "late": late}}


def curve_rows(fit: Fit) -> list[dict[str, float | int | None]]:
    """The learning curve as rows for `dvc plots`."""
    return [{"epoch": row.epoch, "loss": row.loss, "metric": row.metric} for row in fit.curve]


def _digests(layout: Layout, stage: str) -> dict[str, str]:
    """What a stage trains on: the log, and the outputs of the training stages before it."""
    before = {
        "train_embeddings": (),
        "train_rnn": ("train_embeddings",),
        "refit": ("train_embeddings", "train_rnn"),
    }
    folders = [layout.stage("sessionize"), *(layout.stage(name) for name in before[stage])]
    return {
        str(path.relative_to(layout.root)): sha256(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
