"""The command line: quick to answer, and one line for what a person can mend."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import CHECKOUT, FinishedRun

HEAVY = ("torch", "prefect", "great_expectations", "pandas", "duckdb", "numpy", "pyarrow", "dvc")


def twotempo(*arguments: str, cwd: Path = CHECKOUT) -> "subprocess.CompletedProcess[str]":
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from flows.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['twotempo', '--help']\n"
        "from flows.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "score", "recommend", "describe", "params"):
        assert f" {command} " in done.stdout


def test_version() -> None:
    assert twotempo("--version").stdout.startswith("twotempo")


def test_a_mistake_is_one_line_and_code_1(tmp_path: Path) -> None:
    for arguments, said in (
        (["run", "-w", "x", "-S", "train_rnn.width=3"], "error: -S train_rnn.width=3: there is no"),
        (["score", "-w", "x"], "error: x is no workspace"),
        (["recommend", "u1", "-w", "x"], "error: x is no workspace"),
        (["describe", "x.parquet"], "error: x.parquet: no such file"),
        (["params", "-S", "seed=seven"], "error: params.yaml: seed: "),
    ):
        done = twotempo(*arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_params_are_those_that_a_run_would_have(tmp_path: Path) -> None:
    done = twotempo("params", "-S", "train_rnn.hidden=24", "-S", "ingest.path=logs", cwd=tmp_path)
    value = yaml.safe_load(done.stdout)
    assert value["train_rnn"]["hidden"] == 24
    assert value["ingest"]["path"] == "../../logs"
    # nothing was prepared
    assert list(tmp_path.iterdir()) == []


def test_params_of_a_workspace_are_those_it_ran_with(finished_run: FinishedRun) -> None:
    done = finished_run.clone.twotempo("params")
    assert yaml.safe_load(done.stdout)["train_rnn"]["hidden"] == 16


def test_recommend_shows_history_and_items_by_title(finished_run: FinishedRun) -> None:
    import pyarrow.parquet as pq

    layout = finished_run.layout
    user = pq.read_table(layout.user_vocabulary).column("user_id")[0].as_py()
    titles = set(pq.read_table(layout.item_features).column("title").to_pylist())
    shown = finished_run.clone.twotempo("recommend", user).stdout
    assert f"User {user}: the last events" in shown
    assert sum(title in shown for title in titles) >= 10


def test_recommend_says_which_users_there_are(finished_run: FinishedRun) -> None:
    done = finished_run.clone.twotempo("recommend", "nobody", code=1)
    assert done.stderr.startswith("error: user 'nobody' is not among the ")
    assert len(done.stderr.splitlines()) == 1


def test_describe_every_artifact_of_a_run(finished_run: FinishedRun) -> None:
    layout = finished_run.layout
    for path, said in (
        (layout.interactions, "written by: ingest"),
        (layout.events / "item_idx.npy", "array: int32"),
        (layout.report("evaluate"), "written by: evaluate"),
        (layout.bundle, "every file has the SHA-256"),
        (layout.table, "view recommendations"),
    ):
        assert said in finished_run.clone.twotempo("describe", str(path)).stdout
    stage = finished_run.clone.twotempo("describe", str(layout.stage("train_rnn"))).stdout
    assert "params train_rnn: " in stage
    assert "artifacts/train_rnn: md5 " in stage


def test_a_running_workspace_is_refused(finished_run: FinishedRun) -> None:
    from flows.workspace import locked

    with locked(finished_run.clone.workspace):
        done = finished_run.clone.twotempo("score", code=1)
    assert "is in use by another run" in done.stderr


@pytest.mark.parametrize("command", ["run", "params"])
def test_options_are_spelt_as_in_dvc(command: str) -> None:
    done = twotempo(command, "--help")
    assert "--set-param" in done.stdout
    assert "-S" in done.stdout
