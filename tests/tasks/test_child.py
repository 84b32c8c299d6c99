"""A child is measured, heard, and ended with all that it started."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.locks import locked
from recsys_core.errors import StepError
from tasks.child import Usage, child_environment, run_module
from tests.conftest import CHECKOUT


def run_script(
    folder: Path, text: str, *, timeout: float = 120.0, inherit_errors: bool = False
) -> tuple[list[str], Usage]:
    (folder / "script.py").write_text(text, encoding="utf-8")
    lines: list[str] = []
    usage = run_module(
        ["script"],
        name="script",
        cwd=folder,
        timeout_seconds=timeout,
        on_line=lines.append,
        inherit_errors=inherit_errors,
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


def test_both_outputs_are_heard(tmp_path: Path) -> None:
    lines, usage = run_script(
        tmp_path, "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)"
    )
    assert lines == ["out", "err"]
    assert 0 < usage.seconds < 120


@pytest.mark.parametrize("refusal", [BrokenPipeError("gone"), SystemExit(1)])
def test_a_child_goes_on_where_nobody_hears_it(tmp_path: Path, refusal: BaseException) -> None:
    """As where the worker that showed its lines was killed."""
    (tmp_path / "script.py").write_text(
        "import pathlib, time\n"
        "for line in range(5):\n    print(line, flush=True)\n    time.sleep(0.1)\n"
        "pathlib.Path('done').touch()",
        encoding="utf-8",
    )
    heard = []

    def refuse(line: str) -> None:
        heard.append(line)
        raise refusal

    run_module(
        ["script"],
        name="script",
        cwd=tmp_path,
        timeout_seconds=120,
        on_line=refuse,
        inherit_errors=False,
    )
    assert (heard, (tmp_path / "done").exists()) == (["0"], True)


MEASURE = (
    "from pathlib import Path\n"
    "from tasks.child import run_module\n"
    "usage = run_module(['script'], name='script', cwd=Path({folder!r}), timeout_seconds=120,\n"
    "    on_line=print, inherit_errors=False)\n"
    "print(usage.peak_rss_mb)"
)


def test_memory_is_that_of_the_child(tmp_path: Path) -> None:
    """Asked by a small process of its own: a child is never counted below the size of its parent,
    and this one has grown with all the tests before."""
    (tmp_path / "script.py").write_text("kept = b'x' * (150 << 20)", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(folder=str(tmp_path))],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 150 < float(done.stdout) < 300


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


STEP = (
    "from recsys_core.errors import BusyError, DataError\n"
    "from tasks import step\n"
    "step.read_params = lambda path: None\n"
    "def run():\n    raise {error}('the reason')\n"
    "step.run_step = lambda run, layout, params: run()\n"
    "print('before')\n"
    "step.main(run)"
)


@pytest.mark.parametrize("inherit_errors", [False, True])
@pytest.mark.parametrize(("error", "code"), [("DataError", 1), ("BusyError", 75)])
def test_a_steps_own_reason_is_heard_also_where_it_has_the_terminal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inherit_errors: bool,
    error: str,
    code: int,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    with pytest.raises(StepError, match=rf"^script failed with code {code}: the reason$") as caught:
        run_script(tmp_path, STEP.format(error=error), inherit_errors=inherit_errors)
    # what a person must mend is not tried again
    assert caught.value.may_pass is (code != 1)


def test_a_death_on_the_terminal_is_not_explained_by_another_line(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"code 1: it said nothing here; look above$"):
        run_script(tmp_path, "print('before', flush=True)\n1 / 0", inherit_errors=True)


def test_failure_without_a_reason_says_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"code 1: ZeroDivisionError: division by zero$"):
        run_script(tmp_path, "1 / 0")


LEAVER = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open('new', 'w').write(f'{child.pid}')\n"
    "os.rename('new', 'pids')\n"
)
SLEEPER = f"{LEAVER}time.sleep(600)"


def test_time_out_ends_the_grandchildren_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WhenStarted(threading.Timer):
        """Runs out as soon as the grandchild is there, however slowly this machine starts it."""

        def run(self) -> None:
            while not (tmp_path / "pids").exists() and not self.finished.wait(0.02):
                pass
            self.function()

    monkeypatch.setattr("tasks.child.threading.Timer", WhenStarted)
    with pytest.raises(StepError, match="took longer than 300 seconds") as caught:
        run_script(tmp_path, SLEEPER, timeout=300.0)
    assert not caught.value.may_pass
    assert not is_alive(int((tmp_path / "pids").read_text()))


@pytest.mark.parametrize(
    "last", ["", "sys.exit(3)", "import signal; os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_what_a_child_leaves_behind_is_ended_before_anything_goes_on(
    tmp_path: Path, last: str
) -> None:
    if last:
        with pytest.raises(StepError):
            run_script(tmp_path, LEAVER + last)
    else:
        run_script(tmp_path, LEAVER)
    assert not is_alive(int((tmp_path / "pids").read_text()))


def test_a_descriptor_stays_open_in_the_child(tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as file:
        (tmp_path / "script.py").write_text(
            f"import os\nos.write({file.fileno()}, b'heard')", encoding="utf-8"
        )
        run_module(
            ["script"],
            name="script",
            cwd=tmp_path,
            timeout_seconds=120,
            on_line=print,
            inherit_errors=False,
            keep_open=[file.fileno()],
        )
    assert (tmp_path / "held").read_text() == "heard"


def test_interruption_ends_the_group(tmp_path: Path) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 100
        while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # a shell that starts the tests in the background leaves them an ignored SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_script(tmp_path, SLEEPER)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not is_alive(int((tmp_path / "pids").read_text()))


RUNNER = (
    "from pathlib import Path\n"
    "from flows.locks import held_lock, locked\n"
    "from tasks.child import run_module\n"
    "folder = Path({folder!r})\n"
    "with locked(folder):\n"
    "    run_module(['script'], name='script', cwd=folder, timeout_seconds=300, on_line=print,\n"
    "        inherit_errors=False, keep_open=held_lock(folder))\n"
)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_step_ends_with_its_run_though_that_is_killed(tmp_path: Path, deaf: bool) -> None:
    """What it has started too, asked first and then killed; then another run may begin."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    (tmp_path / "script.py").write_text(
        f"{ignore}{LEAVER}open('pids', 'a').write(f' {{os.getpid()}} {{os.getpgid(0)}}')\n"
        "open('ready', 'w').close()\ntime.sleep(600)",
        encoding="utf-8",
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER.format(folder=str(tmp_path))],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (tmp_path / "ready").exists())
    finally:
        runner.kill()
        runner.wait()
    *pids, watcher = map(int, (tmp_path / "pids").read_text().split())
    # the shell that leads the group goes with it
    wait_until(lambda: not any(map(is_alive, [*pids, watcher])))
    with locked(tmp_path):
        pass


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_this_interpreter_comes_first_on_path() -> None:
    folder = str(Path(sys.executable).parent)
    assert child_environment({"PATH": "/bin"})["PATH"] == os.pathsep.join([folder, "/bin"])
    assert child_environment({})["PATH"] == folder


def test_nothing_reports_its_use_and_no_outer_stage_is_inherited() -> None:
    assert child_environment({})["OMP_WAIT_POLICY"] == "PASSIVE"
    assert child_environment({"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"
    environment = child_environment({"DVC_ROOT": "/elsewhere", "PYTHONSAFEPATH": "1"})
    assert environment["DVC_NO_ANALYTICS"] == "1"
    assert environment["DO_NOT_TRACK"] == "1"
    assert not {"DVC_ROOT", "PYTHONSAFEPATH"} & set(environment)
