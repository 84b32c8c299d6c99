"""`make bench-quality ROW=<protocol> SEED=<n>`: one row of the results, by the pipeline's stages.

The workspace is benchmarks/runs/<protocol>/<seed>. A stage that is done with the same params, code
and inputs is not run again, and one that was interrupted goes on after its last epoch, as it does
in any workspace: whatever ends a run, the same command takes it up.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import torch
import yaml

from benchmarks.measure import ROOT, circumstances
from benchmarks.row import Row, log_folder, merged, read_row, row_names
from recsys_core.artifacts import read_json, sha256, write_json
from recsys_core.config import Params, check_params, read_yaml
from recsys_core.data.duck import literal
from recsys_core.errors import TwotempoError
from recsys_core.layout import STAGES, Layout
from recsys_core.tables import RANKS, read_table
from tasks.child import child_environment
from tasks.code import code_digest

RUNS = ROOT / "benchmarks" / "runs"
UP_TO_EVALUATE = STAGES[: STAGES.index("evaluate") + 1]
PACKAGES = ("numpy", "scipy", "torch")


def workspace_of(row: Row, seed: int) -> Layout:
    """The workspace of a row and a seed, with its card, its params, and where its log lies."""
    layout = Layout(RUNS / row.name / str(seed))
    layout.root.mkdir(parents=True, exist_ok=True)
    source = log_folder(row)
    if row.prepare is not None:
        source = _prepared(row, source, layout.root / "log")
    card = merged(read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml"), row.card)
    value = merged(read_yaml(ROOT / "params.yaml"), row.params)
    value["seed"] = seed
    value["ingest"] = {"dataset": row.dataset, "path": os.path.relpath(source, layout.root)}
    check_params(value, where=f"the params of {row.name}")
    for path, written in ((layout.card(row.dataset), card), (layout.params, value)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return layout


def _prepared(row: Row, source: Path, target: Path) -> Path:
    """The log with the rows that the row's SQL makes of `events`; other files are as they are."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    events = source / "events.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # rows keep the order of the file
        connection.execute(f"CREATE VIEW events AS FROM read_parquet({literal(str(events))})")
        connection.execute(
            f"COPY ({row.prepare}) TO {literal(str(target / 'events.parquet'))} (FORMAT parquet)"
        )
        counts = [
            connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
            for name in ("events", f"read_parquet({literal(str(target / 'events.parquet'))})")
        ]
    print(f"event=prepared rows_in={counts[0]} rows_out={counts[1]}", flush=True)
    return target


def run_stages(layout: Layout, params: Params) -> dict[str, float]:
    """Run what is not done yet; returns the seconds of each stage's last, finishing run."""
    done_path = layout.root / "done.json"
    done: dict[str, Any] = read_json(done_path) if done_path.exists() else {}
    before = _digest_of_log(layout, params)
    for stage in UP_TO_EVALUATE:
        key = _key(stage, read_yaml(layout.params), before)
        if done.get(stage, {}).get("key") != key or not layout.report(stage).exists():
            print(
                f"event=stage stage={stage} workspace={layout.root.relative_to(ROOT)}", flush=True
            )
            seconds = _run_module(f"tasks.stages.{stage}", folder=layout.root)
            done[stage] = {"key": key, "seconds": round(seconds, 1)}
            write_json(done_path, done)
        before = key
    return {stage: done[stage]["seconds"] for stage in UP_TO_EVALUATE}


def run_row(row: Row, seed: int, *, peers_python: str) -> None:
    """The whole row; what it found is in `run.json` and the ranks of the workspace."""
    layout = workspace_of(row, seed)
    params = check_params(read_yaml(layout.params), where=str(layout.params))
    seconds = run_stages(layout, params)
    ranks = [layout.ranks]
    for name in row.peers:
        began = time.monotonic()
        path = layout.root / "peers" / f"{name}.parquet"
        if not path.exists() or path.stat().st_mtime < layout.ranks.stat().st_mtime:
            words = ("benchmarks.peer_ranks", "--model", name)
            _run_module(*words, folder=layout.root, python=peers_python)
            seconds[name] = round(time.monotonic() - began, 1)
        ranks.append(path)
    found: set[str] = set()
    for path in ranks:
        found.update(pc.unique(read_table(path, RANKS).column("model")).to_pylist())
    missing = [name for name in row.required if name not in found]
    if missing:
        raise TwotempoError(
            f"{row.name}: the required baselines {missing} are missing; name them in "
            f"evaluate.baselines of benchmarks/rows/{row.name}.yaml"
        )
    report = read_json(layout.report("evaluate"))
    facts = {
        **circumstances(*PACKAGES),
        "seed": seed,
        "params": read_yaml(layout.params),
        "seconds": seconds,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "chosen": report["chosen"],
        "population": {
            key: report[key] for key in ("rows", "targets", "two_time_scales", "protocol")
        },
    }
    write_json(layout.root / "run.json", json.loads(json.dumps(facts, default=str)))
    _say(row, report)


def _say(row: Row, report: dict[str, Any]) -> None:
    """The row's metrics on the terminal."""
    models = {"two_time_scale": report["two_time_scale"]["all"], **report["baselines"]}
    for name, values in sorted(models.items(), key=lambda one: -one[1][row.metrics[0]]):
        print(f"{name:28}" + "  ".join(f"{key} {values[key]:.4f}" for key in row.metrics))


def _run_module(*words: str, folder: Path, python: str = sys.executable) -> float:
    """Run a module in a folder, with its progress on this terminal; returns its seconds."""
    began = time.monotonic()
    environment = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    command = [python, "-m", *words]
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if code != 0:
        raise TwotempoError(
            f"{words[0]} ended with code {code}; what it said stands above, and the same command "
            "takes the row up again"
        )
    return time.monotonic() - began


def _key(stage: str, params: dict[str, Any], before: str) -> str:
    """What a stage's outputs depend on: its code, its params as dvc.yaml lists them, and what the
    stages before it depend on."""
    told = {}
    for entry in read_yaml(ROOT / "dvc.yaml")["stages"][stage]["params"]:
        section, _, key = entry.partition(".")
        told[entry] = params[section][key] if key else params[section]
    code = code_digest(f"stages.{stage}", root=ROOT)
    text = f"{stage} {code} {json.dumps(told, sort_keys=True, default=str)} {before}"
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of_log(layout: Layout, params: Params) -> str:
    """The card and the files of the log."""
    folder = layout.root / params.ingest.path
    files = [layout.card(params.ingest.dataset), *sorted(folder.glob("*.parquet"))]
    return hashlib.sha256(" ".join(map(sha256, files)).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one row of the quality bench.")
    parser.add_argument("--row", required=True, help=", ".join(row_names()))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--peers-python", default=sys.executable, help="one that has implicit")
    arguments = parser.parse_args()
    try:
        run_row(read_row(arguments.row), arguments.seed, peers_python=arguments.peers_python)
    except TwotempoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
