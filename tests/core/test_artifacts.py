"""Files between steps: whole or not at all, the same bytes for the same content."""

from pathlib import Path

import numpy as np
import pytest

from recsys_core.artifacts import (
    MANIFEST,
    atomic_path,
    read_json,
    read_tensors,
    sha256,
    verify_manifest,
    write_json,
    write_manifest,
    write_tensors,
)
from recsys_core.errors import ContractError


def half_written(path: Path, *, folder: bool = False) -> None:
    """Fail in the middle of writing `path`, or the folder that holds it."""
    with atomic_path(path.parent if folder else path) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / path.name if folder else temporary).write_text("half")
        raise ZeroDivisionError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        half_written(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["value.txt"]


def test_a_failed_write_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        half_written(tmp_path / "deep" / "folder" / "file", folder=True)
    assert list((tmp_path / "deep").iterdir()) == []


def test_json_has_sorted_keys_and_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, "é"], "a": None})
    write_json(tmp_path / "b.json", {"a": None, "b": [1, "é"]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [1, "é"]}


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_json_are_contract_errors(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ContractError, match="not JSON"):
        read_json(tmp_path / "a.json")


def test_tensors_come_back_and_their_order_does_not_matter(tmp_path: Path) -> None:
    values = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.array([1], np.int64)}
    write_tensors(tmp_path / "one", values)
    write_tensors(tmp_path / "two", dict(reversed(values.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = read_tensors(tmp_path / "one")
    assert {name: again[name].tolist() for name in again} == {
        "a": [1],
        "b": [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]],
    }


def test_missing_and_broken_tensors_are_contract_errors(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        read_tensors(tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"not tensors at all")
    with pytest.raises(ContractError, match="broken"):
        read_tensors(tmp_path / "weights")


def bundle(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    write_manifest(folder, {"k": 3})
    return folder


def test_a_manifest_holds_facts_and_hashes(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    manifest = verify_manifest(folder)
    assert manifest["k"] == 3
    assert manifest["files"]["deep/b.txt"] == sha256(folder / "deep" / "b.txt")
    assert write_manifest(folder, {"k": 3}) == sha256(folder / MANIFEST)


def test_a_changed_missing_or_added_file_is_found(tmp_path: Path) -> None:
    changed = bundle(tmp_path / "changed")
    (changed / "a.txt").write_text("A")
    with pytest.raises(ContractError, match=r"a\.txt: its SHA-256"):
        verify_manifest(changed)
    missing = bundle(tmp_path / "missing")
    (missing / "a.txt").unlink()
    with pytest.raises(ContractError, match=r"missing files \['a\.txt'\]"):
        verify_manifest(missing)
    added = bundle(tmp_path / "added")
    (added / "c.txt").write_text("c")
    with pytest.raises(ContractError, match=r"unexpected files \['c\.txt'\]"):
        verify_manifest(added)
