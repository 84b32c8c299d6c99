"""Early stopping and checkpoints, with a trainer whose metric is a given list."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_core.training.loop import Checkpoint, Fit


class Scripted:
    """Its weight is the number of epochs that it has trained."""

    stage = "scripted"
    metric_name = "mrr@20"

    def __init__(self, metrics: list[float]) -> None:
        self._metrics = metrics
        self.weight = torch.zeros(1)

    def epoch(self, number: int) -> Iterator[tuple[int, int, float]]:
        self.weight += 1
        yield 5, 10, 2.0
        yield 10, 10, 1.0 / number

    def validate(self) -> float:
        return self._metrics[int(self.weight) - 1]

    def weights(self) -> dict[str, Tensor]:
        return {"weight": self.weight}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.weight.copy_(weights["weight"])

    state = weights
    load_state = load_weights


@pytest.mark.parametrize(
    ("metrics", "patience", "best", "epochs"),
    [
        ([0.1, 0.2, 0.15, 0.3, 0.1], 2, 4, 5),
        ([0.1, 0.2, 0.15, 0.1, 0.9], 2, 2, 4),
        ([0.5, 0.5, 0.5], 1, 1, 2),
    ],
)
def test_the_best_epoch_is_kept(
    metrics: list[float], patience: int, best: int, epochs: int
) -> None:
    trainer = Scripted(metrics)
    fit = Fit(trainer, phase="t", max_epochs=5, patience=patience, checkpoint=None)
    last = list(fit.run())[-1]
    assert (fit.best_epoch, len(fit.curve)) == (best, epochs)
    assert trainer.weight.item() == best
    assert (last.epoch, last.metric, last.done) == (epochs, metrics[epochs - 1], 10)


@pytest.mark.parametrize(
    ("metrics", "best", "epochs"), [([0.3, 0.2, 0.1, 0.4], 0, 2), ([0.3, 0.2, 0.4, 0.1], 2, 3)]
)
def test_the_start_is_kept_where_no_epoch_is_better(
    metrics: list[float], best: int, epochs: int, tmp_path: Path
) -> None:
    """Its weight is 1 to begin with; the second time everything comes from the checkpoint."""
    checkpoint = Checkpoint(tmp_path / "c.safetensors", "a")
    for _ in range(2):
        trainer = Scripted(metrics)
        trainer.weight += 1
        fit = Fit(
            trainer, phase="t", max_epochs=3, patience=2, checkpoint=checkpoint, judge_start=True
        )
        for _ in fit.run():
            pass
        assert (fit.best_epoch, len(fit.curve), trainer.weight.item()) == (best, epochs, best + 1)
        assert fit.best_metric == metrics[best]


def test_without_patience_the_last_epoch_is_the_best() -> None:
    trainer = Scripted([])
    fit = Fit(trainer, phase="t", max_epochs=3, patience=None, checkpoint=None)
    messages = list(fit.run())
    assert trainer.weight.item() == fit.best_epoch == 3
    assert all(message.metric is None for message in messages)


def test_a_finished_fit_is_taken_up_whole(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c.safetensors", "a")
    metrics = [0.1, 0.3, 0.2, 0.2]
    for _ in range(2):
        trainer = Scripted(metrics)
        fit = Fit(trainer, phase="t", max_epochs=9, patience=2, checkpoint=checkpoint)
        messages = list(fit.run())
        assert trainer.weight.item() == fit.best_epoch == 2
    assert messages == []


def test_a_checkpoint_of_other_inputs_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for fingerprint in ("a", "b"):
        trainer = Scripted([])
        checkpoint = Checkpoint(path, fingerprint)
        fit = Fit(trainer, phase="t", max_epochs=2, patience=None, checkpoint=checkpoint)
        assert {message.epoch for message in fit.run()} == {1, 2}
