"""A backtest's parts on the tiny simulated log: real stages in the workspaces of its origins."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flows.workspace import effective_params
from recsys_core.artifacts import read_json, sha256
from recsys_core.config import Params, check_params
from recsys_core.data.cuts import MICROSECONDS_PER_HOUR
from recsys_core.errors import ConfigError, ContractError
from recsys_core.evaluation.backtest import Origin, first_origin, frame_starts
from recsys_core.evaluation.metrics import metric_of
from recsys_core.layout import STAGES, Layout
from recsys_core.sections import Backtest
from recsys_core.tables import CURVE, RANKS, read_events, read_table
from tasks.backtest import (
    check_backtest,
    end_of,
    origin_overrides,
    origins,
    origins_of,
    window_of,
)
from tasks.edges.backtest import run as join
from tests.conftest import CHECKOUT, TINY
from tests.small_logs import contents, run_stages, small_card

BACKTEST = Backtest(frame_hours=12.0, frames=3, valid_hours=24.0, retrain=2)
SMALL = (
    *TINY,
    "train_embeddings.max_epochs=1",
    "train_rnn.max_epochs=1",
    "train_rnn.max_epochs_apart=0",
    "train_rnn.trend_hours=24",
    "train_memory.terms=[]",
    "evaluate.recent_hours=[6]",
    "evaluate.recent_minutes=[30]",
)
UP_TO_EVALUATE = STAGES[: STAGES.index("refit")]


def params_of(root: Path, *overrides: str) -> Params:
    value = effective_params([*SMALL, *overrides], folder=root, called_from=CHECKOUT)
    value["ingest"]["path"] = str(CHECKOUT / "datasets" / "simulator")
    return check_params(value, where="params.yaml")


def run_origin(layout: Layout, origin: Origin, like: Layout | None = None, **of: Any) -> Layout:
    """The stages in an origin's workspace, as the flow takes them; what depends on the log alone is
    `like` that of another origin, as DVC restores it."""
    one = Layout(layout.origin(origin.first))
    (one.root / "datasets").mkdir(parents=True)
    card = (CHECKOUT / "datasets" / "simulator-tiny.yaml").read_text()
    one.card("simulator-tiny").write_text(card)
    stages = UP_TO_EVALUATE
    if like is not None:
        for stage in ("ingest", "validate"):
            shutil.copytree(like.stage(stage), one.stage(stage))
        stages = stages[2:]
    overrides = origin_overrides(BACKTEST, origin, **of)
    run_stages(one, *stages, params=params_of(one.root, *overrides))
    return one


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A backtest with two origins, joined."""
    layout = Layout(tmp_path_factory.mktemp("backtest"))
    first = run_origin(layout, first_origin(BACKTEST), end=None, window=None)
    for origin in origins(layout, BACKTEST)[1:]:
        run_origin(layout, origin, first, end=end_of(layout), window=window_of(layout))
    join_all(layout)
    return layout


def join_all(layout: Layout) -> None:
    params = params_of(layout.root)
    join(
        layout=layout,
        backtest=BACKTEST,
        evaluate=params.evaluate,
        first_metric=params.first_metric,
        seed=params.seed,
    )


def test_every_frame_has_every_curve(done: Layout) -> None:
    rows = read_table(done.curve, CURVE).to_pandas()
    names = ["offline", "offline_trend", "online", "online_trend", "recent_popularity"]
    assert rows["frame"].tolist() == [frame for frame in range(3) for _ in names]
    assert rows["model"].tolist() == names * 3
    assert (rows["end"] - rows["start"]).dt.total_seconds().unique().tolist() == [12 * 3600.0]
    assert rows["end"].iloc[-1].timestamp() * 1e6 == pytest.approx(end_of(done), abs=1)
    trained = rows.groupby(["model", "frame"])["trained_before"].first()
    starts = rows.groupby("frame")["start"].first()
    assert [trained["offline", frame] for frame in range(3)] == [starts[0]] * 3
    assert [trained["online", frame] for frame in range(3)] == [starts[0], starts[0], starts[2]]
    report = read_json(done.report("backtest"))
    assert report["origins"] == [0, 2]
    assert report["rows"]["in"] == report["rows"]["out"] + report["rows"]["not_asked"]
    assert rows[rows["model"] == "online"]["targets"].sum() == report["rows"]["out"] > 50
    assert done.curve.with_suffix(".svg").read_text().startswith("<svg")


