"""Prefect on a person's console: the environment that it reads, and which lines are shown."""

import logging
import os
import signal
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flows.workspace import CHECKOUT
from recsys_core.errors import ConfigError, StepError
from tasks.step import DO_NOT_REPORT_USE

ENGINE = ("flow_engine", "task_engine")
DEFAULTS = {
    # a busy laptop, or a first start that makes a database, may need more than Prefect's 20 s
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # what the server lost of Prefect's own events is no matter of the run
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # with no server configured a temporary one is started
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s %(task_run_name)s %(message)s",
}
INTERRUPTED = "the run was interrupted; start it again, and it goes on after the last finished step"
UNREACHED = "Failed to reach API"


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what Prefect reads when it is imported; what a person has set is kept."""
    environment.update(DO_NOT_REPORT_USE)
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)


class OwnLines(logging.Filter):
    """Lets a run's own lines and warnings of others through.

    Prefect's engine reports each state and each failure with its traceback; the steps say the same
    in one line, and the server keeps its own version. Its events matter to its own pages alone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        # of a record made elsewhere (C code, another process) the path may be no more than a name
        if Path(record.pathname).parent.parent == CHECKOUT:
            return True
        if record.name.startswith("prefect.events"):
            return False
        return record.levelno >= logging.WARNING and record.module not in ENGINE


@contextmanager
def on_console() -> Iterator[None]:
    """Run a flow for a person at a console: `OwnLines` are shown, and a lost server is one line.

    To be entered once Prefect is imported.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    show_own_lines()
    # Ctrl-C ends the temporary server too; nobody should wait a minute for it to come back
    temporary = PREFECT_API_URL.value() is None
    server = "temporary server" if temporary else f"server {PREFECT_API_URL.value()}"
    with (
        interrupted_by_signals(),
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1} if temporary else {}),
        lost_server_in_one_line(server),
    ):
        try:
            yield
        except KeyboardInterrupt as error:
            raise StepError(INTERRUPTED) from error


@contextmanager
def lost_server_in_one_line(server: str) -> Iterator[None]:
    """Raise a `StepError` where Prefect's `server` does not answer, or refuses what it is asked."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, RuntimeError, BaseExceptionGroup) as caught:
        error = next(
            (one for one in _single_errors(caught) if isinstance(one, httpx.HTTPError)), caught
        )
        if not isinstance(error, httpx.HTTPError) and UNREACHED not in str(error):
            raise
        if _was_interrupted(error):
            raise StepError(INTERRUPTED) from error
        said = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, httpx.HTTPStatusError):
            raise StepError(
                f"Prefect's {server} refuses what it is asked ({said}); look whether its address, "
                "PREFECT_API_KEY and PREFECT_API_AUTH_STRING are right"
            ) from error
        raise StepError(
            f"Prefect's {server} does not answer ({said}); start it, or unset PREFECT_API_URL"
        ) from error


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Take SIGTERM and SIGHUP (a closed terminal) for Ctrl-C, so that they end the steps too.

    One that is ignored stays so: `nohup` means what it says.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def show_own_lines() -> None:
    """Keep what `OwnLines` leaves out off the console; a server hears it all the same."""
    from prefect.logging.handlers import PrefectConsoleHandler

    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, PrefectConsoleHandler)
    ]
    if not handlers:
        raise ConfigError(
            "Prefect has no console handler at the root logger; unset PREFECT_LOGGING_SETTINGS_PATH"
        )
    for handler in handlers:
        handler.addFilter(OwnLines())


def _single_errors(error: BaseException) -> Iterator[BaseException]:
    """An error, or those that a group of them holds."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _single_errors(one)
    else:
        yield error


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what an error came from: it is raised again while the engine reports it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
