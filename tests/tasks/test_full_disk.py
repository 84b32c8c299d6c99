"""On a full disk a step ends with one line, and what lay there before is whole."""

import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from recsys_core.layout import Layout
from tasks.step import is_full_disk
from tests.conftest import CHECKOUT
from tests.small_logs import START, contents, params_for, run_stages, workspace

ROWS = 60_000
LIMIT = 300_000
"""Bytes that a file may have: less than each stage's largest."""


def wide_log() -> pa.Table:
    """Ids that do not compress, so that every stage has much to write."""
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "user": [f"{value:x}" for value in rng.integers(0, 2**60, ROWS)],
            "item": [f"{value:x}" for value in rng.integers(0, 2**60, ROWS)],
            "at": START + rng.integers(0, 8 * 86_400_000_000, ROWS),
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = workspace(tmp_path_factory.mktemp("finished"), wide_log())
    params = params_for("small", "data")
    text = yaml.safe_dump(params.model_dump(mode="json", by_alias=True))
    layout.params.write_text(text, encoding="utf-8")
    run_stages(layout, "ingest", "validate", "sessionize")
    return layout


def run_stage(
    layout: Layout, stage: str, *, limit: int | None
) -> "subprocess.CompletedProcess[str]":
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", f"tasks.stages.{stage}"],
        cwd=layout.root,
        env={"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("stage", ["ingest", "validate", "sessionize"])
def test_no_room_is_one_line_and_the_next_run_is_whole(
    finished: Layout, tmp_path: Path, stage: str
) -> None:
    shutil.copytree(finished.root, tmp_path / "copy")
    layout = Layout(tmp_path / "copy")
    shutil.rmtree(layout.stage(stage))
    done = run_stage(layout, stage, limit=LIMIT)
    assert done.returncode == 1, done
    assert "the disk is full, or a limit on files is reached" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    # with room again the same stage gives what it gave at first
    assert run_stage(layout, stage, limit=None).returncode == 0
    assert contents(layout.root / "artifacts") == contents(finished.root / "artifacts")


@pytest.mark.parametrize("stage", ["ingest", "validate", "sessionize"])
def test_a_file_system_that_fills_up_is_one_line(
    finished: Layout, tmp_path: Path, stage: str
) -> None:
    small = ["unshare", "--map-root-user", "--mount"]
    try:
        able = subprocess.run(
            [*small, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no `unshare`: a small file system cannot be mounted here")
    if able.returncode != 0:
        pytest.skip("a small file system may not be mounted here")
    size = sum(len(value) for value in contents(finished.root).values()) * 9 // 8
    script = (
        'mount -t tmpfs -o "size=$2" tmpfs "$3" && cp -r "$1"/. "$3" && cd "$3" && '
        'rm -r "artifacts/$4" && dd if=/dev/zero of=ballast bs=64k 2>/dev/null; '
        'rm -f spare; truncate -s -200000 ballast && exec "$5" -m "tasks.stages.$4"'
    )
    done = subprocess.run(
        [
            *small,
            "sh",
            "-c",
            script,
            "sh",
            finished.root,
            str(size),
            tmp_path,
            stage,
            sys.executable,
        ],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert "the disk is full" in done.stdout.splitlines()[-1], done
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("space"), False),
    ],
)
def test_a_full_disk_is_known_by_its_code_or_its_text(error: Exception, full: bool) -> None:
    assert is_full_disk(error) is full
    outer = RuntimeError("writing failed")
    outer.__cause__ = error
    assert is_full_disk(outer) is full
