"""The experiments of HRNN-meta: rows hold, cases are merged, and the page tells them."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks import (
    hrnn,
    hrnn_ablation,
    hrnn_hierarchy,
    hrnn_rating,
    hrnn_results,
    hrnn_sampled,
    hrnn_speed,
    hrnn_trend,
)
from benchmarks.hrnn_cases import (
    HRNN_ROWS,
    MODEL,
    POPULARITY,
    WITHOUT_REQUEST,
    merge_cases,
    read_cases,
    run_cases,
    workspace_of_case,
)
from benchmarks.hrnn_results import experiments_page
from benchmarks.measure import ROOT
from benchmarks.row import Row, changes_of, merged
from benchmarks.training_case import heard
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_yaml
from recsys_core.errors import ContractError
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.rng import generator
from recsys_core.tables import RANKS, write_table
from tests.benchmarks.test_training import EVENTS, LEAVE_ONE_OUT, USERS, with_params
from tests.serving_world import make_model
from tests.small_logs import REAL_LOGS, params_for, run_stages

NAMES = sorted(path.stem for path in HRNN_ROWS.glob("*.yaml"))
ROW = Row(
    name="small",
    title="A small row",
    dataset="jodie_wikipedia",
    card={},
    prepare=None,
    params={},
    metrics=["ndcg@10", "recall@10"],
    required=["popularity"],
    peers=[],
    ablations=[],
    variants={},
    cases={"plain": {}, "session": {"train_rnn": {"reads": ["session"]}}},
    floor=None,
    note="",
)


def test_doctests() -> None:
    assert doctest.testmod(hrnn_results).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_params_of_every_case_hold(name: str) -> None:
    row = read_cases(name)
    base = merged(read_yaml(ROOT / "params.yaml"), row.params)
    card = merged(read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml"), row.card)
    for case in row.cases:
        params = check_params(merged(base, changes_of(row, case)), where=case)
        assert set(params.features.items) <= set(card.get("item_features", {}))
        assert params.train_memory.terms == ()
        assert params.train_rnn.ablation == "one_rnn"


def test_every_experiment_has_its_rows() -> None:
    asked = {*hrnn_ablation.ROWS, *hrnn_hierarchy.ROWS, *hrnn_rating.ROWS, "cold", hrnn_trend.ROW}
    assert asked <= set(NAMES)
    names = {"ablation", "cold", "hierarchy", "rating", "sampled", "trend"}
    assert names <= set(hrnn.EXPERIMENTS)
    said = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(one for one in said.splitlines() if one.startswith("bench-hrnn:"))
    assert all(name in line for name in hrnn.EXPERIMENTS), "make names every experiment"


def ranked(model: str, rank: list[int], nll: list[float | None]) -> pd.DataFrame:
    """Ranks of three targets of two users; the last one's item is unknown."""
    return pd.DataFrame(
        {
            "model": model,
            "user_idx": np.array([1, 1, 2], dtype=np.int32),
            "position": np.array([4, 5, 1], dtype=np.int32),
            "target": np.array([1, 2, 9], dtype=np.int32),
            "rank": np.array(rank, dtype=np.int32),
            "ties": np.zeros(3, dtype=np.int32),
            "nll": pd.array(nll, dtype="float32"),
            "active": [True, True, False],
            "new_user": [False] * 3,
            "known": [True, True, False],
            "history": np.array([4, 5, 1], dtype=np.int32),
        }
    )


def write_run(runs: Path, case: str, seed: int, frames: list[pd.DataFrame], **facts: Any) -> None:
    layout = workspace_of_case(ROW, case, seed, runs=runs)
    layout.ranks.parent.mkdir(parents=True)
    frame = pd.concat(frames, ignore_index=True)
    write_table(
        layout.ranks, pa.Table.from_pandas(frame, schema=RANKS, preserve_index=False), RANKS
    )
    found = {
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "commit": "c" * 40,
        "changed_since": False,
        "device": "cpu",
        "seconds": {"train_rnn": 10},
        "code": "one",
        "params": {"seed": seed},
        "population": {"targets": {"all": 3, "known": 2}, "protocol": {"targets": "successive"}},
    }
    write_json(layout.root / "run.json", {**found, **facts})


