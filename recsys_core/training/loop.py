"""The epoch loop of both training stages: early stopping, best epoch, checkpoints."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from recsys_core.artifacts import read_tensors_and_note, write_tensors
from recsys_core.errors import ModelError
from recsys_core.training.progress import Progress


class Trainer(Protocol):
    """What the loop needs to know of a model in training."""

    stage: str
    metric_name: str

    def epoch(self, number: int) -> Iterator[tuple[int, int, float]]:
        """Train one epoch, deterministic in `number` and the state before.

        Yields events done, events in all, and the mean loss so far.
        """

    def validate(self) -> float:
        """The validation metric, greater is better."""

    def weights(self) -> dict[str, Tensor]:
        """What makes the model: kept at the best epoch."""

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take up `weights`."""

    def state(self) -> dict[str, Tensor]:
        """Everything that the next epoch depends on."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up `state`."""


@dataclass(frozen=True)
class Checkpoint:
    """Where to keep the state, and what it belongs to: one of other inputs is never taken up."""

    path: Path
    fingerprint: str


@dataclass(frozen=True)
class EpochRow:
    """One row of the learning curve."""

    epoch: int
    loss: float
    metric: float | None


class Fit:
    """One fit of a trainer: iterating over `run()` trains it, and leaves it at its best epoch.

    With `patience`, every epoch is validated and training ends after that many epochs without a
    better metric; without, it runs `max_epochs` and the last epoch is the best. With `judge_start`
    too, where it began is validated as epoch 0, and kept where no epoch is better.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        phase: str,
        max_epochs: int,
        patience: int | None,
        checkpoint: Checkpoint | None,
        judge_start: bool = False,
    ) -> None:
        self._trainer = trainer
        self._judge_start = judge_start
        self._phase = phase
        self._max_epochs = max_epochs
        self._patience = patience
        self._checkpoint = checkpoint
        self.curve: list[EpochRow] = []
        self.best_epoch = 0
        self.best_metric = float("-inf")
        self._best: dict[str, Tensor] = {}

    def run(self) -> Iterator[Progress]:
        """Train, from the checkpoint where there is one; yields what happens."""
        self._resume()
        if not self._best:
            self._keep(0)
            if self._judge_start and self._patience is not None:
                self.best_metric = self._trainer.validate()
        while not self._finished():
            number = len(self.curve) + 1
            loss, total = float("nan"), 0
            for done, total, loss in self._trainer.epoch(number):
                yield self._progress(number, done, total, loss, None)
            if not math.isfinite(loss):
                raise ModelError(
                    f"{self._trainer.stage}: the loss is {loss} after epoch {number}; "
                    "lower the learning rates in params.yaml"
                )
            metric = None if self._patience is None else self._trainer.validate()
            if metric is not None and not math.isfinite(metric):
                raise ModelError(
                    f"{self._trainer.stage}: the validation metric is {metric} after epoch "
                    f"{number}; lower the learning rates in params.yaml"
                )
            self.curve.append(EpochRow(number, loss, metric))
            if metric is None or metric > self.best_metric:
                self.best_metric = float("-inf") if metric is None else metric
                self._keep(number)
            self._save()
            yield self._progress(number, total, total, loss, metric)
        self._trainer.load_weights(self._best)

    def _keep(self, number: int) -> None:
        self.best_epoch = number
        self._best = {name: value.clone() for name, value in self._trainer.weights().items()}

    def _finished(self) -> bool:
        if len(self.curve) >= self._max_epochs:
            return True
        return self._patience is not None and len(self.curve) - self.best_epoch >= self._patience

    def _progress(
        self, number: int, done: int, total: int, loss: float, metric: float | None
    ) -> Progress:
        return Progress(
            stage=self._trainer.stage,
            phase=self._phase,
            epoch=number,
            epochs=self._max_epochs,
            done=done,
            total=total,
            loss=loss,
            metric_name=self._trainer.metric_name,
            metric=metric,
        )

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors = {f"state/{name}": value for name, value in self._trainer.state().items()}
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        note = {
            "fingerprint": self._checkpoint.fingerprint,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric if self._patience is not None else None,
            "curve": [[row.epoch, row.loss, row.metric] for row in self.curve],
        }
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        write_tensors(self._checkpoint.path, arrays, note=json.dumps(note))

    def _resume(self) -> None:
        if self._checkpoint is None or not self._checkpoint.path.exists():
            return
        arrays, text = read_tensors_and_note(self._checkpoint.path)
        note = json.loads(text)
        if note["fingerprint"] != self._checkpoint.fingerprint:
            return
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        self._trainer.load_state(_below(tensors, "state/"))
        self._best = _below(tensors, "best/")
        self.best_epoch = note["best_epoch"]
        if note["best_metric"] is not None:
            self.best_metric = note["best_metric"]
        self.curve = [EpochRow(*row) for row in note["curve"]]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }
