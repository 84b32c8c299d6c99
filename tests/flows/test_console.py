"""What a person sees of Prefect: a run's own lines, and warnings."""

import logging
import os
import signal
from pathlib import Path

import pytest

from flows.console import OwnLines, interrupted_by_signals, prepare_environment
from tests.conftest import CHECKOUT


def shown(path: Path, level: int) -> bool:
    record = logging.LogRecord("name", level, str(path), 1, "message", None, None)
    return OwnLines().filter(record) is True


def test_own_lines_are_shown_and_the_engines_are_not() -> None:
    prefect = Path("/venv/site-packages/prefect")
    assert shown(CHECKOUT / "flows" / "steps.py", logging.INFO)
    assert shown(CHECKOUT / "tasks" / "child.py", logging.INFO)
    assert not shown(prefect / "task_engine.py", logging.ERROR)
    assert not shown(prefect / "flow_engine.py", logging.INFO)
    assert not shown(prefect / "server" / "api.py", logging.INFO)
    assert shown(prefect / "server" / "api.py", logging.WARNING)


def test_a_record_without_a_path_is_judged_by_its_level() -> None:
    for path in ("", "x.py", "<frozen importlib._bootstrap>"):
        assert not shown(Path(path), logging.INFO)
        assert shown(Path(path), logging.WARNING)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_an_ignored_one_does_not(number: signal.Signals) -> None:
    # these tests may themselves run under nohup, which ignores one
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with interrupted_by_signals():
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_what_a_person_has_set_is_kept_but_use_is_never_reported() -> None:
    environment = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "7",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
    }
    prepare_environment(environment)
    assert environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "7"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert "PREFECT_API_URL" not in environment
