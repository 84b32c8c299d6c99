"""Small logs for tests: a card, the log's file, and a workspace in which stages run."""

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys_core.config import Params, check_params, read_yaml
from recsys_core.data.cards import DatasetCard, parse_card
from recsys_core.layout import Layout
from tasks.step import run_step

REPOSITORY = Path(__file__).parents[1]
REAL_LOGS = REPOSITORY.parent / "shared" / "data"

DAY = 86_400_000_000
START = 1_700_000_000_000_000
"""Microseconds; 2023-11-14, far from any edge."""


def card_value(**changes: Any) -> dict[str, Any]:
    """A card's YAML value: user, item and timestamp in microseconds, sessions by a gap of 100 s."""
    value: dict[str, Any] = {
        "name": "small",
        "title": "A small log",
        "source": {"kind": "files", "interactions": "log.parquet", "items": None, "users": None},
        "columns": {"user_id": "user", "item_id": "item", "timestamp": "at"},
        "time": {"kind": "absolute", "unit": "us"},
        "event_types": None,
        "sessions": {"kind": "gap", "gap_seconds": 100},
        "cut_off": None,
        "expected": {"bad_share": 0.0},
    }
    return {**value, **changes}


def small_card(**changes: Any) -> DatasetCard:
    return parse_card(card_value(**changes), where="small.yaml")


def params_for(dataset: str, path: str, **sections: dict[str, Any]) -> Params:
    """The project's parameters for another dataset; a section given here replaces its keys."""
    value = read_yaml(REPOSITORY / "params.yaml")
    value["ingest"] = {"dataset": dataset, "path": path}
    for name, changes in sections.items():
        value[name] = changes if "kind" in changes else {**value[name], **changes}
    return check_params(value, where="params.yaml")


def workspace(root: Path, log: pa.Table | None = None, **changes: Any) -> Layout:
    """A workspace with the card `small` and its log, as Parquet, in the folder `data`."""
    (root / "datasets").mkdir(parents=True, exist_ok=True)
    (root / "data").mkdir(exist_ok=True)
    text = yaml.safe_dump(card_value(**changes))
    (root / "datasets" / "small.yaml").write_text(text, encoding="utf-8")
    if log is not None:
        pq.write_table(log, root / "data" / "log.parquet")
    return Layout(root)


def run_stages(layout: Layout, *stages: str, params: Params | None = None) -> None:
    """Run stages of the workspace by name, in this process."""
    for stage in stages:
        module = importlib.import_module(f"tasks.stages.{stage}")
        run_step(module.run, layout, params or params_for("small", "data"))


def small_log(n: int = 8) -> pa.Table:
    """`n` clean interactions of two users on three items, ten seconds apart."""
    return pa.table(
        {
            "user": [f"u{row % 2}" for row in range(n)],
            "item": [f"i{row % 3}" for row in range(n)],
            "at": pa.array([START + 10_000_000 * row for row in range(n)], pa.int64()),
        }
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
