"""The registry keeps whole, unchanged versions and one champion."""

import shutil
from pathlib import Path

import pytest

from recsys_core.artifacts import read_json, verify_manifest, write_manifest
from recsys_core.errors import ContractError
from recsys_core.serving.registry import (
    add_version,
    champion,
    history,
    promote,
    prune,
    version_of,
)

NIGHT = "2026-01-01T03:00:00+00:00"


def make_bundle(folder: Path, content: str, *, as_of: int = 5) -> Path:
    """A folder with a manifest: all that the registry looks at."""
    folder.mkdir(parents=True)
    (folder / "two_time_scale.onnx").write_text(content)
    write_manifest(folder, {"format": 1, "as_of": as_of})
    return folder


def register(registry: Path, bundle: Path, *, graph: str = "two_time_scale") -> str:
    version = add_version(registry, bundle, graph=graph, verdict={"passed": True})
    promote(registry, version, registered_at=NIGHT)
    return version


def test_nothing_registered(tmp_path: Path) -> None:
    assert champion(tmp_path / "registry") is None
    assert history(tmp_path / "registry") == []
    assert prune(tmp_path / "registry", keep=1) == []


def test_a_version_is_its_content_and_its_graph(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    one, same = make_bundle(tmp_path / "one", "1"), make_bundle(tmp_path / "same", "1")
    two = make_bundle(tmp_path / "two", "2")
    version = add_version(registry, one, graph="two_time_scale", verdict={})
    assert len(version) == 12
    assert add_version(registry, same, graph="two_time_scale", verdict={}) == version
    assert add_version(registry, one, graph="popularity", verdict={}) != version
    assert add_version(registry, two, graph="two_time_scale", verdict={}) != version
    assert version_of("a", "popularity") != version_of("a", "two_time_scale")


def test_the_champion_is_a_copy_with_its_verdict(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    source = make_bundle(tmp_path / "source", "1", as_of=77)
    version = register(registry, source)
    shutil.rmtree(source)
    now = champion(registry)
    assert now is not None
    assert (now.version, now.graph, now.as_of) == (version, "two_time_scale", 77)
    assert verify_manifest(now.bundle)["as_of"] == 77
    facts = read_json(registry / version / "version.json")
    assert facts == {
        "version": version,
        "graph": "two_time_scale",
        "as_of": 77,
        "verdict": {"passed": True},
    }


def test_registering_twice_changes_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    source = make_bundle(tmp_path / "source", "1")
    register(registry, source)
    before = {path: path.read_bytes() for path in registry.rglob("*") if path.is_file()}
    register(registry, source)
    assert {path: path.read_bytes() for path in registry.rglob("*") if path.is_file()} == before
    assert len(history(registry)) == 1


def test_history_and_rollback(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    first = register(registry, make_bundle(tmp_path / "a", "1"))
    second = register(registry, make_bundle(tmp_path / "b", "2"))
    promote(registry, first, registered_at=NIGHT)
    assert [(entry.version, entry.previous) for entry in history(registry)] == [
        (first, None),
        (second, first),
        (first, second),
    ]
    now = champion(registry)
    assert now is not None
    assert now.version == first


def test_a_promotion_killed_before_the_pointer_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "registry"
    first = register(registry, make_bundle(tmp_path / "a", "1"))
    version = add_version(
        registry, make_bundle(tmp_path / "b", "2"), graph="two_time_scale", verdict={}
    )
    from recsys_core.serving import registry as module

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(registry, version, registered_at=NIGHT)
    now = champion(registry)
    assert now is not None
    assert now.version == first
    promote(registry, version, registered_at=NIGHT)
    assert [entry.version for entry in history(registry)] == [first, version]


def test_a_broken_bundle_is_not_registered(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    source = make_bundle(tmp_path / "source", "1")
    (source / "two_time_scale.onnx").write_text("other")
    with pytest.raises(ContractError, match="SHA-256"):
        add_version(registry, source, graph="two_time_scale", verdict={})
    assert not registry.exists()


def test_a_version_broken_in_the_registry_is_not_taken_for_whole(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    source = make_bundle(tmp_path / "source", "1")
    version = register(registry, source)
    (registry / version / "bundle" / "two_time_scale.onnx").write_text("other")
    with pytest.raises(ContractError, match="SHA-256"):
        register(registry, source)


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = tmp_path / "registry"
    source = make_bundle(tmp_path / "source", "1")

    def half(_: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (target / "two_time_scale.onnx").write_text("h")
        raise OSError("no space left on device")

    monkeypatch.setattr(shutil, "copytree", half)
    with pytest.raises(OSError, match="no space"):
        add_version(registry, source, graph="two_time_scale", verdict={})
    assert list(registry.iterdir()) == []


def test_pruning_keeps_the_latest_and_the_champion(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    versions = [register(registry, make_bundle(tmp_path / name, name)) for name in "abcd"]
    promote(registry, versions[0], registered_at=NIGHT)
    leftover = registry / ".0123456789ab.77.tmp"
    leftover.mkdir()
    assert prune(registry, keep=2) == sorted(versions[1:3])
    left = {path.name for path in registry.iterdir() if path.is_dir()}
    assert left == {versions[0], versions[3]}
    assert prune(registry, keep=1) == [versions[3]]
    now = champion(registry)
    assert now is not None
    assert now.version == versions[0]


def test_a_pointer_to_nothing_says_what_to_do(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    version = register(registry, make_bundle(tmp_path / "a", "1"))
    (registry / version).rename(tmp_path / "moved")
    with pytest.raises(ContractError, match="restore that folder"):
        champion(registry)
