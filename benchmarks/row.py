"""The rows of the quality bench: `benchmarks/rows/<protocol>.yaml`, one protocol each.

A row names the dataset's card and what differs in it, the params that differ from params.yaml, the
SQL that prepares the log where rows of it must be chosen first, and the baselines without which it
is not finished.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from recsys_core.config import read_yaml
from recsys_core.errors import ConfigError

ROWS = ROOT / "benchmarks" / "rows"
PEERS = ("als", "bpr")
"""Baselines of the extra `[peers]`; all others are named in params."""

KEYS = {"title", "dataset", "params", "metrics", "required", "floor", "note"}
OPTIONAL = {"card", "prepare"}


@dataclass(frozen=True)
class Row:
    """One protocol."""

    name: str
    title: str
    dataset: str
    card: dict[str, Any]
    prepare: str | None
    params: dict[str, Any]
    metrics: list[str]
    required: list[str]
    floor: dict[str, Any] | None
    note: str

    @property
    def peers(self) -> list[str]:
        return [name for name in self.required if name in PEERS]


def row_names() -> list[str]:
    return sorted(path.stem for path in ROWS.glob("*.yaml"))


def read_row(name: str) -> Row:
    """The row of a protocol. Raises `ConfigError` where there is none, or its keys are others."""
    path = ROWS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{name!r} is no row of the quality bench; name one of {row_names()}")
    value = read_yaml(path)
    if not isinstance(value, dict) or not KEYS <= set(value) <= KEYS | OPTIONAL:
        raise ConfigError(f"{path}: its keys must be {sorted(KEYS)}, and may be {sorted(OPTIONAL)}")
    return Row(name=name, **{"card": {}, "prepare": None, **value})


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mappings key by key; what has a `kind` is replaced as a whole.

    >>> merged({"a": {"b": 1, "c": 2}, "s": {"kind": "x", "n": 1}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}, 's': {'kind': 'x', 'n': 1}}
    >>> merged({"s": {"kind": "x", "n": 1}}, {"s": {"kind": "y"}})
    {'s': {'kind': 'y'}}
    """
    result = deepcopy(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and "kind" not in value:
            result[key] = merged(old, value)
        else:
            result[key] = deepcopy(value)
    return result


def log_folder(row: Row) -> Path:
    """Where the row's log lies. Raises `ConfigError` where it does not."""
    folder = ROOT.parent / "shared" / "data" / row.dataset
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; put the log of {row.dataset} there")
    return folder
