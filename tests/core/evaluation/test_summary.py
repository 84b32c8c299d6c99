"""The table of metrics: every number as arithmetic on few ranks."""

import math

import numpy as np
import pytest

from recsys_core.evaluation.ranks import Ranks
from recsys_core.evaluation.summary import (
    Ranked,
    Row,
    differences,
    metric_rows,
    metrics_table,
    ranks_table,
)
from recsys_core.evaluation.targets import targets_of
from recsys_core.tables import METRICS, RANKS, check_table
from tests.event_rows import events_of, period_of

# four targets: users 1, 1, 2, 3
EVENTS = events_of(
    [(1, 1, 0), (2, 1, 1), (3, 1, 2), (1, 2, 10), (1, 3, 11), (2, 1, 12), (3, 9, 13)]
)
TARGETS = targets_of("successive", EVENTS, period_of(EVENTS, 10, 20, n_items=4), n_items=4)
EVERYONE = np.ones(4, dtype=bool)
FIRST_TWO = np.array([True, True, False, False])
GROUPS = {
    "all": EVERYONE,
    "active": FIRST_TWO,
    "inactive": ~FIRST_TWO,
    "new_user": ~EVERYONE,
    "known": np.array([True, True, True, False]),
    "unknown": np.array([False, False, False, True]),
}


def ranked(
    model: str, rank: list[int], nll: list[float] | None, *, covered: np.ndarray = EVERYONE
) -> Ranked:
    ranks = Ranks(
        rank=np.array(rank, dtype=np.int32),
        ties=np.zeros(len(rank), dtype=np.int32),
        nll=None if nll is None else np.array(nll, dtype=np.float32),
    )
    return Ranked(model, ranks, covered)


MODELS = [
    ranked("ours", [1, 2, 4, 0], [math.log(2), math.log(2), math.log(16), math.nan]),
    ranked("plain", [2, 2, 2, 0], None),
    ranked("truth", [1, 1], [0.0, math.log(4)], covered=FIRST_TWO),
]


def rows() -> dict[tuple[str, str, str], Row]:
    found = metric_rows(MODELS, TARGETS, GROUPS, cutoffs=(1, 3), seed=7, draws=50)
    keyed = {(row.cohort, row.model, row.metric): row for row in found}
    assert len(keyed) == len(found)
    return keyed


@pytest.mark.parametrize(
    ("cohort", "model", "metric", "expected"),
    [
        ("all", "ours", "mrr@3", (1 + 1 / 2 + 0 + 0) / 4),
        ("all", "ours", "recall@1", 1 / 4),
        ("all", "ours", "ndcg@3", (1 + 1 / math.log2(3)) / 4),
        ("known", "ours", "mrr@3", (1 + 1 / 2 + 0) / 3),
        ("unknown", "ours", "mrr@3", 0),
        ("inactive", "plain", "recall@3", 1 / 2),
        ("all", "ours", "perplexity", 2 ** ((1 + 1 + 4) / 3)),
        ("all", "truth", "mrr@3", 1),
        ("all", "truth", "perplexity", 2),
        ("active", "truth", "perplexity", 2),
    ],
)
def test_values(cohort, model, metric, expected):
    row = rows()[cohort, model, metric]
    assert row.interval.value == pytest.approx(expected, rel=1e-6)
    assert row.interval.low <= row.interval.value * (1 + 1e-9)
    assert row.interval.high >= row.interval.value * (1 - 1e-9)


def test_each_metric_counts_its_own_population():
    found = rows()
    assert (found["all", "ours", "mrr@3"].targets, found["all", "ours", "mrr@3"].users) == (4, 3)
    assert found["all", "ours", "perplexity"].targets == 3
    assert found["all", "truth", "mrr@3"].targets == 2
    assert found["all", "truth", "mrr@3"].users == 1


def test_what_has_no_target_has_no_row():
    found = rows()
    assert not [key for key in found if key[0] == "new_user"]
    assert not [key for key in found if key[:2] == ("inactive", "truth")]
    assert ("unknown", "ours", "perplexity") not in found
    assert ("all", "plain", "perplexity") not in found
    assert all(math.isfinite(row.interval.high) for row in found.values())


def test_rows_come_by_cohort_then_model_then_metric():
    keys = list(rows())
    assert keys[0] == ("all", "ours", "recall@1")
    cohorts = [key[0] for key in keys]
    assert list(dict.fromkeys(cohorts)) == ["all", "active", "inactive", "known", "unknown"]
    assert cohorts == sorted(cohorts, key=list(GROUPS).index)
    models = [key[1] for key in keys if key[0] == "all"]
    assert models == sorted(models, key=["ours", "plain", "truth"].index)


def test_differences_are_paired_on_what_the_other_covers():
    found = differences(MODELS[0], MODELS[1:], TARGETS, metric="mrr@3", seed=7, draws=50)
    assert found["plain"].value == pytest.approx((1 / 2 + 0 - 1 / 2 + 0) / 4)
    assert found["truth"].value == pytest.approx((0 - 1 / 2) / 2)
    # the truth covers two targets of one user: every draw is the same
    assert found["truth"].low == pytest.approx(found["truth"].high)


def test_both_tables_keep_their_contracts():
    found = metric_rows(MODELS, TARGETS, GROUPS, cutoffs=(1,), seed=7, draws=50)
    check_table(metrics_table(found), METRICS, name="metrics")
    table = ranks_table(MODELS, TARGETS, GROUPS)
    check_table(table, RANKS, name="ranks")
    assert table.column("model").to_pylist() == ["ours"] * 4 + ["plain"] * 4 + ["truth"] * 2
    assert table.column("rank").to_pylist() == [1, 2, 4, 0, 2, 2, 2, 0, 1, 1]
    assert table.column("nll").null_count == 1 + 4
    assert table.column("active").to_pylist()[-2:] == [True, True]
    assert table.column("known").to_pylist()[:4] == [True, True, True, False]
    assert table.column("history").to_pylist()[:4] == TARGETS.history.tolist()
