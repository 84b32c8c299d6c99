"""`make bench-train`: the speed and memory of training, beside a plain loop and a public peer.

Each training is a fresh process, one after the other, all of them once a round, with as many
threads as `OMP_NUM_THREADS` says. Its speed is targets learned a second between two batches, some
batches to warm up left out, over `--seconds` of training: no whole epoch is needed. Its memory is
the largest resident set of the process, reading the log included.

A peer needs an environment of its own, since it pins older versions than this project:

    python3.11 -m venv .venv/peer && .venv/peer/bin/pip install "rectools[torch]==0.19.0"
    make bench-train RECTOOLS_PYTHON=.venv/peer/bin/python
"""

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.measure import (
    CACHE,
    Command,
    Measured,
    call,
    measure,
    measure_and_listen,
    print_table,
    write_results,
)
from benchmarks.quality import workspace_of
from benchmarks.row import read_row
from benchmarks.train_table import HEADERS, PLAIN, table_rows
from benchmarks.training_case import Case, heard
from benchmarks.training_work import ours_per_target, plain_gru_per_target
from recsys_core.errors import TwotempoError
from recsys_core.layout import Layout

BACKBONES = ("gru", "lstm", "lru")
SAMPLED = ("sampled_softmax", "bpr_max")
PEER = "SASRec of RecTools"
WIDTH = 64
NEGATIVES, PEER_NEGATIVES = 512, 128
"""Of the sampled losses: shared by a batch here, drawn for each target by the peer."""

CATALOGUE_ITEMS, CATALOGUE_EVENTS, CATALOGUE_LIMIT_MB = 1_000_000, 700_000, 6_144
PRODUCT_SIZE = 2_048
PACKAGES = ("numpy", "torch")


@dataclass(frozen=True)
class Log:
    """A log that is trained on: the row of the quality bench that cuts it, and its batches."""

    name: str
    row: str
    window: int
    batch: int
    softmax: tuple[str, ...]
    """The backbones with the full softmax too; where the catalogue is large, it is nearly all of a
    step and one of them says enough."""


LOGS = (
    Log("ml-1m-ordered", "loo-ml1m", window=200, batch=12_800, softmax=BACKBONES),
    Log("globo_news", "day-globo", window=50, batch=2_048, softmax=("gru",)),
)


