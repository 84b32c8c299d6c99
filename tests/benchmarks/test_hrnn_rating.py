"""The experiment rating: errors are those of the stage evaluate, and the lower one is ahead."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from benchmarks.hrnn_cases import read_cases, workspace_of_case
from benchmarks.hrnn_rating import AGAINST, AVERAGES, ROWS, WITH, WITHOUT, errors_of, merged
from benchmarks.hrnn_results import experiments_page
from benchmarks.measure import ROOT
from benchmarks.quality_checks import MODEL
from benchmarks.row import Row
from benchmarks.row import merged as with_changes
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_yaml
from recsys_core.errors import ContractError
from recsys_core.layout import STAGES, Layout
from recsys_core.rng import generator
from tests.small_logs import START, run_stages, workspace

USERS, EVENTS, ITEMS = 60, 1_800, 20
ROW = Row(
    name="small",
    title="A small row",
    dataset="small",
    card={},
    prepare=None,
    params={
        "ingest": {"dataset": "small", "path": "data"},
        "first_metric": "ndcg@10",
        "split": {"kind": "quantile", "share": 0.2},
        "train_embeddings": {"dim": 8, "max_epochs": 1},
        "train_rnn": {
            "ablation": "one_rnn",
            "rating": True,
            "loss": "softmax",
            "hidden": 16,
            "batch": 256,
            "max_epochs": 6,
            "patience": 6,
            "max_epochs_apart": 0,
            "learning_rate_inactive": 0.01,
        },
        "train_memory": {"terms": []},
        "evaluate": {"baselines": ["popularity"], "bootstrap_draws": 100},
        "gate": {"floor": "popularity"},
    },
    metrics=["ndcg@10"],
    required=["popularity"],
    peers=[],
    ablations=[],
    variants={},
    cases={WITHOUT: {"train_rnn": {"reads": []}}, WITH: {"train_rnn": {"reads": ["value"]}}},
    floor=None,
    note="",
)


def log() -> pa.Table:
    """What an item is given beside others, and a user gives beside others; some give no value."""
    rng = generator(3, "ratings")
    user, item = rng.integers(0, USERS, EVENTS), rng.integers(0, ITEMS, EVENTS)
    value = 3.0 + rng.normal(0, 1, USERS)[user] + rng.normal(0, 0.5, ITEMS)[item]
    rated = [None if row % 25 == 0 else one for row, one in enumerate(value.tolist())]
    return pa.table(
        {
            "user": [f"u{one}" for one in user],
            "item": [f"i{one}" for one in item],
            "at": pa.array([START + 10_000_000 * row for row in range(EVENTS)], pa.int64()),
            "stars": pa.array(rated, pa.float64()),
        }
    )


def run_case(runs: Path, case: str, seed: int) -> Layout:
    """All stages of a case in this process, and what is written down of them."""
    layout = workspace_of_case(ROW, case, seed, runs=runs)
    columns = {"user_id": "user", "item_id": "item", "timestamp": "at", "value": "stars"}
    workspace(layout.root, log(), columns=columns)
    value = with_changes(
        with_changes(read_yaml(ROOT / "params.yaml"), ROW.params),
        {**ROW.cases[case], "seed": seed},
    )
    layout.params.write_text(yaml.safe_dump(value), encoding="utf-8")
    stages = STAGES[: STAGES.index("evaluate") + 1]
    run_stages(layout, *stages, params=check_params(value, where=case))
    report = read_json(layout.report("evaluate"))
    facts: dict[str, Any] = {
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "commit": "c" * 40,
        "changed_since": False,
        "device": "cpu",
        "seconds": {"train_rnn": 10},
        "code": "one",
        "params": value,
        "population": {key: report[key] for key in ("targets", "protocol")},
    }
    write_json(layout.root / "run.json", facts)
    return layout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of both cases."""
    folder = tmp_path_factory.mktemp("rating")
    for case in ROW.cases:
        run_case(folder, case, 1)
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_rows_predict_ratings_and_feedback_alone_is_the_difference(name: str) -> None:
    row = read_cases(name)
    assert list(row.cases) == list(AGAINST)
    base = with_changes(read_yaml(ROOT / "params.yaml"), row.params)
    card = read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml")
    assert card["columns"]["value"] is not None
    reads = {}
    for case, changes in row.cases.items():
        params = check_params(with_changes(base, changes), where=case)
        assert params.train_rnn.rating
        reads[case] = set(params.train_rnn.reads)
    assert "value" not in reads[WITHOUT]
    assert reads[WITH] - reads[WITHOUT] == {"value"}
    clock = card["time"]["kind"] != "rank"
    assert reads[f"hrnn_{WITH}"] - reads[WITH] == {"user"} | ({"session"} if clock else set())


