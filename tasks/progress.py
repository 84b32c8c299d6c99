"""Shows long work while it goes on: a bar on a terminal, `key=value` lines anywhere else.

The library says how far it is (`Progress`); the clock is here.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from recsys_core.training.progress import Progress

logger = logging.getLogger(__name__)

LINE_SECONDS = 5.0


class Rate:
    """Events per second of one epoch.

    Its first message starts the clock, since what came before was warm-up; a message that tells of
    no further events (validation) leaves the rate as it was.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch: tuple[str, int] | None = None
        self._first = (0, 0.0)
        self._done = 0
        self._rate: float | None = None

    def update(self, progress: Progress) -> float | None:
        """Take note of a message; the rate, or None where there is nothing yet to divide by."""
        now = self._clock()
        if self._epoch != (progress.phase, progress.epoch):
            self._epoch = (progress.phase, progress.epoch)
            self._first, self._done, self._rate = (progress.done, now), progress.done, None
        elif progress.done > self._done and now > self._first[1]:
            self._done = progress.done
            self._rate = (progress.done - self._first[0]) / (now - self._first[1])
        return self._rate


class Ends:
    """Finds the message with which an epoch is over, once for each epoch.

    That is the one with the metric, or where nothing is validated the first with all events done.
    """

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def over(self, progress: Progress) -> bool:
        """Whether the epoch is over with this message; False for those that come after it."""
        epoch = (progress.phase, progress.epoch)
        known = progress.metric is not None or not progress.metric_name
        if progress.done < progress.total or not known or epoch == self._last:
            return False
        self._last = epoch
        return True


def show(
    messages: Iterable[Progress],
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """The messages, shown as they pass; `console` is standard error unless given."""
    console = Console(file=sys.stderr) if console is None else console
    if console.is_terminal:
        return _bars(messages, console=console, clock=clock)
    return _lines(messages, clock=clock)


def _lines(messages: Iterable[Progress], *, clock: Callable[[], float]) -> Iterator[Progress]:
    """One line for each epoch, and between them at most one in `LINE_SECONDS`."""
    rate, ends = Rate(clock), Ends()
    last = clock()
    for progress in messages:
        speed = rate.update(progress)
        if ends.over(progress) or clock() - last >= LINE_SECONDS:
            logger.info("%s", line(progress, speed))
            last = clock()
        yield progress


def line(progress: Progress, speed: float | None) -> str:
    """A message as `key=value`; what is not known yet is left out.

    `seconds_left` is how long the epoch still takes at this speed, as beside the bar.
    """
    words = [
        f"stage={progress.stage}",
        f"phase={progress.phase}",
        f"epoch={progress.epoch}/{progress.epochs}",
        f"events={progress.done}/{progress.total}",
        f"loss={progress.loss:.4f}",
    ]
    if progress.metric is not None:
        words.append(f"{progress.metric_name}={progress.metric:.4f}")
    if speed is not None:
        words.append(f"events_per_second={speed:.0f}")
        if progress.done < progress.total:
            words.append(f"seconds_left={(progress.total - progress.done) / speed:.0f}")
    return " ".join(words)


def _bars(
    messages: Iterable[Progress], *, console: Console, clock: Callable[[], float]
) -> Iterator[Progress]:
    """A bar for the epoch that runs, above it a line for each epoch that has ended."""
    rate, ends = Rate(clock), Ends()
    with Bar(
        TextColumn("{task.fields[stage]} {task.fields[phase]} epoch {task.fields[epoch]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    ) as bar:
        task: TaskID | None = None
        current: tuple[str, int] | None = None
        for progress in messages:
            speed = rate.update(progress)
            if current != (progress.phase, progress.epoch):
                if task is not None:
                    bar.remove_task(task)
                current = (progress.phase, progress.epoch)
                task = bar.add_task(
                    "",
                    total=progress.total,
                    stage=progress.stage,
                    phase=progress.phase,
                    epoch=f"{progress.epoch}/{progress.epochs}",
                    facts="",
                )
            assert task is not None
            bar.update(task, completed=progress.done, facts=facts(progress, speed))
            if ends.over(progress):
                console.print(line(progress, speed), highlight=False)
            yield progress


def facts(progress: Progress, speed: float | None) -> str:
    """What stands beside the bar: loss and speed, as far as known."""
    words = [f"loss {progress.loss:.4f}"]
    if speed is not None:
        words.append(f"{speed:,.0f} events/s")
    return "  ".join(words)