def measure_log(
    log: Log, layout: Layout, *, seconds: float, repeats: int, peer_python: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The numbers of a log, sessionized in this workspace, and a row for each training on it."""
    for stage in ("ingest", "validate", "sessionize"):
        print(f"event=stage stage={stage} log={log.name}", file=sys.stderr, flush=True)
        measure(Command((sys.executable, "-m", f"tasks.stages.{stage}"), layout.root))
    _, text = measure_and_listen(call("benchmarks.train_ours:write_sequences", str(layout.root)))
    facts = {"log": log.name, "window": log.window, "batch": log.batch, **heard(text)}
    cases = cases_of(log, layout, seconds=seconds, peer=peer_python is not None)
    return facts, measure_cases(cases, repeats=repeats, peer_python=peer_python)


def cases_of(log: Log, layout: Layout, *, seconds: float, peer: bool) -> list[Case]:
    """What is measured on a log, the peers last."""
    case = Case(
        log=log.name,
        model="",
        loss="",
        folder=str(layout.root),
        window=log.window,
        batch=log.batch,
        width=WIDTH,
        negatives=NEGATIVES,
        dropout=0.2,
        seconds=seconds,
    )
    ours = [
        replace(case, model=model, loss=loss)
        for model in BACKBONES
        for loss in ("softmax", *SAMPLED)
        if loss != "softmax" or model in log.softmax
    ]
    peers = [
        replace(case, model=PEER, loss=loss, negatives=PEER_NEGATIVES)
        for loss in ("softmax", "sampled_softmax")
    ]
    return [*ours, replace(case, model=PLAIN, loss="softmax"), *(peers if peer else [])]


def command_of(case: Case, *, peer_python: str | None) -> Command:
    """The process that measures a case."""
    if case.model == PLAIN:
        return call("benchmarks.train_peers:plain_gru", case.to_json())
    if case.model == PEER:
        assert peer_python is not None, "without an interpreter there are no such cases"
        command = call("benchmarks.train_peers:sasrec", case.to_json())
        return replace(command, words=(peer_python, *command.words[1:]))
    return call("benchmarks.train_ours:train", case.to_json())


def measure_cases(
    cases: Sequence[Case], *, repeats: int, peer_python: str | None
) -> list[dict[str, Any]]:
    """A row of the results for each case; they run in turn, round by round."""
    runs: list[list[tuple[Measured, dict[str, Any]]]] = [[] for _ in cases]
    for _ in range(repeats):
        for case, found in zip(cases, runs, strict=True):
            measured, text = measure_and_listen(command_of(case, peer_python=peer_python))
            found.append((measured, heard(text)))
            print(
                f"event=measured log={case.log} model={case.model!r} loss={case.loss} "
                f"events_per_second={found[-1][1]['events_per_second']:.0f}",
                file=sys.stderr,
                flush=True,
            )
    return [row_of(case, found) for case, found in zip(cases, runs, strict=True)]


def row_of(case: Case, runs: Sequence[tuple[Measured, dict[str, Any]]]) -> dict[str, Any]:
    """What the results say of a case; its speed is the median of the runs."""
    told = [facts for _, facts in runs]
    return {
        "log": case.log,
        "model": case.model,
        "loss": case.loss,
        "negatives": None if case.loss == "softmax" else case.negatives,
        "device": told[-1]["device"],
        "events_per_second": round(statistics.median(run["events_per_second"] for run in told)),
        "multiply_adds_per_event": multiply_adds_of(case, told[-1]),
        "peak_mb": round(max(measured.peak_mb for measured, _ in runs)),
        "device_peak_mb": told[-1].get("device_peak_mb"),
        "versions": told[-1].get("versions"),
        "runs": [
            {"targets": run["targets"], "seconds": run["seconds"], "peak_mb": measured.peak_mb}
            for measured, run in runs
        ],
    }


def multiply_adds_of(case: Case, told: dict[str, Any]) -> int | None:
    """Of one target; None for a model whose products are not counted."""
    if case.model == PEER:
        return None
    # of a sampled loss the target itself is scored as well
    scored = told["n_items"] if case.loss == "softmax" else min(case.negatives, told["n_items"]) + 1
    if case.model == PLAIN:
        return plain_gru_per_target(width=case.width, scored=scored)
    return ours_per_target(
        case.model, width=case.width, dim=case.width, ffn=told["ffn"], scored=scored
    )


def measure_catalogue(*, items: int, events: int) -> dict[str, Any]:
    """The memory of an epoch over a large catalogue."""
    case = Case(
        log="drawn",
        model="gru",
        loss="sampled_softmax",
        folder="",
        window=50,
        batch=2_048,
        width=WIDTH,
        negatives=NEGATIVES,
        dropout=0.2,
        seconds=0.0,
    )
    command = call("benchmarks.train_catalogue:fit", case.to_json(), items, events)
    measured, text = measure_and_listen(command)
    return {
        **heard(text),
        "model": case.model,
        "loss": case.loss,
        "peak_mb": round(measured.peak_mb),
        "limit_mb": CATALOGUE_LIMIT_MB,
        "seconds": round(measured.seconds, 1),
    }


def measure_product() -> dict[str, Any]:
    """How fast the machine multiplies large matrices."""
    command = call("benchmarks.train_ours:sgemm", PRODUCT_SIZE, 5)
    return {"size": PRODUCT_SIZE, **heard(measure_and_listen(command)[1])}


def main() -> None:
    names = [log.name for log in LOGS]
    parser = argparse.ArgumentParser(description="Measure the speed and memory of training.")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run, warmed up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", default="", help="an interpreter that has rectools[torch]")
    parser.add_argument("--logs", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    peer_python = arguments.peer_python or None
    logs = [log for log in LOGS if log.name in arguments.logs]
    try:
        # before anything is measured: a log may not lie there
        layouts = [workspace_of(read_row(log.row), 1, runs=CACHE / "training") for log in logs]
    except TwotempoError as error:
        sys.exit(f"error: {error}")
    found: dict[str, Any] = {
        "seconds": arguments.seconds,
        "repeats": arguments.repeats,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "width": WIDTH,
        "peer": peer_python is not None,
        "product": measure_product(),
        "catalogue": measure_catalogue(items=CATALOGUE_ITEMS, events=CATALOGUE_EVENTS),
        "logs": [],
    }
    rows: list[dict[str, Any]] = []
    for log, layout in zip(logs, layouts, strict=True):
        facts, measured = measure_log(
            log,
            layout,
            seconds=arguments.seconds,
            repeats=arguments.repeats,
            peer_python=peer_python,
        )
        shutil.rmtree(layout.root)
        found["logs"].append(facts)
        rows += measured
        # after each log, so that what was measured is kept whatever happens to the next one
        write_results("training", rows=rows, packages=PACKAGES, settings=found)
    print_table(HEADERS, table_rows({**found, "rows": rows}))


if __name__ == "__main__":
    main()
