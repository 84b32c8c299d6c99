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
    for command in ("init", "check", "run", "backtest", "score", "recommend", "describe", "params"):
        assert f" {command} " in done.stdout


def test_version() -> None:
    assert twotempo("--version").stdout.startswith("twotempo")


def test_a_mistake_is_one_line_and_code_1(tmp_path: Path) -> None:
    for arguments, said in (
        (["run", "-w", "x", "-S", "train_rnn.width=3"], "error: -S train_rnn.width=3: there is no"),
        (["backtest", "-w", "x", "-S", "evaluate.targets=last"], "error: evaluate.targets is last"),
        (["score", "-w", "x"], "error: x is no workspace"),
        (["recommend", "u1", "-w", "x"], "error: x is no workspace"),
        (["describe", "x.parquet"], "error: x.parquet: no such file"),
        (["params", "-S", "seed=seven"], "error: params.yaml: seed: "),
        (["init", "x.csv"], "error: x.csv: no such file or folder"),
        (["init", "x.csv", "--out", "card.txt"], "error: --out card.txt: a card's file is called"),
        (["init", "x.csv", "--name", "simulator"], "error: "),
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
    from flows.locks import locked

    with locked(finished_run.clone.workspace):
        done = finished_run.clone.twotempo("score", code=1)
    assert "is in use by another run" in done.stderr


@pytest.mark.parametrize("command", ["run", "params"])
def test_options_are_spelt_as_in_dvc(command: str) -> None:
    done = twotempo(command, "--help")
    assert "--set-param" in done.stdout
    assert "-S" in done.stdout


def write_clicks(folder: Path, n: int = 3_000) -> None:
    """`clicks.csv`: sixty visitors, a click every ten minutes."""
    lines = [
        f"v{row % 60},a{7 * row % 97},{1_700_000_000 + 600 * row},{'view' if row % 9 else 'buy'}"
        for row in range(n)
    ]
    text = "\n".join(["visitor,article,at,action", *lines, ""])
    (folder / "clicks.csv").write_text(text, encoding="utf-8")


def test_init_then_check(tmp_path: Path) -> None:
    write_clicks(tmp_path)
    done = twotempo("init", "clicks.csv", "--out", "shop.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "visitor" in done.stdout
    assert "by its name; 60 distinct values in 3,000 rows" in done.stdout
    # the commands to go on with can be typed as they stand there
    commands = [line for line in done.stdout.splitlines() if line.startswith("  twotempo ")]
    assert commands[0] == "  twotempo check shop.yaml --path ."
    assert "-S ingest.dataset=shop -S ingest.path=." in commands[1]
    checked = twotempo(*commands[0].split()[1:], cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines()[-1] == "no problems"
    assert yaml.safe_load((tmp_path / "shop.yaml").read_text())["columns"]["user_id"] == "visitor"


def test_init_replaces_no_card_unless_forced(tmp_path: Path) -> None:
    write_clicks(tmp_path)
    card = tmp_path / "shop.yaml"
    card.write_text("mine\n", encoding="utf-8")
    refused = twotempo("init", "clicks.csv", "--out", "shop.yaml", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: shop.yaml is there already; ")
    assert card.read_text() == "mine\n"
    forced = twotempo("init", "clicks.csv", "--out", "shop.yaml", "--force", cwd=tmp_path)
    assert forced.returncode == 0
    assert "visitor" in card.read_text()


def test_check_ends_with_the_number_of_problems(tmp_path: Path) -> None:
    write_clicks(tmp_path)
    options = ("--user", "article", "--item", "visitor", "--out", "shop.yaml")
    assert twotempo("init", "clicks.csv", *options, cwd=tmp_path).returncode == 0
    card = tmp_path / "shop.yaml"
    text = card.read_text().replace("timestamp: at ", "timestamp: when ")
    card.write_text(text.replace("unit: s", "unit: fortnights"), encoding="utf-8")
    done = twotempo("check", "shop.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "problem: shop.yaml: time.unit: " in done.stdout
    assert done.stdout.splitlines()[-1] == "1 problem"
