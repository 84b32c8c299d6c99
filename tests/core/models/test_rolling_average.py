"""The rolling average of ratings, against counting one by one."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import DataError
from recsys_core.models.rolling_average import rolling_average
from tests.event_rows import events_of, period_of, random_rows


def rated(rows: list[tuple[int, int, int]], *, missing: float, seed: int = 1) -> Events:
    """Events with values from 1 to 5, a share of them missing."""
    rng = np.random.default_rng(seed)
    events = events_of(rows)
    value = rng.integers(1, 6, len(events)).astype(np.float32)
    value[rng.random(len(events)) < missing] = np.nan
    return replace(events, value=value)


def one_by_one(events: Events, cut: Cut, rows: np.ndarray) -> list[float]:
    known = cut.known(events)
    values = [(i, float(v)) for i, v in enumerate(events.value) if not np.isnan(v)]
    mean = np.mean([value for row, value in values if known[row]])
    expected = []
    for row in rows:
        item, user = events.item_idx[row], events.user_idx[row]
        of_item = [v for i, v in values if known[i] and events.item_idx[i] == item]
        of_user = [v for i, v in values if events.user_idx[i] == user and i < row]
        averages = [np.mean(one) if one else mean for one in (of_item, of_user)]
        expected.append(float(np.mean(averages)))
    return expected


def asked_for(events: Events, cut: Cut, rows: np.ndarray) -> np.ndarray:
    return rolling_average(events, cut, rows, item_idx=events.item_idx[rows])


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_against_counting_one_by_one(missing: float) -> None:
    events = rated(random_rows(400, users=20, items=40, end=1000), missing=missing)
    cut = period_of(events, 500, 1000, n_items=40).before
    rows = np.flatnonzero(~cut.known(events))
    assert len(rows) > 50
    found = asked_for(events, cut, rows)
    np.testing.assert_allclose(found, one_by_one(events, cut, rows), rtol=1e-9)


def test_what_is_asked_for_is_not_looked_at() -> None:
    events = rated(random_rows(400, users=20, items=40, end=1000), missing=0.0)
    cut = period_of(events, 500, 1000, n_items=40).before
    last = events.offsets[1:][np.diff(events.offsets, append=0)[1:] > 0][:5]
    rows = np.unique(np.clip(last - 1, 0, len(events) - 1))
    rows = rows[~cut.known(events)[rows]]
    other = replace(events, value=np.where(np.isin(np.arange(len(events)), rows), 99, events.value))
    np.testing.assert_array_equal(asked_for(events, cut, rows), asked_for(other, cut, rows))


def test_without_any_value_there_is_no_average() -> None:
    events = rated(random_rows(50, users=5, items=5, end=1000), missing=1.1)
    cut = period_of(events, 500, 1000, n_items=5).before
    with pytest.raises(DataError, match=r"columns\.value"):
        asked_for(events, cut, np.array([1]))
