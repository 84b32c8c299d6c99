"""Runs one step in a workspace: `python -m tasks.stages.<stage>`, without arguments."""

import errno
import inspect
import logging
import os
import shutil
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

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

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
    except Exception as error:
        if not is_full_disk(error):
            raise
        sys.stdout.write(f"error: {full_disk(layout.root)}\n")
        sys.exit(TO_MEND)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no more room to write.

    The libraries that write pass the system's code on, or only its text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        if any(os.strerror(code).lower() in str(error).lower() for code in NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk(folder: Path) -> str:
    """What to say where there is no more room to write in a folder."""
    free = shutil.disk_usage(folder).free / 2**20
    return (
        f"{folder.resolve().name}: the disk is full, or a limit on files is reached "
        f"({free:,.0f} MiB are free); free some and run it again: what was finished before is whole"
    )
