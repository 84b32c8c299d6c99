"""The register edge does what the verdict says, for the bundle judged, and nothing twice."""

import logging
from pathlib import Path

import pytest

from recsys_core.artifacts import MANIFEST, sha256, write_json, write_manifest
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Register
from recsys_core.serving.registry import champion, history
from tasks.edges.register import run


def export(layout: Layout, content: str) -> None:
    """A new bundle; the registry looks at nothing but its manifest."""
    layout.bundle.mkdir(parents=True, exist_ok=True)
    (layout.bundle / "two_time_scale.onnx").write_text(content)
    write_manifest(layout.bundle, {"format": 1, "as_of": 5})


def judged(layout: Layout, graph: str | None) -> None:
    bundle = sha256(layout.bundle / MANIFEST)
    write_json(
        layout.gate,
        {
            "bundle": bundle,
            "ranks": sha256(layout.ranks),
            "graph": graph,
            "reason": "because",
            "passed": True,
        },
    )


def register(layout: Layout, *, keep_versions: int = 5) -> str | None:
    run(layout=layout, register=Register(keep_versions=keep_versions))
    now = champion(layout.registry)
    return None if now is None else now.version


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.ranks.parent.mkdir(parents=True)
    layout.ranks.write_bytes(b"ranks")
    export(layout, "first")
    return layout


def test_the_accepted_bundle_becomes_champion(layout: Layout) -> None:
    judged(layout, "two_time_scale")
    first = register(layout)
    now = champion(layout.registry)
    assert now is not None
    assert (now.version, now.graph, now.as_of) == (first, "two_time_scale", 5)
    (entry,) = history(layout.registry)
    assert (entry.version, entry.previous) == (first, None)


def test_again_changes_nothing(layout: Layout) -> None:
    judged(layout, "popularity")
    register(layout)
    files = [path for path in layout.registry.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    register(layout)
    after = [path for path in layout.registry.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in after} == before


def test_rejected_the_incumbent_stays(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    judged(layout, "two_time_scale")
    first = register(layout)
    export(layout, "second")
    judged(layout, None)
    with caplog.at_level(logging.WARNING):
        assert register(layout) == first
    assert f"champion={first} unchanged" in caplog.text
    assert len(history(layout.registry)) == 1


def test_a_bundle_that_was_not_judged_is_refused(layout: Layout) -> None:
    judged(layout, "two_time_scale")
    export(layout, "second")
    with pytest.raises(ContractError, match="run the gate edge again"):
        register(layout)
    assert champion(layout.registry) is None


def test_a_verdict_on_other_ranks_is_refused(layout: Layout) -> None:
    judged(layout, "two_time_scale")
    layout.ranks.write_bytes(b"evaluated anew")
    with pytest.raises(ContractError, match=r"other ranks .* run the gate edge again"):
        register(layout)
    assert champion(layout.registry) is None


def test_a_bundle_changed_behind_its_manifest_is_refused(layout: Layout) -> None:
    judged(layout, "two_time_scale")
    (layout.bundle / "two_time_scale.onnx").write_text("?")
    with pytest.raises(ContractError, match="SHA-256"):
        register(layout)
    assert champion(layout.registry) is None


def test_without_a_verdict(layout: Layout) -> None:
    with pytest.raises(ContractError, match="no such file"):
        register(layout)


def test_old_versions_are_removed(layout: Layout) -> None:
    versions = []
    for content in ("a", "b", "c"):
        export(layout, content)
        judged(layout, "two_time_scale")
        versions.append(register(layout, keep_versions=2))
    left = {path.name for path in layout.registry.iterdir() if path.is_dir()}
    assert left == set(versions[1:])
