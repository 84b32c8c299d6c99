"""Training is measured on the real trainer, and each is counted as it is described."""

import doctest
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from benchmarks import train_catalogue, train_ours, train_peers, training_work
from benchmarks.measure import ROOT
from benchmarks.row import read_row
from benchmarks.train_peers import PlainGru, padded_batches, rows_of, windows_of
from benchmarks.train_speed import (
    BACKBONES,
    LOGS,
    PEER,
    Log,
    cases_of,
    measure_cases,
    measure_log,
    multiply_adds_of,
)
from benchmarks.train_table import PLAIN
from benchmarks.training_case import SEQUENCES, Case, Meter, heard, say
from benchmarks.training_work import PRODUCTS, ours_per_target, plain_gru_per_target
from recsys_core.config import read_yaml
from recsys_core.layout import Layout
from recsys_core.models.two_time_scale import InactiveNetwork
from recsys_core.tables import check_events
from tests.serving_world import make_model
from tests.small_logs import START, params_for, run_stages, workspace

USERS, EVENTS, ITEMS = 40, 1_200, 30
LEAVE_ONE_OUT = {"kind": "leave_one_out"}


def log() -> pa.Table:
    """Users of thirty events each on thirty items."""
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "user": [f"u{row % USERS}" for row in range(EVENTS)],
            "item": [f"i{item}" for item in rng.integers(0, ITEMS, EVENTS)],
            "at": pa.array([START + 10_000_000 * row for row in range(EVENTS)], pa.int64()),
        }
    )


