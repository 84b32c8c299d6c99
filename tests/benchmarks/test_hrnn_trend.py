"""The experiment trend: seeds of the product's backtest are joined, and its curves are told."""

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import hrnn_trend
from benchmarks.hrnn_cases import read_cases
from benchmarks.hrnn_results import experiments_page
from benchmarks.hrnn_trend import (
    ROW,
    curves_of,
    mean_curves,
    measured,
    merge_seeds,
    overrides,
    workspace_of_seed,
)
from benchmarks.measure import RESULTS, ROOT
from benchmarks.row import Row, merged
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_params, read_yaml
from recsys_core.errors import ContractError
from recsys_core.evaluation.backtest import BASELINE, first_origin
from recsys_core.layout import Layout
from tasks.backtest import check_backtest, end_of, origins, window_of
from tasks.card_settings import check_settings
from tests.small_logs import params_for, small_card
from tests.tasks.test_backtest import BACKTEST, join_all, params_of, run_origin

SMALL = Row(**{**vars(read_cases(ROW)), "name": "small", "dataset": "simulator-tiny"})
FACTS = {
    "machine": {"cpus": 2, "cpu": "a CPU"},
    "commit": "c" * 40,
    "changed_since": False,
    "device": "cpu",
    "seconds": {"train_rnn": 10.0},
    "code": "one",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed: a backtest with two origins, joined, and what is written down of it."""
    folder = tmp_path_factory.mktemp("trend")
    layout = workspace_of_seed(SMALL, 1, runs=folder)
    first = run_origin(layout, first_origin(BACKTEST), end=None, window=None)
    for origin in origins(layout, BACKTEST)[1:]:
        run_origin(layout, origin, first, end=end_of(layout), window=window_of(layout))
    join_all(layout)
    value = read_yaml(first.params) if first.params.exists() else {}
    assert value == {}, "stages run in this process are told their params"
    write_params(layout)
    write_json(folder / SMALL.name / "1.json", {**FACTS, "params": read_yaml(layout.params)})
    return folder


def write_params(layout: Layout) -> None:
    params = read_yaml(ROOT / "params.yaml")
    params["backtest"] = vars(BACKTEST)
    params["first_metric"] = params_of(layout.root).first_metric
    layout.params.write_text(yaml.safe_dump(params), encoding="utf-8")


def test_doctests() -> None:
    assert doctest.testmod(hrnn_trend).failed == 0


def test_the_row_is_a_backtest_of_two_days_by_the_hour() -> None:
    row = read_cases(ROW)
    value = merged(read_yaml(ROOT / "params.yaml"), row.params)
    params = check_params(value, where=ROW)
    card = small_card(
        **{
            key: read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml")[key]
            for key in ("time", "sessions")
        },
        columns={**small_card().columns.__dict__, "session_id": "session"},
    )
    check_backtest(params, card)
    check_settings(card, params.train_rnn)
    backtest = params.backtest
    assert backtest.frame_hours * backtest.frames == 48.0
    assert params.train_rnn.trend_hours is not None
    assert 1 / 3 in params.evaluate.windows
    assert row.params["validate"] == {"timestamps_before": None}
    assert yaml.safe_load(overrides(row.params)[0].partition("=")[2]) == row.params["first_metric"]
