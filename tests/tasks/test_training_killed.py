"""The training stages, killed without warning in the middle of a fit, end with the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from recsys_core.artifacts import write_json
from recsys_core.config import read_yaml
from recsys_core.data.splits import Split
from recsys_core.layout import Layout
from recsys_core.tables import ITEM_VOCABULARY, write_events, write_table
from tasks.child import child_environment
from tasks.model_files import write_model
from tests.markov_log import CUT, END, N_ITEMS, taste_events
from tests.serving_world import MINUTE, START, make_model
from tests.small_logs import REPOSITORY, contents

STAGES = ("train_embeddings", "train_rnn")
PHASES = {
    "train_embeddings": ("select", "refit"),
    "train_rnn": ("select-together", "refit-together"),
}
"""The first phases in which a stage chooses its epochs, and fits with that choice."""

EPOCHS = 5
SMALLER = {
    "train_embeddings": {
        "dim": 8,
        "batch": 64,
        "negatives": 16,
        "learning_rate": 0.001,
        "l2": 0.01,
    },
    "train_rnn": {
        "t_star": 6,
        "window": 8,
        "hidden": 16,
        "batch": 64,
        "negatives": 16,
        "learning_rate_inactive": 0.0003,
        "learning_rate_active": 0.0003,
        "learning_rate_items": 0.0003,
    },
    "train_memory": {"steps": 3000, "neighbours": 8},
}
"""Hundreds of small steps an epoch, at rates so low that the metric rises over several epochs: a
fit lasts long enough that a kill lands within it."""


def make_workspace(root: Path) -> Layout:
    """What training reads: a log as `sessionize` leaves it, and the params."""
    layout, events = Layout(root), taste_events(users=400)
    write_events(layout.events, events)
    split = Split(
        valid_start=CUT - 1_000 * MINUTE, test_start=CUT, end=END, as_of=int(events.timestamp.max())
    )
    write_json(layout.split, split.to_json())
    write_json(layout.time_kind, {"kind": "absolute"})
    write_json(layout.event_types, {"names": ["interaction"], "weights": [1.0]})
    first = pa.array(np.full(N_ITEMS, START), pa.int64()).cast(ITEM_VOCABULARY.field(2).type)
    ids = [f"i{item}" for item in range(1, N_ITEMS + 1)]
    items = [pa.array(range(1, N_ITEMS + 1), pa.int32()), pa.array(ids, pa.string()), first]
    write_table(layout.item_vocabulary, pa.table(items, schema=ITEM_VOCABULARY), ITEM_VOCABULARY)
    params = read_yaml(REPOSITORY / "params.yaml")
    for stage, changes in SMALLER.items():
        params[stage] |= changes
    for stage in STAGES:
        # patience as long as the fit: every epoch is trained, and so a kill always finds one
        params[stage] |= {"max_epochs": EPOCHS, "patience": EPOCHS}
    layout.params.write_text(yaml.safe_dump(params), encoding="utf-8")
    return layout


def start(layout: Layout, stage: str) -> "subprocess.Popen[str]":
    """The stage as DVC starts it, one thread, on the CPU; its progress is on standard error."""
    environment = child_environment(os.environ)
    environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.Popen(
        [sys.executable, "-m", f"tasks.stages.{stage}"],
        cwd=layout.root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_the_end(layout: Layout, stage: str) -> list[tuple[str, int]]:
    """The epochs that the stage trained: phase and number, in order."""
    process = start(layout, stage)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    ends = re.findall(r"phase=([\w-]+) epoch=(\d+)/\d+ events=(\d+)/(\d+)", said)
    return [(phase, int(epoch)) for phase, epoch, done, total in ends if done == total]


def kill_after(layout: Layout, stage: str, *, phase: str, epoch: int) -> None:
    """Run the stage until an epoch is over, and a little of the next: then SIGKILL."""
    process = start(layout, stage)
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if re.search(rf"phase={phase} epoch={epoch}/\d+ events=(\d+)/\1 ", line):
                break
        else:
            pytest.fail(f"{stage} never came to epoch {epoch} of {phase}:\n{''.join(said)}")
        time.sleep(0.05)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL, "it had ended before it was killed"
    finally:
        process.kill()
        process.communicate()
    assert list((layout.checkpoints / stage).glob("*.safetensors")), "there is a checkpoint"
    assert not (layout.stage(stage) / "training.json").exists(), "it was not done"


def results(layout: Layout, stage: str) -> dict[str, bytes]:
    """Every file that the stage wrote, its reports included."""
    reports = contents(layout.root / "reports")
    own = {name: text for name, text in reports.items() if name.startswith(stage)}
    return {**contents(layout.stage(stage)), **own}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, dict[str, int]]:
    """Both stages run in peace, and how many epochs each chose."""
    layout = make_workspace(tmp_path_factory.mktemp("uninterrupted"))
    chosen = {}
    for stage in STAGES:
        epochs = run_to_the_end(layout, stage)
        choosing, fitting = PHASES[stage]
        chosen[stage] = sum(phase == fitting for phase, _ in epochs)
        assert epochs[:EPOCHS] == [(choosing, epoch) for epoch in range(1, EPOCHS + 1)]
        assert chosen[stage] >= 3, "the metric rises over several epochs"
    return layout, chosen


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(
    stage: str, uninterrupted: tuple[Layout, dict[str, int]], tmp_path: Path
) -> None:
    """Killed twice: while it chooses its epochs, and again while it fits with that choice."""
    whole, chosen = uninterrupted
    layout = make_workspace(tmp_path)
    if stage == "train_rnn":
        shutil.copytree(whole.stage("train_embeddings"), layout.stage("train_embeddings"))
    choosing, fitting = PHASES[stage]
    kill_after(layout, stage, phase=choosing, epoch=2)
    if stage == "train_rnn":
        kill_after(layout, stage, phase="select-inactive", epoch=2)
        kill_after(layout, stage, phase="select-active", epoch=1)
    kill_after(layout, stage, phase=fitting, epoch=2)
    epochs = run_to_the_end(layout, stage)
    first, number = epochs[0]
    assert first == fitting, epochs
    assert number >= 2, epochs
    assert all(phase.startswith("refit") for phase, _ in epochs), epochs
    assert sum(phase == fitting for phase, _ in epochs) < chosen[stage]
    assert results(layout, stage) == results(whole, stage)
    assert not (layout.checkpoints / stage).exists(), "checkpoints are forgotten at the end"


def test_a_killed_memory_leaves_nothing_and_begins_anew(tmp_path: Path) -> None:
    """It takes seconds, so there is no checkpoint: what it writes, it writes at its end."""
    whole, layout = (make_workspace(tmp_path / name) for name in ("whole", "killed"))
    for each in (whole, layout):
        write_model(each.stage("train_rnn") / "until_valid", make_model(n_items=N_ITEMS))
    run_to_the_end(whole, "train_memory")
    process = start(layout, "train_memory")
    assert process.stderr is not None
    try:
        assert any("stage=train_memory epoch=2/" in line for line in process.stderr)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL, "it had ended before it was killed"
    finally:
        process.kill()
        process.communicate()
    assert not layout.stage("train_memory").exists()
    run_to_the_end(layout, "train_memory")
    assert results(layout, "train_memory") == results(whole, "train_memory")
