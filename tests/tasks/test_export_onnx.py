"""The export stage: a whole bundle of the refitted model, the same bytes each time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.layout import Layout
from recsys_core.sections import ExportOnnx
from recsys_core.serving.bundle import GRAPHS, Bundle, read_bundle
from recsys_core.serving.engine import ScoringEngine
from tasks.stages.export_onnx import run
from tests.serving_world import (
    HOSTILE,
    MINUTE,
    N_ITEMS,
    START,
    item_ids,
    make_events,
    make_model,
    make_spec,
    make_workspace,
    random_histories,
)

# ten events of old favourites, then in the last minutes item 5 again and again
HISTORIES = [[7] * 10, [5, 5, 5, 5], [6, 5]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A workspace with two more items in the log than the model knows, exported."""
    layout = make_workspace(
        tmp_path_factory.mktemp("export"), histories=HISTORIES, n_items=N_ITEMS + 2
    )
    write_json(layout.report("evaluate"), {"recent_hours": 6 / 60})
    run(layout=layout, export_onnx=ExportOnnx(k=100, new_items=False, step=False))
    return layout


@pytest.fixture(scope="module")
def bundle(layout: Layout) -> Bundle:
    return read_bundle(layout.bundle)


def test_the_bundle_is_the_refitted_model(bundle: Bundle) -> None:
    model = make_model()
    assert bundle.spec == make_spec()
    assert bundle.k == N_ITEMS, "k is at most the number of items"
    assert bundle.items.ids.to_pylist() == item_ids(N_ITEMS)
    assert bundle.items.ids[0].as_py() == HOSTILE[0]
    np.testing.assert_array_equal(bundle.fold_in.items, model.fold_in.items)
    assert bundle.as_of == START + 15 * MINUTE
    assert bundle.session_gap_seconds == 3600.0, "that of the card"


def test_a_step_graph_is_part_of_the_bundle_where_it_is_asked_for(layout: Layout) -> None:
    assert not (layout.bundle / "step.onnx").exists()
    assert set(read_json(layout.report("export_onnx"))["graphs"]) == set(GRAPHS)


@pytest.mark.parametrize("graph", GRAPHS)
def test_both_graphs_score_every_kind_of_user(bundle: Bundle, graph: str) -> None:
    engine = ScoringEngine(bundle, graph=graph, threads=1, providers=("CPUExecutionProvider",))
    events = make_events(random_histories([0, 1, 5, 20]))
    top = engine.top_items(events, np.array([1, 2, 3, 4]), k=10, seen_filter=True)
    assert np.isfinite(top.scores).all()
    assert top.items.min() >= 1


def test_popularity_counts_the_window_that_evaluation_chose(bundle: Bundle) -> None:
    engine = ScoringEngine(
        bundle, graph="popularity", threads=1, providers=("CPUExecutionProvider",)
    )
    top = engine.top_items(make_events([[1]]), np.array([1]), k=4, seen_filter=False)
    # six minutes: five times 5, once 6; then by overall popularity 7, then the others by idx
    assert top.items[0].tolist() == [5, 6, 7, 1]


def test_the_report(layout: Layout) -> None:
    report = read_json(layout.report("export_onnx"))
    assert report["items"] == N_ITEMS
    assert report["items_of_the_log"] == N_ITEMS + 2
    assert "new_items" not in report, "the switch is off"
    assert report["k"] == N_ITEMS
    assert report["popularity_hours"] == 0.1
    for graph in GRAPHS:
        assert report["graphs"][graph]["parity_rows"] > 20
        assert report["graphs"][graph]["parity_max_difference"] < 1e-4


def test_as_of_is_what_the_model_was_trained_on(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was not refitted knows no test period, and neither does its popularity."""
    import tasks.stages.export_onnx as stage

    seen = {}

    def no_export(folder: Path, **arguments: object) -> None:
        seen.update(arguments)
        raise InterruptedError

    monkeypatch.setattr(stage, "export_graphs", no_export)
    other = replace(layout, root=make_workspace(tmp_path, histories=HISTORIES).root)
    write_json(other.report("evaluate"), {"recent_hours": 1.0})
    write_json(other.stage("refit") / "training.json", {"epochs": 1, "cut": "test"})
    split = read_json(other.split) | {"test_start": START + 10 * MINUTE}
    write_json(other.split, split)
    with pytest.raises(InterruptedError):
        run(layout=other, export_onnx=ExportOnnx(k=5, new_items=False, step=False))
    assert seen["k"] == 5
    ranked = np.argsort(-seen["popularity"], kind="stable")
    assert ranked[0] == 7
    assert seen["popularity"][5] == seen["popularity"][6], "later events do not count"
