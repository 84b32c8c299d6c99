"""The page of results says what was found, row by row and setting by setting."""

import doctest
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import results_text
from benchmarks.quality_merge import merge
from benchmarks.results import PAGE, README, not_ahead, page, read_results, whole_page, with_summary
from tests.benchmarks.ranks import ROW, both_settings, runs, two_seeds


def test_doctests() -> None:
    assert doctest.testmod(results_text).failed == 0


def line_of(found: dict[str, Any], setting: str = "refit") -> str:
    """The row's line of the first table."""
    lines = page({"gts-ml100k": found}).splitlines()
    (line,) = (
        line for line in lines if line.startswith("| [gts-ml100k]") and f"| {setting} |" in line
    )
    return line


def test_the_page_names_what_was_found_and_what_is_not_there() -> None:
    text = page({"gts-ml100k": merge(ROW, two_seeds())})
    assert "\n## gts-ml100k\n" in text
    assert "| popularity (required) |" in text
    assert "| part: networks |" in text
    assert "missed" not in text
    missing = text.partition("## Not measured yet")[2]
    assert "`loo-ml1m`" in missing
    assert "`gts-ml100k`" not in missing


def test_the_page_says_where_we_are_behind() -> None:
    found = merge(ROW, two_seeds())
    assert found["differences"]["popularity"]["ndcg@10"]["ci95"][0] >= 0
    assert "behind" not in line_of(found)
    found["differences"]["popularity"]["ndcg@10"]["ci95"] = [-0.2, -0.1]
    line = line_of(found)
    assert "| **behind** |" in line
    assert "| no: popularity |" in line


def test_ahead_of_all_required_asks_for_every_interval_and_the_floor() -> None:
    found = merge(ROW, two_seeds())
    difference = found["differences"]["popularity"]["ndcg@10"]
    difference["ci95"] = [0.1, 0.2]
    assert not_ahead(found, "refit") == []
    assert "| yes |" in line_of(found)
    difference["ci95"] = [0.0, 0.2]
    assert not_ahead(found, "refit") == ["popularity"]
    difference["ci95"] = [0.1, 0.2]
    value = found["metrics"]["ndcg@10"]["value"]
    found["row"]["floor"] = {"refit": {"value": value, "what": "a table"}}
    assert not_ahead(found, "refit") == []
    assert "(a table): reached |" in line_of(found)
    found["row"]["floor"]["refit"]["value"] = value + 0.01
    assert not_ahead(found, "refit") == ["the floor"]
    assert "**missed** by 0.0100 | no: the floor |" in line_of(found)


def test_each_setting_is_judged_by_its_own_floor() -> None:
    floor = {
        "refit": {"value": 0.5, "what": "as refitted"},
        "train_only": {"value": 0.7, "what": "as published"},
    }
    found = merge(replace(ROW, floor=floor), both_settings())
    assert found["metrics"]["ndcg@10"]["value"] == pytest.approx(0.75)
    assert "as refitted): reached" in line_of(found, "refit")
    line = line_of(found, "train only")
    assert "as published): **missed**" in line
    value = found["train_only"]["parts"]["networks"]["ndcg@10"]["value"]
    assert f"; networks {value:.4f} |" in line
    assert "; networks" not in line_of(found, "refit")
    assert "the floor" in line
    text = page({"gts-ml100k": found})
    _, table = text.split("\nTrain only:\n")
    assert "| part: networks |" in table.partition("by who is asked for")[0]


def test_a_row_of_few_seeds_is_marked() -> None:
    two = merge(ROW, two_seeds())
    assert "[gts-ml100k](#gts-ml100k) \\*" in line_of(two)
    assert "fewer than 3 seeds: `gts-ml100k` has 2." in page({"gts-ml100k": two})
    ranks = {"two_time_scale": [1, 2, 4, 0], "popularity": [2, 4, 4, 0]}
    three = merge(ROW, runs(ranks, ranks, ranks))
    assert "[gts-ml100k](#gts-ml100k) |" in line_of(three)
    assert "fewer than" not in page({"gts-ml100k": three})


def test_activity_ablations_and_variants_have_tables() -> None:
    found = merge(ROW, two_seeds())
    text = page({"gts-ml100k": found})
    assert "by the known events of the user before the target" in text
    assert "| 5-9 | 1 |" in text
    assert "with a part taken away" not in text
    ablated = runs({"two_time_scale": [2, 2, 4, 0], "popularity": [2, 4, 4, 0]})
    changed = ablated.facts[1]["params"]
    changed["train_rnn"]["ablation"] = "one_rnn"
    changed["evaluate"]["baselines"] = ["popularity"]
    changed["gate"] = {"floor": "popularity"}
    varied = runs({"two_time_scale": [4, 4, 4, 0], "popularity": [1, 1, 1, 0]})
    varied.facts[1]["params"]["evaluate"]["seen_filter"] = False
    text = page({"gts-ml100k": merge(ROW, two_seeds(), {"one_rnn": ablated, "unfiltered": varied})})
    assert "| one_rnn | two_time_scale | 1 |" in text
    assert "Unfiltered (`evaluate`: seen_filter False;" in text


def test_groups_by_activity_come_from_few_events_to_many() -> None:
    found = merge(ROW, two_seeds())
    (group, *_) = found["by_history"].values()
    found["by_history"] = dict.fromkeys(["0", "1-2", "10-19", "100+", "20-49", "5-9"], group)
    text = page({"gts-ml100k": found}).partition("by the known events")[2]
    first = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[4:10]]
    assert first == ["0", "1-2", "5-9", "10-19", "20-49", "100+"]


def test_the_page_and_the_readme_are_those_of_the_committed_results() -> None:
    results, readme = read_results(), README.read_text(encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == whole_page()
    assert with_summary(readme, results) == readme
    assert "](docs/results.md#gts-ml100k)" in readme
