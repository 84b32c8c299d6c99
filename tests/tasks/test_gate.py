"""The gate edge writes a verdict on this very bundle, and is loud when popularity has to score."""

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from recsys_core.artifacts import MANIFEST, read_json, sha256, write_manifest
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Evaluate, Gate
from recsys_core.tables import RANKS, write_table
from tasks.edges.gate import run
from tests.serving_world import register_bundle

EVALUATE = Evaluate(
    targets="successive",
    cutoffs=(20,),
    seen_filter=False,
    train_only=False,
    baselines=("popularity",),
    recent_hours=(1.0,),
    recent_minutes=(),
    streaming=False,
    bootstrap_draws=200,
    batch=8,
)
GATE = Gate(floor="popularity", margin=0.0, min_targets=20)


def make_layout(root: Path, *, candidate: int, floor: int, targets: int = 50) -> Layout:
    """A workspace with ranks of both models and a bundle that only needs to have a manifest."""
    layout = Layout(root)
    rows = [
        (model, user, 1, 1, rank, 0, None, False, False, True, 1)
        for model, rank in (("popularity", floor), ("two_time_scale", candidate))
        for user in range(1, targets + 1)
    ]
    columns = [
        pa.array(column, kind)
        for column, kind in zip(zip(*rows, strict=True), RANKS.types, strict=True)
    ]
    write_table(layout.ranks, pa.table(columns, schema=RANKS), RANKS)
    layout.bundle.mkdir(parents=True)
    (layout.bundle / "two_time_scale.onnx").write_text("graph")
    write_manifest(layout.bundle, {"format": 1, "as_of": 5})
    return layout


def verdict_of(layout: Layout) -> dict[str, object]:
    run(layout=layout, gate=GATE, evaluate=EVALUATE, first_metric="mrr@20", seed=7)
    verdict: dict[str, object] = read_json(layout.gate)
    return verdict


def test_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = make_layout(tmp_path, candidate=1, floor=4)
    with caplog.at_level(logging.INFO):
        verdict = verdict_of(layout)
    assert (verdict["passed"], verdict["graph"], verdict["incumbent"]) == (
        True,
        "two_time_scale",
        None,
    )
    assert verdict["difference"] == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert verdict["bundle"] == sha256(layout.bundle / MANIFEST)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_rejected_without_an_incumbent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    verdict = verdict_of(make_layout(tmp_path, candidate=4, floor=1))
    assert (verdict["passed"], verdict["graph"]) == (False, "popularity")
    (loud,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "popularity will score" in loud.message
    assert "worse than the floor" in loud.message


def test_rejected_with_an_incumbent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = make_layout(tmp_path, candidate=4, floor=1)
    version = register_bundle(layout, layout.bundle)
    verdict = verdict_of(layout)
    assert (verdict["graph"], verdict["incumbent"]) == (None, version)
    assert f"version {version} stays champion" in caplog.text


def test_rejected_while_popularity_scores(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, candidate=4, floor=1)
    register_bundle(layout, layout.bundle, graph="popularity")
    assert verdict_of(layout)["graph"] == "popularity"


def test_too_few_targets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    verdict = verdict_of(make_layout(tmp_path, candidate=1, floor=4, targets=19))
    assert (verdict["passed"], verdict["graph"]) == (False, "popularity")
    assert "19 targets are too few to tell" in caplog.text


def test_same_bytes_each_time(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, candidate=3, floor=2)
    verdict_of(layout)
    before = layout.gate.read_bytes()
    verdict_of(layout)
    assert layout.gate.read_bytes() == before


def test_without_ranks(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, candidate=1, floor=1)
    layout.ranks.unlink()
    with pytest.raises(ContractError, match="run the stage that writes it"):
        verdict_of(layout)


def test_without_a_bundle(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, candidate=1, floor=1)
    (layout.bundle / MANIFEST).unlink()
    with pytest.raises(ContractError, match="no such file; run the stage that writes it"):
        verdict_of(layout)
