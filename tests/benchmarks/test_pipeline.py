"""The benchmarks say what was measured: on a real step, and on what a log says for itself."""

from pathlib import Path

import pytest

from benchmarks.measure import ROOT, Measured
from benchmarks.pipeline import STEPS, Step, logged_speed, measure_size, summary
from benchmarks.simulated_log import FACTS, INTERACTIONS, simulated_log
from recsys_core.layout import STAGES, Layout

EVENTS = 2_000


def test_a_step_runs_as_in_life_on_a_log_that_is_simulated_once(tmp_path: Path) -> None:
    row = measure_size(EVENTS, repeats=2, steps=STEPS[:1], cache=tmp_path)
    assert 0.5 * EVENTS < row["events"] < 2 * EVENTS
    [ingest] = row["steps"]
    assert ingest["step"] == "ingest"
    assert ingest["count"] == row["events"]
    assert len(ingest["runs"]) == 2
    assert ingest["per_second"] == pytest.approx(ingest["count"] / ingest["seconds"], rel=0.01)
    assert 50 < ingest["peak_mb"] < 2_000  # a Python with DuckDB, in megabytes
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"simulated-{EVENTS}"]

    log = tmp_path / f"simulated-{EVENTS}" / INTERACTIONS
    written = log.stat().st_mtime_ns
    simulated_log(EVENTS, cache=tmp_path)
    assert log.stat().st_mtime_ns == written
    (log.parent / FACTS).unlink()  # as where it was stopped before all was written
    simulated_log(EVENTS, cache=tmp_path)
    assert log.stat().st_mtime_ns > written


def test_the_steps_are_all_stages_in_their_order_and_what_scoring_needs() -> None:
    names = [step.name for step in STEPS]
    assert names == [*STAGES, "gate", "register", "score"]
    for step in STEPS:
        assert (ROOT / (step.command[-1].replace(".", "/") + ".py")).is_file()


TRAINING = """\
stage=train_rnn phase=select epoch=1/2 events=50/100 loss=8.0299 events_per_second=7 seconds_left=7
stage=train_rnn phase=select epoch=1/2 events=100/100 loss=8.0225 events_per_second=100
stage=train_rnn phase=select epoch=1/2 events=100/100 loss=8.02 mrr@20=0.02 events_per_second=100
stage=train_rnn phase=select epoch=2/2 events=100/100 loss=7.9 mrr@20=0.02 events_per_second=50
stage=train_rnn phase=refit epoch=1/1 events=300/300 loss=8.0413 events_per_second=300
"""


def test_the_speed_of_a_training_is_that_of_its_whole_epochs() -> None:
    seconds = 100 / 100 + 100 / 50 + 300 / 300
    assert logged_speed(TRAINING) == round((100 + 100 + 300) / seconds)


def test_the_speed_of_scoring_is_what_it_said_last() -> None:
    output = "event=shard shard=1/2 users_per_second=7\nevent=shard shard=2/2 users_per_second=9\n"
    assert logged_speed(output) == 9


def test_a_step_that_says_no_speed_has_none() -> None:
    assert logged_speed("ingest dataset=simulator rows=102058\n") is None


def test_scoring_by_popularity_is_not_taken_for_the_networks(tmp_path: Path) -> None:
    runs = [Measured(2.0, 1.0, 300.0), Measured(4.0, 1.0, 500.0), Measured(3.0, 1.0, 400.0)]
    step, layout = Step("score", "users"), Layout(tmp_path)
    said = "event=score graph={}\nevent=scored users=60 rows=600\n"
    measured = summary(step, runs, said.format("two_time_scale"), layout=layout)
    assert (measured["count"], measured["per_second"], measured["peak_mb"]) == (60, 20, 500)
    with pytest.raises(SystemExit, match="networks"):
        summary(step, runs, said.format("popularity"), layout=layout)
