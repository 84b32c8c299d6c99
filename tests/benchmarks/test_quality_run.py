"""A row from its log to the page: every stage runs, and what is done is not done again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality import run_row
from benchmarks.quality_merge import merge, runs_of
from benchmarks.results import page
from benchmarks.row import Row
from recsys_core.artifacts import read_json, sha256
from recsys_core.errors import TwotempoError
from recsys_core.rng import generator

ROW = Row(
    name="gts-ml100k",
    title="A small row",
    dataset="jodie_wikipedia",
    card={},
    prepare="SELECT * FROM events WHERE item_id >= 0",
    params={
        "first_metric": "mrr",
        "split": {"kind": "events", "shares": [0.7, 0.15, 0.15]},
        "train_embeddings": {"dim": 8, "max_epochs": 1},
        "train_rnn": {
            "t_star": 5,
            "hidden": 8,
            "window": 8,
            "reads": ["gap"],
            "time_dim": 4,
            "max_epochs": 1,
            "max_epochs_apart": 1,
        },
        "train_memory": {"length": 8, "neighbours": 8, "steps": 5},
        "evaluate": {
            "cutoffs": [10],
            "train_only": True,
            "baselines": ["popularity", "own_recent_transitions"],
            "bootstrap_draws": 20,
        },
        "gate": {"floor": "popularity"},
    },
    metrics=["mrr", "recall@10"],
    required=["popularity", "own_recent_transitions"],
    peers=[],
    ablations=["one_rnn"],
    variants={"with_seen_filter": {"evaluate": {"seen_filter": True}}},
    cases={},
    floor=None,
    note="",
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 40 users who mostly go on to the next item; two of its rows are none."""
    rng = generator(1, "a small log")
    users = rng.integers(40, size=1_500)
    items = np.empty(len(users), dtype=np.int64)
    last = rng.integers(30, size=40)
    for row, user in enumerate(users):
        last[user] = (last[user] + 1) % 30 if rng.random() < 0.8 else rng.integers(30)
        items[row] = last[user]
    items[[7, 8]] = -1
    folder = tmp_path_factory.mktemp("logs")
    (folder / ROW.dataset).mkdir()
    log = pa.table({"user_id": users, "item_id": items, "timestamp": np.arange(len(users)) * 500})
    pq.write_table(log, folder / ROW.dataset / "events.parquet")
    return folder


@pytest.mark.slow  # a dozen stages, each in a process of its own
def test_a_row_from_its_log_to_the_page(
    logs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(change: str | None = None, row: Row = ROW) -> tuple[Path, list[str], list[str]]:
        """The workspace, which stages were run, and which were copied."""
        root = run_row(row, 1, change=change, runs=tmp_path, logs=logs).root
        words = [line.split() for line in capfd.readouterr().out.splitlines()]
        ran = [word[1].removeprefix("stage=") for word in words if word[:1] == ["event=stage"]]
        copied = [word[1].removeprefix("stage=") for word in words if word[:1] == ["event=copied"]]
        return root, ran, copied

    with pytest.raises(TwotempoError, match="a variant trains nothing; run the row"):
        run("with_seen_filter")
    root, ran, copied = run()
    assert ran[0] == "ingest"
    assert ran[-1] == "evaluate"
    assert not copied
    model = root / "artifacts" / "train_rnn"
    trained = sorted(sha256(path) for path in model.rglob("*.safetensors"))
    assert run()[1:] == ([], []), "all of it is done"

    ablated, ran, copied = run("one_rnn")
    assert ran == ["train_rnn", "train_memory", "evaluate"]
    assert copied == ["ingest", "validate", "sessionize", "train_embeddings"]
    assert read_json(ablated / "run.json")["params"]["train_rnn"]["ablation"] == "one_rnn"
    varied, ran, copied = run("with_seen_filter")
    assert ran == ["evaluate"]
    assert copied[-1] == "train_memory"
    copy = varied / "artifacts" / "train_rnn"
    assert sorted(sha256(path) for path in copy.rglob("*.safetensors")) == trained

    changed = {one: runs_of(ROW, one, runs=tmp_path) for one in ("one_rnn", "with_seen_filter")}
    found = merge(ROW, runs_of(ROW, runs=tmp_path), changed)
    assert set(found["baselines"]) == {"popularity", "own_recent_transitions"}
    assert set(found["train_only"]["baselines"]) == set(found["baselines"])
    assert set(found["parts"]) == {"networks"}
    assert found["by_cohort"]["active"]["targets"] > 0
    text = page({"gts-ml100k": found})
    assert "| one_rnn | networks | 1 |" in text
    assert "With seen filter (`evaluate`: seen_filter True;" in text

    other = replace(ROW, params={**ROW.params, "train_memory": {"length": 4, "steps": 5}})
    assert run(row=other)[1] == ["train_memory", "evaluate"], "what comes before is as it was"
