"""A row and ranks with answers known by construction, for the tests of what is made of them."""

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality_checks import Runs
from benchmarks.row import Row

ROW = Row(
    name="gts-ml100k",
    title="A row",
    dataset="ml-100k",
    card={},
    prepare=None,
    params={},
    metrics=["ndcg@10", "recall@10"],
    required=["popularity"],
    peers=[],
    ablations=["one_rnn"],
    variants={"unfiltered": {"evaluate": {"seen_filter": False}}},
    cases={},
    floor=None,
    note="",
)


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
            "history": [4, 5, 1, 1],
        }
    )


def facts(seed: int, *, train_only: bool = False, **params: Any) -> dict[str, Any]:
    evaluate = {"cutoffs": [10], "seen_filter": True, "train_only": train_only}
    return {
        "seed": seed,
        "params": {"seed": seed, "evaluate": evaluate, "train_rnn": {"ablation": "none"}, **params},
        "population": {
            "targets": {"all": 4, "known": 3, "new_user": 0},
            "two_time_scales": {"active_share": 0.5, "both_at_least_a_tenth": True},
            "protocol": {"targets": "every event"},
        },
        "seconds": {"evaluate": 1.5},
        "chosen": {},
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "code": "c0de",
        "commit": "0123456789abcdef",
        "changed_since": False,
        "device": "cpu",
        "versions": {"numpy": "2"},
        "t_star": 3,
    }


def runs(*models: dict[str, list[int]], **of_facts: Any) -> Runs:
    """Seeds 1, 2, ..., with the ranks of each one's models."""
    return Runs(
        {seed: facts(seed, **of_facts) for seed in range(1, len(models) + 1)},
        {
            seed: pd.concat([frame(model, rank) for model, rank in of.items()], ignore_index=True)
            for seed, of in enumerate(models, start=1)
        },
    )


def two_seeds() -> Runs:
    return runs(
        {"two_time_scale": [1, 2, 4, 0], "networks": [1, 1, 1, 0], "popularity": [2, 4, 4, 0]},
        {"two_time_scale": [1, 1, 2, 0], "networks": [1, 1, 1, 0], "popularity": [2, 4, 4, 0]},
    )


def both_settings() -> Runs:
    """Refitted, the model is first everywhere and its baseline second; before, it is second, and
    the baseline is third."""
    return runs(
        {
            "two_time_scale": [1, 1, 1, 0],
            "networks": [1, 1, 1, 0],
            "popularity": [2, 2, 2, 0],
            "two_time_scale_train_only": [2, 2, 2, 0],
            "networks_train_only": [2, 2, 2, 0],
            "popularity_train_only": [3, 3, 3, 0],
        },
        train_only=True,
    )
