"""A bundle is used only if every byte of it is what it was when it was written."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys_core.artifacts import MANIFEST, read_json, write_json, write_manifest
from recsys_core.errors import ContractError
from recsys_core.models.memory import TERMS
from recsys_core.serving.bundle import _looked_up, read_bundle
from tests.serving_world import START, K, item_ids, make_model, make_spec, tiny_bundle


@pytest.fixture
def bundle(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(tiny_bundle(tmp_path_factory.getbasetemp()), tmp_path / "bundle"))


def test_round_trip(bundle: Path) -> None:
    read, model = read_bundle(bundle), make_model()
    assert read.spec == make_spec()
    assert read.spec.remembered == 12
    assert read.looked_up == 12 * (5 + 32), "what is worked out of each own item"
    assert (read.k, read.as_of) == (K, START)
    assert read.items.ids.to_pylist() == item_ids()
    for name in ("items", "mean", "basis", "variance"):
        np.testing.assert_array_equal(getattr(read.fold_in, name), getattr(model.fold_in, name))
    assert (read.fold_in.l2, read.fold_in.limit) == (model.fold_in.l2, model.fold_in.limit)
    assert read.sha256 == read_bundle(Path(shutil.copytree(bundle, bundle.parent / "copy"))).sha256


def test_every_term_has_its_share_of_what_is_looked_up() -> None:
    sizes = {"length": 9, "neighbours": 2, "hidden": 1, "next_length": 3, "similar_length": 4}
    of_term = {term: _looked_up({**sizes, "factor_dim": 7, "terms": [term]}) for term in TERMS}
    assert of_term == {"own": 9 * 33, "next": 6, "similar": 8, "factors": 63, "recent": 1}
    assert _looked_up({**sizes, "factor_dim": 7, "terms": ["recent", "factors", "next"]}) == 63
    assert _looked_up({**sizes, "factor_dim": 7, "terms": []}) == 0


@pytest.mark.parametrize(
    "name",
    [
        "two_time_scale.onnx",
        "popularity.onnx",
        "fold_in.safetensors",
        "items.parquet",
        "model.json",
    ],
)
def test_one_changed_byte_is_refused(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ContractError, match=rf"{name}: its SHA-256 is not the manifest's"):
        read_bundle(bundle)


def test_a_missing_or_added_file_is_refused(bundle: Path) -> None:
    (bundle / "extra.txt").write_text("?")
    with pytest.raises(ContractError, match=r"unexpected files \['extra.txt'\]"):
        read_bundle(bundle)
    (bundle / "extra.txt").unlink()
    (bundle / "popularity.onnx").unlink()
    with pytest.raises(ContractError, match=r"missing files \['popularity.onnx'\]"):
        read_bundle(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        read_bundle(tmp_path)


def test_another_format_is_refused(bundle: Path) -> None:
    manifest = read_json(bundle / MANIFEST)
    write_json(bundle / MANIFEST, {**manifest, "format": 99})
    with pytest.raises(ContractError, match="bundle format 99, this version reads 6"):
        read_bundle(bundle)


def test_parts_that_do_not_belong_together_are_refused(bundle: Path) -> None:
    model = read_json(bundle / "model.json")
    model["config"]["n_items"] += 1
    write_json(bundle / "model.json", model)
    manifest = read_json(bundle / MANIFEST)
    write_manifest(bundle, {"format": manifest["format"], "as_of": manifest["as_of"]})
    with pytest.raises(ContractError, match="the model has 41 items of 8 dimensions"):
        read_bundle(bundle)


def test_scoring_needs_no_torch() -> None:
    code = "import sys, tasks.edges.score, tasks.edges.publish; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
