"""Runs the stages of a workspace of the quality bench that are not done, and no other.

A stage is known by a key: its code, its params as dvc.yaml lists them, and the key of the stage
before. What is done stands in `done.json`. A finished stage of the same key in a workspace beside,
of the same row and seed, is copied: an ablation does not train stage one again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import ROOT
from recsys_core.artifacts import read_json, sha256, write_json
from recsys_core.config import read_yaml
from recsys_core.errors import TwotempoError
from recsys_core.layout import STAGES, Layout
from tasks.child import child_environment
from tasks.code import closure, code_digest

UP_TO_EVALUATE = STAGES[: STAGES.index("evaluate") + 1]

Done = dict[str, dict[str, Any]]
"""By stage or peer: its key, the seconds of the run that finished it, and the device."""


def run_stages(layout: Layout, *, trained: dict[str, Any] | None = None) -> Done:
    """Run or copy what is not done yet, by the workspace's params.

    `trained` are the params of the row where this is a variant of it: the model must be there in
    the workspace beside, and evaluation alone is run by the params of the variant.
    """
    params = read_yaml(layout.params)
    before = digest_of_log(layout, params)
    for stage in UP_TO_EVALUATE:
        asked = params if trained is None or stage == "evaluate" else trained
        key = key_of(stage, asked, before)
        done = read_done(layout)
        found = done.get(stage, {}).get("key") == key and layout.report(stage).exists()
        if not found and not _copied(stage, key, layout):
            if asked is not params:
                raise TwotempoError(
                    f"{layout.root}: {stage} of the row itself is not done with this code, and a "
                    "variant trains nothing; run the row with this seed first, without a variant"
                )
            _forget(stage, layout)
            said = os.path.relpath(layout.root, ROOT)
            print(f"event=stage stage={stage} workspace={said}", flush=True)
            finished(stage, key, layout, run_module(f"tasks.stages.{stage}", folder=layout.root))
        before = key
    done = read_done(layout)
    return {stage: done[stage] for stage in UP_TO_EVALUATE}


def read_done(layout: Layout) -> Done:
    """What is finished in a workspace."""
    path = layout.root / "done.json"
    done: Done = read_json(path) if path.exists() else {}
    return done


def finished(stage: str, key: str, layout: Layout, seconds: float) -> None:
    """Write down that a stage or a peer is done."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    entry = {"key": key, "seconds": round(seconds, 1), "device": device}
    write_json(layout.root / "done.json", {**read_done(layout), stage: entry})


def key_of(stage: str, params: dict[str, Any], before: str) -> str:
    """What a stage's outputs depend on: its code, its params as dvc.yaml lists them, and what the
    stages before it depend on."""
    told = {}
    for entry in _dvc()[stage]["params"]:
        section, _, key = entry.partition(".")
        told[entry] = params[section][key] if key else params[section]
    return _digest(stage, code_digest(f"stages.{stage}", root=ROOT), told, before)


def key_of_peer(name: str, layout: Layout) -> str:
    """What a peer's ranks depend on: its code, what it reads, and who counts as active.

    That is the events and the params of evaluation, and of the trained model nothing but `t_star`.
    """
    params = read_yaml(layout.params)
    told = {key: params[key] for key in ("evaluate", "first_metric", "seed")}
    code = code_of("benchmarks/peer_ranks.py", "benchmarks/peers.py")
    t_star = read_json(layout.stage("train_rnn") / "model.json")["t_star"]
    return _digest(name, code, told, read_done(layout)["sessionize"]["key"], t_star)


def code_of_stages() -> str:
    """A digest of the code of all stages up to evaluation."""
    return _digest(*(code_digest(f"stages.{stage}", root=ROOT) for stage in UP_TO_EVALUATE))


def code_of(*files: str) -> str:
    """A digest of these files and of all code of the library and its tasks that they need."""
    needed = set[str]().union(*(closure(file, root=ROOT) for file in files))
    return _digest(*(f"{file} {sha256(ROOT / file)}" for file in sorted(needed)))


def digest_of_log(layout: Layout, params: dict[str, Any]) -> str:
    """The card and the files of the log."""
    folder = layout.root / params["ingest"]["path"]
    files = [layout.card(params["ingest"]["dataset"]), *sorted(folder.glob("*.parquet"))]
    return _digest(*map(sha256, files))


def run_module(*words: str, folder: Path, python: str = sys.executable) -> float:
    """Run a module in a folder, with its progress on this terminal; returns its seconds."""
    began = time.monotonic()
    command = [python, "-m", *words]
    code = subprocess.run(command, cwd=folder, env=_environment(), check=False).returncode
    if code != 0:
        raise TwotempoError(
            f"{words[0]} ended with code {code}; what it said stands above, and the same command "
            "takes the row up again"
        )
    return time.monotonic() - began


def check_module(module: str, *, python: str, instead: str) -> None:
    """Raise `TwotempoError`, which says what to do instead, where a Python cannot import it."""
    done = subprocess.run(
        [python, "-c", f"import {module}"],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TwotempoError(f"{python} cannot import {module} ({said}); {instead}")


def _environment() -> dict[str, str]:
    return {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}


def _copied(stage: str, key: str, layout: Layout) -> bool:
    """Whether a workspace beside has the stage done with this key; its outputs are here then."""
    seed = layout.root.name.partition("-")[0]
    for folder in sorted(layout.root.parent.iterdir()):
        beside = Layout(folder)
        if folder == layout.root or folder.name.partition("-")[0] != seed:
            continue
        entry = read_done(beside).get(stage, {})
        if entry.get("key") != key or not beside.report(stage).exists():
            continue
        _forget(stage, layout)
        for output in _outputs(stage):
            target = layout.root / output
            target.parent.mkdir(parents=True, exist_ok=True)
            if (folder / output).is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(folder / output, target)
            else:
                shutil.copyfile(folder / output, target)
        write_json(layout.root / "done.json", {**read_done(layout), stage: entry})
        print(f"event=copied stage={stage} of={folder.name}", flush=True)
        return True
    return False


def _forget(stage: str, layout: Layout) -> None:
    """A stage that is about to be written is not done: what is there may be half of it."""
    done = read_done(layout)
    if done.pop(stage, None) is not None:
        write_json(layout.root / "done.json", done)


def _outputs(stage: str) -> Iterator[str]:
    """Every folder and file that a stage writes, as dvc.yaml says."""
    for kind in ("outs", "metrics", "plots"):
        for entry in _dvc()[stage].get(kind, []):
            yield entry if isinstance(entry, str) else next(iter(entry))


def _dvc() -> dict[str, Any]:
    stages: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
    return stages


def _digest(*parts: Any) -> str:
    text = " ".join(
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str)
        for part in parts
    )
    return hashlib.sha256(text.encode()).hexdigest()
