"""The page says what the results say, and no more where there are fewer."""

from typing import Any

from benchmarks.report import page
from benchmarks.step_table import HEADERS, table_rows

COST = HEADERS.index("cost / size before")


def measured(count: int, seconds: float, *, unit: str = "events") -> dict[str, Any]:
    return {
        "unit": unit,
        "count": count,
        "seconds": seconds,
        "per_second": round(count / seconds),
        "inside_per_second": None,
        "cpu_seconds": seconds,
        "peak_mb": 300,
        "runs": [{}],
    }


def size(events: int, **steps: dict[str, Any]) -> dict[str, Any]:
    simulation = {"seconds": 2.0}
    facts = {"size": events, "events": events, "users": 9, "items": 5, "simulation": simulation}
    return {**facts, "steps": [{"step": name, **step} for name, step in steps.items()]}


CIRCUMSTANCES: dict[str, Any] = {
    "machine": {"cpu": "Abacus", "cpus": 2, "memory_gib": 4.0, "system": "Linux"},
    "commit": "0123456789abcdef",
    "changed_since": False,
    "versions": {"python": "3.11"},
}
PIPELINE: dict[str, Any] = {
    **CIRCUMSTANCES,
    "overrides": ["train_rnn.max_epochs=1"],
    "repeats": 3,
    "long_seconds": 120.0,
    "omp_num_threads": None,
    "rows": [
        size(1_000, sessionize=measured(1_000, 1.0), ingest=measured(1_000, 12.0)),
        size(100, sessionize=measured(100, 1.0), ingest=measured(100, 1.0)),
        size(10, score=measured(2, 0.2, unit="users")),
    ],
}
SESSIONIZE: dict[str, Any] = {
    **CIRCUMSTANCES,
    "rows": [
        {
            "events": 1_000,
            "events_per_second": {"stage": 800, "in_parts": 700, "bare": 1_000},
            "peak_mb": {"stage": 300, "in_parts": 300, "bare": 200},
            "ratio_to_bare": {"stage": 1.25, "in_parts": 1.43},
            "runs": {"stage": [{}], "in_parts": [{}], "bare": [{}]},
        }
    ],
}


def test_steps_stand_in_their_order_each_with_its_cost_beside_the_next_smaller_log() -> None:
    rows = table_rows(PIPELINE["rows"])
    assert [(row[0], row[1], row[COST]) for row in rows] == [
        ("score", "10", "-"),
        ("sessionize", "100", "-"),
        ("sessionize", "1,000", f"{(1 / 1_000) / (1 / 100):.2f}"),
        ("ingest", "100", "-"),
        ("ingest", "1,000", f"{(12 / 1_000) / (1 / 100):.2f}"),
    ]


def test_a_size_without_a_step_is_passed_over() -> None:
    sizes = [
        size(10, ingest=measured(10, 1.0)),
        size(100),
        size(1_000, ingest=measured(1_000, 50.0)),
    ]
    assert [row[COST] for row in table_rows(sizes)] == ["-", f"{(50 / 1_000) / (1 / 10):.2f}"]


def test_nothing_to_count_has_no_cost() -> None:
    sizes = [size(10, evaluate=measured(0, 1.0)), size(100, evaluate=measured(5, 1.0))]
    assert [row[COST] for row in table_rows(sizes)] == ["-", "-"]


def test_the_page_has_each_number_with_its_circumstances() -> None:
    text = page({"pipeline": PIPELINE, "sessionize": SESSIONIZE})
    assert "| ingest | 1,000 | 12.0 | 83 events | - | 12.0 | 300 | 1.20 | 1 |" in text
    assert "| score | 10 | 0.2 | 10 users |" in text
    assert "| stage | 1,000 | 800 | - | 300 | 1.25 | 1 |" in text
    assert text.count("2 CPUs of Abacus, 4.0 GiB, Linux; commit 0123456789; python 3.11.") == 2
    assert "`train_rnn.max_epochs=1`" in text
    assert "not committed" not in text
    assert "OMP_NUM_THREADS" not in text
    assert "Not measured yet." not in text


def test_a_page_of_what_was_not_committed_on_fewer_threads_says_so() -> None:
    text = page({"pipeline": {**PIPELINE, "changed_since": True, "omp_num_threads": "1"}})
    assert "with changes that were not committed" in text
    assert "`OMP_NUM_THREADS=1`" in text
    assert text.count("Not measured yet.") == 1  # sessionize


def test_a_page_without_results_says_so() -> None:
    assert page({}).count("Not measured yet.") == 2
    assert page({"pipeline": {**PIPELINE, "rows": []}}).count("Not measured yet.") == 2
