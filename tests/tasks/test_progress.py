"""The display passes every message on and says speed without the warm-up."""

import io
import logging
from collections.abc import Callable, Iterable

import pytest
from rich.console import Console

from recsys_core.training.progress import Progress
from tasks.progress import Rate, line, show


def message(
    done: int, *, epoch: int = 1, metric: float | None = None, metric_name: str = "mrr@20"
) -> Progress:
    return Progress(
        stage="train_rnn",
        phase="active",
        epoch=epoch,
        epochs=3,
        done=done,
        total=100,
        loss=2.5,
        metric_name=metric_name,
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
    assert line(message(40), 8.0).endswith(" loss=2.5000 events_per_second=8 seconds_left=8")
    assert line(message(40), None).endswith(" loss=2.5000")


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


@pytest.mark.parametrize("validated", [True, False])
def test_an_epoch_ends_with_one_line_whether_it_is_validated_or_not(
    validated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As `Fit` says it: the trainer's last message, then one more after the checkpoint."""
    name, metric = ("mrr@20", 0.1) if validated else ("", None)
    messages = [
        part
        for epoch in (1, 2, 3)
        for part in (
            message(50, epoch=epoch, metric_name=name),
            message(100, epoch=epoch, metric_name=name),
            message(100, epoch=epoch, metric=metric, metric_name=name),
        )
    ]
    lines = Console(file=io.StringIO(), force_terminal=False)
    bars = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    with caplog.at_level(logging.INFO, logger="tasks.progress"):
        assert list(show(messages, console=lines, clock=lambda: 0.0)) == messages
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split()[2] for text in texts] == ["epoch=1/3", "epoch=2/3", "epoch=3/3"]
    assert all(("mrr@20=0.1000" in text) == validated for text in texts)
    assert list(show(messages, console=bars)) == messages
    assert isinstance(bars.file, io.StringIO)
    shown = bars.file.getvalue()
    assert [shown.count(f"epoch={epoch}/3 events=100/100") for epoch in (1, 2, 3)] == [1, 1, 1]


def test_terminal_shows_each_epochs_metric_above_the_bar() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200, color_system=None)
    messages = [message(50), message(100, metric=0.125), message(100, epoch=2, metric=0.5)]
    assert list(show(messages, console=console)) == messages
    shown = file.getvalue()
    assert "epoch=1/3" in shown
    assert "mrr@20=0.1250" in shown
    assert "mrr@20=0.5000" in shown
