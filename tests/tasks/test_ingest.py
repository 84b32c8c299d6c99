"""ingest: what lies in its folder afterwards, what its report says, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json
from recsys_core.data.cards import read_card, read_resolved_card
from recsys_core.data.oracle import read_oracle
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from tests.small_logs import (
    REPOSITORY,
    contents,
    params_for,
    run_stages,
    small_log,
    workspace,
)

ITEMS = {
    "source": {"kind": "files", "interactions": "log.parquet", "items": "items.csv", "users": None},
    "item_features": {"title": "text"},
}


def test_the_report_counts_what_came_in(tmp_path: Path) -> None:
    log = small_log(6).append_column("unused", pa.array([0] * 6))
    log = log.set_column(1, "item", pa.array(["a", "b", None, "a", "c", "c"]))
    layout = workspace(tmp_path, log)
    run_stages(layout, "ingest")
    assert read_json(layout.report("ingest")) == {
        "dataset": "small",
        "files": 1,
        "rows_in": 6,
        "rows_out": 6,
        "unreadable": {"timestamp": 0},
        "users": 2,
        "items": 3,
        "first_timestamp": "2023-11-14T22:13:20.000000Z",
        "last_timestamp": "2023-11-14T22:14:10.000000Z",
    }
    written = ["card.json", "features/declared.json", "interactions.parquet", "parts.json"]
    assert sorted(contents(layout.stage("ingest"))) == written
    assert read_json(layout.parts) == {"first_rows": [0], "taken": None, "unit_hint": None}
    assert read_resolved_card(layout.resolved_card) == read_card(layout.card("small"))


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    layouts = [workspace(tmp_path / name, small_log(500), **ITEMS) for name in ("one", "two")]
    for layout in layouts:
        (layout.root / "data" / "items.csv").write_text("item,title\ni0,A\ni1,B\n")
        run_stages(layout, "ingest")
    one, two = (contents(layout.root / "artifacts") for layout in layouts)
    assert one == two
    assert sorted(one) == [
        "ingest/card.json",
        "ingest/features/declared.json",
        "ingest/features/items.parquet",
        "ingest/interactions.parquet",
        "ingest/parts.json",
    ]
    assert layouts[0].report("ingest").read_bytes() == layouts[1].report("ingest").read_bytes()


def test_a_card_without_features_leaves_none_of_an_earlier_run(tmp_path: Path) -> None:
    layout = workspace(tmp_path, small_log(), **ITEMS)
    (tmp_path / "data" / "items.csv").write_text("item,title\ni0,A\n")
    run_stages(layout, "ingest")
    assert layout.item_features.exists()
    run_stages(workspace(tmp_path), "ingest")
    assert not layout.item_features.exists()


def test_a_missing_folder_file_or_card_is_named(tmp_path: Path) -> None:
    layout = workspace(tmp_path)
    with pytest.raises(ConfigError, match=r"log\.parquet: no such file"):
        run_stages(layout, "ingest")
    with pytest.raises(ConfigError, match="elsewhere: no such folder"):
        run_stages(layout, "ingest", params=params_for("small", "elsewhere"))
    with pytest.raises(ConfigError, match=r"other\.yaml: no such file"):
        run_stages(layout, "ingest", params=params_for("other", "data"))


def test_a_card_is_named_like_its_file(tmp_path: Path) -> None:
    layout = workspace(tmp_path, small_log())
    layout.card("small").rename(layout.card("other"))
    with pytest.raises(ConfigError, match="name is 'small', it must be 'other'"):
        run_stages(layout, "ingest", params=params_for("other", "data"))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("simulated")
    shutil.copytree(REPOSITORY / "datasets", root / "datasets")
    layout = Layout(root)
    run_stages(layout, "ingest", params=params_for("simulator-tiny", "datasets/simulator"))
    return layout


def test_the_simulator_brings_features_and_its_oracle(simulated: Layout) -> None:
    table = pq.read_table(simulated.interactions)
    report = read_json(simulated.report("ingest"))
    assert report["rows_out"] == len(table) > 1_000
    assert report["unreadable"] == {"dwell_seconds": 0, "timestamp": 0, "value": 0}
    assert table.column_names[-2:] == ["device", "dwell_seconds"]
    titles = pq.read_table(simulated.item_features)
    assert set(table["item_id"].to_pylist()) <= set(titles["item_id"].to_pylist())
    assert titles["genres"].type == pa.list_(pa.string())
    assert len(pq.read_table(simulated.user_features)) == report["user_features"]["rows_out"]


def test_the_oracle_speaks_of_the_same_rows(simulated: Layout) -> None:
    # a row number in the oracle is a row number in the interactions, and the item that occurred can
    table = pq.read_table(simulated.interactions)
    oracle = read_oracle(simulated.oracle)
    rows = table["source_row"].to_numpy()
    rows = rows[oracle.covers(rows)][:50]
    place = {item: column for column, item in enumerate(oracle.item_ids)}
    chosen = [place[item] for item in table["item_id"].take(pa.array(rows)).to_pylist()]
    log_probability = oracle.log_probability(rows)
    assert np.isfinite(log_probability[np.arange(len(rows)), chosen]).all()
    assert len(rows) == 50


def test_a_log_in_the_folder_that_ingest_empties_is_left_alone(tmp_path: Path) -> None:
    layout = workspace(tmp_path, small_log())
    kept = layout.stage("ingest") / "log.parquet"
    kept.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "data" / "log.parquet", kept)
    with pytest.raises(ConfigError, match="which this stage empties before it writes there"):
        run_stages(layout, "ingest", params=params_for("small", "artifacts/ingest"))
    assert kept.exists()
