"""What is made of the ranks of a row's seeds: answers by arithmetic, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.quality_checks import Runs
from benchmarks.quality_merge import merge
from recsys_core.errors import ContractError
from tests.benchmarks.ranks import ROW, both_settings, facts, runs, two_seeds


def test_seeds_are_averaged_before_anything_else() -> None:
    row = replace(ROW, metrics=["mrr@10", "recall@10"])
    found = merge(row, two_seeds())
    ours = [1, (1 / 2 + 1) / 2, (1 / 4 + 1 / 2) / 2, 0]
    assert found["metrics"]["mrr@10"]["value"] == pytest.approx(sum(ours) / 4)
    cohorts = found["by_cohort"]
    assert cohorts["known"]["metrics"]["two_time_scale"]["mrr@10"]["value"] == (
        pytest.approx(sum(ours) / 3)
    )
    assert cohorts["active"]["targets"] == 2
    assert "new_user" not in cohorts, "nobody is"
    theirs = [1 / 2, 1 / 4, 1 / 4, 0]
    assert found["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(
        (sum(ours) - sum(theirs)) / 4
    )
    assert cohorts["inactive"]["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(
        (sum(ours[2:]) - sum(theirs[2:])) / 2
    )
    assert found["seed_spread"]["recall@10"] == [0.75, 0.75]
    assert found["seed_spread"]["mrr@10"] == pytest.approx([1.75 / 4, 2.5 / 4])
    low, high = found["metrics"]["mrr@10"]["ci95"]
    assert low <= found["metrics"]["mrr@10"]["value"] <= high
    assert "seed" not in found["params"]
    assert found["train_only"] is None


def test_our_own_part_is_no_baseline() -> None:
    """The networks are better here than all else, and were taken for the best baseline."""
    found = merge(ROW, two_seeds())
    assert list(found["baselines"]) == ["popularity"]
    assert found["best_baseline"] == "popularity"
    assert found["parts"]["networks"]["recall@10"]["value"] == 0.75


def test_a_setting_is_compared_with_itself() -> None:
    """All that was fitted before the validation period was compared with the refitted model."""
    row = replace(ROW, metrics=["mrr@10", "recall@10"])
    found = merge(row, both_settings())
    share = 3 / 4
    assert set(found["baselines"]) == {"popularity"}
    assert found["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(share * (1 / 2))
    before = found["train_only"]
    assert before["metrics"]["mrr@10"]["value"] == pytest.approx(share / 2)
    assert before["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(
        share * (1 / 2 - 1 / 3)
    )
    assert set(before["parts"]) == {"networks"}
    assert before["by_cohort"]["known"]["metrics"]["popularity"]["mrr@10"]["value"] == (
        pytest.approx(1 / 3)
    )


def test_results_by_activity() -> None:
    found = merge(replace(ROW, metrics=["mrr@10", "recall@10"]), two_seeds())["by_history"]
    assert {bucket: of["targets"] for bucket, of in found.items()} == {"1-2": 2, "3-4": 1, "5-9": 1}
    assert set(found["5-9"]["metrics"]) == {"two_time_scale", "networks", "popularity"}
    ours = found["5-9"]["metrics"]["two_time_scale"]["mrr@10"]["value"]
    assert ours == pytest.approx((1 / 2 + 1) / 2)


def test_an_ablation_is_paired_on_its_own_seeds() -> None:
    row = replace(ROW, metrics=["mrr@10", "recall@10"])
    whole = two_seeds()
    ablated = runs({"two_time_scale": [2, 2, 4, 0], "popularity": [2, 4, 4, 0]})
    changed = ablated.facts[1]["params"]
    changed["train_rnn"]["ablation"] = "one_rnn"
    changed["evaluate"]["baselines"] = ["popularity"]
    changed["gate"] = {"floor": "popularity"}
    found = merge(row, whole, {"one_rnn": ablated})["ablations"]["one_rnn"]
    assert found["seeds"] == [1]
    differences = found["differences"]["two_time_scale"]
    assert differences["all"]["mrr@10"]["value"] == pytest.approx(1 / 2 / 4)
    assert differences["active"]["mrr@10"]["value"] == pytest.approx(1 / 2 / 2)
    assert differences["inactive"]["mrr@10"]["value"] == 0
    assert "networks" not in found["differences"], "this ablation was ranked without a memory"


def test_a_variant_has_baselines_of_its_own() -> None:
    row = replace(ROW, metrics=["mrr@10", "recall@10"])
    varied = runs({"two_time_scale": [4, 4, 4, 0], "popularity": [1, 1, 1, 0]})
    varied.facts[1]["params"]["evaluate"]["seen_filter"] = False
    found = merge(row, two_seeds(), {"unfiltered": varied})["variants"]["unfiltered"]
    assert found["metrics"]["mrr@10"]["value"] == pytest.approx(3 / 4 / 4)
    assert found["differences"]["popularity"]["mrr@10"]["value"] == pytest.approx(-3 / 4 * 3 / 4)


def test_a_change_that_changed_something_else_is_refused() -> None:
    ablated = runs({"two_time_scale": [2, 2, 4, 0], "popularity": [2, 4, 4, 0]})
    with pytest.raises(ContractError, match=r"one_rnn, seed 1 .*params\.train_rnn\.ablation"):
        merge(ROW, two_seeds(), {"one_rnn": ablated})
    with pytest.raises(ContractError, match=r"one_rnn has seeds \[1, 2\], the row itself \[1\]"):
        merge(ROW, runs({"two_time_scale": [1, 1, 1, 0]}), {"one_rnn": two_seeds()})


def test_a_row_without_a_required_baseline_is_refused() -> None:
    with pytest.raises(ContractError, match=r"\['popularity'\] were not ranked in .* refit"):
        merge(ROW, runs({"two_time_scale": [1, 2, 4, 0]}))


def _params(value: dict[str, Any]) -> None:
    value["params"]["evaluate"]["seen_filter"] = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_params, r"seed 2 differs from seed 1 in params\.evaluate\.seen_filter;"),
        (lambda value: value.update(commit="fedcba"), "seed 2 differs from seed 1 in commit;"),
        (lambda value: value.update(code="another"), "in code;"),
        (lambda value: value.update(device="cuda"), "in device;"),
        (lambda value: value.update(versions={"numpy": "1"}), "in versions;"),
        (lambda value: value.pop("code"), "seed 2: run.json does not say code,"),
        (lambda value: value.update(t_star=4), r"seed 2 has t\* 4, seed 1 has 3"),
    ],
)
def test_seeds_that_differ_in_more_than_the_seed_are_refused(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    found = two_seeds()
    other = facts(2)
    change(other)
    with pytest.raises(ContractError, match=said):
        merge(ROW, Runs({1: found.facts[1], 2: other}, found.ranks))


@pytest.mark.parametrize(
    ("column", "value"), [("target", 7), ("active", True), ("known", True), ("history", 9)]
)
def test_seeds_that_were_asked_for_something_else_are_refused(column: str, value: int) -> None:
    found = two_seeds()
    ranks = {1: found.ranks[1], 2: found.ranks[2].assign(**{column: value})}
    with pytest.raises(ContractError, match=f"seed 2: two_time_scale has another `{column}`"):
        merge(ROW, Runs(found.facts, ranks))


def test_a_model_that_was_asked_for_less_is_refused() -> None:
    found = runs({"two_time_scale": [1, 1, 1, 0], "popularity": [2, 2, 2, 0]})
    found = Runs(found.facts, {1: found.ranks[1].iloc[:7]})
    with pytest.raises(ContractError, match="popularity has another `user_idx`"):
        merge(ROW, found)
