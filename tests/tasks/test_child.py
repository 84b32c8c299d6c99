"""A child is measured, heard, and ended with all that it started."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from recsys_core.errors import StepError
from tasks.child import Usage, child_environment, run_module


def run_script(folder: Path, text: str, *, timeout: float = 30.0) -> tuple[list[str], Usage]:
    (folder / "script.py").write_text(text, encoding="utf-8")
    lines: list[str] = []
    usage = run_module(
        ["script"],
        name="script",
        cwd=folder,
        timeout_seconds=timeout,
        on_line=lines.append,
        inherit_errors=False,
    )
    return lines, usage


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def until_gone(pid: int) -> bool:
    """Wait a little for a process to end; whether it did."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_both_outputs_are_heard_and_memory_is_that_of_the_child(tmp_path: Path) -> None:
    lines, usage = run_script(
        tmp_path,
        "import sys\nkept = b'x' * (150 << 20)\n"
        "print('out', flush=True)\nprint('err', file=sys.stderr)",
    )
    assert lines == ["out", "err"]
    assert 150 < usage.peak_rss_mb < 400
    assert 0 < usage.seconds < 30


def test_memory_of_a_grandchild_counts(tmp_path: Path) -> None:
    _, usage = run_script(
        tmp_path,
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', \"kept = b'x' * (150 << 20)\"], check=True)",
    )
    assert usage.peak_rss_mb > 150


def test_failure_says_the_childs_own_reason(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^script failed with code 1: the log is empty$"):
        run_script(tmp_path, "import sys\nprint('before')\nsys.exit('error: the log is empty')")


def test_failure_without_a_reason_says_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"code 1: ZeroDivisionError: division by zero$"):
        run_script(tmp_path, "1 / 0")


SLEEPER = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "open('pids', 'w').write(f'{child.pid}')\n"
    "time.sleep(60)"
)


def test_time_out_ends_the_grandchildren_too(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StepError, match="took longer than 2 seconds"):
        run_script(tmp_path, SLEEPER, timeout=2.0)
    assert time.monotonic() - started < 20
    assert until_gone(int((tmp_path / "pids").read_text()))


def test_interruption_ends_the_group(tmp_path: Path) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_script(tmp_path, SLEEPER)
    thread.join()
    assert until_gone(int((tmp_path / "pids").read_text()))


def test_this_interpreter_comes_first_on_path() -> None:
    folder = str(Path(sys.executable).parent)
    assert child_environment({"PATH": "/bin"})["PATH"] == os.pathsep.join([folder, "/bin"])
    assert child_environment({})["PATH"] == folder


def test_nothing_reports_its_use_and_no_outer_stage_is_inherited() -> None:
    environment = child_environment({"DVC_ROOT": "/elsewhere", "PYTHONSAFEPATH": "1"})
    assert environment["DVC_NO_ANALYTICS"] == "1"
    assert environment["DO_NOT_TRACK"] == "1"
    assert not {"DVC_ROOT", "PYTHONSAFEPATH"} & set(environment)
