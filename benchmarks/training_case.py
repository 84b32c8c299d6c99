"""What the benchmark of training and the processes that it measures say to each other.

Nothing but the standard library is imported: a peer runs in an environment of its own.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STEPS_A_MESSAGE = 8
"""Batches between two looks at the clock, so that a GPU need not wait; the first so many are the
warm-up."""

SEQUENCES = "sequences.npz"
SAID = "measured "


@dataclass(frozen=True)
class Case:
    """One training to measure; all that peers share is in here, so that they are compared at it.

    `batch` counts places of a batch, padding included; a model of windows that are all padded to
    one length takes `batch // window` of them. `negatives` are of the sampled losses.
    """

    log: str
    model: str
    loss: str
    folder: str  # the log's workspace, and in it the file SEQUENCES
    window: int
    batch: int
    width: int
    negatives: int
    dropout: float
    seconds: float

    @property
    def sequences(self) -> Path:
        """Where the histories lie: `item` (N,), those of user u from offsets[u] to offsets[u + 1],
        and `n_items`."""
        return Path(self.folder) / SEQUENCES

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The case of `to_json`."""
        return cls(**json.loads(text))


class Meter:
    """Targets learned a second, after a warm-up, until a number of seconds has passed."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._limit = seconds
        self._clock = clock
        self._began: float | None = None
        self.targets = 0
        self.seconds = 0.0

    def tell(self, targets: int) -> bool:
        """Take in what was learned since the last call; returns whether that is enough.

        What the first call tells is the warm-up, and is not counted.
        """
        now = self._clock()
        if self._began is None:
            self._began = now
            return False
        self.targets += targets
        self.seconds = now - self._began
        return self.seconds >= self._limit

    @property
    def per_second(self) -> float:
        return self.targets / self.seconds


def say(**facts: Any) -> None:
    """Tell the measuring process what was found."""
    print(SAID + json.dumps(facts), flush=True)


def say_speed(meter: Meter, **facts: Any) -> None:
    """Tell what a meter has counted, and more."""
    say(
        events_per_second=round(meter.per_second, 1),
        targets=meter.targets,
        seconds=round(meter.seconds, 3),
        **facts,
    )


def heard(text: str) -> dict[str, Any]:
    """What was told last by the process that wrote `text`; it may have written anything else."""
    lines = [line for line in text.splitlines() if line.startswith(SAID)]
    if not lines:
        raise ValueError(f"the measured process told nothing; it wrote: {text[-2000:]}")
    facts: dict[str, Any] = json.loads(lines[-1].removeprefix(SAID))
    return facts
