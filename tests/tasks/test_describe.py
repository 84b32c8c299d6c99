"""Each kind of artifact says what it holds and which stage wrote it."""

from pathlib import Path

import duckdb
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from onnx import TensorProto, helper

from recsys_core.artifacts import write_json, write_manifest, write_tensors
from recsys_core.errors import ContractError, PublishError
from tasks.describe import describe_artifact


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace in which DVC has recorded one stage."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    lock = {
        "schema": "2.0",
        "stages": {
            "sessionize": {
                "cmd": "python -m tasks.stages.sessionize",
                "params": {"params.yaml": {"split": {"kind": "days", "days": 1}}},
                "outs": [
                    {"path": "artifacts/sessionize", "hash": "md5", "md5": "abc.dir", "size": 3},
                    {"path": "reports/sessionize.json", "hash": "md5", "md5": "def", "size": 3},
                ],
            }
        },
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    (tmp_path / "artifacts" / "sessionize").mkdir(parents=True)
    (tmp_path / "artifacts" / "refit").mkdir()
    (tmp_path / "reports").mkdir()
    return tmp_path


def described(path: Path) -> str:
    return "\n".join(describe_artifact(path))


def test_parquet_and_where_it_comes_from(workspace: Path) -> None:
    path = workspace / "artifacts" / "sessionize" / "items.parquet"
    schema = pa.schema([pa.field("item_id", pa.string(), nullable=False), ("n", pa.int64())])
    pq.write_table(pa.table({"item_id": ["a", "b"], "n": [1, 2]}, schema=schema), path)
    text = described(path)
    assert "2 rows in 1 row groups" in text
    assert "    item_id: string, never null" in text
    assert "    n: int64" in text
    assert "written by: sessionize" in text
    assert "artifacts/sessionize: md5 abc.dir" in text
    assert "reports/sessionize.json" not in text
    assert "params split: {'kind': 'days', 'days': 1}" in text or "'days': 1" in text


def test_array_and_a_stage_that_dvc_has_not_recorded(workspace: Path) -> None:
    path = workspace / "artifacts" / "refit" / "x.npy"
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    text = described(path)
    assert "array: float32 (3, 2)" in text
    assert "written by: refit" in text
    assert "nothing recorded" in text


def test_report_and_curve_belong_to_their_stage(workspace: Path) -> None:
    write_json(workspace / "reports" / "sessionize.json", {"events": 3})
    write_json(workspace / "reports" / "train_rnn_curve.json", [{"epoch": 1}])
    write_json(workspace / "reports" / "cohorts.json", [])
    write_json(workspace / "run.json", {"steps": []})
    assert "events: 3" in described(workspace / "reports" / "sessionize.json")
    assert "md5 def" in described(workspace / "reports" / "sessionize.json")
    curve = described(workspace / "reports" / "train_rnn_curve.json")
    assert "a list of 1" in curve
    assert "written by: train_rnn" in curve
    assert "written by: evaluate" in described(workspace / "reports" / "cohorts.json")
    assert "no step's output" in described(workspace / "run.json")


@pytest.mark.parametrize(
    ("path", "edge"),
    [
        ("registry/gate.json", "gate"),
        ("registry/history.json", "register"),
        ("registry/0123456789ab/bundle/manifest.json", "register"),
        ("scores/current.json", "score"),
        ("published/note.json", "publish"),
    ],
)
def test_what_an_edge_writes_belongs_to_it(workspace: Path, path: str, edge: str) -> None:
    write_json(workspace / path, {})
    text = described(workspace / path)
    assert f"written by: {edge} (in " in text
    assert "DVC records nothing of it" in text


def test_tensors_and_yaml(workspace: Path) -> None:
    folder = workspace / "artifacts" / "refit"
    write_tensors(folder / "model.safetensors", {"items": np.zeros((4, 2), dtype=np.float32)})
    assert "items: F32 (4, 2)" in described(folder / "model.safetensors")
    (workspace / "params.yaml").write_text("seed: 7\n")
    assert "seed: 7" in described(workspace / "params.yaml")


def test_graph(workspace: Path) -> None:
    value = helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", 8])
    out = helper.make_tensor_value_info("same", TensorProto.INT64, ["batch", 8])
    node = helper.make_node("Identity", ["items"], ["same"])
    graph = helper.make_graph([node], "g", [value], [out])
    path = workspace / "artifacts" / "refit" / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    text = described(path)
    assert "1 nodes, opset ai.onnx 20" in text
    assert "input items: int64 (batch, 8)" in text


def test_database(workspace: Path) -> None:
    (workspace / "published").mkdir()
    path = workspace / "published" / "table.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute('CREATE TABLE "odd ""name" AS SELECT 1 AS rank')
        connection.execute('CREATE VIEW seen AS SELECT * FROM "odd ""name"')
    text = described(path)
    assert 'table odd "name: 1 rows' in text
    assert "view seen: 1 rows" in text
    assert "rank: INTEGER" in text
    assert "written by: publish" in text
    path.write_bytes(b"no database")
    with pytest.raises(PublishError, match=r"table\.duckdb: "):
        described(path)


def test_a_bundle_is_verified(workspace: Path) -> None:
    folder = workspace / "artifacts" / "refit"
    (folder / "a.txt").write_text("a")
    write_manifest(folder, {"k": 10})
    text = described(folder)
    assert "folder: 2 files" in text
    assert "every file has the SHA-256" in text
    assert "k: 10" in text
    (folder / "a.txt").write_text("b")
    with pytest.raises(ContractError, match="SHA-256"):
        described(folder)


def test_an_unknown_kind_and_a_missing_file(workspace: Path) -> None:
    (workspace / "note.txt").write_text("hello")
    assert "not one that the pipeline writes" in described(workspace / "note.txt")
    with pytest.raises(ContractError, match="no such file or folder"):
        described(workspace / "nothing.parquet")