def popularity() -> pd.DataFrame:
    return ranked(POPULARITY, [2, 4, 0], [np.log(8), np.log(8), None])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of both cases."""
    for seed, first in ((1, 1), (2, 3)):
        plain = ranked(MODEL, [first, 2, 0], [np.log(4), np.log(4), None])
        session = ranked(MODEL, [1, 1, 0], [np.log(2), np.log(2), None])
        unasked = ranked(WITHOUT_REQUEST, [4, 4, 0], [np.log(4), np.log(4), None])
        write_run(tmp_path, "plain", seed, [popularity(), plain])
        write_run(tmp_path, "session", seed, [popularity(), session, unasked])
    return tmp_path


def test_cases_are_the_mean_over_seeds_target_by_target(runs: Path) -> None:
    table = merge_cases(ROW, runs=runs, against={"session": "plain", "plain": POPULARITY})
    assert table["seeds"] == [1, 2]
    plain, session = (
        next(case for case in table["cases"] if case["name"] == name)
        for name in ("plain", "session")
    )
    of_first = (1.0 + 0.5) / 2  # ndcg of ranks 1 and 3, then that of rank 2, and of a miss
    expected = (of_first + 1 / np.log2(3) + 0.0) / 3
    assert plain["metrics"]["ndcg@10"]["value"] == pytest.approx(expected, rel=1e-5)
    assert plain["metrics"]["perplexity"]["value"] == pytest.approx(4.0)
    assert session["difference"]["value"] == pytest.approx(2 / 3 - expected, rel=1e-4)
    assert session["without_request"]["perplexity"]["value"] == pytest.approx(4.0)
    assert plain["without_request"] is None
    assert table["cases"][0]["metrics"]["perplexity"]["value"] == pytest.approx(8.0)


def test_the_page_has_a_line_for_each_case(runs: Path) -> None:
    found = hrnn_ablation.merged([ROW], runs=runs)
    text = experiments_page({"ablation": found})
    assert "| session | 0.6667" in text
    assert "| plain | " in text
    assert "| session, without the request's time | " in text
    assert "Seeds 1, 2; on cpu, 2 CPUs of a CPU; commit cccccccccc." in text
    assert experiments_page({}) == ""


def test_a_seed_that_is_not_finished_is_left_out(runs: Path) -> None:
    (workspace_of_case(ROW, "session", 2, runs=runs).root / "run.json").unlink()
    assert merge_cases(ROW, runs=runs, against={})["seeds"] == [1]


def test_what_is_no_repetition_is_refused(runs: Path) -> None:
    other = ranked(MODEL, [1, 1, 0], [0.0, 0.0, None])
    other.loc[0, "target"] = 7
    write_run(runs, "plain", 3, [popularity(), other])
    write_run(runs, "session", 3, [popularity(), other])
    with pytest.raises(ContractError, match="another `target` than popularity"):
        merge_cases(ROW, runs=runs, against={})
    path = workspace_of_case(ROW, "session", 1, runs=runs).root / "run.json"
    write_json(path, {**read_json(path), "code": "another"})
    with pytest.raises(ContractError, match="2 versions of the stages' code"):
        merge_cases(ROW, runs=runs, against={})


def test_a_hierarchy_is_compared_by_width(tmp_path: Path) -> None:
    row = read_cases("hierarchy-yelp")
    small = Row(**{**vars(row), "name": ROW.name})
    for case in small.cases:
        model = ranked(MODEL, [1, 1, 0], [0.5, 0.5, None])
        write_run(tmp_path, case, 1, [popularity(), model])
    speeds = {
        case: {"events_per_second": 100.0 / (1 + place), "seconds_per_epoch": 10.0 * (1 + place)}
        for place, case in enumerate(small.cases)
    }
    known = {"asked": hrnn_hierarchy.asked_for(small, seconds=1.0, repeats=1), "speeds": speeds}
    write_json(tmp_path / small.name / "speed.json", known)
    found = hrnn_hierarchy.measured(small, 1, runs=tmp_path, seconds=1.0, repeats=1)
    assert found == known, "what is measured by this code is not measured again"
    (table,) = hrnn_hierarchy.merged([small], runs=tmp_path)["tables"]
    by_name = {case["name"]: case for case in table["cases"]}
    assert by_name["hrnn_50"]["against"] == "gru_50"
    assert by_name["hgru_200"]["against"] == "hrnn_200"
    assert by_name["hrnn_50"]["numbers"]["hgru / this"] == 1.5
    assert by_name["gru_200"]["numbers"]["hgru / this"] == 1.5
    assert by_name["gru_50"]["against"] is None


def test_speeds_of_other_params_code_or_device_are_not_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = read_cases("hierarchy-yelp")
    asked = hrnn_hierarchy.asked_for(row, seconds=1.0, repeats=1)
    wider = Row(**{**vars(row), "params": merged(row.params, {"train_rnn": {"window": 7}})})
    assert hrnn_hierarchy.asked_for(wider, seconds=1.0, repeats=1) != asked
    for name, other in (("device_name", "cuda"), ("code_of_stages", "x"), ("code_of", "x")):
        with monkeypatch.context() as changed:
            changed.setattr(hrnn_hierarchy, name, lambda *_, other=other: other)
            assert hrnn_hierarchy.asked_for(row, seconds=1.0, repeats=1) != asked, name


def write_measured(folder: Path, seed: int, loss: str, **changes: Any) -> None:
    """What a measurement of 300 items leaves; dense learns 100 events a second, sampled 300."""
    asked = hrnn_sampled.asked_for(300, loss, seconds=1.0, users=20, seed=seed)
    found = {
        "asked": {**asked, **changes},
        "events_per_second": 100.0 if loss == "softmax" else 300.0,
        "targets": 100,
        "seconds": 1.0,
        "perplexity": 50.0,
        "asked_for": 20,
        "peak_mb": 900.0,
        "device_peak_mb": None,
        "device": "cpu",
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "commit": "c" * 40,
        "changed_since": False,
    }
    write_json(folder / f"{seed}-300-{loss}.json", found)


@pytest.mark.parametrize("other", ["code", "params", "device"])
def test_what_other_code_measured_is_not_merged(other: str, tmp_path: Path) -> None:
    for loss in hrnn_sampled.LOSSES:
        write_measured(tmp_path, 1, loss)
        write_measured(tmp_path, 2, loss, **({other: "another"} if loss == "softmax" else {}))
    (table,) = hrnn_sampled.merged(tmp_path, sizes=(300,), seconds=1.0, users=20)["tables"]
    assert table["seeds"] == [1]
    assert [case["numbers"]["/ dense"] for case in table["cases"]] == [1.0, 3.0]


def test_the_peak_is_that_of_the_device(tmp_path: Path) -> None:
    for loss in hrnn_sampled.LOSSES:
        write_measured(tmp_path, 1, loss)
    path = tmp_path / "1-300-softmax.json"
    write_json(path, {**read_json(path), "device_peak_mb": 70})
    (table,) = hrnn_sampled.merged(tmp_path, sizes=(300,), seconds=1.0, users=20)["tables"]
    assert [case["numbers"]["peak MB"] for case in table["cases"]] == [70.0, 900.0]


@pytest.mark.parametrize("loss", hrnn_sampled.LOSSES)
def test_training_for_a_time_tells_speed_and_perplexity(
    loss: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hrnn_sampled, "TARGETS", 40)
    hrnn_sampled.fit(300, loss, 0.01, 200, 1)
    told = heard(capsys.readouterr().out)
    assert told["targets"] > 0
    assert told["asked_for"] == 40
    assert 1.0 < told["perplexity"] < 3_000
    assert told["negatives"] == (None if loss == "softmax" else 17)


def test_what_follows_is_of_the_same_topic_half_of_the_time() -> None:
    events = hrnn_sampled.drawn_events(2_000, items=5_000, rng=generator(1, "drawn"))
    item = (events.item_idx - 1).reshape(2_000, hrnn_sampled.EVENTS_PER_USER)
    assert (events.item_idx.min(), events.item_idx.max()) >= (1, 4_900)
    topic = item // hrnn_sampled.TOPIC
    assert 0.5 < (topic[:, 1:] == topic[:, :-1]).mean() < 0.6
    assert np.median(item[:, 0]) < 0.3 * 5_000, "low numbers far more often"


def test_a_model_that_knows_nothing_has_the_perplexity_of_the_catalogue() -> None:
    config = make_model(n_items=50).config
    events = hrnn_sampled.drawn_events(20, items=50, rng=generator(1, "drawn"))
    # rows and biases of a model that nobody trained are zero
    found = hrnn_sampled.perplexity_of(TwoTimeScale(config), events)
    assert found == pytest.approx(50.0, abs=0.01)


@pytest.mark.slow  # cases of all stages, each in a process of its own
def test_cases_run_from_their_log_to_the_page(tmp_path: Path) -> None:
    if not REAL_LOGS.is_dir():
        pytest.skip("no public logs beside the checkout")
    row = read_cases("ablation-ml100k")
    tiny = {"hidden": 8, "max_epochs": 1, "time_dim": 4}
    params = merged(
        row.params, {"train_embeddings": {"dim": 8, "max_epochs": 1}, "train_rnn": tiny}
    )
    names = ("last_item_features", "sequence_user_item_feedback")
    cases = {name: row.cases[name] for name in names}
    small = Row(**{**vars(row), "params": params, "cases": cases})
    run_cases(small, 1, runs=tmp_path, logs=REAL_LOGS)
    found = hrnn_ablation.merged([small], runs=tmp_path)
    names = [case["name"] for case in found["tables"][0]["cases"]]
    assert names == [POPULARITY, *cases]
    text = experiments_page({"ablation": found})
    assert "| sequence_user_item_feedback | " in text


def test_a_case_is_measured_on_what_it_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = with_params(tmp_path)
    params = params_for("small", str(tmp_path / "data"), split=LEAVE_ONE_OUT)
    run_stages(layout, "ingest", "validate", "sessionize", "train_embeddings", params=params)
    capsys.readouterr()
    hrnn_speed.train(str(tmp_path), 0.0)
    told = heard(capsys.readouterr().out)
    assert told["epoch_targets"] == EVENTS - 2 * USERS, "of before validation"
    assert told["events_per_second"] > 0
