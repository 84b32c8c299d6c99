"""The rows of the quality bench, and what is made of their ranks."""

import doctest
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from benchmarks import results, row
from benchmarks.measure import ROOT
from benchmarks.quality_merge import merge
from benchmarks.results import page
from benchmarks.row import PEERS, Row, merged, read_row, row_names
from recsys_core.config import check_params, read_yaml
from recsys_core.errors import ConfigError, ContractError
from recsys_core.sections import BaselineName
from tasks.clock import Clock, check_clock

ROW = Row(
    name="gts-ml100k",
    title="A row",
    dataset="ml-100k",
    card={},
    prepare=None,
    params={},
    metrics=["ndcg@10", "recall@10"],
    required=["popularity"],
    floor=None,
    note="",
)


def test_doctests() -> None:
    assert doctest.testmod(row).failed == 0
    assert doctest.testmod(results).failed == 0


@pytest.mark.parametrize("name", row_names())
def test_a_row_can_be_run(name: str) -> None:
    """Its params are whole, its card is there, its times can give what it asks for, and every
    baseline that it requires is ranked."""
    one = read_row(name)
    params = check_params(merged(read_yaml(ROOT / "params.yaml"), one.params), where=name)
    card = read_yaml(ROOT / "datasets" / f"{one.dataset}.yaml")
    check_clock(
        Clock(card["time"]["kind"], one_time=params.split.kind != "leave_one_out"),
        split=params.split,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        evaluate=params.evaluate,
        gate=params.gate,
    )
    assert set(one.required) <= {*params.evaluate.baselines, *PEERS}
    assert set(params.evaluate.baselines) <= set(get_args(BaselineName))
    assert one.metrics[0] == params.first_metric
    assert len(one.metrics) == 2


def test_no_such_row_is_said() -> None:
    with pytest.raises(ConfigError, match="'gts-mars' is no row of the quality bench"):
        read_row("gts-mars")


def frame(model: str, rank: list[int]) -> pd.DataFrame:
    """Ranks of four targets: two of user 1, one of users 2 and 3; the last item is unknown."""
    return pd.DataFrame(
        {
            "model": model,
            "user_idx": [1, 1, 2, 3],
            "position": [4, 5, 1, 1],
            "target": [1, 2, 1, 9],
            "rank": np.array(rank, dtype=np.int32),
            "active": [True, True, False, False],
            "new_user": [False] * 4,
            "known": [True, True, True, False],
        }
    )


def run_of(seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "params": {"seed": seed, "evaluate": {"cutoffs": [10], "seen_filter": True}},
        "population": {
            "targets": {"all": 4, "known": 3, "new_user": 0},
            "two_time_scales": {"active_share": 0.5, "both_at_least_a_tenth": True},
            "protocol": {"targets": "every event"},
        },
        "seconds": {"evaluate": 1.5},
        "chosen": {},
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "commit": "0123456789abcdef",
        "changed_since": False,
        "device": "cpu",
        "versions": {},
    }


def two_seeds() -> dict[int, pd.DataFrame]:
    return {
        1: pd.concat([frame("two_time_scale", [1, 2, 4, 0]), frame("popularity", [2, 4, 4, 0])]),
        2: pd.concat([frame("two_time_scale", [1, 1, 2, 0]), frame("popularity", [2, 4, 4, 0])]),
    }


def test_seeds_are_averaged_before_anything_else() -> None:
    found = merge(ROW, two_seeds(), {seed: run_of(seed) for seed in (1, 2)})
    ours = [1, (1 / 2 + 1) / 2, (1 / 4 + 1 / 2) / 2, 0]
    assert found["metrics"]["mrr@10"]["value"] == pytest.approx(sum(ours) / 4)
    assert found["by_cohort"]["known"]["metrics"]["two_time_scale"]["mrr"]["value"] == (
        pytest.approx(sum(ours) / 3)
    )
    assert found["by_cohort"]["active"]["targets"] == 2
    assert "new_user" not in found["by_cohort"], "nobody is"
    theirs = [1 / 2, 1 / 4, 1 / 4, 0]
    assert found["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(
        (sum(ours) - sum(theirs)) / 4
    )
    assert found["seed_spread"]["recall@10"] == [0.75, 0.75]
    assert found["seed_spread"]["mrr@10"] == pytest.approx([1.75 / 4, 2.5 / 4])
    low, high = found["metrics"]["mrr@10"]["ci95"]
    assert low <= found["metrics"]["mrr@10"]["value"] <= high
    assert "seed" not in found["params"]


def test_a_row_without_a_required_baseline_is_refused() -> None:
    ranks = {1: frame("two_time_scale", [1, 2, 4, 0])}
    with pytest.raises(ContractError, match=r"\['popularity'\] were not ranked"):
        merge(ROW, ranks, {1: run_of(1)})


def test_seeds_that_were_asked_for_other_targets_are_refused() -> None:
    ranks = two_seeds()
    ranks[2] = ranks[2].assign(target=7)
    with pytest.raises(ContractError, match="not asked for the same targets"):
        merge(ROW, ranks, {seed: run_of(seed) for seed in (1, 2)})


def test_the_page_says_where_we_are_behind() -> None:
    found = merge(ROW, two_seeds(), {seed: run_of(seed) for seed in (1, 2)})
    text = page({"gts-ml100k": found})
    assert "## gts-ml100k" in text
    assert "popularity (required)" in text
    assert "## Not measured yet" in text
    found["differences"]["popularity"]["ndcg@10"]["ci95"] = [-0.2, -0.1]
    assert "behind" in page({"gts-ml100k": found})
    assert "missed" not in text
