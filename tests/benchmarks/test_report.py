"""The page says what the results say, and no more where there are fewer."""

from typing import Any

from benchmarks.report import page
from benchmarks.step_table import HEADERS, table_rows
from benchmarks.train_table import PLAIN

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


def trained(
    model: str,
    loss: str,
    speed: int,
    *,
    multiply_adds: int | None = None,
    negatives: int | None = None,
    versions: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "log": "steps",
        "model": model,
        "loss": loss,
        "negatives": negatives,
        "device": "cpu",
        "events_per_second": speed,
        "multiply_adds_per_event": multiply_adds,
        "peak_mb": 700,
        "device_peak_mb": None,
        "versions": versions,
        "runs": [{}, {}, {}],
    }


def searched(
    engine: str, speed: int, *, items: int = 1_000, versions: dict[str, str] | None = None
) -> dict[str, Any]:
    rates = {"numpy": 2e10, "torch": 3e10}
    return {
        "engine": engine,
        "items": items,
        "dim": 64,
        "users_per_second": speed,
        "users_per_cpu_second": speed / 2,
        "ratio_to_ours": speed / 3_000,
        "share_of_sgemm": 0.25,
        "share_of_sgemm_cpu": 0.5,
        "peak_mb": 1_200,
        "versions": versions,
        "runs": [{"cpu_seconds": 3.0, "seconds": 6.0}] * 2,
        "products": [{"multiply_adds_per_second": rates}, {"multiply_adds_per_second": rates}],
    }


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
TRAINING: dict[str, Any] = {
    **CIRCUMSTANCES,
    "seconds": 20.0,
    "repeats": 3,
    "omp_num_threads": "2",
    "width": 64,
    "peer": True,
    "product": {"size": 2_048, "multiply_adds_per_second": 50e9, "threads": 2},
    "catalogue": {
        "items": 1_000_000,
        "events": 600_000,
        "steps_at_least": 288,
        "validation_targets": 1_000,
        "model": "gru",
        "loss": "sampled_softmax",
        "peak_mb": 3_200,
        "limit_mb": 6_144,
        "seconds": 60.0,
    },
    "logs": [
        {"log": "steps", "window": 50, "batch": 2_048, "events": 900, "users": 9, "items": 70}
    ],
    "rows": [
        trained("gru", "softmax", 30_000, multiply_adds=1_000_000),
        trained("lru", "bpr_max", 60_000, multiply_adds=100_000, negatives=512),
        trained(PLAIN, "softmax", 10_000, multiply_adds=900_000),
        trained("SASRec", "softmax", 4_000, versions={"rectools": "0.19", "torch": "2.13"}),
    ],
}


SCORE: dict[str, Any] = {
    **CIRCUMSTANCES,
    "seconds": 5.0,
    "repeats": 2,
    "threads": 2,
    "k": 100,
    "seen": 50,
    "peers": True,
    "rows": [
        searched("torch", 400, items=2_000_000),
        searched("faiss flat", 1_500, versions={"faiss-cpu": "1.15"}),
        searched("ours", 3_000),
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
    text = page(
        {"pipeline": PIPELINE, "sessionize": SESSIONIZE, "training": TRAINING, "score": SCORE}
    )
    assert "| ingest | 1,000 | 12.0 | 83 events | - | 12.0 | 300 | 1.20 | 1 |" in text
    assert "| score | 10 | 0.2 | 10 users |" in text
    assert "| stage | 1,000 | 800 | - | 300 | 1.25 | 1 |" in text
    assert text.count("2 CPUs of Abacus, 4.0 GiB, Linux; commit 0123456789; python 3.11.") == 4
    assert "`train_rnn.max_epochs=1`" in text
    assert "not committed" not in text
    assert "OMP_NUM_THREADS" not in text
    assert "Not measured yet." not in text


def test_a_page_of_what_was_not_committed_on_fewer_threads_says_so() -> None:
    text = page({"pipeline": {**PIPELINE, "changed_since": True, "omp_num_threads": "1"}})
    assert "with changes that were not committed" in text
    assert "`OMP_NUM_THREADS=1`" in text
    assert text.count("Not measured yet.") == 3  # sessionize, training, score


def test_a_page_without_results_says_so() -> None:
    assert page({}).count("Not measured yet.") == 4
    assert page({"pipeline": {**PIPELINE, "rows": []}}).count("Not measured yet.") == 4


def test_training_stands_beside_the_plain_loop_and_the_product() -> None:
    text = page({"training": TRAINING})
    share = 30_000 * 1_000_000 / 50e9
    assert f"| gru | softmax | 30,000 | 3.00 | 1,000,000 | {share:.2f} | 700 | - | 3 |" in text
    share = 60_000 * 100_000 / 50e9
    assert f"| lru | bpr_max, 512 | 60,000 | 6.00 | 100,000 | {share:.2f} |" in text
    assert "| SASRec | softmax | 4,000 | 0.40 | - | - | 700 |" in text
    assert "- The peer: rectools 0.19, torch 2.13." in text
    assert "50.0e9 multiply-adds a second" in text
    assert "3,200 MB at most, below the bound of 6,144 MB" in text
    assert "was not measured" not in text


def test_a_page_without_the_peer_or_above_the_bound_says_so() -> None:
    catalogue = {**TRAINING["catalogue"], "peak_mb": 7_000}
    alone = [row for row in TRAINING["rows"] if row["model"] in ("gru", "lru")]
    found = {**TRAINING, "catalogue": catalogue, "rows": alone, "peer": False}
    text = page({"training": found})
    assert "SASRec of RecTools was not measured" in text
    assert "NOT below the bound" in text
    assert "| gru | softmax | 30,000 | - |" in text, "there is no plain loop to be beside"
    assert "The peer:" not in text


def test_engines_stand_by_size_of_the_catalogue_the_fastest_first() -> None:
    text = page({"score": SCORE})
    ours = "| 1,000 | 64 | ours | 3,000 | 1.00 | 0.25 | 1,500 | 0.50 | 1,200 | 2 |"
    peer = "| 1,000 | 64 | faiss flat | 1,500 | 0.50 |"
    assert 0 < text.index(ours) < text.index(peer) < text.index("| 2,000,000 | 64 | torch | 400 |")
    assert "numpy 20.0e9, torch 30.0e9." in text
    assert "- A peer: faiss-cpu 1.15." in text
    assert "the runs had 25% (median)" in text
    assert "were not measured" not in text
    assert "implicit and faiss were not measured" in page({"score": {**SCORE, "peers": False}})
    assert "spends its processor time" not in text
    shares = {"products": 0.75, "the rest": 0.25}
    profile = {**CIRCUMSTANCES, "rows": [{"items": 1_000, "dim": 64, "shares": shares}]}
    text = page({"score": SCORE, "score-profile": profile})
    assert "| items | d | products | the rest |" in text
    assert "| 1,000 | 64 | 0.75 | 0.25 |" in text
