"""The run's own record: what was done, by which code, with which params."""

import subprocess
from pathlib import Path

import pytest

from flows import manifest
from flows.manifest import code_version, params_sha256


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("seed: 7\nscore: {k: 10}\n")
    return tmp_path


def test_a_run_is_recorded_step_by_step(workspace: Path) -> None:
    manifest.begin(workspace, flow="retrain", checkout=workspace)
    assert manifest.read(workspace)["state"] == "running"
    manifest.add_step(
        workspace, "ingest", outcome="ran", seconds=1.234, peak_rss_mb=99.96, counts={}
    )
    manifest.add_step(
        workspace, "gate", outcome="ran", seconds=1.0, peak_rss_mb=10.0, counts={"rows": 3}
    )
    manifest.end(workspace, state="completed")
    record = manifest.read(workspace)
    assert record["state"] == "completed"
    assert record["ended"] >= record["started"]
    assert [step["step"] for step in record["steps"]] == ["ingest", "gate"]
    assert record["steps"][0] == {
        "step": "ingest",
        "outcome": "ran",
        "seconds": 1.23,
        "peak_rss_mb": 100.0,
    }
    assert record["steps"][1]["counts"] == {"rows": 3}


def test_a_new_run_takes_the_place_of_the_old_record(workspace: Path) -> None:
    manifest.begin(workspace, flow="retrain", checkout=workspace)
    manifest.end(workspace, state="failed", error="the log is empty")
    assert manifest.read(workspace)["error"] == "the log is empty"
    manifest.begin(workspace, flow="score", checkout=workspace)
    record = manifest.read(workspace)
    assert "error" not in record
    assert record["flow"] == "score"
    assert record["previous"]["state"] == "failed"
    assert record["previous"]["error"] == "the log is empty"


def test_a_run_that_was_killed_is_called_interrupted_by_the_next(workspace: Path) -> None:
    manifest.begin(workspace, flow="retrain", checkout=workspace)
    assert manifest.read(workspace)["previous"] is None
    started = manifest.read(workspace)["started"]
    manifest.begin(workspace, flow="score", checkout=workspace)
    assert manifest.read(workspace)["previous"] == {
        "flow": "retrain",
        "started": started,
        "state": "interrupted",
    }


def test_params_hash_ignores_comments_and_order(workspace: Path) -> None:
    before = params_sha256(workspace)
    (workspace / "params.yaml").write_text("# note\nscore:\n  k: 10\nseed: 7\n")
    assert params_sha256(workspace) == before
    (workspace / "params.yaml").write_text("score: {k: 11}\nseed: 7\n")
    assert params_sha256(workspace) != before


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def test_code_version_is_the_commit_and_whether_files_differ(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "a.py").write_text("1")
    assert code_version(folder) == {"commit": None, "changed": None}
    git(folder, "add", "a.py")
    git(folder, "commit", "--quiet", "--message", "first")
    clean = code_version(folder)
    assert len(clean["commit"]) == 40
    assert clean["changed"] is False
    (folder / "a.py").write_text("2")
    assert code_version(folder) == {"commit": clean["commit"], "changed": True}
