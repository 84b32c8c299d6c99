"""The rows of the quality bench: `benchmarks/rows/<protocol>.yaml`, one protocol each.

A row names the dataset's card and what differs in it, the params that differ from params.yaml, the
SQL that prepares the log where rows of it must be chosen first, and the baselines without which it
is not finished. What is published or was measured elsewhere is its floor, of each setting its own:

    refit        fitted once more up to the test period, when all is chosen
    train_only   as it was when the validation period began

It may also name ablations, which take a part of the model away, variants, which ask the same model
otherwise, and cases, which are models of their own; each runs in a workspace of its own. The
ablations are those of `models/ablations.py`, and where the memory has item factors

    inductive    one_rnn, and no factors: one time scale, and nothing that is a vector of the user
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.measure import ROOT
from recsys_core.config import read_yaml
from recsys_core.errors import ConfigError
from recsys_core.sections import Ablation

ROWS = ROOT / "benchmarks" / "rows"
LOGS = ROOT.parent / "shared" / "data"
PEERS = ("als", "bpr")
"""Baselines of the extra `[peers]`; all others are named in params."""

SETTINGS = {"refit": "", "train_only": "_train_only"}
"""What a model's name ends with in each setting."""

INDUCTIVE = "inductive"

KEYS = {"title", "dataset", "params", "metrics", "required", "floor", "note"}
EMPTY: dict[str, Any] = {
    "card": {},
    "prepare": None,
    "peers": [],
    "ablations": [],
    "variants": {},
    "cases": {},
}
"""The keys that a row need not have, as they are then."""


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
    peers: list[str]
    ablations: list[str]
    variants: dict[str, dict[str, Any]]
    cases: dict[str, dict[str, Any]]
    floor: dict[str, dict[str, Any]] | None
    note: str


def row_names() -> list[str]:
    return sorted(path.stem for path in ROWS.glob("*.yaml"))


def read_row(name: str, *, folder: Path = ROWS) -> Row:
    """The row of a protocol. Raises `ConfigError` where there is none, or it says what none may."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{name!r} is no row of the quality bench; name one of {row_names()}")
    value = read_yaml(path)
    if not isinstance(value, dict) or not KEYS <= set(value) <= KEYS | set(EMPTY):
        raise ConfigError(f"{path}: its keys must be {sorted(KEYS)}, and may be {sorted(EMPTY)}")
    row = Row(name=name, **{**deepcopy(EMPTY), **value})
    _check(row, where=str(path))
    return row


def _check(row: Row, *, where: str) -> None:
    train_only = bool(row.params.get("evaluate", {}).get("train_only"))
    settings = set(SETTINGS) if train_only else {"refit"}
    for setting, floor in (row.floor or {}).items():
        if setting not in settings or set(floor) != {"value", "what"}:
            raise ConfigError(
                f"{where}: floor is {row.floor}; it must be null, or value and what for some of "
                f"{sorted(settings)}"
            )
    if not set(row.peers) <= set(PEERS):
        raise ConfigError(f"{where}: peers is {row.peers}; it must be some of {list(PEERS)}")
    ablations = [name for name in get_args(Ablation) if name != "none"]
    if "factors" in _terms(row):
        ablations.append(INDUCTIVE)
    if not set(row.ablations) <= set(ablations):
        raise ConfigError(f"{where}: ablations is {row.ablations}; it must be some of {ablations}")
    for name, changes in row.variants.items():
        if name in ablations or not name.isidentifier() or set(changes) != {"evaluate"}:
            raise ConfigError(
                f"{where}: the variant {name!r} changes {sorted(changes)}; it must have a name of "
                "letters that is no ablation, and change evaluate alone, since nothing is trained "
                "again"
            )
    _check_cases(row, where=where)


def _check_cases(row: Row, *, where: str) -> None:
    for name in row.cases:
        if not name.isidentifier() or name in (*row.ablations, *row.variants):
            raise ConfigError(
                f"{where}: the case {name!r} must have a name of letters that is neither an "
                "ablation nor a variant"
            )


def changes_of(row: Row, change: str | None) -> dict[str, Any]:
    """The params of an ablation, a variant or a case of a row, beside those of the row itself; None
    is the row. An ablation is compared with the row, whose baselines need not be ranked again."""
    if change is None:
        return {}
    if change in row.variants:
        return row.variants[change]
    if change in row.cases:
        return row.cases[change]
    if change in row.ablations:
        least = {"evaluate": {"baselines": ["popularity"]}, "gate": {"floor": "popularity"}}
        if change != INDUCTIVE:
            return {"train_rnn": {"ablation": change}, **least}
        terms = [term for term in _terms(row) if term != "factors"]
        return {"train_rnn": {"ablation": "one_rnn"}, "train_memory": {"terms": terms}, **least}
    raise ConfigError(
        f"{change!r} is no ablation, variant or case of {row.name}; name one of "
        f"{[*row.ablations, *row.variants, *row.cases]}, or add it to {row.name}.yaml"
    )


def _terms(row: Row) -> list[str]:
    """The terms of the memory that the row names, where it names them."""
    terms: list[str] = row.params.get("train_memory", {}).get("terms", [])
    return terms


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


def log_folder(row: Row, *, logs: Path = LOGS) -> Path:
    """Where the row's log lies. Raises `ConfigError` where it does not."""
    folder = logs / row.dataset
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; put the log of {row.dataset} there")
    return folder
