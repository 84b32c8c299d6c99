"""Every engine is measured on the same vectors, finds the same, and says what it took."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import score_engines
from benchmarks.measure import Measured
from benchmarks.score_case import Case, batches, draw, without_seen
from benchmarks.score_profile import PARTS, search_of, shares_of
from benchmarks.score_speed import (
    ENGINES,
    PEERS,
    cases_of,
    check_same,
    measure_cases,
    row_of,
)
from benchmarks.training_case import heard

CASE = Case(engine="", items=3_000, dim=8, users=40, seen=7, k=5, threads=1, seconds=0.02)


def naive() -> tuple[np.ndarray, np.ndarray]:
    drawn = draw(CASE)
    scores = drawn.users @ drawn.items.T
    scores[drawn.seen_rows, drawn.seen.reshape(-1)] = -np.inf
    items = np.argsort(-scores, axis=1, kind="stable")
    return items, np.take_along_axis(scores, items, axis=1)


def test_a_case_comes_through_as_it_was() -> None:
    assert Case.from_json(CASE.to_json()) == CASE


def test_vectors_are_drawn_alike_and_seen_items_are_different_ones() -> None:
    one, other = draw(CASE), draw(replace(CASE, engine="ours", seconds=9.0))
    assert np.array_equal(one.items, other.items)
    assert np.array_equal(one.seen, other.seen)
    assert one.seen.shape == (CASE.users, CASE.seen)
    assert (np.diff(one.seen, axis=1) > 0).all(), "in order, none twice"
    assert one.seen.min() >= 0
    assert one.seen.max() < CASE.items
    assert np.array_equal(one.seen_rows, np.repeat(np.arange(CASE.users), CASE.seen))


def test_seen_items_are_dropped_from_more_than_enough() -> None:
    drawn = draw(CASE)
    every = drawn.users @ drawn.items.T
    items = np.argsort(-every, axis=1, kind="stable")[:, : CASE.k + CASE.seen]
    scores = np.take_along_axis(every, items, axis=1)
    found, kept = without_seen(items, scores, drawn=drawn, k=CASE.k)
    expected = naive()
    assert np.array_equal(found, expected[0][:, : CASE.k])
    assert np.array_equal(kept, expected[1][:, : CASE.k])


def test_batches_cover_all_rows_once() -> None:
    rows = [np.arange(10)[part] for part in batches(10, size=4)]
    assert np.array_equal(np.concatenate(rows), np.arange(10))
    assert [len(part) for part in rows] == [4, 4, 2]


@pytest.mark.parametrize("function", ENGINES.values())
def test_an_engine_finds_the_best_and_is_measured(
    function: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_engines, "CELLS", 9 * CASE.items)  # nine users at once
    getattr(score_engines, function)(CASE.to_json())
    told = heard(capsys.readouterr().out)
    expected = naive()[1][:, : CASE.k].mean(dtype=np.float64)
    assert told["mean_score"] == pytest.approx(expected, rel=1e-5)
    assert told["users_per_second"] >= CASE.users / told["seconds"] * 0.9, "a call at least"
    assert told["seconds"] >= CASE.seconds
    assert told["cpu_seconds"] > 0


def test_the_products_of_all_libraries_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_engines, "PRODUCT_SIZE", 256)
    score_engines.sgemm(1)
    told = heard(capsys.readouterr().out)
    for rates in told.values():
        assert set(rates) == {"numpy", "torch", "onnxruntime"}
        assert min(rates.values()) > 256**3


def test_cases_of_a_catalogue_share_all_but_the_engine() -> None:
    cases = cases_of(26_700, 64, threads=2, seconds=1.0, peers=True)
    assert [case.engine for case in cases] == [*ENGINES, *PEERS]
    assert len({replace(case, engine="") for case in cases}) == 1
    alone = cases_of(26_700, 64, threads=2, seconds=1.0, peers=False)
    assert [case.engine for case in alone] == list(ENGINES)


def told(speed: float, *, cpu: float = 1.0, mean: float = 1.0) -> tuple[Measured, dict[str, Any]]:
    facts = {
        "users_per_second": speed,
        "cpu_seconds": cpu,
        "seconds": 1.0,
        "mean_score": mean,
    }
    return Measured(2.0, cpu, 150.0), facts


def test_ratios_and_shares_are_those_of_a_round() -> None:
    work = CASE.items * CASE.dim
    products = [
        {
            "multiply_adds_per_second": {"torch": 10.0 * work * busy, "numpy": 1.0 * work},
            "multiply_adds_per_cpu_second": {"torch": 20.0 * work, "numpy": 1.0 * work},
        }
        for busy in (1.0, 0.5, 0.25)
    ]
    runs = [told(8.0, cpu=2.0), told(2.0, cpu=0.5), told(1.0, cpu=0.25)]
    row = row_of(CASE, runs, ours=[16.0, 8.0, 4.0], products=products)
    assert row["users_per_second"] == 2.0
    assert row["ratio_to_ours"] == 0.25
    assert row["share_of_sgemm"] == 0.4  # of 0.8, 0.4 and 0.4
    assert row["users_per_cpu_second"] == 4.0
    assert row["share_of_sgemm_cpu"] == 0.2
    assert row["peak_mb"] == 150


def test_engines_that_find_another_answer_are_not_compared() -> None:
    check_same({"ours": [told(1.0, mean=5.0)], "torch": [told(2.0, mean=5.0001)]})
    with pytest.raises(SystemExit, match="have not found the same items"):
        check_same({"ours": [told(1.0, mean=5.0)], "torch": [told(2.0, mean=5.1)]})


def test_the_parts_of_a_search_are_told_apart() -> None:
    shares = shares_of(search_of(3_000, 8))
    assert list(shares) == [*PARTS, "the rest"]
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.slow
def test_a_catalogue_is_measured_in_processes_of_their_own() -> None:
    peers_python = os.environ.get("PEERS_PYTHON")
    names = [*ENGINES, *(PEERS if peers_python else ())]
    cases = [replace(CASE, engine=name) for name in names]
    rows = measure_cases(cases, repeats=2, peers_python=peers_python)
    assert [row["engine"] for row in rows] == names
    assert [len(row["runs"]) for row in rows] == [2] * len(rows)
    assert rows[0]["ratio_to_ours"] == 1.0
