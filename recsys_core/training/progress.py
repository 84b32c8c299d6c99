"""What training says while it works; the clock and the display are the task's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One message: `done` of `total` events of epoch `epoch` (from 1); `metric` is set when the
    epoch has ended."""

    stage: str
    phase: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    metric_name: str
    metric: float | None
