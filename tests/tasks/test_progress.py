"""The display passes every message on and says speed without the warm-up."""

import io
import logging
from collections.abc import Callable, Iterable

import pytest
from rich.console import Console

from recsys_core.training.progress import Progress
from tasks.progress import Rate, line, show


def message(
    done: int, *, epoch: int = 1, metric: float | None = None, loss: float | None = 2.5
) -> Progress:
    return Progress(
        stage="train_rnn",
        phase="active",
        epoch=epoch,
        epochs=3,
        done=done,
        total=100,
        loss=loss,
        metric_name="mrr@20",
        metric=metric,
    )


def ticking(times: Iterable[float]) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_rate_leaves_out_warm_up_and_validation() -> None:
    rate = Rate(ticking([10.0, 12.0, 99.0, 100.0]))
    assert rate.update(message(20)) is None
    assert rate.update(message(60)) == (60 - 20) / (12.0 - 10.0)
    assert rate.update(message(60, metric=0.1)) == 20.0
    assert rate.update(message(10, epoch=2)) is None


def test_line_says_what_is_known() -> None:
    assert line(message(100, metric=0.25), 1234.4) == (
        "stage=train_rnn phase=active epoch=1/3 events=100/100 loss=2.5000 mrr@20=0.2500 "
        "events_per_second=1234"
    )
    assert "loss" not in line(message(0, loss=None), None)


def test_lines_are_few_but_each_epoch_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    messages = [message(done) for done in range(0, 100, 10)] + [message(100, metric=0.1)]
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.3
        return now

    console = Console(file=io.StringIO(), force_terminal=False)
    with caplog.at_level(logging.INFO, logger="tasks.progress"):
        assert list(show(messages, console=console, clock=clock)) == messages
    texts = [record.getMessage() for record in caplog.records]
    # 11 messages take 7 s: one line in the middle, one for the epoch
    assert len(texts) == 2
    assert "mrr@20=0.1000" in texts[-1]


def test_terminal_shows_each_epochs_metric_above_the_bar() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200, color_system=None)
    messages = [message(50), message(100, metric=0.125), message(100, epoch=2, metric=0.5)]
    assert list(show(messages, console=console)) == messages
    shown = file.getvalue()
    assert "epoch=1/3" in shown
    assert "mrr@20=0.1250" in shown
    assert "mrr@20=0.5000" in shown
