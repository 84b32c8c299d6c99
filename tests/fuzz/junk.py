"""A sound log whose card or params.yaml holds nonsense: keys gone or renamed, odd values."""

import copy
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys_core.config import read_yaml
from tests.door_logs import FULL
from tests.small_logs import DAY, REPOSITORY, START, card_value

ROWS = 40

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e-300),
    *(1e300, float("nan"), float("inf"), float("-inf"), "", " ", "0", "yes", "null", "nan", "~"),
    *(
        "a\nb",
        "\0",
        "\x1b[31m",
        "x" * 5_000,
        "商品",
        "../..",
        "/",
        ".",
        "*",
        "log.parquet",
        "small",
    ),
    *("user", "item", "at", "user_id", "timestamp", "given", "gap", "none", "files", "postgres"),
    *("simulator", "absolute", "rank", "us", "iso", "(", "[", "(?P<a>.)", "\\", "days", "quantile"),
    *([], [[]], [None], ["user"], {}, {"kind": "files"}, {"kind": None}, {"a": {"b": [{}]}}),
    *(date(1, 1, 1), date(9999, 12, 31), datetime(2024, 1, 1, tzinfo=UTC), b"\xff"),
)
KEYS: tuple[Any, ...] = ("kind", "colour", "", "user_id", "a\nb", "x" * 700, 7, None, 1.5, True)
TEXTS = (
    *("a: [", "- 1\n- 2\n", "", "just a text", "a: 2023-99-99", "a: 0x", "? [1]\n: 2", "&a [*a]"),
    *("!!python/object:os.system {}", "a: !!binary x", "a: !!float x", "a: !!int x", "\t\ta: 1"),
    *(
        "a: 1\na: 2\n",
        "[" * 3_000,
        "{a: " * 3_000,
        "a: \x00",
        "%YAML 9.9\n---\na",
        "---\na\n---\nb",
    ),
    *("a: !!timestamp x", "a: 1:99:99", "a: .inf", "<<: 1", "a: 1e999999", "a: " + "9" * 5_000),
)


def write_case(root: Path, number: int) -> int:
    """Write the workspace of this number; returns the rows of its log."""
    rng = np.random.default_rng([number, 3])
    (root / "datasets").mkdir()
    (root / "data").mkdir()
    log = _log()
    pq.write_table(log, root / "data" / "log.parquet")
    for key in ("item", "user"):
        ids = log[key].unique()
        features = pa.table({key: ids, "colour": pa.array(["red"] * len(ids))})
        pq.write_table(features, root / "data" / f"{key}s.parquet")
    card = card_value(**copy.deepcopy(FULL)) if rng.random() < 0.7 else card_value()
    params = copy.deepcopy(_params())
    params["split"] = {"kind": "quantile", "share": 0.2}
    changed = rng.integers(3)
    for value, chosen in ((card, changed != 1), (params, changed != 0)):
        for _ in range(int(rng.choice([1, 1, 1, 2, 5])) if chosen else 0):
            _spoil(value, rng)
    for path, value, chosen in (
        (root / "datasets" / "small.yaml", card, changed != 1),
        (root / "params.yaml", params, changed != 0),
    ):
        data = yaml.safe_dump(value, sort_keys=False).encode()
        if chosen and rng.random() < 0.3:
            data = _spoiled_text(data, rng)
        path.write_bytes(data)
    return ROWS


@cache
def _log() -> pa.Table:
    """Forty rows that the cards fit."""
    turn = np.arange(ROWS)
    return pa.table(
        {
            "user": [f"u{row % 4}" for row in turn],
            "item": [f"i{row // 2 % 4}" for row in turn],
            "at": START + turn * DAY // 4,
            "type": ["view"] * ROWS,
            "value": pa.array([0.7] * ROWS, pa.float32()),
            "visit": [f"s{row // 8}" for row in turn],
            "os": ["os"] * ROWS,
            "price": [99.5] * ROWS,
        }
    )


@cache
def _params() -> dict[str, Any]:
    value: dict[str, Any] = read_yaml(REPOSITORY / "params.yaml")
    value["ingest"] = {"dataset": "small", "path": "data"}
    return value


def _spoil(value: dict[Any, Any], rng: np.random.Generator) -> None:
    """Change one thing somewhere in a nested value."""
    of, key = _place(value, rng)
    change = int(rng.integers(12))
    if change == 0:
        del of[key]
    elif change == 1 and isinstance(of, dict):
        of[_pick(KEYS, rng)] = of.pop(key)
    elif change == 2 and isinstance(of, dict):
        of[_pick(KEYS, rng)] = copy.deepcopy(_pick(JUNK, rng))
    elif change == 3:
        of[key] = [of[key]] if rng.random() < 0.5 else {"a": of[key]}
    elif change == 4:
        of[key] = copy.deepcopy(_pick(JUNK, rng))
    else:
        of[key] = _pick(tuple(filter(_like(of[key]), JUNK)), rng)


def _like(value: Any) -> Callable[[Any], bool]:
    """Whether something is of the kind of `value`: a number or a text, so that it may pass."""
    kind = str if isinstance(value, str) else int | float
    return lambda other: isinstance(other, kind) and not isinstance(other, bool)


def _place(value: dict[Any, Any], rng: np.random.Generator) -> tuple[Any, Any]:
    """A mapping or list in a nested value, and one of its keys; those that decide are likelier."""
    places: list[tuple[Any, Any]] = []
    open_: list[Any] = [value]
    while open_:
        part = open_.pop()
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        for key in keys:
            weight = 5 if key in ("path", "dataset", "validate", "split", "sessionize") else 1
            places += [(part, key)] * weight
            if isinstance(part[key], dict | list):
                open_.append(part[key])
                if key in ("validate", "split", "sessionize", "ingest"):
                    places += [(part[key], inner) for inner in part[key]] * 5
    return places[int(rng.integers(len(places)))] if places else (value, value.setdefault("a", "a"))


def _spoiled_text(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data)))
    change = int(rng.integers(4))
    if change == 0:
        return _pick(TEXTS, rng).encode()
    if change == 1:
        return data + b"\n" + _pick(TEXTS, rng).encode()
    if change == 2:
        return data[:place] + bytes([int(rng.integers(256))]) + data[place + 1 :]
    return data[:place]


def _pick(choices: tuple[Any, ...], rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]
