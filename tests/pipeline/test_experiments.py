"""DVC's own commands in a git clone: metrics, plots and experiments work as its users expect."""

import json
from pathlib import Path

import yaml

from tests.conftest import TINY, FinishedRun


def test_metrics_plots_and_experiments(finished_run: FinishedRun) -> None:
    """One story, since each command needs what the one before left: repro, show, exp run, diff."""
    clone = finished_run.clone
    params = clone.root / "params.yaml"
    value = yaml.safe_load(params.read_text(encoding="utf-8"))
    for override in TINY:
        keys, _, text = override.partition("=")
        section, key = keys.split(".")
        value[section][key] = yaml.safe_load(text)
    params.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")

    output = clone.dvc("repro").stdout
    assert "Running stage" not in output, "the workspace's results are in the shared run cache"
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--no-verify", "--message", "tiny")

    shown = json.loads(clone.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]
    assert metrics["reports/evaluate.json"]["data"]["two_time_scale"]["all"]["mrr@20"] >= 0

    clone.dvc("plots", "show", "--out", "plots")
    page = (clone.root / "plots" / "index.html").read_text(encoding="utf-8")
    for title in ("Stage one, by epoch", "Stage two, by epoch", "First metric by cohort"):
        assert title in page

    # another first metric's cut changes what evaluate writes, and no training
    clone.dvc("exp", "run", "--name", "more-draws", "-S", "evaluate.bootstrap_draws=50")
    table = json.loads(clone.dvc("exp", "show", "--json").stdout)
    names = {
        experiment["name"] for baseline in table for experiment in baseline["experiments"] or []
    }
    assert "more-draws" in names
    changed = json.loads(clone.dvc("params", "diff", "--json").stdout)
    assert changed["params.yaml"]["evaluate.bootstrap_draws"]["new"] == 50
    difference = json.loads(clone.dvc("metrics", "diff", "--json").stdout)
    assert "reports/evaluate.json" in difference
    assert not any(name.startswith("reports/train") for name in difference)
    assert not (Path(clone.root) / "reports" / "missing.json").exists()
