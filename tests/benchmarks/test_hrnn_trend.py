"""The experiment trend: seeds of the product's backtest are joined, and its curves are told."""

import doctest
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import hrnn_trend
from benchmarks.hrnn_cases import read_cases
from benchmarks.hrnn_results import experiments_page
from benchmarks.hrnn_trend import (
    DAY,
    ROW,
    curves_of,
    mean_curves,
    measured,
    merge_seeds,
    overrides,
    workspace_of_seed,
)
from benchmarks.measure import ROOT
from benchmarks.row import Row, merged
from flows.workspace import effective_params
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_yaml
from recsys_core.data.cards import read_card
from recsys_core.errors import ContractError
from recsys_core.evaluation.backtest import BASELINE, first_origin
from recsys_core.layout import Layout
from tasks.backtest import check_backtest, end_of, origins, window_of
from tasks.card_settings import check_settings
from tests.conftest import TINY
from tests.tasks.test_backtest import BACKTEST, join_all, run_origin

CURVES = ["offline", "offline_trend", "online", "online_trend", BASELINE]
SMALL = Row(**{**vars(read_cases(ROW)), "name": "small", "dataset": "simulator-tiny"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed: a backtest with two origins, and what is written down of it."""
    folder = tmp_path_factory.mktemp("trend")
    layout = workspace_of_seed(SMALL, 1, runs=folder)
    first = run_origin(layout, first_origin(BACKTEST), end=None, window=None)
    for origin in origins(layout, BACKTEST)[1:]:
        run_origin(layout, origin, first, end=end_of(layout), window=window_of(layout))
    join_all(layout)
    value = merged(read_yaml(ROOT / "params.yaml"), {"backtest": asdict(BACKTEST)})
    layout.params.write_text(yaml.safe_dump(value), encoding="utf-8")
    facts: dict[str, Any] = {
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "commit": "c" * 40,
        "changed_since": False,
        "device": "cpu",
        "seconds": {"train_rnn": 10.0},
        "code": "one",
        "asked": {"code": "one", "params": value},
        "params": value,
    }
    write_json(folder / SMALL.name / "1.json", facts)
    return folder


def test_doctests() -> None:
    assert doctest.testmod(hrnn_trend).failed == 0


def test_the_row_is_a_backtest_of_two_days_by_the_hour() -> None:
    row = read_cases(ROW)
    params = check_params(merged(read_yaml(ROOT / "params.yaml"), row.params), where=ROW)
    card = read_card(Layout(ROOT).card(row.dataset))
    check_backtest(params, card)
    check_settings(card, params.train_rnn)
    assert params.backtest.frame_hours * params.backtest.frames == 48.0
    assert str(card.cut_off) == "2017-10-17 00:00:00+00:00"
    assert params.train_rnn.trend_hours is not None
    assert row.params["validate"] == {"timestamps_before": None}, "tomorrow it is the same run"


def test_params_are_told_to_the_command_as_they_are(tmp_path: Path) -> None:
    params = {**read_cases(ROW).params, "seed": 3, "split": {"kind": "quantile", "share": 0.1}}
    told = effective_params(overrides(params), folder=tmp_path, called_from=ROOT)
    base = read_yaml(ROOT / "params.yaml")
    expected = merged(base, params)
    assert {**told, "ingest": None} == {**expected, "ingest": None}
    assert told != base


def test_the_curves_are_those_of_the_backtest(runs: Path) -> None:
    found = merge_seeds(SMALL, runs=runs)
    report = read_json(workspace_of_seed(SMALL, 1, runs=runs).report("backtest"))
    table = found["tables"][0]
    cases = {case["name"]: case for case in table["cases"]}
    assert list(cases) == CURVES
    for name, case in cases.items():
        of = report["curves"][name]
        value = case["metrics"]["mrr@20"]
        assert value["value"] == pytest.approx(of["interval"]["value"], rel=1e-5)
        assert value["ci95"][0] < value["value"] < value["ci95"][1]
        by_frame = [frame["curves"][name]["value"] for frame in table["curve"]]
        assert case["numbers"]["mean of frames"] == pytest.approx(np.mean(by_frame), abs=1e-5)
        if name != BASELINE:
            base = [frame["curves"][BASELINE]["value"] for frame in table["curve"]]
            won = np.mean(np.array(by_frame) > np.array(base))
            assert case["numbers"]["frames won"] == pytest.approx(won)
            assert case["against"] == BASELINE
    assert cases["offline_trend"]["numbers"]["recovered"] == report["trend_recovers"]
    assert cases["online"]["numbers"]["recovered"] is None
    assert [frame["frame"] for frame in table["curve"]] == [0, 1, 2]
    assert sum(frame["targets"] for frame in table["curve"]) == report["rows"]["out"]
    text = experiments_page({"trend": found})
    assert "| online_trend | " in text
    assert f"{BASELINE} | " in text


def test_the_day_stands_beside_where_it_was_run(runs: Path, monkeypatch: Any) -> None:
    row = ROOT / "benchmarks" / "results" / "day-globo.json"  # of the same form
    folder = runs / "results"
    folder.mkdir()
    shutil.copyfile(row, folder / f"{DAY}.json")
    monkeypatch.setattr(hrnn_trend, "RESULTS", folder)
    tables = merge_seeds(SMALL, runs=runs)["tables"]
    assert [table["log"] for table in tables] == [SMALL.name, DAY]
    found, cases = read_json(row), {case["name"]: case for case in tables[1]["cases"]}
    assert cases[BASELINE]["metrics"]["mrr@20"] == found["baselines"][BASELINE]["mrr@20"]
    assert (
        cases["two_time_scale"]["difference"]
        == found["differences"][BASELINE][tables[1]["first_metric"]]
    )
    assert f"### {DAY}" in experiments_page(
        {"trend": {"protocol": "trend", "title": "t", "note": "n", "tables": tables}}
    )


def test_a_value_is_the_mean_over_seeds_target_by_target(runs: Path) -> None:
    layout = workspace_of_seed(SMALL, 1, runs=runs)
    one = curves_of(layout, BACKTEST, metric="mrr@20")
    other = replace(one, values={name: of + 0.5 for name, of in one.values.items()})
    for name, mean in mean_curves([one, other]).values.items():
        np.testing.assert_allclose(mean, one.values[name] + 0.25)
    with pytest.raises(ContractError, match="asked for other targets"):
        mean_curves([one, replace(one, user_idx=one.user_idx[::-1])])


def test_seeds_of_other_code_are_not_joined(runs: Path, tmp_path: Path) -> None:
    (tmp_path / SMALL.name).mkdir()
    for seed in (1, 2):
        target = workspace_of_seed(SMALL, seed, runs=tmp_path).root
        target.symlink_to(workspace_of_seed(SMALL, 1, runs=runs).root)
        facts = read_json(runs / SMALL.name / "1.json")
        write_json(tmp_path / SMALL.name / f"{seed}.json", {**facts, "code": str(seed)})
    with pytest.raises(ContractError, match="2 versions of the stages' code"):
        merge_seeds(SMALL, runs=tmp_path)


def test_nor_those_of_other_params(runs: Path, tmp_path: Path) -> None:
    (tmp_path / SMALL.name).mkdir()
    for seed, hidden in ((1, 8), (2, 16)):
        target = workspace_of_seed(SMALL, seed, runs=tmp_path).root
        target.symlink_to(workspace_of_seed(SMALL, 1, runs=runs).root)
        facts = read_json(runs / SMALL.name / "1.json")
        params = {"seed": seed, "train_rnn": {"hidden": hidden}}
        facts["asked"] = {**facts["asked"], "params": params}
        write_json(tmp_path / SMALL.name / f"{seed}.json", facts)
    with pytest.raises(ContractError, match="2 seeds were run in 2 ways"):
        merge_seeds(SMALL, runs=tmp_path)


@pytest.mark.slow  # the command itself, with Prefect and DVC
def test_a_backtest_is_run_once_by_one_code(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    shutil.copytree(ROOT / "datasets" / "simulator", logs / "simulator-tiny")
    params: dict[str, Any] = {"validate": {"timestamps_before": None}}
    for one in TINY:
        name, _, value = one.partition("=")
        section, _, key = name.partition(".")
        if section != "ingest":
            params.setdefault(section, {})[key] = yaml.safe_load(value)
    params["train_rnn"] |= {"trend_hours": 24, "max_epochs": 1}
    params["train_memory"] |= {"steps": 20}
    params["backtest"] = {"frame_hours": 24, "frames": 2, "valid_hours": 24, "retrain": "every"}
    row = Row(**{**vars(SMALL), "params": params})
    runs = tmp_path / "runs"
    facts = measured(row, 1, runs=runs, logs=logs)
    assert facts["seconds"]["train_rnn"] > 0
    written = (runs / row.name / "1.json").stat().st_mtime_ns
    assert measured(row, 1, runs=runs, logs=logs) == facts
    assert (runs / row.name / "1.json").stat().st_mtime_ns == written, "not run again"
    (table, *_) = merge_seeds(row, runs=runs)["tables"]
    assert [case["name"] for case in table["cases"]] == CURVES
