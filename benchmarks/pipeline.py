"""`python -m benchmarks.pipeline`: speed and memory of every step, and how they grow with the log.

The steps run one after the other, each as in life (`python -m tasks.stages.<stage>`, a fresh
process in a workspace), on logs of the simulator written to files (`simulated_log.py`), smallest
first. DVC and Prefect are left out: a second of theirs a step would be measured with it. As DVC
does, a step's outputs are removed before it runs.

**seconds** is from start to exit: of a small log most is starting Python and importing. **inside**
is the speed that training and scoring themselves log, of their epochs or shards alone.

A step runs once to warm up, which is not counted, and then `--repeats` times; one that takes
longer than `LONG_SECONDS` runs only once, which is counted: what else happens matters less to it.

On a machine that does other work, set `OMP_NUM_THREADS` to the CPUs that are left: PyTorch starts a
thread for each CPU, and threads that wait for one without a CPU made training ten times slower.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.measure import (
    CACHE,
    ROOT,
    Command,
    Measured,
    measure_and_listen,
    median_cpu_seconds,
    median_seconds,
    peak_mb,
    print_table,
    write_results,
)
from benchmarks.simulated_log import file_card, simulated_log, simulation_of
from benchmarks.step_table import HEADERS, table_rows
from flows.workspace import effective_params
from recsys_core.artifacts import read_json
from recsys_core.layout import STAGES, Layout

SIZES = (100_000, 1_000_000, 10_000_000)
LONG_SECONDS = 120.0
OVERRIDES = (
    "train_embeddings.max_epochs=1",
    "train_rnn.max_epochs=1",
    "refit.kind=none",  # it would train both stages again
    "gate.margin=1.0",  # after one epoch too, the networks score, and not popularity instead
)
RUNTIME = "onnxruntime" if sys.platform == "darwin" else "onnxruntime-gpu"
PACKAGES = ("duckdb", "great-expectations", "numpy", RUNTIME, "pyarrow", "torch")


@dataclass(frozen=True)
class Step:
    """A step and what its speed counts; with no unit it runs once, since a later one needs it."""

    name: str
    unit: Literal["events", "targets", "users"] | None

    @property
    def command(self) -> tuple[str, ...]:
        kind = "stages" if self.name in STAGES else "edges"
        return (sys.executable, "-m", f"tasks.{kind}.{self.name}")


STEPS = (
    Step("ingest", "events"),
    Step("validate", "events"),
    Step("sessionize", "events"),
    Step("train_embeddings", "events"),
    Step("train_rnn", "events"),
    Step("train_memory", None),
    Step("evaluate", "targets"),
    Step("refit", None),
    Step("export_onnx", None),
    Step("gate", None),
    Step("register", None),
    Step("score", "users"),
)


def prepare(root: Path, log: Path) -> Layout:
    """A new workspace whose log are the files in `log`."""
    shutil.rmtree(root, ignore_errors=True)
    layout = Layout(root)
    card = layout.card("simulator")
    card.parent.mkdir(parents=True)
    card.write_text(yaml.safe_dump(file_card(), sort_keys=False), encoding="utf-8")
    params = effective_params(
        [*OVERRIDES, f"ingest.path={log}", "ingest.dataset=simulator"],
        folder=root,
        called_from=ROOT,
    )
    layout.params.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return layout


def measure_size(
    events: int, *, repeats: int, steps: Sequence[Step] = STEPS, cache: Path = CACHE
) -> dict[str, Any]:
    """One row of the results: a size, with what was measured of each step."""
    log = simulated_log(events, cache=cache)
    layout = prepare(cache / f"pipeline-{events}", log)
    measured = []
    try:
        for step in steps:
            runs, output = measure_step(step, layout, repeats=repeats)
            print(f"{events:,} {step.name} {runs[-1].seconds:.1f} s", file=sys.stderr, flush=True)
            if step.unit is not None:
                measured.append(summary(step, runs, output, layout=layout))
        facts = read_json(layout.report("ingest"))
    finally:
        shutil.rmtree(layout.root)
    return {
        "size": events,
        "events": facts["rows_in"],
        "users": facts["users"],
        "items": facts["items"],
        "simulation": simulation_of(log),
        "steps": measured,
    }


def measure_step(step: Step, layout: Layout, *, repeats: int) -> tuple[list[Measured], str]:
    """The counted runs of a step, and what its last one wrote."""
    first, output = _run(step, layout)
    if step.unit is None or first.seconds > LONG_SECONDS:
        return [first], output
    runs = []
    for _ in range(repeats):
        run, output = _run(step, layout)
        runs.append(run)
    return runs, output


def _run(step: Step, layout: Layout) -> tuple[Measured, str]:
    output = layout.stage(step.name) if step.name in STAGES else layout.scores
    shutil.rmtree(output, ignore_errors=True)
    return measure_and_listen(Command(step.command, layout.root))


def summary(step: Step, runs: Sequence[Measured], output: str, *, layout: Layout) -> dict[str, Any]:
    """What the results say of a step."""
    count = counted(step, output, layout=layout)
    return {
        "step": step.name,
        "unit": step.unit,
        "count": count,
        "seconds": round(median_seconds(runs), 3),
        "per_second": round(count / median_seconds(runs)),
        "inside_per_second": logged_speed(output),
        "cpu_seconds": round(median_cpu_seconds(runs), 2),
        "peak_mb": round(peak_mb(runs)),
        "runs": [asdict(run) for run in runs],
    }


def counted(step: Step, output: str, *, layout: Layout) -> int:
    """How many of its unit a step worked on."""
    if step.unit == "targets":
        return int(read_json(layout.report("evaluate"))["targets"]["all"])
    if step.unit == "users":
        scored = re.search(r"event=scored users=(\d+)", output)
        if scored is None or "graph=two_time_scale" not in output:
            sys.exit(f"score did not say that the networks scored users:\n{output}")
        return int(scored.group(1))
    return int(read_json(layout.report("ingest"))["rows_in"])


def logged_speed(output: str) -> int | None:
    """The events a second over all epochs that a training logged, the users a second of all shards
    that scoring did; None where a step logs none, or was too short to tell."""
    # an epoch is logged before and after it is validated, with the same speed
    epochs = {
        (phase, epoch): (int(events), int(speed))
        for phase, epoch, events, total, speed in re.findall(
            r"phase=(\w+) epoch=(\d+)/\d+ events=(\d+)/(\d+) .*events_per_second=(\d+)", output
        )
        if events == total
    }
    if epochs:
        seconds = sum(events / speed for events, speed in epochs.values())
        return round(sum(events for events, _ in epochs.values()) / seconds)
    shards = re.findall(r"users_per_second=(\d+)", output)
    return int(shards[-1]) if shards else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure every step on logs of several sizes.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for events in sorted(set(arguments.sizes)):
        rows.append(measure_size(events, repeats=arguments.repeats))
        # after each size, so that what was measured is kept whatever happens to the next one
        write_results(
            "pipeline",
            rows=rows,
            packages=PACKAGES,
            settings={
                "overrides": list(OVERRIDES),
                "repeats": arguments.repeats,
                "long_seconds": LONG_SECONDS,
                "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
            },
        )
    print_table(HEADERS, table_rows(rows))


if __name__ == "__main__":
    main()