def test_errors_are_those_of_the_stage_evaluate(runs: Path) -> None:
    layout = workspace_of_case(ROW, WITH, 1, runs=runs)
    report = read_json(layout.report("evaluate"))["ratings"]
    found = errors_of(layout)
    assert found.rated.counts == report["rows"]
    assert report["rows"]["without_value"] > 0
    for name in (MODEL, *AVERAGES):
        assert np.sqrt(found.of[name].mean()) == pytest.approx(report["rmse"][name]["value"], 1e-5)
    before = errors_of(layout, validation=True)
    assert before.rated.targets.timestamp.max() < found.rated.targets.timestamp.min()


def test_with_feedback_is_ahead_of_the_rolling_average_and_without_is_behind(runs: Path) -> None:
    found = merged([ROW], runs=runs)
    (table,) = found["tables"]
    cases = {case["name"]: case for case in table["cases"]}
    assert list(cases) == [*AVERAGES, WITHOUT, WITH]
    for name, case in cases.items():
        low, high = case["metrics"]["rmse"]["ci95"]
        assert low < case["metrics"]["rmse"]["value"] < high, name
        assert case["numbers"]["rmse on validation"] > 0
    with_it, without, rolling = (
        cases[name]["metrics"]["rmse"]["value"] for name in (WITH, WITHOUT, AVERAGES[0])
    )
    assert with_it < rolling < without
    assert cases[WITH]["difference"]["value"] == pytest.approx(with_it - rolling, abs=1e-5)
    lines = experiments_page({"rating": found}).splitlines()
    by_name = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "| ahead |" in by_name[WITH], "the lower one is ahead"
    assert "| behind |" in by_name[WITHOUT]


def test_of_two_seeds_squared_errors_are_averaged_target_by_target(
    runs: Path, tmp_path: Path
) -> None:
    for case in ROW.cases:
        for seed in (1, 2):
            source = workspace_of_case(ROW, case, 1, runs=runs).root
            target = workspace_of_case(ROW, case, seed, runs=tmp_path).root
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(source)
    (twice,), (once,) = (merged([ROW], runs=of)["tables"] for of in (tmp_path, runs))
    assert (once["seeds"], twice["seeds"]) == ([1], [1, 2])
    assert twice["cases"] == once["cases"], "two seeds that found the same"


def test_what_is_of_other_code_or_targets_is_refused(runs: Path, tmp_path: Path) -> None:
    for case in ROW.cases:
        target = workspace_of_case(ROW, case, 1, runs=tmp_path)
        for path in workspace_of_case(ROW, case, 1, runs=runs).root.iterdir():
            target.root.mkdir(parents=True, exist_ok=True)
            if path.name != "run.json":
                (target.root / path.name).symlink_to(path)
        facts = read_json(workspace_of_case(ROW, case, 1, runs=runs).root / "run.json")
        write_json(target.root / "run.json", {**facts, "code": case})
    with pytest.raises(ContractError, match="2 versions of the stages' code"):
        merged([ROW], runs=tmp_path)


def test_a_log_without_a_finished_seed_has_no_table(tmp_path: Path) -> None:
    assert merged([ROW], runs=tmp_path)["tables"] == []
