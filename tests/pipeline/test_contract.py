"""The keystone: dvc.yaml, params.yaml, the layout, the modules and the flow tell the same story.

Reads files and signatures only, so that it is fast enough to run before every commit.
"""

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_core.config import SHARED_SECTIONS, read_params, section_names
from recsys_core.layout import BESIDE, EDGES, STAGES, Layout
from tasks.closure import is_code, with_code_dependencies
from tasks.code import code_dependencies
from tests.conftest import CHECKOUT

STAGE_MODULES = sorted(path.stem for path in (CHECKOUT / "tasks" / "stages").glob("[!_]*.py"))
EDGE_MODULES = sorted(path.stem for path in (CHECKOUT / "tasks" / "edges").glob("[!_]*.py"))
PIPELINE: dict[str, Any] = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text(encoding="utf-8"))[
    "stages"
]
PLOTS = {
    "train_embeddings": ["train_embeddings_curve", "step_sizes"],
    "train_rnn": ["train_rnn_curve"],
    "evaluate": ["cohorts", "buckets"],
}
BARE = {"torch", "numpy", "pandas", "pyarrow", "scipy", "safetensors", "recsys_core"}
"""What models and training may import besides the standard library: they run on a bare machine."""


def paths(entries: list[Any]) -> list[str]:
    """The paths of a list in dvc.yaml; an entry is a path, or a path with options."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def sections_in_source(kind: str, name: str) -> list[str]:
    """The keywords of a step's `run` other than `layout`, read without importing the step."""
    path = CHECKOUT / "tasks" / kind / f"{name}.py"
    functions = [
        node
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    ]
    assert len(functions) == 1, f"{path} must have one function `run`"
    arguments = functions[0].args
    assert not arguments.args, f"{path}: `run` takes keywords only"
    assert [keyword.arg for keyword in arguments.kwonlyargs][:1] == ["layout"]
    return [keyword.arg for keyword in arguments.kwonlyargs][1:]


def test_one_list_of_stages() -> None:
    assert list(PIPELINE) == list(STAGES)
    assert sorted(STAGES) == STAGE_MODULES


def test_one_list_of_edges() -> None:
    assert sorted((*EDGES, *BESIDE)) == EDGE_MODULES


def test_every_section_has_its_step() -> None:
    read_params(CHECKOUT / "params.yaml")
    assert sorted(section_names()) == sorted({*STAGES, *EDGES, *BESIDE, *SHARED_SECTIONS})


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_module_without_arguments(stage: str) -> None:
    assert PIPELINE[stage]["cmd"] == f"python -m tasks.stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_that_run_takes(stage: str) -> None:
    """A stage that needs a few keys of another's section lists these alone: `section.key`."""
    sections = sorted({entry.partition(".")[0] for entry in PIPELINE[stage]["params"]})
    assert sections == sorted(sections_in_source("stages", stage))
    assert PIPELINE[stage]["params"] == sorted(PIPELINE[stage]["params"])


@pytest.mark.parametrize("stage", ["train_embeddings", "train_rnn"])
def test_training_depends_on_no_more_of_evaluation_than_its_validation(stage: str) -> None:
    """How wide intervals are, or which baselines stand beside, trains nothing anew."""
    parts = {entry for entry in PIPELINE[stage]["params"] if entry.startswith("evaluate")}
    trend = {"evaluate.streaming"} if stage == "train_rnn" else set()
    assert parts == {"evaluate.seen_filter", "evaluate.targets"} | trend


def test_steps_take_sections_that_exist() -> None:
    for kind, names in (("stages", STAGES), ("edges", (*EDGES, *BESIDE))):
        for name in names:
            assert set(sections_in_source(kind, name)) <= set(section_names()), name


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_are_where_the_layout_says(stage: str) -> None:
    layout = Layout()
    declared = PIPELINE[stage]
    assert paths(declared["outs"]) == [layout.stage(stage).as_posix()]
    assert paths(declared["metrics"]) == [layout.report(stage).as_posix()]
    assert paths(declared.get("plots", [])) == [
        layout.report(name).as_posix() for name in PLOTS.get(stage, [])
    ]
    # an output outside the cache would switch the run cache off, unless it is a metric or a plot
    assert all(isinstance(out, str) for out in declared["outs"])


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(stage: str) -> None:
    declared = [entry for entry in PIPELINE[stage]["deps"] if is_code(entry)]
    assert declared == code_dependencies(f"stages.{stage}", root=CHECKOUT), "run `make deps`"


def test_make_deps_would_change_nothing() -> None:
    text = (CHECKOUT / "dvc.yaml").read_text(encoding="utf-8")
    assert with_code_dependencies(text, root=CHECKOUT) == text


def test_data_dependencies_come_from_earlier_stages() -> None:
    """So the order of `STAGES` is topological."""
    seen: set[str] = set()
    for stage in STAGES:
        for entry in PIPELINE[stage]["deps"]:
            folder, _, rest = entry.partition("/")
            if folder in ("artifacts", "reports"):
                writer = rest.partition("/")[0].removesuffix(".json")
                assert writer in seen, f"{stage} depends on {entry}"
        seen.add(stage)


def test_data_dependencies_are_what_the_stage_reads() -> None:
    """Each stage but the first depends on another's output: none is an island."""
    for stage in STAGES[1:]:
        assert any(entry.startswith("artifacts/") for entry in PIPELINE[stage]["deps"]), stage
    assert PIPELINE["ingest"]["deps"][:2] == ["datasets/${ingest.dataset}.yaml", "${ingest.path}"]


