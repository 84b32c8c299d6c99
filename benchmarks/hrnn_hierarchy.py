"""`make bench-hrnn ROW=hierarchy`: a session bit in place of a hierarchy (HRNN-meta, table 3).

    gru     knows nothing of sessions
    hrnn    the same, and reads whether what is asked for opens a session
    hgru    a unit for events and one for sessions (`models/hgru.py`)

each with 50 and with 200 hidden numbers. hrnn and hgru stand against gru of the same width; the
seconds of an epoch are those of training alone (`hrnn_speed.py`), of cases that run in turn.
"""

from pathlib import Path
from typing import Any

from benchmarks.hrnn_cases import merge_cases, read_cases, run_cases, workspace_of_case
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.hrnn_speed import measure_speeds
from benchmarks.measure import ROOT, circumstances
from benchmarks.quality_stages import code_of, code_of_stages
from benchmarks.row import Row
from benchmarks.row import merged as merged_params
from benchmarks.train_ours import device_name
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_yaml

ROWS = ("hierarchy-yelp", "hierarchy-globo")
SECONDS, REPEATS = 20.0, 3
CODE = tuple(f"benchmarks/{name}.py" for name in ("hrnn_speed", "measure", "training_case"))
TITLE = "Sessions as a bit, as a hierarchy, and not at all"
NOTE = (
    "One network (`one_rnn`), no memory. `hgru / this` is how many times longer an epoch of hgru "
    "of the same width takes: the goal for hrnn is 4. hgru stands against hrnn, hrnn against gru."
)


def run(
    seed: int, *, runs: Path, logs: Path, seconds: float = SECONDS, repeats: int = REPEATS
) -> Experiment:
    """Run the cases of both logs with a seed, and measure how fast each trains where that was not
    done with this code; returns what all finished seeds found."""
    rows = [read_cases(name) for name in ROWS]
    for row in rows:
        run_cases(row, seed, runs=runs, logs=logs)
        measured(row, seed, runs=runs, seconds=seconds, repeats=repeats)
    return merged(rows, runs=runs)


def measured(row: Row, seed: int, *, runs: Path, seconds: float, repeats: int) -> dict[str, Any]:
    """The speeds of a row's cases on this machine, kept beside its workspaces."""
    path = runs / row.name / "speed.json"
    asked = asked_for(row, seconds=seconds, repeats=repeats)
    if path.exists():
        known: dict[str, Any] = read_json(path)
        if known["asked"] == asked:
            return known
    workspaces = {case: workspace_of_case(row, case, seed, runs=runs) for case in row.cases}
    speeds = measure_speeds(workspaces, seconds=seconds, repeats=repeats)
    found = {"asked": asked, "speeds": speeds, **circumstances("torch")}
    write_json(path, found)
    return found


def asked_for(row: Row, *, seconds: float, repeats: int) -> dict[str, Any]:
    """What the speeds of a row depend on: those of anything else are not taken up."""
    params = merged_params(read_yaml(ROOT / "params.yaml"), row.params)
    return {
        "code": f"{code_of_stages()} {code_of(*CODE)}",
        "params": params,
        "cases": row.cases,
        "device": device_name(),
        "seconds": seconds,
        "repeats": repeats,
    }


def merged(rows: list[Row], *, runs: Path) -> Experiment:
    """What the finished seeds of these rows found."""
    tables = []
    for row in rows:
        against = {case: _against(case) for case in row.cases if not case.startswith("gru")}
        table = merge_cases(row, runs=runs, against=against)
        found = read_json(runs / row.name / "speed.json")
        speeds = found["speeds"]
        for case in table["cases"]:
            speed = speeds.get(case["name"])
            if speed is None:
                continue  # popularity is not trained
            hgru = speeds[f"hgru_{_width(case['name'])}"]
            case["numbers"] = {
                "events/s": speed["events_per_second"],
                "seconds an epoch": speed["seconds_per_epoch"],
                "hgru / this": round(hgru["seconds_per_epoch"] / speed["seconds_per_epoch"], 2),
            }
        tables.append({**table, "speed": found})
    return experiment_of("hierarchy", title=TITLE, note=NOTE, tables=tables)


def _against(case: str) -> str:
    return f"{'gru' if case.startswith('hrnn') else 'hrnn'}_{_width(case)}"


def _width(case: str) -> str:
    return case.rpartition("_")[2]
