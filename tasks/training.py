"""What the training stages share: their data, the device, checkpoints, and the fits with progress
shown."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.artifacts import read_json, sha256
from recsys_core.data.cuts import Cut, Cuts, known_part
from recsys_core.data.events import Events
from recsys_core.data.fields import EncodedFields
from recsys_core.layout import Layout
from recsys_core.sections import Evaluate, Features, TrainEmbeddings, TrainRnn
from recsys_core.tables import read_events
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Checkpoint, Fit, Trainer
from recsys_core.training.rewards import Rewards
from recsys_core.training.validation import Validation
from tasks.code import RUNNING, code_digest
from tasks.cuts import read_cuts, validation_of
from tasks.fields import reads_fields, with_fields
from tasks.progress import show

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The log with its cuts, the device, and where an interrupted fit is kept."""

    events: Events
    cuts: Cuts
    type_weights: npt.NDArray[np.float32]  # of each event type
    type_names: tuple[str, ...]
    reward_rule: Rewards
    device: torch.device
    checkpoints: Path
    fingerprint: str

    @classmethod
    def read(
        cls,
        layout: Layout,
        stage: str,
        *sections: TrainEmbeddings | TrainRnn | Features | int | str,
        reward_rule: Rewards,
    ) -> "TrainingData":
        """The sessionized log; checkpoints belong to it, to the sections and to this number of
        threads."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        facts: dict[str, Any] = {
            "sections": [
                value if isinstance(value, int | str) else asdict(value) for value in sections
            ],
            "rewards": asdict(reward_rule),
            "inputs": _digests(layout, stage)
            | _digests_of_features(layout, [one for one in sections if isinstance(one, Features)])
            | _digests_of_fields(layout, [one for one in sections if isinstance(one, TrainRnn)]),
            "code": code_digest(f"stages.{stage}", root=RUNNING),
            "torch": torch.__version__,
            "device": device.type,
            "threads": torch.get_num_threads(),
        }
        text = json.dumps(facts, sort_keys=True)
        logger.info("event=device device=%s threads=%d", device.type, torch.get_num_threads())
        events, types = read_events(layout.events), read_json(layout.event_types)
        return cls(
            events=events,
            cuts=read_cuts(layout, events),
            type_weights=np.array(types["weights"], dtype=np.float32),
            type_names=tuple(types["names"]),
            reward_rule=reward_rule,
            device=device,
            checkpoints=layout.checkpoints / stage,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )

    def reading(self, fields: EncodedFields | None) -> "TrainingData":
        """The same log with what is read of events and users, None: nothing."""
        return replace(self, events=with_fields(self.events, fields))

    def log_until(self, cut: Cut) -> LogUntil:
        """The log as it was known at one of the cuts.

        An event with an earlier time whose item arrived later, in a late delivery, is not in it.
        """
        return LogUntil(
            *known_part(self.events, cut), self.type_weights, self.type_names, self.reward_rule
        )

    def validation(self, evaluate: Evaluate, *, metric_name: str, seed: int) -> Validation:
        """Targets of the validation period for a model of what was known before it: those with a
        reward above 0."""
        return validation_of(
            self.events,
            self.cuts.validation_period,
            evaluate=evaluate,
            metric_name=metric_name,
            seed=seed,
            wanted=self.reward_rule.wanted(self.events, self.type_names),
        )

    def fit(
        self,
        trainer: Trainer,
        *,
        phase: str,
        max_epochs: int,
        patience: int | None,
        judge_start: bool = False,
    ) -> Fit:
        """Train to the end, showing progress and keeping a checkpoint after each epoch."""
        checkpoint = Checkpoint(
            self.checkpoints / f"{trainer.stage}-{phase}.safetensors", self.fingerprint
        )
        fit = Fit(
            trainer,
            phase=phase,
            max_epochs=max_epochs,
            patience=patience,
            checkpoint=checkpoint,
            judge_start=judge_start,
        )
        for _ in show(fit.run()):
            pass
        return fit

    def forget_checkpoints(self) -> None:
        """Once its output is written, a stage's checkpoints have served."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def rows_trained(data: TrainingData, *, unwanted: bool) -> dict[str, dict[str, int]]:
    """How many events came in, how many the evaluated model learns from, and why not the rest.

    It learns from those with a reward of 0, the `unwanted`, or not.
    """
    log = data.log_until(data.cuts.test)
    known = int(log.counts.sum())
    learned = known if unwanted else len(log.wanted_rows)
    before = int(data.cuts.test.counts.sum())
    # of items that a later delivery brought: nobody could know them before the test period
    rows = {
        "in": len(data.events),
        "out": learned,
        "test": len(data.events) - before,
        "late": before - known,
    }
    if learned < known:
        rows["unwanted"] = known - learned
    return {"rows": rows}


def curve_rows(fit: Fit, *, after: int = 0) -> list[dict[str, float | int | str | None]]:
    """The learning curve as rows for `dvc plots`, `after` epochs of a phase before it."""
    return [
        {"epoch": after + row.epoch, "loss": row.loss, "metric": row.metric} for row in fit.curve
    ]


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


def _digests_of_features(layout: Layout, sections: Sequence[Features]) -> dict[str, str]:
    """What the card says of item features, and their table, where a section reads any."""
    read = any(section.items for section in sections)
    files = (layout.declared_features, layout.item_features) if read else ()
    return {path.name: sha256(path) for path in files if path.exists()}


def _digests_of_fields(layout: Layout, sections: Sequence[TrainRnn]) -> dict[str, str]:
    """What the card says of fields, and the tables of log and users, where a section reads any."""
    read = any(reads_fields(section.reads) for section in sections)
    declared = (layout.declared_features, layout.valid_interactions, layout.user_features)
    files = declared if read else ()
    return {
        path.relative_to(layout.root).as_posix(): sha256(path) for path in files if path.exists()
    }
