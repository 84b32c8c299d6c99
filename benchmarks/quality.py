"""`make bench-quality ROW=<protocol> SEED=<n>`: one row of the results, by the pipeline's stages.

The workspace is benchmarks/runs/<protocol>/<seed>, that of an ablation or a variant
<seed>-<name>. A stage that is done with the same params, code and inputs is not run again, and one
that was interrupted goes on after its last epoch, as it does in any workspace: whatever ends a run,
the same command takes it up.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import yaml

from benchmarks.measure import ROOT, circumstances
from benchmarks.quality_stages import (
    Done,
    check_module,
    code_of_stages,
    finished,
    key_of_peer,
    read_done,
    run_module,
    run_stages,
)
from benchmarks.row import (
    LOGS,
    Row,
    changes_of,
    log_folder,
    merged,
    read_row,
    row_names,
)
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import check_params, read_yaml
from recsys_core.data.duck import literal
from recsys_core.errors import TwotempoError
from recsys_core.evaluation.baselines import ranked_name
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.targets import queries
from recsys_core.layout import Layout
from recsys_core.tables import RANKS, read_table

RUNS = ROOT / "benchmarks" / "runs"
PACKAGES = ("numpy", "scipy", "torch")
PEERS_INSTEAD = (
    "the row's peers need the package implicit beside this project's; install the extra, pip "
    "install -e '.[peers]', or name a Python that has it: --peers-python"
)


def workspace_of(
    row: Row, seed: int, *, change: str | None = None, runs: Path = RUNS, logs: Path = LOGS
) -> Layout:
    """The workspace of a row and a seed, with its card, its params, and where its log lies; with a
    change, that of this ablation or variant."""
    layout = Layout(runs / row.name / (str(seed) if change is None else f"{seed}-{change}"))
    value = merged(_row_params(row, seed), changes_of(row, change))
    layout.root.mkdir(parents=True, exist_ok=True)
    source = log_folder(row, logs=logs)
    if row.prepare is not None:
        source = _prepared(row, source, layout.root / "log")
    value["ingest"] = {"dataset": row.dataset, "path": os.path.relpath(source, layout.root)}
    check_params(value, where=f"the params of {row.name}")
    card = merged(read_yaml(ROOT / "datasets" / f"{row.dataset}.yaml"), row.card)
    for path, written in ((layout.card(row.dataset), card), (layout.params, value)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return layout


def run_row(
    row: Row,
    seed: int,
    *,
    change: str | None = None,
    peers_python: str = sys.executable,
    runs: Path = RUNS,
    logs: Path = LOGS,
) -> Layout:
    """Run the whole row; what it found is in `run.json` and the ranks of the workspace."""
    ours = _row_params(row, seed)
    streaming = ours["evaluate"]["streaming"]
    ranked = [ranked_name(name, streaming=streaming) for name in ours["evaluate"]["baselines"]]
    missing = [name for name in row.required if name not in (*ranked, *row.peers)]
    if missing:
        raise TwotempoError(
            f"{row.name}: the required baselines {missing} are missing; name them in "
            f"evaluate.baselines or peers of benchmarks/rows/{row.name}.yaml"
        )
    peers = peers_of(row, change)
    if peers:
        check_module("benchmarks.peers", python=peers_python, instead=PEERS_INSTEAD)
    layout = workspace_of(row, seed, change=change, runs=runs, logs=logs)
    facts_path = layout.root / "run.json"
    facts_path.unlink(missing_ok=True)  # until all is there again, this seed has found nothing
    params = read_yaml(layout.params)
    is_variant = change in row.variants
    trained = {**ours, "ingest": params["ingest"]} if is_variant else None
    done = run_stages(layout, trained=trained)
    for name in peers:
        done[name] = _run_peer(name, layout, python=peers_python)
    report = read_json(layout.report("evaluate"))
    chosen_by_peers = {
        name: read_json(peer_path(layout, name).with_suffix(".json"))["chosen"] for name in peers
    }
    facts = {
        **circumstances(*PACKAGES),
        "seed": seed,
        "params": params,
        "code": code_of_stages(),
        "seconds": {name: entry["seconds"] for name, entry in done.items()},
        "device": _device(done),
        "chosen": {**report["chosen"], **chosen_by_peers},
        "population": {
            key: report[key] for key in ("rows", "targets", "two_time_scales", "protocol")
        },
        "t_star": report["t_star"],
    }
    write_json(facts_path, json.loads(json.dumps(facts, default=str)))
    _say(row, report, peers=[peer_path(layout, name) for name in peers])
    return layout


def peers_of(row: Row, change: str | None) -> list[str]:
    """The peers that stand beside a row or its variant; an ablation is compared with the row."""
    return [] if change in row.ablations else row.peers


def peer_path(layout: Layout, name: str) -> Path:
    """Where the ranks of a peer lie, and beside them what was chosen."""
    return layout.root / "peers" / f"{name}.parquet"


def _row_params(row: Row, seed: int) -> dict[str, Any]:
    """The params of the row itself, but for where its log lies."""
    return {**merged(read_yaml(ROOT / "params.yaml"), row.params), "seed": seed}


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


def _run_peer(name: str, layout: Layout, *, python: str) -> dict[str, Any]:
    """What is written down of a peer, whose ranks are there then."""
    key = key_of_peer(name, layout)
    done = read_done(layout).get(name, {}).get("key") == key
    if not done or not peer_path(layout, name).exists():
        words = ("benchmarks.peer_ranks", "--model", name)
        finished(name, key, layout, run_module(*words, folder=layout.root, python=python))
    return read_done(layout)[name]


def _device(done: Done) -> str:
    """Where the model was trained, whatever this process runs on."""
    stages = ("train_embeddings", "train_rnn", "train_memory")
    return " and ".join(sorted({done[stage]["device"] for stage in stages}))


def _say(row: Row, report: dict[str, Any], *, peers: list[Path]) -> None:
    """The row's metrics on the terminal."""
    models = {"two_time_scale": report["two_time_scale"]["all"], **report["baselines"]}
    for path in peers:
        for name, ranks in read_table(path, RANKS).to_pandas().groupby("model"):
            query = queries(ranks["user_idx"].to_numpy(), ranks["position"].to_numpy())
            rank = ranks["rank"].to_numpy()
            models[name] = {key: metric_of(rank, key, query=query).mean() for key in row.metrics}
    for name, values in sorted(models.items(), key=lambda one: -one[1][row.metrics[0]]):
        print(f"{name:34}" + "  ".join(f"{key} {values[key]:.4f}" for key in row.metrics))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one row of the quality bench.")
    parser.add_argument("--row", required=True, help=", ".join(row_names()))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ablation", help="without this part; one that the row names")
    parser.add_argument("--variant", help="asked otherwise; one that the row names")
    parser.add_argument("--peers-python", default=sys.executable, help="one that has implicit")
    arguments = parser.parse_args()
    if arguments.ablation and arguments.variant:
        sys.exit("error: --ablation and --variant are both given; give one of them")
    try:
        run_row(
            read_row(arguments.row),
            arguments.seed,
            change=arguments.ablation or arguments.variant,
            peers_python=arguments.peers_python,
        )
    except TwotempoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