def called_in_flow(file: str, function: str) -> list[str]:
    """Names of the steps that a flow calls with its workspace, in the order of its lines."""
    tree = parsed(CHECKOUT / "flows" / file)
    flow = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function
    )
    calls = [
        node
        for node in ast.walk(flow)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    calls.sort(key=lambda node: node.lineno)
    names = [node.func.id for node in calls if isinstance(node.func, ast.Name)]
    return [name for name in names if name in (*STAGES, *EDGES)]


def task_names(file: str) -> dict[str, tuple[str, str]]:
    """Of `ingest = stage_task("ingest")`: the variable, the maker and the step."""
    tree = parsed(CHECKOUT / "flows" / file)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target, call = node.targets[0], node.value
            assert isinstance(target, ast.Name)
            assert isinstance(call.func, ast.Name)
            assert isinstance(call.args[0], ast.Constant)
            found[target.id] = (call.func.id, str(call.args[0].value))
    return found


def test_the_retrain_flow_calls_every_step_in_order() -> None:
    assert called_in_flow("retrain.py", "take_every_step") == ["snapshot", *STAGES, *EDGES[1:]]
    assert task_names("retrain.py") == {
        **{stage: ("stage_task", stage) for stage in STAGES},
        **{edge: ("edge_task", edge) for edge in EDGES},
    }


def test_the_backtest_flow_takes_every_stage_up_to_evaluation() -> None:
    assert called_in_flow("backtest.py", "train_and_ask") == [*STAGES[: STAGES.index("refit")]]
    assert task_names("backtest.py") == {"join_origins": ("edge_task", "backtest")}


def test_the_score_flow_trains_nothing() -> None:
    assert called_in_flow("score.py", "score_and_publish") == ["score", "publish"]
    assert set(task_names("score.py").values()) == {
        ("edge_task", "score"),
        ("edge_task", "publish"),
    }


def test_init_files_are_empty() -> None:
    """A package with code would be a dependency that the closure does not follow."""
    for path in python_files("recsys_core", "tasks", "flows"):
        if path.name == "__init__.py":
            assert path.read_text(encoding="utf-8") == "", path
        else:
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"


def importers(package: str) -> set[str]:
    return {
        path.relative_to(CHECKOUT).as_posix()
        for path in python_files("recsys_core", "tasks", "flows")
        if package in packages(path)
    }


def test_only_the_door_imports_great_expectations() -> None:
    assert importers("great_expectations") == {"tasks/door.py"}


def test_only_flows_import_prefect() -> None:
    found = importers("prefect")
    assert "flows/retrain.py" in found
    assert all(path.startswith("flows/") for path in found), found


def test_dvc_is_a_command_and_not_a_library() -> None:
    assert importers("dvc") == set()


@pytest.mark.parametrize("folder", ["recsys_core/models", "recsys_core/training"])
def test_models_and_training_run_on_a_bare_machine(folder: str) -> None:
    import sys

    for path in python_files(folder):
        third_party = packages(path) - set(sys.stdlib_module_names)
        assert third_party <= BARE, f"{path} imports {sorted(third_party - BARE)}"
        for name in imports(path):
            assert not name.startswith("recsys_core.config"), path


LAYERS: dict[str, set[str]] = {
    "models": {"evaluation", "training", "serving"},
    "training": {"serving"},
    "evaluation": {"training", "serving"},
    "serving": {"training", "evaluation"},
    "data": {"models", "training", "evaluation", "serving"},
}
"""What each folder of recsys_core may not import: a part is known to those above it alone."""


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    for path in python_files(f"recsys_core/{layer}"):
        found = {name.split(".")[1] for name in imports(path) if name.startswith("recsys_core.")}
        assert not found & LAYERS[layer], f"{path} imports {sorted(found & LAYERS[layer])}"


def test_training_uses_of_evaluation_what_its_metric_needs() -> None:
    """How targets are ranked, no report and no gate: a change of those trains nothing anew."""
    allowed = {"metrics", "ranks", "scorers", "targets"}
    found = {
        name.split(".")[2]
        for path in python_files("recsys_core/training")
        for name in imports(path)
        if name.startswith("recsys_core.evaluation.")
    }
    assert found == allowed


def test_the_library_imports_no_task_and_no_flow() -> None:
    for path in python_files("recsys_core"):
        assert not packages(path) & {"tasks", "flows"}, path
    for path in python_files("tasks"):
        assert "flows" not in packages(path), path


def test_the_library_reads_no_clock_and_no_environment() -> None:
    """By name: each of these makes a result depend on more than data and params."""
    banned = {"time.time", "time.monotonic", "time.perf_counter", "os.environ", "os.getenv"}
    banned |= {"datetime.now", "date.today", "datetime.today", "socket.gethostname"}
    for path in python_files("recsys_core"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert not any(text.endswith(name) for name in banned), f"{path}: {text}"


def test_a_stage_can_be_imported_and_has_an_entry_point() -> None:
    """The lightest one stands for all: the entry point is the same line in each."""
    for kind, names in (("stages", STAGE_MODULES), ("edges", EDGE_MODULES)):
        for name in names:
            text = (CHECKOUT / "tasks" / kind / f"{name}.py").read_text(encoding="utf-8")
            assert text.endswith('if __name__ == "__main__":\n    main(run)\n'), name
    module = importlib.import_module("tasks.stages.ingest")
    assert list(inspect.signature(module.run).parameters) == ["layout", "ingest"]


def test_the_lock_pins_every_direct_requirement() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    from tasks.lock import direct_requirements

    _, direct = direct_requirements(CHECKOUT / "pyproject.toml")
    text = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    locked = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    versions = {}
    for requirement in locked:
        assert str(requirement.specifier).startswith("=="), requirement
        assert "+" not in str(requirement.specifier), f"{requirement}: a local suffix"
        versions[canonicalize_name(requirement.name)] = str(requirement.specifier)[2:]
    for requirement in map(Requirement, direct):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}"
