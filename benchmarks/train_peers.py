"""What training is measured beside: a plain loop around `nn.GRU`, and SASRec of RecTools.

RecTools needs older versions of NumPy and pandas than this project pins, so it runs in an
environment of its own, and nothing of this project's is imported here.

Both take windows of `window` targets, `batch // window` of them in a batch. The plain loop cuts
every history into such windows; RecTools takes the last one of each user.
"""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training_case import STEPS_A_MESSAGE, Case, Meter, say_speed

LEARNING_RATE = 1e-3


class PlainGru(nn.Module):
    """An embedding, one `nn.GRU`, and the items' vectors once more as the output layer."""

    def __init__(self, n_items: int, *, width: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))

    def forward(self, items: Tensor) -> Tensor:
        """(B, T) to the outputs (B, T, H)."""
        outputs: Tensor = self.drop(self.cell(self.drop(self.items(items)))[0])
        return outputs

    def logits(self, outputs: Tensor) -> Tensor:
        """(N, H) to (N, V + 1)."""
        return torch.addmm(self.bias, outputs, self.items.weight.T)


def plain_gru(settings: str) -> None:
    """Measure the plain loop: padded to the longest window of the batch, full cross-entropy, Adam.

    Only real targets reach the output layer. Scoring the padding too, as many loops do, would be
    slower.
    """
    case = Case.from_json(settings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(case.sequences) as found:
        item, offsets, n_items = found["item"], found["offsets"], int(found["n_items"])
    model = PlainGru(n_items, width=case.width, dropout=case.dropout).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    windows = windows_of(item, offsets, size=case.window)
    meter, since, step = Meter(case.seconds), 0, 0
    rng = np.random.default_rng(1)
    while True:
        for inputs, targets in padded_batches(windows, rows=rows_of(case), rng=rng):
            outputs = model(inputs.to(device))  # (B, T, H)
            real = targets.to(device) > 0  # (B, T)
            logits = model.logits(outputs[real])  # (N, V + 1)
            loss = nn.functional.cross_entropy(logits, targets.to(device)[real])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            since += int((targets > 0).sum())
            step += 1
            if step % STEPS_A_MESSAGE == 0:
                loss.item()  # a GPU is done once its answer is here
                if meter.tell(since):
                    say_speed(meter, n_items=n_items, device=device.type)
                    return
                since = 0


def windows_of(
    item: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any], *, size: int
) -> list[Tensor]:
    """Every history cut into windows of `size` targets, each with the event before its first."""
    windows = []
    for begin, end in pairwise(offsets.tolist()):
        for start in range(begin, end - 1, size):
            windows.append(torch.from_numpy(item[start : min(start + size + 1, end)]).long())
    return windows


def padded_batches(
    windows: list[Tensor], *, rows: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of `rows` windows at a time, in random order. (B, T) twice, 0 is PAD"""
    order = rng.permutation(len(windows)).tolist()
    for first in range(0, len(order), rows):
        batch = nn.utils.rnn.pad_sequence(
            [windows[index] for index in order[first : first + rows]], batch_first=True
        )  # (B, T + 1)
        yield batch[:, :-1], batch[:, 1:]


def rows_of(case: Case) -> int:
    """How many windows a batch has where all are padded to one length."""
    return max(1, case.batch // case.window)


def sasrec(settings: str) -> None:
    """Measure SASRec of RecTools by its own `fit`, with one block, one head, and Adam."""
    import pandas as pd
    from pytorch_lightning import Callback, LightningModule, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    case = Case.from_json(settings)

    class Clock(Callback):  # type: ignore[misc]
        """Tells the meter what was learned, and ends the fit."""

        def __init__(self) -> None:
            self.meter = Meter(case.seconds)
            self._since = self._step = 0

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
        ) -> None:
            del pl_module
            self._since += int((batch["y"] > 0).sum())
            self._step += 1
            if self._step % STEPS_A_MESSAGE == 0:
                outputs["loss"].item()
                trainer.should_stop = self.meter.tell(self._since)
                self._since = 0

    def trainer() -> Trainer:
        return Trainer(
            min_epochs=0,
            max_epochs=1_000_000,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[Clock()],
            devices=1,
        )

    with np.load(case.sequences) as found:
        item, offsets, n_items = found["item"], found["offsets"], int(found["n_items"])
    rows = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)),
            Columns.Item: item,
            Columns.Weight: 1.0,
            # only the order counts
            Columns.Datetime: pd.to_datetime(np.arange(len(item)), unit="s"),
        }
    )
    model = SASRecModel(
        n_blocks=1,
        n_heads=1,
        n_factors=case.width,
        dropout_rate=case.dropout,
        session_max_len=case.window,
        loss=case.loss,
        n_negatives=case.negatives,
        lr=LEARNING_RATE,
        batch_size=rows_of(case),
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(rows))
    # it trains with a copy of the trainer, and so of the clock
    [clock] = [found for found in model.fit_trainer.callbacks if hasattr(found, "meter")]
    say_speed(
        clock.meter,
        n_items=n_items,
        device=model.fit_trainer.strategy.root_device.type,
        versions={name: version(name) for name in ("rectools", "torch", "numpy")},
    )
