"""The whole pipeline on the tiny data set: one real run, looked at from all sides."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from recsys_core.artifacts import read_json, sha256
from recsys_core.layout import EDGES, STAGES
from tasks.child import child_environment
from tasks.code import PLUMBING
from tests.conftest import TINY, Clone, FinishedRun, overrides


def statuses(clone: Clone) -> dict[str, Any]:
    """What `dvc status` finds changed in the workspace, by stage."""
    found: dict[str, Any] = json.loads(clone.dvc("status", "--json", cwd=clone.workspace).stdout)
    return found


def test_the_run_did_every_step_and_recorded_it(finished_run: FinishedRun) -> None:
    record = finished_run.record
    assert record["state"] == "completed"
    assert [step["step"] for step in record["steps"]] == ["snapshot", *STAGES, *EDGES[1:]]
    assert {step["outcome"] for step in record["steps"]} == {"ran"}
    assert all(step["seconds"] > 0 and step["peak_rss_mb"] > 20 for step in record["steps"])
    assert record["code"]["commit"] == finished_run.clone.git("rev-parse", "HEAD").strip()
    assert record["code"]["changed"] is False


def test_it_ends_with_metrics_beside_baselines_and_a_users_list(finished_run: FinishedRun) -> None:
    output = finished_run.output
    baselines = ("popularity", "recent_popularity", "transitions", "oracle")
    for model in ("two_time_scale", "networks", *baselines):
        assert f"  {model} " in output
    for cohort in ("all: ", "active: ", "inactive: "):
        assert cohort in output
    assert "unknown: " not in output
    assert "a miss for all: " in output
    assert "…" not in output
    assert "recommendations.duckdb: view recommendations" in output
    assert "recommended now" in output


def test_the_table_is_there_with_its_view(finished_run: FinishedRun) -> None:
    import duckdb

    layout = finished_run.layout
    ids = [
        pq.read_table(path)["user_id"] for path in (layout.user_vocabulary, layout.user_features)
    ]
    users = len({*ids[0].to_pylist(), *ids[1].to_pylist()}) + 1  # and nobody in particular
    k = yaml.safe_load(layout.params.read_text())["score"]["k"]
    with duckdb.connect(str(layout.table), read_only=True) as connection:
        columns = [row[0] for row in connection.execute("DESCRIBE recommendations").fetchall()]
        published = ["user_id", "rank", "item_id", "score", "model_version", "as_of", "rating"]
        assert columns == published
        counts = connection.execute(
            "SELECT count(*), count(DISTINCT user_id), min(rank), max(rank) FROM recommendations"
        ).fetchall()
        assert counts == [(users * k, users, 1, k)]
        runs = connection.execute("SELECT count(*) FROM recommendation_runs").fetchall()
        assert runs == [(1,)]


def test_the_checkout_stays_clean(finished_run: FinishedRun) -> None:
    assert finished_run.clone.git("status", "--porcelain") == ""


def test_dvc_finds_nothing_to_do(finished_run: FinishedRun) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in sorted((finished_run.clone.workspace / "artifacts").rglob("*"))
    }
    output = finished_run.clone.dvc("repro", cwd=finished_run.clone.workspace).stdout
    assert "Data and pipelines are up to date." in output
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_width_changes_the_stages_that_train_the_network_and_no_others(
    finished_run: FinishedRun,
) -> None:
    """What follows from them is run for real in `test_experiments`."""
    params = finished_run.layout.params
    kept = params.read_text(encoding="utf-8")
    try:
        value = yaml.safe_load(kept)
        value["train_rnn"]["hidden"] = 24
        params.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
        found = statuses(finished_run.clone)
    finally:
        params.write_text(kept, encoding="utf-8")
    assert {name for name, changes in found.items() if changes} == {"train_rnn", "refit"}


def declared_inputs(stage: str, workspace: Path) -> list[str]:
    """The files and folders that dvc.lock says a stage read."""
    lock = yaml.safe_load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    return [entry["path"] for entry in lock["stages"][stage]["deps"]]


def files_under(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, by its path from there."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_same_bytes_elsewhere_from_its_declared_inputs_alone(
    finished_run: FinishedRun, tmp_path: Path, stage: str
) -> None:
    """Another folder, no cache, only what dvc.yaml names: an undeclared input is missing."""
    workspace = finished_run.clone.workspace
    packages = ["recsys_core", "tasks"]
    inits = [
        path.relative_to(workspace).as_posix()
        for name in packages
        for path in (workspace / name).rglob("__init__.py")
    ]
    for name in {*declared_inputs(stage, workspace), *PLUMBING, *inits, "params.yaml"}:
        source, target = workspace / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    done = subprocess.run(
        [sys.executable, "-m", f"tasks.stages.{stage}"],
        cwd=tmp_path,
        env=child_environment({**finished_run.clone.environment, "TZ": "Asia/Tokyo"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lock = yaml.safe_load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    for output in lock["stages"][stage]["outs"]:
        again, before = tmp_path / output["path"], workspace / output["path"]
        if before.is_dir():
            assert files_under(again) == files_under(before)
        else:
            assert again.read_bytes() == before.read_bytes(), output["path"]


def test_reports_hold_no_path_and_no_host(finished_run: FinishedRun) -> None:
    workspace = finished_run.clone.workspace
    reports = sorted((workspace / "reports").glob("*.json"))
    assert {path.stem for path in reports} >= set(STAGES)
    for path in reports:
        text = path.read_text(encoding="utf-8")
        assert str(workspace) not in text
        assert str(finished_run.clone.root) not in text
        assert os.uname().nodename not in text


def test_a_second_workspace_restores_every_stage(second_run: FinishedRun) -> None:
    record = second_run.record
    outcomes = {step["step"]: step["outcome"] for step in record["steps"]}
    # another workspace, the same params: everything comes from the shared cache
    assert {outcomes[stage] for stage in STAGES} == {"restored"}
    assert {outcomes[edge] for edge in EDGES} == {"ran"}


def test_both_runs_publish_the_same_rows(
    finished_run: FinishedRun, second_run: FinishedRun
) -> None:
    import duckdb

    tables = []
    for name in ("default", "second"):
        path = finished_run.clone.root / "runs" / name / "published" / "recommendations.duckdb"
        with duckdb.connect(str(path), read_only=True) as connection:
            tables.append(
                connection.execute(
                    "SELECT user_id, rank, item_id, score FROM recommendations ORDER BY 1, 2"
                ).fetchall()
            )
    assert tables[0] == tables[1]
    assert len(tables[0]) > 0


@pytest.fixture(scope="module")
def server(finished_run: FinishedRun) -> Iterator[str]:
    """The URL of a Prefect server of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", port],
        env=dict(finished_run.clone.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 300
        while not answers(f"{url}/health"):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def second_run(finished_run: FinishedRun, server: str) -> FinishedRun:
    """The same params once more, in another workspace of the same checkout, with a server."""
    clone = Clone(
        finished_run.clone.root, {**finished_run.clone.environment, "PREFECT_API_URL": server}
    )
    done = clone.twotempo("run", "-w", "runs/second", *overrides(TINY))
    record = read_json(clone.root / "runs" / "second" / "run.json")
    return FinishedRun(clone=clone, output=done.stdout, record=record)


def test_the_configured_server_saw_every_step(second_run: FinishedRun, server: str) -> None:
    request = urllib.request.Request(
        f"{server}/task_runs/filter",
        data=b"{}",
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    # the server takes task runs from its event stream, a little after they end
    deadline = time.monotonic() + 120
    wanted = dict.fromkeys((*STAGES, *EDGES), "COMPLETED")
    states: dict[str, str] = {}
    while time.monotonic() < deadline and states != wanted:
        with urllib.request.urlopen(request, timeout=30) as response:
            runs = json.load(response)
        # other tests' tasks may report to this server as well
        states = {run["name"]: run["state_type"] for run in runs if run["name"] in wanted}
        time.sleep(0.2)
    assert states == wanted


def test_score_publishes_again_without_training(second_run: FinishedRun) -> None:
    clone = second_run.clone
    done = clone.twotempo("score", "-w", "runs/second")
    record = read_json(clone.root / "runs" / "second" / "run.json")
    assert record["flow"] == "score"
    assert [step["step"] for step in record["steps"]] == ["score", "publish"]
    assert "recommended now" in done.stdout


def test_a_failing_stage_is_one_line_and_is_recorded(clone: Clone) -> None:
    done = clone.twotempo(
        "run", "-w", "runs/broken", "-S", "ingest.path=nothing_of_that_name", code=1
    )
    assert done.stderr.splitlines()[-1].startswith("error: ingest failed with code 255: ")
    assert "Traceback" not in done.stderr
    record = read_json(clone.root / "runs" / "broken" / "run.json")
    assert record["state"] == "failed"
    assert [step["step"] for step in record["steps"]] == ["snapshot"]
    assert "nothing_of_that_name" in record["error"]
