"""Which failures of an edge are tried again: those that may pass, counted by the real engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Clone

FLOW = """
from pathlib import Path

from flows.console import on_console, prepare_environment

prepare_environment()
from prefect import flow

from flows.steps import edge_task
from recsys_core.errors import StepError

edge = edge_task("counted")

@flow(name="counting", persist_result=False)
def counting():
    edge(Path.cwd())

with on_console():
    try:
        counting()
    except StepError as error:
        print(error)
"""


@pytest.mark.parametrize(("code", "attempts"), [(1, 1), (75, 3)])
def test_an_edge_is_tried_again_only_where_that_may_help(
    clone: Clone, tmp_path: Path, code: int, attempts: int
) -> None:
    edges = tmp_path / "tasks" / "edges"
    edges.mkdir(parents=True)
    for folder in (edges.parent, edges):
        (folder / "__init__.py").write_text("")
    (edges / "counted.py").write_text(
        f"import sys\nopen('attempts', 'a').write('x')\nprint('error: why')\nsys.exit({code})\n"
    )
    environment = {
        **clone.environment,
        "TWOTEMPO_EDGE_RETRIES": "2",
        "TWOTEMPO_EDGE_RETRY_SECONDS": "0",
    }
    # the child imports from its folder; the flow itself from the checkout
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{FLOW}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"counted failed with code {code}: why" in done.stdout
    assert (tmp_path / "attempts").read_text() == "x" * attempts
