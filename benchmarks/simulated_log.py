"""Logs of the embedded simulator as files, of about as many interactions as asked for.

All sizes have the same catalogue and the same sixty days: a larger log has more users who come as
often, so what grows is the log alone. They are written as Parquet once and kept, so that ingest
reads files, as it does for most logs, and none of its time is the simulator's.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.measure import CACHE, ROOT, call, measure
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_yaml
from recsys_core.data.simulator import SimulatorConfig, simulate

EVENTS_PER_USER = 27.0
ITEMS = 10_000
CARD = ROOT / "datasets" / "simulator.yaml"
WORDS = ROOT / "datasets" / "simulator"
INTERACTIONS, ITEM_TABLE, USER_TABLE = "interactions.parquet", "items.parquet", "users.parquet"
FACTS = "simulation.json"


def simulated_log(events: int, *, cache: Path = CACHE) -> Path:
    """The folder with a log of about `events` interactions, simulated unless it lies there."""
    folder = cache / f"simulated-{events}"
    if simulation_of(folder).get("config") != asdict(config_of(events)):
        # in a process of its own: the measuring one stays small
        measured = measure(call("benchmarks.simulated_log:write_log", str(folder), events))
        # written last, so a log that was left half written is not taken up
        facts = {"config": asdict(config_of(events)), **asdict(measured)}
        write_json(folder / FACTS, facts)
    return folder


def simulation_of(folder: Path) -> dict[str, Any]:
    """What a log was simulated from, and what that took; {} where there is none."""
    path = folder / FACTS
    facts: dict[str, Any] = read_json(path) if path.exists() else {}
    return facts


def config_of(events: int) -> SimulatorConfig:
    """The simulator's numbers for a size."""
    return SimulatorConfig(
        users=max(1, round(events / EVENTS_PER_USER)),
        items=ITEMS,
        topics=24,
        days=60,
        start="2024-03-01",
        events_per_user=EVENTS_PER_USER,
        oracle_days=0,
        shuffle=False,
        seed=16,
    )


def write_log(folder: str, events: int) -> None:
    """Simulate and write the three tables."""
    log = simulate(config_of(events), words=WORDS)
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    (into / FACTS).unlink(missing_ok=True)
    pq.write_table(log.interactions, into / INTERACTIONS)
    pq.write_table(log.items, into / ITEM_TABLE)
    pq.write_table(log.users, into / USER_TABLE)


def file_card() -> dict[str, Any]:
    """The embedded data set's card, with the files as its source."""
    card: dict[str, Any] = read_yaml(CARD)
    source = {
        "kind": "files",
        "interactions": INTERACTIONS,
        "items": ITEM_TABLE,
        "users": USER_TABLE,
    }
    return {**card, "title": "A simulated marketplace, as files", "source": source}
