"""The code that a stage depends on: what it imports, directly or not, and nothing else."""

from pathlib import Path

import pytest

from recsys_core.layout import STAGES
from tasks.closure import is_code, with_code_dependencies
from tasks.code import closure, code_dependencies, code_digest
from tests.conftest import CHECKOUT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose stages are empty, except for one that imports in all ways there are."""
    files = {
        "tasks/stages/evaluate.py": (
            "import recsys_core.a\n"
            "from recsys_core import b\n"
            "from recsys_core.config import Params\n"
            "import numpy\n"
            "def run():\n"
            "    from recsys_core.deep.c import name\n"
        ),
        "recsys_core/a.py": "from tasks.step import main\n",
        "recsys_core/b.py": "import recsys_core.a\nimport recsys_core.d\n",
        "recsys_core/d.py": "import recsys_core.b\n",
        "recsys_core/deep/c.py": "name = 1\n",
        "recsys_core/config.py": "import recsys_core.e\n",
        "recsys_core/e.py": "",
        "recsys_core/unused.py": "",
        "tasks/step.py": "",
        **{f"tasks/stages/{name}.py": "" for name in STAGES if name != "evaluate"},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_closure_follows_every_form_of_import_and_cycles(project: Path) -> None:
    assert closure("tasks/stages/evaluate.py", root=project) == {
        "tasks/stages/evaluate.py",
        "tasks/step.py",
        "recsys_core/a.py",
        "recsys_core/b.py",
        "recsys_core/config.py",
        "recsys_core/d.py",
        "recsys_core/deep/c.py",
        "recsys_core/e.py",
    }


def test_plumbing_is_left_out_but_what_it_imports_is_not(project: Path) -> None:
    assert code_dependencies("stages.evaluate", root=project) == [
        "recsys_core/a.py",
        "recsys_core/b.py",
        "recsys_core/d.py",
        "recsys_core/deep/c.py",
        "recsys_core/e.py",
        "tasks/stages/evaluate.py",
    ]


def test_training_depends_on_the_versions(project: Path) -> None:
    assert code_dependencies("stages.train_rnn", root=project) == [
        "tasks/stages/train_rnn.py",
        "requirements.lock",
    ]


def test_digest_changes_with_any_code_of_the_closure_and_with_no_other(project: Path) -> None:
    before = code_digest("stages.evaluate", root=project)
    (project / "recsys_core" / "unused.py").write_text("x = 1\n")
    (project / "recsys_core" / "config.py").write_text("import recsys_core.e  # plumbing\n")
    assert code_digest("stages.evaluate", root=project) == before
    (project / "recsys_core" / "deep" / "c.py").write_text("name = 2\n")
    changed = code_digest("stages.evaluate", root=project)
    assert changed != before
    (project / "recsys_core" / "f.py").write_text("")
    (project / "recsys_core" / "e.py").write_text("import recsys_core.f\n")
    assert code_digest("stages.evaluate", root=project) not in (before, changed)


def test_scoring_depends_on_the_engine_and_on_the_versions() -> None:
    needed = code_dependencies("edges.score", root=CHECKOUT)
    assert {"tasks/edges/score.py", "recsys_core/serving/engine.py", "requirements.lock"} <= set(
        needed
    )
    assert code_digest("edges.score", root=CHECKOUT) == code_digest("edges.score", root=CHECKOUT)


def test_writing_keeps_data_comments_and_options(project: Path) -> None:
    stages = "".join(
        f"  {name}:\n"
        f"    cmd: python -m tasks.stages.{name} # why\n"
        "    deps:\n"
        "      - ${ingest.path}\n"
        "      - tasks/stages/gone.py\n"
        "      - data/script.py\n"
        "    metrics:\n"
        "      - r.json:\n"
        "          cache: false\n\n"
        for name in STAGES
    )
    written = with_code_dependencies(f"# top\nstages:\n{stages}", root=project)
    assert "gone.py" not in written
    for name in STAGES:
        assert f"    cmd: python -m tasks.stages.{name} # why\n    deps:\n" in written
        assert "      - ${ingest.path}\n      - data/script.py\n" in written, (
            "data stays first, as written"
        )
        assert f"      - tasks/stages/{name}.py\n" in written
    assert written.startswith("# top\nstages:\n")
    assert "      - r.json:\n          cache: false\n\n" in written
    assert with_code_dependencies(written, root=project) == written


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("recsys_core/rng.py", True),
        ("requirements.lock", True),
        ("datasets/simulator.yaml", False),
        ("artifacts/ingest", False),
        ("datasets/build.py", False),
    ],
)
def test_code_is_told_from_data(entry: str, expected: bool) -> None:
    assert is_code(entry) is expected
