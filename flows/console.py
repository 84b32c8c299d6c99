"""Prefect on a person's console: the environment that it reads, and which lines are shown."""

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path

from recsys_core.errors import ConfigError
from tasks.step import DO_NOT_REPORT_USE

ENGINE = ("flow_engine", "task_engine")
DEFAULTS = {
    # a busy laptop, or a first start that makes a database, may need more than Prefect's 20 s
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # with no server configured a temporary one is started
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s %(task_run_name)s %(message)s",
}


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what Prefect reads when it is imported; what a person has set is kept."""
    environment.update(DO_NOT_REPORT_USE)
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)


class OwnLines(logging.Filter):
    """Lets a run's own lines and warnings of others through.

    Prefect's engine reports each state and each failure with its traceback; the steps say the same
    in one line, and the server keeps Prefect's version.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if Path(record.pathname).parents[1] == Path(__file__).parents[1]:
            return True
        return record.levelno >= logging.WARNING and record.module not in ENGINE


def quiet_prefect() -> None:
    """Show only `OwnLines` on the console; to be called once Prefect is imported."""
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
