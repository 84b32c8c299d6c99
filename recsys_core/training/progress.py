"""What training says while it works; the clock and the display are the task's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One message: `done` of `total` events of epoch `epoch` (from 1), of at most `epochs`.

    An epoch's last message has all events done and, where it was validated, its metric. Where
    `metric_name` is empty nothing is validated.
    """

    stage: str
    phase: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    metric_name: str
    metric: float | None