def with_params(root: Path) -> Layout:
    """A workspace with the log and its params, in which nothing was run."""
    layout = workspace(root, log())
    value = read_yaml(ROOT / "params.yaml")
    value["ingest"] = {"dataset": "small", "path": "data"}
    value["split"] = LEAVE_ONE_OUT
    value["train_rnn"]["half_life_days"] = None
    layout.params.write_text(yaml.safe_dump(value), encoding="utf-8")
    return layout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sessionized workspace, with what the peers learn from."""
    layout = with_params(tmp_path_factory.mktemp("training"))
    params = params_for("small", "data", split=LEAVE_ONE_OUT)
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    train_ours.write_sequences(str(layout.root))
    return layout.root


def case(folder: Path, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "log": "small",
        "model": "gru",
        "loss": "sampled_softmax",
        "folder": str(folder),
        "window": 8,
        "batch": 32,
        "width": 16,
        "negatives": 5,
        "dropout": 0.2,
        "seconds": 0.0,
    }
    return Case(**{**values, **changes})


def test_doctests() -> None:
    assert doctest.testmod(training_work).failed == 0


def test_a_meter_leaves_the_warm_up_out() -> None:
    times = iter([5.0, 6.0, 8.0])
    meter = Meter(3.0, clock=lambda: next(times))
    assert [meter.tell(1_000), meter.tell(20), meter.tell(40)] == [False, False, True]
    assert (meter.targets, meter.seconds) == (60, 3.0)
    assert meter.per_second == 20.0


def test_what_is_told_is_heard_among_other_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say(first=1)
    sys.stdout.write("a library says something\n")
    say(second=[2, 3])
    assert heard(capsys.readouterr().out) == {"second": [2, 3]}
    with pytest.raises(ValueError, match="told nothing; it wrote: a library"):
        heard("a library says something")


def test_a_case_comes_through_as_it_was(tmp_path: Path) -> None:
    one = case(tmp_path)
    assert Case.from_json(one.to_json()) == one
    assert one.sequences == tmp_path / SEQUENCES


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_matrix_is_counted_once_and_its_gradients(backbone: Any) -> None:
    """In a network that reads an event once, a weight is one multiply-add."""
    sizes = {"dim": 12, "hidden": 20, "depth": 1, "ffn": 3, "reads": (), "time_dim": 0}
    config = replace(make_model().config, backbone=backbone, **sizes)
    matrices = sum(p.numel() for p in InactiveNetwork(config).parameters() if p.dim() == 2)
    counted = ours_per_target(backbone, width=20, dim=12, ffn=3, scored=7)
    assert counted == PRODUCTS * (matrices + 7 * 12)


def test_every_matrix_of_the_plain_loop_is_counted() -> None:
    model = PlainGru(9, width=12, dropout=0.0)
    matrices = sum(p.numel() for p in model.cell.parameters() if p.dim() == 2)
    output = model.items.weight[1:].numel()
    assert plain_gru_per_target(width=12, scored=9) == PRODUCTS * (matrices + output)


def test_a_sampled_target_is_scored_against_the_draws_and_itself(tmp_path: Path) -> None:
    told = {"n_items": 100, "ffn": 2}
    sampled, full = (
        multiply_adds_of(case(tmp_path, loss=loss), told) for loss in ("bpr_max", "softmax")
    )
    assert sampled is not None
    assert full is not None
    assert full - sampled == PRODUCTS * 16 * (100 - (5 + 1))
    few = multiply_adds_of(case(tmp_path, negatives=500), told)
    assert few == full + PRODUCTS * 16, "the whole catalogue, and itself"
    assert multiply_adds_of(case(tmp_path, model=PEER, loss="softmax"), told) is None


def test_windows_ask_for_every_event_but_the_first_of_each_user() -> None:
    item = np.arange(1, 16)  # users of 1, 9, 2 and 3 events
    offsets = np.array([0, 1, 10, 12, 15])
    windows = windows_of(item, offsets, size=4)
    assert [len(window) for window in windows] == [5, 5, 2, 3]
    seen = []
    for inputs, targets in padded_batches(windows, rows=3, rng=np.random.default_rng(1)):
        assert inputs.shape == targets.shape
        real = targets > 0
        assert torch.equal(targets[real], inputs[real] + 1), "each is asked for after its own last"
        seen += targets[real].tolist()
    assert sorted(seen) == [*range(3, 11), 12, 14, 15]


def test_a_batch_of_padded_windows_has_the_places_of_the_case(tmp_path: Path) -> None:
    assert rows_of(case(tmp_path, window=50, batch=2_048)) == 40
    assert rows_of(case(tmp_path, window=50, batch=10)) == 1


def test_peers_learn_from_the_events_before_validation(prepared: Path) -> None:
    with np.load(prepared / SEQUENCES) as found:
        item, offsets, n_items = found["item"], found["offsets"], int(found["n_items"])
    assert len(item) == offsets[-1] == EVENTS - 2 * USERS  # one for validation, one for test
    assert np.array_equal(np.diff(offsets), np.full(USERS, EVENTS // USERS - 2))
    assert n_items == ITEMS
    assert item.min() == 1
    assert item.max() == ITEMS


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bpr_max"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_ours_is_measured(
    prepared: Path, backbone: str, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_ours.train(case(prepared, model=backbone, loss=loss).to_json())
    told = heard(capsys.readouterr().out)
    assert told["n_items"] == ITEMS
    # a message after the warm-up: eight batches of 32 places at most
    assert 0 < told["targets"] <= 8 * 32
    assert told["events_per_second"] == pytest.approx(told["targets"] / told["seconds"], rel=0.5)


def test_the_plain_loop_is_measured_and_goes_on_after_an_epoch(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # more than all 27 targets of all users: eight batches are more than an epoch
    everything = case(prepared, loss="softmax", window=100, batch=100 * USERS)
    train_peers.plain_gru(everything.to_json())
    told = heard(capsys.readouterr().out)
    assert told["targets"] == 8 * USERS * (EVENTS // USERS - 2 - 1)
    assert told["n_items"] == ITEMS


def test_a_training_is_measured_in_a_process_of_its_own(prepared: Path) -> None:
    [row] = measure_cases([case(prepared)], repeats=2, peer_python=None)
    assert len(row["runs"]) == 2
    assert row["negatives"] == 5
    assert row["events_per_second"] > 0
    assert row["multiply_adds_per_event"] == ours_per_target(
        "gru", width=16, dim=16, ffn=2, scored=6
    )
    assert 100 < row["peak_mb"] < 4_000  # a Python with PyTorch, in megabytes


def test_the_peer_is_measured_by_its_own_interpreter(prepared: Path) -> None:
    python = os.environ.get("RECTOOLS_PYTHON")
    if not python:
        pytest.skip("RECTOOLS_PYTHON names no interpreter that has rectools[torch]")
    peer = case(prepared, model=PEER, width=16, batch=32)
    [row] = measure_cases([peer], repeats=1, peer_python=python)
    assert row["events_per_second"] > 0
    assert row["multiply_adds_per_event"] is None
    assert "rectools" in row["versions"]


def test_a_drawn_catalogue_is_a_log_and_is_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = train_catalogue.drawn_events(3_000, items=500)
    check_events(drawn, name="drawn")
    assert len(drawn) == 3_000
    assert drawn.item_idx.max() <= 500
    one = case(Path("nowhere"), batch=64, width=64)
    train_catalogue.fit(one.to_json(), 500, 3_000)
    told = heard(capsys.readouterr().out)
    assert told["items"] == 500
    assert 0.9 * 3_000 < told["events"] < 3_000
    # every event is one place at least, and windows of eight have one more
    assert told["steps_at_least"] >= told["events"] / 64 - train_ours.STEPS_A_MESSAGE


def test_the_product_of_matrices_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    train_ours.sgemm(64, 3)
    told = heard(capsys.readouterr().out)
    assert told["threads"] == torch.get_num_threads()
    assert told["multiply_adds_per_second"] > 64**3  # not a second


def test_all_backbones_and_losses_are_measured_where_the_catalogue_is_small(tmp_path: Path) -> None:
    small, large = LOGS
    for one, full in ((small, 3), (large, 1)):
        assert read_row(one.row).dataset == one.name
        cases = cases_of(one, Layout(tmp_path), seconds=1.0, peer=True)
        ours = [(case.model, case.loss) for case in cases if case.model in BACKBONES]
        assert len(ours) == len(set(ours)) == 2 * len(BACKBONES) + full
        others = [(case.model, case.loss) for case in cases if case.model not in BACKBONES]
        assert others == [(PLAIN, "softmax"), (PEER, "softmax"), (PEER, "sampled_softmax")]
        assert len({(case.window, case.batch, case.width, case.dropout) for case in cases}) == 1
    assert len(cases_of(small, Layout(tmp_path), seconds=1.0, peer=False)) == 10


@pytest.mark.slow
def test_a_log_is_measured_whole(tmp_path: Path) -> None:
    layout = with_params(tmp_path)
    small = Log("small", "none", window=8, batch=64, softmax=("gru",))
    facts, rows = measure_log(small, layout, seconds=0.0, repeats=1, peer_python=None)
    assert (facts["users"], facts["items"]) == (USERS, ITEMS)
    assert [row["model"] for row in rows if row["loss"] == "softmax"] == ["gru", PLAIN]
    assert len(rows) == 8