def test_curves_are_the_ranks_of_the_stage_evaluate(done: Layout) -> None:
    rows = read_table(done.curve, CURVE).to_pandas().set_index(["model", "frame"])
    for curve, folder, model, frame in (
        ("offline", 0, "two_time_scale_frozen_trend", 2),
        ("offline_trend", 0, "two_time_scale", 2),
        ("online", 2, "two_time_scale_frozen_trend", 2),
        ("online_trend", 2, "two_time_scale", 2),
        ("online_trend", 0, "two_time_scale", 1),
        ("recent_popularity", 2, "recent_popularity", 2),
    ):
        one = Layout(done.origin(folder))
        ranks = read_table(one.ranks, RANKS).to_pandas()
        ranks = ranks[ranks["model"] == model]
        events = read_events(one.events)
        time = events.timestamp[events.offsets[ranks["user_idx"]] + ranks["position"]]
        row = rows.loc[(curve, frame)]
        inside = (time >= row["start"].value // 1000) & (time < row["end"].value // 1000)
        values = metric_of(ranks["rank"].to_numpy(np.int32)[inside], "mrr@20")
        assert row["targets"] == len(values)
        assert row["value"] == pytest.approx(values.mean())


def test_the_first_weights_know_nothing_of_the_frames(done: Layout, tmp_path: Path) -> None:
    """They are the same, to the byte, where the log ends after the first frame; and no origin's log
    goes beyond its own frames."""
    first = Layout(done.origin(0))
    once, window = Origin(0, 1), window_of(done)
    short = run_origin(Layout(tmp_path), once, first, end=end_of(done), window=window)
    model = Path("model.safetensors")
    names = [name for name in contents(first.stage("train_rnn")) if name.endswith(".safetensors")]
    assert model.name in names
    for name in names:
        assert sha256(first.stage("train_rnn") / name) == sha256(short.stage("train_rnn") / name)
    later = Layout(done.origin(2))
    assert sha256(first.stage("train_rnn") / model) != sha256(later.stage("train_rnn") / model)
    frame_us = 12 * 3_600_000_000
    assert read_events(short.events).timestamp.max() < end_of(done) - 2 * frame_us
    assert read_json(short.report("sessionize"))["cut"] > 0


def test_the_window_is_chosen_before_the_first_frame(done: Layout) -> None:
    chosen = read_json(Layout(done.origin(0)).report("evaluate"))
    later = read_json(Layout(done.origin(2)).report("evaluate"))
    assert set(chosen["validation"]["recent_popularity"]) == {"0.5", "6"}
    assert window_of(done) == later["recent_hours"] == chosen["recent_hours"]
    assert len(later["validation"]["recent_popularity"]) == 1


def test_joined_again_the_bytes_are_the_same(done: Layout) -> None:
    before = contents(done.root / "reports")
    join_all(done)
    assert contents(done.root / "reports") == before


def test_an_origin_of_other_frames_is_refused(done: Layout) -> None:
    with pytest.raises(ContractError, match="run `twotempo backtest` again"):
        join(
            layout=done,
            backtest=replace(BACKTEST, frame_hours=6.0),
            evaluate=params_of(done.root).evaluate,
            first_metric="mrr@20",
            seed=7,
        )


def test_an_origin_that_nobody_can_be_asked_of_has_no_model(done: Layout) -> None:
    """Frames of a minute: most have no event, and their frames stay with the one before."""
    minutes = Backtest(frame_hours=1 / 60, frames=2000, valid_hours=1 / 60, retrain="every")
    kept = origins(done, minutes)
    assert kept[0] == Origin(0, 2000)
    events = read_events(Layout(done.origin(0)).events)
    at = events.timestamp[events.position > 0]
    start = end_of(done) - 2000 * 60_000_000
    frame = (at - start) // 60_000_000
    asked = {int(one) for one in frame}
    assert [one.first for one in kept[1:]] == sorted(
        one for one in asked if 0 < one < 2000 and one - 1 in asked
    )
    assert 0 < len(kept) < 1000


def test_overrides_are_params_of_an_origin() -> None:
    overrides = origin_overrides(BACKTEST, Origin(1, 3), end=10**15, window=1 / 3)
    params = params_of(CHECKOUT / "runs" / "x", *overrides)
    assert yaml.safe_load(overrides[0].partition("=")[2]) == {
        "kind": "frame",
        "hours": 24.0,
        "valid_hours": 24.0,
        "end": 10**15,
    }
    assert params.evaluate.windows == (1 / 3,)
    assert params.evaluate.streaming
    assert params.evaluate.baselines == ("recent_popularity",)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["evaluate.targets=session"], "-S evaluate.targets=successive"),
        (
            ["evaluate.recent_hours=[]", "evaluate.recent_minutes=[]", "gate.floor=popularity"],
            "name windows",
        ),
    ],
)
def test_what_cannot_be_asked_in_frames_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_backtest(params_of(CHECKOUT / "runs" / "x", *overrides), small_card())
    good = params_of(CHECKOUT / "runs" / "x")
    relative, rank = (
        {"kind": kind, "unit": unit} for kind, unit in (("relative", "s"), ("rank", None))
    )
    check_backtest(good, small_card(time=relative))
    with pytest.raises(ConfigError, match="the frames of a backtest are hours"):
        check_backtest(good, small_card(time=rank, sessions={"kind": "none"}))
    with pytest.raises(ConfigError, match="arrives in deliveries"):
        check_backtest(good, small_card(snapshot={"row_key": ["line"]}))


def test_frames_of_a_skipped_origin_stay_with_the_one_before(done: Layout) -> None:
    """Between two others, and at the end: what is asked of each is joined without a gap."""
    every = replace(BACKTEST, frames=4, frame_hours=6.0, valid_hours=3.0, retrain="every")
    events = read_events(Layout(done.origin(0)).events)
    starts = frame_starts(every, end_of(done))
    quiet = (events.timestamp >= starts[2] - 3 * MICROSECONDS_PER_HOUR) & (
        events.timestamp < starts[2]
    )
    found = origins_of(events.where(~quiet), every, starts)
    assert [(one.first, one.last) for one in found] == [(0, 4), (1, 3), (3, 4)]
