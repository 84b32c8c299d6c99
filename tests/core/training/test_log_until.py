"""The part of the log that a fit may see."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.errors import ConfigError
from recsys_core.training.log_until import MICROSECONDS_PER_DAY, OLDEST_WEIGHT, LogUntil
from tests.serving_world import MINUTE, START, make_events

EVENTS = make_events([[1, 2], [3], [1, 1, 2]])  # one a minute
LOG = LogUntil(EVENTS, Cut.at(EVENTS, START + 4 * MINUTE, n_items=3))


def test_rows_and_counts_end_before_the_time() -> None:
    assert LOG.rows.tolist() == [0, 1, 2, 3]
    assert LOG.counts.tolist() == [0, 2, 1, 1]


def test_without_a_half_life_all_weigh_one() -> None:
    assert LOG.weights(None).tolist() == [1.0] * 6


def test_an_event_a_half_life_older_weighs_half() -> None:
    weights = LOG.weights(MINUTE / MICROSECONDS_PER_DAY)
    np.testing.assert_allclose(weights[1:4] / weights[0:3], 2.0, rtol=1e-5)
    np.testing.assert_allclose(weights[LOG.rows].mean(), 1.0, rtol=1e-5)


def test_an_event_weighs_what_its_type_does_times_what_its_age_leaves() -> None:
    types = np.array([0, 1, 0, 1, 0, 0], dtype=np.int8)
    weighted = np.array([1.0, 3.0], dtype=np.float32)
    log = replace(LOG, events=replace(EVENTS, event_type=types), type_weights=weighted)
    np.testing.assert_allclose(log.weights(None)[:4], [0.5, 1.5, 0.5, 1.5])
    half_life = MINUTE / MICROSECONDS_PER_DAY
    ratio = log.weights(half_life)[:4] / LOG.weights(half_life)[:4]
    np.testing.assert_allclose(ratio / ratio[0], [1.0, 3.0, 1.0, 3.0], rtol=1e-5)


def test_no_event_falls_below_the_oldest_weight() -> None:
    weights = LOG.weights(0.25 * MINUTE / MICROSECONDS_PER_DAY)
    np.testing.assert_allclose(weights[0] / weights[3], OLDEST_WEIGHT * 2**4, rtol=1e-5)
    assert np.isfinite(weights).all()


def test_item_frequency_counts_what_may_be_seen() -> None:
    assert LOG.item_frequency(LOG.weights(None)).tolist() == [0.0, 2.0, 1.0, 1.0]


def test_a_half_life_needs_one_time() -> None:
    log = LogUntil(EVENTS, replace(LOG.cut, time=None))
    assert log.weights(None).tolist() == [1.0] * 6
    with pytest.raises(ConfigError, match="a half-life needs one time"):
        log.weights(1.0)
