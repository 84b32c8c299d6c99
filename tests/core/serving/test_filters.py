"""Filters and what they cost, against counting one by one."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.serving.filters import (
    Eligible,
    Filter,
    available_at,
    everything,
    filter_counts,
    kept_by_all,
    listed,
    rows_of,
)
from recsys_core.serving.shortfall import Shortfall, expected_shortfall
from recsys_core.tables import UTC_MICROSECONDS

IDS = pa.array(["a", "b", "c", "d", "o'hara"], pa.string())


def times(*values: int | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.int64()).cast(UTC_MICROSECONDS)])


def test_a_list_names_items_and_counts_what_it_does_not_know() -> None:
    keeps, unknown = listed(IDS, pa.array(["o'hara", "b", "b", "zzz", "y", "y"], pa.string()))
    assert keeps.tolist() == [False, True, False, False, True]
    assert unknown == 2
    keeps, unknown = listed(IDS, pa.array([], pa.string()))
    assert (keeps.tolist(), unknown) == ([False] * 5, 0)


@pytest.mark.parametrize(
    ("since", "until", "expected", "unbounded"),
    [
        (times(9, 10, 11, None), None, [True, True, False, True], 1),
        (None, times(9, 10, 11, None), [False, False, True, True], 1),
        (times(1, 1, None, None), times(11, 10, 11, None), [True, False, True, True], 1),
        (times(11, 0, -5, 10), times(12, 0, 11, 10), [False, False, True, False], 0),
    ],
)
def test_available_from_the_first_moment_until_before_the_last(
    since: pa.ChunkedArray | None,
    until: pa.ChunkedArray | None,
    expected: list[bool],
    unbounded: int,
) -> None:
    keeps, without = available_at(10, since, until)
    assert keeps.tolist() == expected
    assert without == unbounded


def test_one_column_may_be_both_bounds() -> None:
    """An item of one moment: never within, since it begins when it ends."""
    column = times(9, 10, 11)
    assert available_at(10, column, column)[0].tolist() == [False, False, False]


def test_rows_come_in_the_order_of_the_ids() -> None:
    table = pa.table({"item_id": ["b", "zzz", "a"], "n": [2, 3, 1]})
    rows, without = rows_of(IDS, table)
    assert rows.to_pydict() == {"item_id": IDS.to_pylist(), "n": [1, 2, None, None, None]}
    assert without == 3


def test_what_is_left_out_alone_is_left_out_by_nothing_else() -> None:
    rng = np.random.default_rng(5)
    filters = [Filter(f"f{n}", rng.random(200) < 0.8, {"unknown": n}) for n in range(3)]
    counts = filter_counts(filters)
    kept = kept_by_all(filters, n_items=200)
    assert not kept[0]
    for place in range(200):
        assert kept[place + 1] == all(one.keeps[place] for one in filters)
    for n, one in enumerate(filters):
        others = [other for other in filters if other is not one]
        alone = [
            place
            for place in range(200)
            if not one.keeps[place] and all(other.keeps[place] for other in others)
        ]
        assert counts[one.name] == {
            "left_out": sum(not keep for keep in one.keeps),
            "alone": len(alone),
            "unknown": n,
        }
    assert filter_counts([]) == {}
    assert kept_by_all([], n_items=3).tolist() == [False, True, True, True]


def test_what_may_not_be_recommended_scores_minus_infinity() -> None:
    eligible = Eligible(
        np.array([[False, True, True, True], [False, False, True, False]]), np.array([0, 0, 1])
    )
    trend = np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32)
    assert eligible.scores(0, trend).tolist() == [-np.inf, 1.0, 2.0, 3.0]
    assert eligible.scores(1, trend).tolist() == [-np.inf, -np.inf, 2.0, -np.inf]
    assert eligible.scores(1, trend).dtype == np.float32
    assert eligible.counts.tolist() == [3, 1]
    assert everything(n_items=3, n_users=7).counts.tolist() == [3]


@pytest.mark.parametrize("k", [1, 3, 8, 11])
def test_the_shortfall_is_what_counting_says(k: int) -> None:
    """8 items in three groups, one of which may have nothing; users who have seen some of them,
    some of these twice and some that they may not have anyway."""
    rng = np.random.default_rng(k)
    items = np.concatenate([np.zeros((3, 1), bool), rng.random((3, 8)) < 0.7], axis=1)
    items[2] = False
    eligible = Eligible(items, np.zeros(1, dtype=np.int64))
    group = rng.integers(0, 3, 200)
    seen = [rng.integers(1, 9, rng.integers(0, 12)) for _ in group]
    rows = np.repeat(np.arange(200), [len(one) for one in seen])
    found = expected_shortfall(eligible, group=group, rows=rows, items=np.concatenate(seen), k=k)
    expected = Shortfall()
    for of, had in zip(group, seen, strict=True):
        may = set(np.flatnonzero(items[of]).tolist())
        within = min(k, 8)
        left = len(may - set(had.tolist()))
        expected += Shortfall(
            catalogue=k - within,
            filters=within - min(within, len(may)),
            seen=min(within, len(may)) - min(within, left),
        )
    assert found == expected
    assert expected.seen > 0
    assert (expected.catalogue > 0) == (k > 8)


def test_no_users_lack_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    eligible = everything(n_items=3, n_users=0)
    assert expected_shortfall(eligible, group=none, rows=none, items=none, k=5).total == 0
