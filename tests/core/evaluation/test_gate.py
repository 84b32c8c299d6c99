"""The gate accepts what is not worse than the floor on enough targets, and says who scores."""

import json

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.errors import ContractError
from recsys_core.evaluation.gate import AT_SCORING, CANDIDATE, FROZEN_TREND, Verdict, judge
from recsys_core.rng import generator
from recsys_core.sections import Gate
from recsys_core.tables import RANKS
from tasks.stages import evaluate

USERS = 300
GATE = Gate(floor="recent_popularity", margin=0.0, min_targets=50)


def ranks_table(ranks: dict[str, list[int]], *, users: list[int] | None = None) -> pa.Table:
    """One row for each model and target, every target of another user unless said."""
    parts = []
    for model, values in ranks.items():
        n = len(values)
        user_idx = list(range(1, n + 1)) if users is None else users
        parts.append(
            pa.table(
                [
                    pa.array([model] * n, pa.string()),
                    pa.array(user_idx, pa.int32()),
                    pa.array([1] * n, pa.int32()),
                    pa.array([1] * n, pa.int32()),
                    pa.array(values, pa.int32()),
                    pa.array([0] * n, pa.int32()),
                    pa.nulls(n, pa.float32()),
                    pa.array([False] * n),
                    pa.array([False] * n),
                    pa.array([True] * n),
                    pa.array([1] * n, pa.int32()),
                ],
                schema=RANKS,
            )
        )
    return pa.concat_tables(parts)


def verdict_on(
    candidate: list[int], floor: list[int], *, gate: Gate = GATE, users: list[int] | None = None
) -> Verdict:
    ranks = ranks_table(
        {"two_time_scale": candidate, gate.floor: floor, "oracle": [1] * len(floor)}, users=users
    )
    return judge(ranks, gate, metric="mrr@20", draws=500, rng=generator(1, "gate"))


def test_a_candidate_is_judged_as_scoring_will_ask_it() -> None:
    """Not by what it would know if it were told when each target happens."""
    floor, worse = [1] * USERS, [3] * USERS
    rows = {"two_time_scale": floor, "two_time_scale_at_scoring": worse, "recent_popularity": floor}
    judged = judge(ranks_table(rows), GATE, metric="mrr@20", draws=500, rng=generator(1, "gate"))
    assert (judged.passed, judged.candidate) == (False, "two_time_scale_at_scoring")
    assert "mrr@20 of two_time_scale_at_scoring - recent_popularity is -0.6667" in judged.reason
    asked_alike = verdict_on(worse, floor)
    assert asked_alike.candidate == "two_time_scale"
    assert asked_alike.difference == judged.difference


def test_both_know_the_rows_by_the_same_names() -> None:
    of_stage = (evaluate.MODEL, evaluate.AT_SCORING, evaluate.FROZEN_TREND)
    assert of_stage == (CANDIDATE, AT_SCORING, FROZEN_TREND)


def test_a_model_that_streams_is_judged_by_one_trend_for_all() -> None:
    """Scoring has no other."""
    floor, better, worse = ([rank] * USERS for rank in (2, 1, 3))
    rows = {CANDIDATE: better, FROZEN_TREND: worse, "recent_popularity": floor}
    judged = judge(ranks_table(rows), GATE, metric="mrr@20", draws=500, rng=generator(1, "gate"))
    assert (judged.passed, judged.candidate) == (False, FROZEN_TREND)


def noisy(share: float, seed: int) -> list[int]:
    """Rank 1 for about this share of the targets, else a miss."""
    return (np.random.default_rng(seed).random(USERS) < share).astype(int).tolist()


def test_a_better_candidate_is_accepted() -> None:
    verdict = verdict_on(noisy(0.5, 1), noisy(0.3, 2))
    assert verdict.passed
    assert (verdict.targets, verdict.users) == (USERS, USERS)
    assert verdict.candidate_value == np.mean(noisy(0.5, 1))
    assert verdict.floor_value == np.mean(noisy(0.3, 2))
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(verdict.candidate_value - verdict.floor_value)
    assert "not worse than the floor" in verdict.reason


def test_a_worse_candidate_is_rejected() -> None:
    verdict = verdict_on(noisy(0.2, 1), noisy(0.4, 2))
    assert not verdict.passed
    assert verdict.difference is not None
    assert verdict.difference.high < 0
    assert "mrr@20 of two_time_scale - recent_popularity is -0." in verdict.reason
    assert "worse than the floor by more than the margin 0" in verdict.reason


def test_a_little_worse_is_not_enough_to_reject() -> None:
    floor = noisy(0.4, 2)
    candidate = floor.copy()
    candidate[floor.index(1)] = 0
    verdict = verdict_on(candidate, floor)
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(-1 / USERS)
    assert verdict.passed  # a bootstrap may draw that user not at all: the upper bound is 0


def test_the_margin_forgives() -> None:
    candidate, floor = [2] * USERS, [1] * USERS  # 0.5 less for each target
    for margin, passed in ((0.4, False), (0.6, True)):
        gate = Gate(floor="popularity", margin=margin, min_targets=50)
        assert verdict_on(candidate, floor, gate=gate).passed is passed


def test_one_user_with_many_targets_proves_nothing() -> None:
    users = [1] * 60 + list(range(2, 62))
    candidate = [0] * 60 + [1, 0] * 30
    floor = [1] * 60 + [0, 1] * 30
    # the same ranks on as many users would be rejected
    assert not verdict_on(candidate, floor).passed
    one = verdict_on(candidate, floor, users=sorted(users))
    assert one.difference is not None
    assert one.users == 61
    assert one.passed


@pytest.mark.parametrize("targets", [0, 49])
def test_too_few_targets_are_no_verdict(targets: int) -> None:
    verdict = verdict_on([1] * targets, [0] * targets)
    assert not verdict.passed
    assert verdict.reason == f"{targets} targets are too few to tell: gate.min_targets is 50"
    assert (verdict.candidate_value is None) == (targets == 0)


@pytest.mark.parametrize(
    ("passed", "incumbent", "graph"),
    [
        (True, None, "two_time_scale"),
        (True, "popularity", "two_time_scale"),
        (True, "two_time_scale", "two_time_scale"),
        (False, None, "popularity"),
        (False, "popularity", "popularity"),
        (False, "two_time_scale", None),
    ],
)
def test_who_scores_next(passed: bool, incumbent: str | None, graph: str | None) -> None:
    better, worse = [1] * USERS, [3] * USERS
    verdict = verdict_on(better, worse) if passed else verdict_on(worse, better)
    assert verdict.passed is passed
    assert verdict.graph(incumbent) == graph


def test_same_input_same_verdict_and_it_is_json() -> None:
    first, second = (verdict_on(noisy(0.3, 1), noisy(0.3, 2)).to_json() for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_other_targets_are_refused() -> None:
    ranks = ranks_table({"two_time_scale": [1] * 60, "recent_popularity": [1] * 59})
    with pytest.raises(ContractError, match="60 targets, recent_popularity has 59"):
        judge(ranks, GATE, metric="mrr@20", draws=10, rng=generator(1, "gate"))


def test_a_missing_floor_is_refused() -> None:
    ranks = ranks_table({"two_time_scale": [1] * 60, "popularity": [1] * 60})
    with pytest.raises(ContractError, match="no rows of model 'recent_popularity'"):
        judge(ranks, GATE, metric="mrr@20", draws=10, rng=generator(1, "gate"))
