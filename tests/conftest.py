"""What all tests share: the environment, public logs, and one tiny run of the pipeline."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recsys_core.artifacts import read_json
from recsys_core.layout import Layout
from tasks.child import child_environment

CHECKOUT = Path(__file__).resolve().parents[1]

# before anything reads them: one thread for reproducible bytes, one zone for readable times
os.environ.update({"TZ": "UTC", "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"})
os.environ.update({"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"})
time.tzset()

TINY = (
    "ingest.dataset=simulator-tiny",
    "train_embeddings.dim=16",
    "train_embeddings.max_epochs=2",
    "train_rnn.hidden=16",
    "train_rnn.window=16",
    "train_rnn.max_epochs=2",
    "train_memory.length=16",
    "train_memory.neighbours=16",
    "evaluate.bootstrap_draws=100",
    "gate.min_targets=20",
    "export_onnx.k=20",
    "score.shard_users=128",
)
"""Overrides that make the pipeline small enough to run whole in a test."""


@dataclass(frozen=True)
class Clone:
    """A git clone of this checkout, uncommitted files included, with a DVC cache of its own."""

    root: Path
    environment: Mapping[str, str]

    @property
    def workspace(self) -> Path:
        return self.root / "runs" / "default"

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    def call(
        self, *command: str, cwd: Path | None = None, code: int = 0, timeout: float = 1200
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the clone; another return code than `code` fails the test."""
        process = subprocess.Popen(
            command,
            cwd=self.root if cwd is None else cwd,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            # its steps have groups of their own, and it ends them if it is asked to
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=30)
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert process.returncode == code, (
            f"{command} gave {process.returncode}\n{stdout}\n{stderr}"
        )
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def twotempo(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        return self.call(sys.executable, "-m", "flows.cli", *arguments, code=code)

    def dvc(
        self, *arguments: str, cwd: Path | None = None, code: int = 0
    ) -> "subprocess.CompletedProcess[str]":
        return self.call(sys.executable, "-m", "dvc", *arguments, cwd=cwd, code=code)

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments).stdout

    def set_author(self) -> None:
        """Commits in this clone are nobody's."""
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@example.org")


def overrides(values: Sequence[str]) -> list[str]:
    """`-S` before each of the values."""
    return [word for value in values for word in ("-S", value)]


def copy_checkout(target: Path) -> None:
    """Copy what git tracks or would track, as it lies in the working tree."""
    listed = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "-z", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        source = CHECKOUT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A committed clone in a temporary folder; Prefect keeps its files there too."""
    root = tmp_path_factory.mktemp("clone") / "twotempo"
    root.mkdir()
    copy_checkout(root)
    environment = child_environment(os.environ)
    environment["PREFECT_HOME"] = str(root.parent / "prefect")
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PYTHONPATH", "PYTHONWARNINGS"):
        environment.pop(name, None)
    cloned = Clone(root=root, environment=environment)
    cloned.git("init", "--quiet", "--initial-branch", "main")
    cloned.set_author()
    cloned.git("add", "--all")
    cloned.git("commit", "--quiet", "--no-verify", "--message", "as it lies")
    return cloned


@dataclass(frozen=True)
class FinishedRun:
    """The one run of the whole flow that all tests look at and none of them changes.

    `record` is its run.json as it was at its end: a test may run something after it.
    """

    clone: Clone
    output: str
    record: dict[str, Any]

    @property
    def layout(self) -> Layout:
        return self.clone.layout


@pytest.fixture(scope="session")
def finished_run(clone: Clone) -> FinishedRun:
    """`twotempo run` on the tiny data set, through Prefect's temporary server."""
    done = clone.twotempo("run", *overrides(TINY))
    return FinishedRun(
        clone=clone, output=done.stdout, record=read_json(clone.workspace / "run.json")
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with public logs beside the checkout; the test is skipped where there is none."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public logs in {os.path.relpath(folder, CHECKOUT)}")
    return folder
