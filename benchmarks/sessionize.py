"""`python -m benchmarks.sessionize`: the stage beside the bare query for the same sessions.

**stage** is `python -m tasks.stages.sessionize` in a workspace with a made log (`made_log.py`): it
numbers users and items, orders and checks the event columns, cuts the log by time and reports.
**in parts** is the same where the log came in 30 deliveries, so that each row's arrival is asked.
**bare** is what one would write without the stage (`bare_query.py`): one DuckDB query over the same
Parquet file, with the same threads and memory and no order of rows to keep. It finds sessions with
window functions over `user_id` ordered by (timestamp, source_row) and writes user_id, item_id,
timestamp and the session's number to Parquet. It has no vocabulary, no order, no check and no
report. Each is a process of its own, timed from its start to its exit, imports included: of the
smallest log that is a good part.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.made_log import TYPES, write_log
from benchmarks.measure import (
    CACHE,
    ROOT,
    Command,
    as_json,
    call,
    in_turn,
    measure,
    median_cpu_seconds,
    median_ratio,
    median_seconds,
    peak_mb,
    print_table,
    write_results,
)
from recsys_core.artifacts import write_json
from recsys_core.config import read_params
from recsys_core.data.cards import parse_card, write_resolved_card
from recsys_core.data.duck import usable_cpus
from recsys_core.layout import Layout

GAP_SECONDS = 1_800
PARTS = 30
CARD: dict[str, Any] = {
    "name": "made",
    "title": "A made log",
    "source": {"kind": "files", "interactions": "log.parquet", "items": None, "users": None},
    "columns": {"user_id": "user", "item_id": "item", "timestamp": "at", "event_type": "type"},
    "time": {"kind": "absolute", "unit": "us"},
    "event_types": dict.fromkeys(TYPES, 1.0),
    "sessions": {"kind": "gap", "gap_seconds": GAP_SECONDS},
    "cut_off": None,
    "expected": {"bad_share": 0.0},
}


def make_log(path: str, events: int) -> None:
    """Write the log, in a process of its own so that the measuring one stays small."""
    write_log(Path(path), events)


def prepare(root: Path, log: Path, *, events: int, parts: int) -> Layout:
    """A workspace in which sessionize can run on the log."""
    layout = Layout(root)
    layout.valid_interactions.parent.mkdir(parents=True)
    layout.valid_interactions.symlink_to(log)
    write_resolved_card(layout.resolved_card, parse_card(CARD, where="the made log's card"))
    write_json(layout.parts, {"first_rows": [part * events // parts for part in range(parts)]})
    shutil.copy(ROOT / "params.yaml", layout.params)
    return layout


def measure_size(events: int, *, repeats: int, memory_mb: int) -> dict[str, Any]:
    """One row of the results."""
    log = CACHE / f"made-{events}.parquet"
    if not log.exists():
        measure(call("benchmarks.sessionize:make_log", str(log), events))
    work = CACHE / f"work-{events}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        commands = {}
        for name, parts in (("stage", 1), ("in_parts", PARTS)):
            layout = prepare(work / name, log, events=events, parts=parts)
            words = (sys.executable, "-m", "tasks.stages.sessionize")
            commands[name] = Command(words, layout.root)
        (work / "bare").mkdir()
        told = (log, work / "bare", memory_mb, usable_cpus(), GAP_SECONDS)
        bare = (sys.executable, "-m", "benchmarks.bare_query", *map(str, told))
        commands["bare"] = Command(bare, ROOT)
        runs = in_turn(commands, repeats=repeats)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "events": events,
        "events_per_second": {
            name: round(events / median_seconds(measured)) for name, measured in runs.items()
        },
        "cpu_seconds": {
            name: round(median_cpu_seconds(measured), 2) for name, measured in runs.items()
        },
        "peak_mb": {name: round(peak_mb(measured)) for name, measured in runs.items()},
        "ratio_to_bare": {
            name: round(median_ratio(runs[name], runs["bare"]), 3) for name in ("stage", "in_parts")
        },
        "runs": as_json(runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the stage sessionize.")
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    memory_mb = read_params(ROOT / "params.yaml").sessionize.memory_mb
    rows = [
        measure_size(events, repeats=arguments.repeats, memory_mb=memory_mb)
        for events in arguments.events
    ]
    print_table(
        ["sessionize", "events", "events/s", "CPU s", "peak MB", "time / bare"],
        [
            [
                name,
                f"{row['events']:,}",
                f"{row['events_per_second'][name]:,}",
                f"{row['cpu_seconds'][name]:.2f}",
                f"{row['peak_mb'][name]:,}",
                f"{row['ratio_to_bare'].get(name, 1.0):.2f}",
            ]
            for row in rows
            for name in row["runs"]
        ],
    )
    write_results("sessionize", rows=rows, packages=("duckdb", "numpy", "pyarrow"))


if __name__ == "__main__":
    main()
