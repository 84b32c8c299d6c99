"""A step gets the sections that it names, and what a person can mend is one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_core.config import read_params
from recsys_core.layout import Layout
from recsys_core.sections import Gate, Score
from tasks.step import main, run_step, sections_of
from tests.conftest import CHECKOUT


def test_a_step_gets_exactly_the_sections_it_names(tmp_path: Path) -> None:
    got: list[object] = []

    def run(*, layout: Layout, gate: Gate, seed: int) -> None:
        got.extend([layout, gate, seed])

    params = read_params(CHECKOUT / "params.yaml")
    run_step(run, Layout(tmp_path), params)
    assert sections_of(run) == ["gate", "seed"]
    assert got == [Layout(tmp_path), params.section("gate"), params.seed]


def test_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["step", "--fast"])

    def run(*, layout: Layout, score: Score) -> None:
        raise AssertionError("it must not run")

    with pytest.raises(SystemExit, match="takes no arguments"):
        main(run)


def test_a_wrong_parameter_is_one_line_and_code_1(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "params.yaml", tmp_path)
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("seed: 7", "seed: seven"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.stages.ingest"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("error: params.yaml: seed: ")
    assert "Traceback" not in done.stderr
