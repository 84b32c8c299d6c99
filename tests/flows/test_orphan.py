"""A run ends with its parent, though that was killed, and not before."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows.orphan import ended_with_its_parent
from tests.conftest import CHECKOUT

RUN = """
import os, sys, time
from pathlib import Path
from flows.orphan import ended_with_its_parent
with ended_with_its_parent():
    Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, RUN, str(begun)], cwd=CHECKOUT)
    try:
        until = time.monotonic() + 60
        while not (begun.exists() and begun.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        run = int(begun.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 60
    while is_there(run) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_there(run)


def is_there(process: int) -> bool:
    """Whether a process lives; one that nobody has waited for yet does not."""
    status = Path(f"/proc/{process}/stat")
    if Path("/proc").is_dir():
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_goes_on_with_its_parent_there() -> None:
    with ended_with_its_parent():
        time.sleep(1.5)
