"""What a run did and took, step by step, in `run.json` of its workspace: the record that is ours.

Prefect's database is not asked, since a run that was killed stays "running" there.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_yaml

NAME = "run.json"
RUNNING, INTERRUPTED = "running", "interrupted"


def begin(workspace: Path, *, flow: str, checkout: Path) -> None:
    """Start the record of a run, in place of the one before.

    Of that one stays how it ended; where nothing did, it was killed: `interrupted`.
    """
    before = read(workspace) if (workspace / NAME).exists() else None
    write_json(
        workspace / NAME,
        {
            "flow": flow,
            "state": RUNNING,
            "started": _now(),
            "code": code_version(checkout),
            "params_sha256": params_sha256(workspace),
            "steps": [],
            "previous": None if before is None else _ending(before),
        },
    )


def add_step(
    workspace: Path,
    name: str,
    *,
    outcome: str,
    seconds: float,
    peak_rss_mb: float,
    counts: Mapping[str, int],
) -> None:
    """Record a step that has ended well, and what it counted, where it counts.

    `peak_rss_mb` is that of its largest process, in MiB.
    """
    record = read(workspace)
    record["steps"].append(
        {
            "step": name,
            "outcome": outcome,
            "seconds": round(seconds, 2),
            "peak_rss_mb": round(peak_rss_mb, 1),
            **({"counts": dict(counts)} if counts else {}),
        }
    )
    write_json(workspace / NAME, record)


def end(workspace: Path, *, state: str, error: str | None = None) -> None:
    """Record how the run ended: `completed`, or `failed` with its reason."""
    record = read(workspace)
    record["state"] = state
    record["ended"] = _now()
    if error is not None:
        record["error"] = error
    write_json(workspace / NAME, record)


def read(workspace: Path) -> dict[str, Any]:
    """The record of the last run of a workspace."""
    record: dict[str, Any] = read_json(workspace / NAME)
    return record


def _ending(record: dict[str, Any]) -> dict[str, Any]:
    """Which run a record is of and how it ended, without its steps."""
    kept: dict[str, Any] = {
        key: record[key] for key in ("flow", "started", "ended", "error") if key in record
    }
    return {**kept, "state": INTERRUPTED if record["state"] == RUNNING else record["state"]}


def params_sha256(workspace: Path) -> str:
    """The SHA-256 of a workspace's params as sorted JSON: comments and order do not count."""
    text = json.dumps(read_yaml(workspace / "params.yaml"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def code_version(checkout: Path) -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it; no commit where git knows none."""
    commit = _git(checkout, "rev-parse", "--verify", "HEAD")
    changed = _git(checkout, "status", "--porcelain")
    return {"commit": commit, "changed": None if commit is None else changed != ""}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
