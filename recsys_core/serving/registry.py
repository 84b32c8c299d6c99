"""Versions of what may score, one of them the champion.

    registry/3f2a9c01d4e5/bundle/         a copy of the exported bundle, never changed
    registry/3f2a9c01d4e5/version.json    which graph of it scores, and the gate's verdict
    registry/champion.json                replaced in one step
    registry/history.jsonl                every change of champion, oldest first

A version is the first 12 hexadecimal digits of a SHA-256 over the bundle's manifest and the graph
that scores: the same bundle and graph are the same version, wherever and whenever they are
registered.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys_core.artifacts import (
    MANIFEST,
    atomic_path,
    read_json,
    sha256,
    verify_manifest,
    write_json,
)
from recsys_core.errors import ContractError
from recsys_core.serving.bundle import GRAPHS, Graph

CHAMPION = "champion.json"
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Champion:
    """The version that scores; `as_of` is the latest event that it has seen."""

    version: str
    graph: Graph
    as_of: int
    bundle: Path


@dataclass(frozen=True)
class Promotion:
    """One change of champion; `previous` is the version before it, None for the first."""

    version: str
    graph: str
    as_of: int
    previous: str | None
    registered_at: str


def version_of(manifest_sha256: str, graph: Graph) -> str:
    """The version of a bundle and the graph of it that scores."""
    return hashlib.sha256(f"{manifest_sha256}/{graph}".encode()).hexdigest()[:12]


def add_version(registry: Path, bundle: Path, *, graph: Graph, verdict: Mapping[str, Any]) -> str:
    """Copy a bundle into the registry, whole or not at all; returns its version.

    The bundle is compared with its manifest before and after the copy. A version that is there
    already stays as it is.
    """
    manifest = verify_manifest(bundle)
    version = version_of(sha256(bundle / MANIFEST), graph)
    target = registry / version
    if target.exists():
        verify_manifest(target / "bundle")
        return version
    with atomic_path(target) as temporary:
        shutil.copytree(bundle, temporary / "bundle")
        facts = {
            "version": version,
            "graph": graph,
            "as_of": manifest["as_of"],
            "verdict": dict(verdict),
        }
        write_json(temporary / "version.json", facts)
        verify_manifest(temporary / "bundle")
    return version


def promote(registry: Path, version: str, *, registered_at: str) -> Champion:
    """Make a version the champion and note it in the history; nothing changes where it is already.

    `registered_at` is the time to note. An older version is promoted in the same way: that is a
    rollback.
    """
    facts = read_json(registry / version / "version.json")
    now = champion(registry)
    if now is None or now.version != version:
        entry = Promotion(
            version=version,
            graph=facts["graph"],
            as_of=facts["as_of"],
            previous=None if now is None else now.version,
            registered_at=registered_at,
        )
        entries = history(registry)
        # noted first: a run that stops between the two finds its own entry when it is run again
        if not entries or (entries[-1].version, entries[-1].previous) != (
            entry.version,
            entry.previous,
        ):
            _write_history(registry, [*entries, entry])
        pointer = {"version": version, "graph": facts["graph"], "as_of": facts["as_of"]}
        write_json(registry / CHAMPION, pointer)
    promoted = champion(registry)
    assert promoted is not None, "the pointer was just written"
    return promoted


def champion(registry: Path) -> Champion | None:
    """The version that scores, or None where nothing was registered yet."""
    path = registry / CHAMPION
    if not path.exists():
        return None
    pointer = read_json(path)
    bundle = registry / pointer["version"] / "bundle"
    if pointer["graph"] not in GRAPHS or not (bundle / MANIFEST).exists():
        raise ContractError(
            f"{path}: names version {pointer['version']} and graph {pointer['graph']!r}, but "
            f"{bundle} holds no such "
            "bundle; restore that folder, or delete the pointer and register again"
        )
    return Champion(
        version=pointer["version"], graph=pointer["graph"], as_of=pointer["as_of"], bundle=bundle
    )


def history(registry: Path) -> list[Promotion]:
    """Every change of champion, oldest first."""
    path = registry / HISTORY
    if not path.exists():
        return []
    return [Promotion(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def prune(registry: Path, *, keep: int) -> list[str]:
    """Remove all but the `keep` versions that were champion last; returns what was removed.

    Folders that a killed registration left half copied are removed as well.
    """
    for leftover in registry.glob(".*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
    now = champion(registry)
    latest_first = [entry.version for entry in reversed(history(registry))]
    if now is not None:
        latest_first.insert(0, now.version)
    kept = set(list(dict.fromkeys(latest_first))[:keep])
    versions = sorted(path.parent.name for path in registry.glob("*/version.json"))
    removed = [version for version in versions if version not in kept]
    for version in removed:
        shutil.rmtree(registry / version)
    return removed


def _write_history(registry: Path, entries: list[Promotion]) -> None:
    lines = [json.dumps(asdict(entry), sort_keys=True) + "\n" for entry in entries]
    with atomic_path(registry / HISTORY) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
