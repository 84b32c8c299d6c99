"""DVC's own commands in a git clone: metrics, plots and experiments work as its users expect."""

import json
from typing import Any

import pytest
import yaml

from recsys_core.layout import STAGES
from tests.conftest import TINY, Clone, FinishedRun

WIDER = 24


@pytest.fixture(scope="module")
def reproduced(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A second clone with the tiny params and the first one's cache, reproduced and committed."""
    first = finished_run.clone
    clone = Clone(tmp_path_factory.mktemp("experiments") / "twotempo", first.environment)
    first.git("clone", "--quiet", str(first.root), str(clone.root))
    clone.set_author()
    clone.dvc("cache", "dir", "--local", str(first.root / ".dvc" / "cache"))
    params = clone.root / "params.yaml"
    value = yaml.safe_load(params.read_text(encoding="utf-8"))
    for override in TINY:
        keys, _, text = override.partition("=")
        section, key = keys.split(".")
        value[section][key] = yaml.safe_load(text)
    params.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    output = clone.dvc("repro").stdout
    for stage in STAGES:
        if stage == "validate":
            # the run knew the day, which params.yaml leaves open; what comes of it is the same
            assert "Running stage 'validate'" in output
        else:
            # what the workspace computed is found in the shared cache
            assert f"Stage '{stage}' is cached - skipping run" in output
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--no-verify", "--message", "tiny")
    return clone


@pytest.fixture(scope="module")
def experiment(reproduced: Clone) -> str:
    """What `dvc exp run` says of a run with a wider network."""
    return reproduced.dvc("exp", "run", "--name", "wider", "-S", f"train_rnn.hidden={WIDER}").stdout


def answer(clone: Clone, *arguments: str) -> Any:
    """The JSON that a DVC command prints."""
    return json.loads(clone.dvc(*arguments, "--json").stdout)


def test_metrics_and_plots_are_shown(reproduced: Clone) -> None:
    shown = answer(reproduced, "metrics", "show")[""]["data"]
    assert set(shown) == {f"reports/{stage}.json" for stage in STAGES}
    assert 0 <= shown["reports/evaluate.json"]["data"]["two_time_scale"]["all"]["mrr@20"] <= 1
    reproduced.dvc("plots", "show", "--out", "dvc_plots")
    page = (reproduced.root / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    for title in ("Stage one, by epoch", "Stage two, by epoch", "First metric by cohort"):
        assert title in page
    assert '"model": "transitions"' in page
    assert "<DVC_METRIC" not in page
    assert reproduced.git("status", "--porcelain") == ""


def test_a_wider_network_reruns_from_train_rnn_on_and_nothing_before(
    reproduced: Clone, experiment: str
) -> None:
    ran = [stage for stage in STAGES if f"Running stage '{stage}'" in experiment]
    assert ran == ["train_rnn", "train_memory", "evaluate", "refit", "export_onnx"]
    for stage in ("ingest", "validate", "sessionize", "train_embeddings"):
        assert f"Stage '{stage}' didn't change, skipping" in experiment


def test_the_experiment_is_listed_and_compared(reproduced: Clone, experiment: str) -> None:
    names = {
        listed["name"]
        for baseline in answer(reproduced, "exp", "show")
        for listed in baseline["experiments"] or []
    }
    assert "wider" in names
    params = answer(reproduced, "params", "diff")["params.yaml"]
    assert params == {"train_rnn.hidden": {"old": 16, "new": WIDER, "diff": WIDER - 16}}
    metrics = answer(reproduced, "metrics", "diff")
    assert "two_time_scale.all.mrr@20" in metrics["reports/evaluate.json"]
    assert "reports/train_embeddings.json" not in metrics
