"""Runs one step in a workspace: `python -m tasks.stages.<stage>`, without arguments."""

import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from recsys_core.config import Params, read_params
from recsys_core.errors import BusyError, TwotempoError
from recsys_core.layout import Layout

DO_NOT_REPORT_USE = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}

TO_MEND, MAY_PASS = 1, 75
"""Codes that a step ends with: a person must mend something, or the same may work later."""

OWN_LOGGERS = ("__main__", "recsys_core", "tasks")
"""Of these the information is shown, of others their warnings; a step that runs is `__main__`."""


def sections_of(run: Callable[..., None]) -> list[str]:
    """The params sections that a step's `run` takes: its keywords other than `layout`."""
    return [name for name in inspect.signature(run).parameters if name != "layout"]


def run_step(run: Callable[..., None], layout: Layout, params: Params) -> None:
    """Call a step with the sections of `params` that its signature names."""
    run(layout=layout, **{name: params.section(name) for name in sections_of(run)})


def main(run: Callable[..., None]) -> None:
    """Run a step in the current folder; what a person can mend ends it with one line and code 1.

    The line goes to standard output: who runs the step hears that, also where the step has the
    terminal's standard error for itself.
    """
    if len(sys.argv) > 1:
        sys.exit(
            f"{sys.argv[0]} takes no arguments (found {sys.argv[1:]}): "
            "DVC could not track them; use params.yaml"
        )
    os.environ.update(DO_NOT_REPORT_USE)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    layout = Layout(Path())
    try:
        run_step(run, layout, read_params(layout.params))
    except TwotempoError as error:
        sys.stdout.write(f"error: {error}\n")
        sys.exit(MAY_PASS if isinstance(error, BusyError) else TO_MEND)
