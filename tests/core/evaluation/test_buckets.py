"""Results by the length of histories."""

import numpy as np

from recsys_core.evaluation.buckets import bucket_rows, buckets
from recsys_core.evaluation.significance import Interval
from recsys_core.evaluation.summary import Row


def test_each_target_is_in_the_bucket_of_its_history() -> None:
    history = np.array([0, 1, 2, 3, 4, 5, 9, 10, 19, 20, 49, 50, 99, 100, 10_000])
    found = buckets(history)
    assert {name: history[members].tolist() for name, members in found.items()} == {
        "0": [0],
        "1-2": [1, 2],
        "3-4": [3, 4],
        "5-9": [5, 9],
        "10-19": [10, 19],
        "20-49": [20, 49],
        "50-99": [50, 99],
        "100+": [100, 10_000],
    }
    assert (np.sum(list(found.values()), axis=0) == 1).all()


def test_rows_are_those_of_one_metric_with_their_population() -> None:
    interval = Interval(value=0.25, low=0.125, high=0.5)
    rows = [
        Row("popularity", "1-2", metric, interval, targets=8, users=5)
        for metric in ("mrr@20", "recall@20")
    ]
    assert bucket_rows(rows, metric="mrr@20") == [
        {
            "history": "1-2",
            "model": "popularity",
            "metric": "mrr@20",
            "value": 0.25,
            "low": 0.125,
            "high": 0.5,
            "targets": 8,
            "users": 5,
        }
    ]
