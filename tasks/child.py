"""Runs a Python module as a child that is timed, measured, and ended with all that it started.

A time-out on a thread interrupts nothing, so a step runs in a process group of its own. However it
ends, nothing of the group is left when `run_module` returns; nor where this process is killed
meanwhile, a few seconds later.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_core.errors import StepError
from tasks.leash import GRACE_SECONDS, Leash
from tasks.step import DO_NOT_REPORT_USE, TO_MEND

LEFTOVER_SECONDS = 2.0
KEPT_LINES = 20


@dataclass(frozen=True)
class Usage:
    """What a child took. `peak_rss_mb`: the largest process of it and its children, in MiB.

    Linux counts a child as large as its parent until it has started its own program, so this is
    never below the size of the process that asks.
    """

    seconds: float
    peak_rss_mb: float


def run_module(
    arguments: Sequence[str],
    *,
    name: str,
    cwd: Path,
    timeout_seconds: float,
    on_line: Callable[[str], None],
    inherit_errors: bool,
    keep_open: Sequence[int] = (),
) -> Usage:
    """Run `python -m <arguments>` in `cwd` with this interpreter, as `name`; returns what it took.

    Each line of its standard output goes to `on_line`. Its standard error does too, unless
    `inherit_errors` leaves it the terminal, where a display can be drawn. The descriptors
    `keep_open` stay open in it. Raises `StepError` where it fails or takes longer than
    `timeout_seconds`; any other exception meanwhile (Ctrl-C) ends it.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)

    def keep(line: str) -> None:
        kept.append(line)
        show(line)

    show = _while_it_can(on_line)
    started = time.monotonic()
    with Leash() as leash:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if inherit_errors else subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=leash.group,
            pass_fds=keep_open,
        )
        pump = threading.Thread(target=_pump, args=(process, keep), daemon=True)
        pump.start()
        peak_rss_mb, expired = _wait(process, leash, timeout_seconds)
    pump.join(GRACE_SECONDS)
    seconds = time.monotonic() - started
    if expired:
        raise StepError(
            f"{name} took longer than {timeout_seconds:g} seconds and was ended; "
            "allow more with TWOTEMPO_STAGE_TIMEOUT_MINUTES or TWOTEMPO_EDGE_TIMEOUT_MINUTES"
        )
    if process.returncode != 0:
        raise StepError(
            f"{name} failed with code {process.returncode}: "
            f"{_reason(kept, heard_all=not inherit_errors)}",
            may_pass=process.returncode != TO_MEND,
        )
    return Usage(seconds=seconds, peak_rss_mb=peak_rss_mb)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: this interpreter comes first on PATH, nothing reports its use.

    Threads that wait for each other sleep, unless the environment says otherwise: where other work
    holds a core, threads that spin instead make training up to forty times slower.
    """
    own = {"OMP_WAIT_POLICY": "PASSIVE", **environment, **DO_NOT_REPORT_USE}
    own["PATH"] = os.pathsep.join(
        part for part in (str(Path(sys.executable).parent), own.get("PATH", "")) if part
    )
    # the child imports from the folder it runs in, and an outer DVC stage is not its own
    for name in ("PYTHONSAFEPATH", "DVC_ROOT", "DVC_STAGE"):
        own.pop(name, None)
    return own


def _while_it_can(on_line: Callable[[str], None]) -> Callable[[str], None]:
    """Call `on_line` until it cannot write: a child must not fail since nobody hears it any more.

    At a broken pipe `rich`, by which Prefect writes, asks the process to exit, in whatever thread.
    """
    heard = True

    def show(line: str) -> None:
        nonlocal heard
        if heard:
            try:
                on_line(line)
            except (OSError, SystemExit):
                heard = False

    return show


def _pump(process: subprocess.Popen[str], keep: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.strip():
                keep(line.rstrip())


def _wait(
    process: subprocess.Popen[str], leash: Leash, timeout_seconds: float
) -> tuple[float, bool]:
    """Wait for a child; returns its peak memory in MiB and whether it ran out of time."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        leash.end_group()

    timer = threading.Timer(timeout_seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        # no daemon: this process does not end before, though a second Ctrl-C comes meanwhile
        ender = threading.Thread(target=leash.end_group, daemon=False)
        ender.start()
        _, status, _ = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ender.join()
        raise
    finally:
        timer.cancel()
    # Popen did not reap the child itself, so it has to be told
    process.returncode = os.waitstatus_to_exitcode(status)
    if expired.is_set():
        timer.join()
    else:
        leash.end_group(grace_seconds=LEFTOVER_SECONDS)
    # Linux counts in KiB, macOS in bytes
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss / unit, expired.is_set()


def _reason(kept: Sequence[str], *, heard_all: bool) -> str:
    """What a failed child said: its own `error:` line where it has one, otherwise its last line."""
    for line in reversed(kept):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    # what it wrote to the terminal was not heard here, and says more than its last line
    return kept[-1] if kept and heard_all else "it said nothing here; look above"
