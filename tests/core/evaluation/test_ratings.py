"""RMSE on targets that have a value: which ones, by hand, and how far from one another."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.evaluation.ratings import RatedTargets, rated_targets, rmse_report
from recsys_core.evaluation.targets import targets_of
from tests.event_rows import events_of, period_of

N_ITEMS = 4
EVENTS = replace(
    events_of([(1, 1, 10), (1, 2, 20), (1, 3, 60), (1, 9, 70), (2, 4, 30), (2, 1, 80), (2, 2, 90)]),
    value=np.array([1, 2, 3, 4, 5, np.nan, 2], dtype=np.float32),
)
PERIOD = period_of(EVENTS, 50, 100, n_items=N_ITEMS)


def rated() -> RatedTargets:
    targets = targets_of("successive", EVENTS, PERIOD, n_items=N_ITEMS)
    return rated_targets(EVENTS, targets, n_items=N_ITEMS)


def test_targets_without_a_value_or_of_an_unknown_item_are_counted() -> None:
    found = rated()
    assert found.counts == {"in": 4, "out": 2, "without_value": 1, "unknown_item": 1}
    assert found.targets.item_idx.tolist() == [3, 2]
    assert found.value.tolist() == [3.0, 2.0]
    np.testing.assert_array_equal(EVENTS.value[found.rows], found.value)


def test_rows_in_another_order_have_the_same_values() -> None:
    found = rated()
    other = replace(EVENTS, source_row=EVENTS.source_row[::-1].copy())
    targets = targets_of("successive", other, PERIOD, n_items=N_ITEMS)
    np.testing.assert_array_equal(rated_targets(other, targets, n_items=N_ITEMS).value, found.value)


def test_by_hand() -> None:
    predicted = {"ours": np.array([3.0, 4.0]), "theirs": np.array([1.0, 2.0])}
    report = rmse_report(predicted, rated(), seed=1, draws=50)
    assert report["users"] == 2
    assert report["rmse"]["ours"]["value"] == pytest.approx(np.sqrt((0 + 4) / 2), rel=1e-5)
    assert report["rmse"]["theirs"]["value"] == pytest.approx(np.sqrt((4 + 0) / 2), rel=1e-5)
    # of two users, one a draw each time, the one or the other or both
    assert (report["rmse"]["ours"]["low"], report["rmse"]["ours"]["high"]) == (0.0, 2.0)
    assert report["difference"] == {"theirs": {"value": 0.0, "low": -2.0, "high": 2.0}}
    assert list(report["difference"]) == ["theirs"]


def test_where_nothing_is_rated_rows_are_counted() -> None:
    nothing = replace(EVENTS, value=np.full(len(EVENTS), np.nan, dtype=np.float32))
    targets = targets_of("successive", nothing, PERIOD, n_items=N_ITEMS)
    found = rated_targets(nothing, targets, n_items=N_ITEMS)
    empty = {"ours": np.zeros(0), "theirs": np.zeros(0)}
    counts = {"in": 4, "out": 0, "without_value": 4, "unknown_item": 0}
    assert rmse_report(empty, found, seed=1, draws=5) == {"rows": counts}


@pytest.mark.parametrize("kind", ["last", "session", "basket"])
def test_every_kind_of_target_has_the_value_of_its_own_event(kind: str) -> None:
    targets = targets_of(kind, EVENTS, PERIOD, n_items=N_ITEMS)
    found = rated_targets(EVENTS, targets, n_items=N_ITEMS)
    place = {row: at for at, row in enumerate(EVENTS.source_row.tolist())}
    rows = [place[row] for row in found.targets.source_row.tolist()]
    np.testing.assert_array_equal(EVENTS.value[rows], found.value)
    assert found.counts["in"] == len(targets)
