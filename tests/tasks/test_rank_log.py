"""A log that is only an order goes the whole way: trained, evaluated, exported, published."""

import importlib

import numpy as np
import onnx
import pyarrow as pa
import pytest

from recsys_core.artifacts import read_json
from recsys_core.config import Params
from recsys_core.layout import STAGES, Layout
from recsys_core.serving.tables import open_table
from recsys_core.tables import RANKS, read_events, read_table
from tasks.clock import TimeKind
from tasks.lookup import example_user, published_table, read_history, time_text
from tasks.step import run_step
from tests.small_logs import params_for, run_stages, workspace

USERS, ITEMS, ORDER = 150, 20, 0.95

PARAMS = params_for(
    "small",
    "data",
    split={"kind": "quantile", "share": 0.2},
    train_embeddings={"dim": 16, "batch": 256, "negatives": 64, "max_epochs": 3},
    train_rnn={
        "t_star": 6,
        "window": 8,
        "hidden": 32,
        "reads": [],
        "dropout": 0.0,
        "batch": 256,
        "negatives": 64,
        "learning_rate_inactive": 0.01,
        "learning_rate_active": 0.01,
        "rate_decay": 0.9,
        "max_epochs": 10,
        "patience": 10,
    },
    train_memory={"windows": [None], "neighbours": 8},
    evaluate={"recent_hours": [], "bootstrap_draws": 50},
    gate={"floor": "popularity", "min_targets": 50},
)


def ordered_log() -> pa.Table:
    """Users of 2 to 25 events whose next item mostly is the successor; rows are in order."""
    rng = np.random.default_rng(5)
    last = rng.integers(ITEMS, size=USERS)
    turns = rng.permutation(np.repeat(np.arange(USERS), rng.integers(2, 26, USERS)))
    items = []
    for user in turns:
        follows = rng.random() < ORDER
        last[user] = (last[user] + 1) % ITEMS if follows else rng.integers(ITEMS)
        items.append(f"i{last[user]}")
    return pa.table(
        {"user": [f"u{user}" for user in turns], "item": items, "at": np.arange(1, len(turns) + 1)}
    )


def run_edges(layout: Layout, params: Params) -> None:
    for edge in ("gate", "register", "score", "publish"):
        run_step(importlib.import_module(f"tasks.edges.{edge}").run, layout, params)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = workspace(
        tmp_path_factory.mktemp("rank"),
        ordered_log(),
        time={"kind": "rank", "unit": None},
        sessions={"kind": "none"},
    )
    run_stages(layout, *STAGES, params=PARAMS)
    run_edges(layout, PARAMS)
    return layout


def test_the_order_is_kept_and_a_history_is_one_session(layout: Layout) -> None:
    events, log = read_events(layout.events), ordered_log()
    assert len(events) == log.num_rows
    assert (np.diff(events.timestamp[np.argsort(events.source_row)]) > 0).all()
    assert events.session_start.sum() == USERS
    assert read_json(layout.time_kind) == {"kind": "rank"}


def test_the_order_is_learned(layout: Layout) -> None:
    """Popularity knows nothing here: 20 items, all alike."""
    report = read_json(layout.report("evaluate"))
    assert report["two_time_scale"]["all"]["mrr@20"] > 0.6
    assert report["baselines"]["transitions"]["mrr@20"] > 0.6
    assert report["baselines"]["popularity"]["mrr@20"] < 0.3
    assert set(report["baselines"]) == {"networks", "transitions", "popularity"}
    models = read_table(layout.ranks, RANKS).column("model").unique().to_pylist()
    assert models == ["two_time_scale", "networks", "transitions", "popularity"]


def test_the_exported_graph_reads_no_gaps(layout: Layout) -> None:
    graph = onnx.load(layout.bundle / "two_time_scale.onnx").graph
    assert not [node for node in graph.node if "event_numbers" in node.input]
    assert read_json(layout.bundle / "model.json")["popularity_hours"] is None
    assert read_json(layout.report("export_onnx"))["popularity_hours"] is None


def test_the_gate_judges_by_popularity_and_the_table_is_published(layout: Layout) -> None:
    verdict = read_json(layout.gate)
    assert (verdict["passed"], verdict["floor"]) == (True, "popularity")
    with open_table(layout.table, read_only=True) as connection:
        users, rows = connection.execute(
            "SELECT count(DISTINCT user_id), count(*) FROM recommendations"
        ).fetchall()[0]
    everybody = USERS + 1  # and nobody in particular
    assert (users, rows) == (everybody, everybody * PARAMS.score.k)


def test_nobody_is_shown_a_date(layout: Layout) -> None:
    n = ordered_log().num_rows
    assert published_table(layout).as_of == f"rank {n:,}"
    assert read_history(layout, example_user(layout), last=1)[0].time == f"rank {n:,}"


@pytest.mark.parametrize(
    ("kind", "microseconds", "text"),
    [
        ("absolute", 1_508_198_399_000_000, "2017-10-16 23:59 UTC"),
        ("absolute", -1, "1969-12-31 23:59 UTC"),
        ("relative", 2_592_000_000_000, "2,592,000 s from the start"),
        ("rank", 0, "rank 0"),
    ],
)
def test_a_time_is_written_as_what_it_is(kind: TimeKind, microseconds: int, text: str) -> None:
    assert time_text(kind, microseconds) == text
