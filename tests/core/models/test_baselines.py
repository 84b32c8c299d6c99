"""Baselines: their probabilities as arithmetic, and that the future does not reach them."""

import numpy as np
import pytest

from recsys_core.data.events import Events
from recsys_core.models.baselines import (
    Popularity,
    fit_popularity,
    fit_recent_popularity,
    fit_transitions,
)
from tests.event_rows import HOUR, events_of, random_rows


def before(cut: int, hours: float | None) -> int | None:
    return None if hours is None else cut - round(hours * HOUR)


def probabilities(model, last_item: list[int]) -> np.ndarray:
    """(B, V) probabilities; the scores must be a distribution over the vocabulary without PAD."""
    out = np.full((len(last_item), model.n_items + 1), np.nan, dtype=np.float32)
    scores = model.scores(np.array(last_item, dtype=np.int32), out=out)
    assert scores.dtype == np.float32
    assert scores.shape == out.shape
    assert np.all(scores[:, 0] == -np.inf)
    found = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    return found[:, 1:]


# item 1 three times, 2 twice, 3 once, all before hour 10; item 4 never
LOG = events_of(
    [(1, 1, 0), (1, 2, HOUR), (1, 1, 2 * HOUR), (2, 1, 0), (2, 2, 5 * HOUR), (2, 3, 9 * HOUR)]
)


def test_popularity_is_the_count_plus_one():
    found = probabilities(fit_popularity(LOG, LOG.counts_before(10 * HOUR), n_items=4), [0, 1])
    np.testing.assert_allclose(found, [[4 / 10, 3 / 10, 2 / 10, 1 / 10]] * 2, rtol=1e-6)


def test_popularity_counts_up_to_the_cut_and_not_at_it():
    before = probabilities(fit_popularity(LOG, LOG.counts_before(5 * HOUR), n_items=2), [0])
    np.testing.assert_allclose(before, [[4 / 6, 2 / 6]], rtol=1e-6)


def test_recent_popularity_is_backed_off_by_all_of_it():
    # hours 5 and 9 are in the window of 5 hours: items 2 and 3 once, the weight of two events
    # behind
    model = fit_recent_popularity(
        LOG, LOG.counts_before(10 * HOUR), n_items=4, since=before(10 * HOUR, 5)
    )
    expected = (np.array([0, 1, 1, 0]) + 2 * np.array([4, 3, 2, 1]) / 10) / 4
    np.testing.assert_allclose(probabilities(model, [0]), [expected], rtol=1e-6)


def test_recent_popularity_of_an_empty_window_is_popularity():
    recent = fit_recent_popularity(
        LOG, LOG.counts_before(100 * HOUR), n_items=4, since=before(100 * HOUR, 1)
    )
    overall = fit_popularity(LOG, LOG.counts_before(100 * HOUR), n_items=4)
    np.testing.assert_allclose(recent.share, overall.share)


def test_an_item_of_a_late_delivery_counts_as_if_its_events_were_not_there():
    # item 4 has an early time but was not known at the cut: idx above n_items
    late = events_of(
        [(1, 1, 0), (1, 4, 1), (1, 2, HOUR), (1, 1, 2 * HOUR), (2, 1, 0), (2, 4, 9 * HOUR)]
    )
    overall = fit_popularity(late, late.counts_before(10 * HOUR), n_items=3)
    np.testing.assert_allclose(probabilities(overall, [0]), [[4 / 7, 2 / 7, 1 / 7]], rtol=1e-6)
    recent = fit_recent_popularity(
        late, late.counts_before(10 * HOUR), n_items=3, since=before(10 * HOUR, 5)
    )
    np.testing.assert_allclose(recent.share, overall.share)
    uniform = Popularity(np.array([0, 1, 1, 1]) / 3)
    model = fit_transitions(
        late, late.counts_before(10 * HOUR), backoff=uniform, since=before(10 * HOUR, None)
    )
    # 2 -> 1 once; nothing known directly follows 1
    found = probabilities(model, [1, 2])
    np.testing.assert_allclose(found[0], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(found[1], [(1 + 1 / 3) / 2, (1 / 3) / 2, (1 / 3) / 2], rtol=1e-6)


def test_transitions_are_counts_backed_off():
    uniform = Popularity(np.array([0, 1, 1, 1, 1]) / 4)
    model = fit_transitions(
        LOG, LOG.counts_before(10 * HOUR), backoff=uniform, since=before(10 * HOUR, None)
    )
    # 1 -> 2 twice (both users), 2 -> 1 once, 2 -> 3 once
    after_1 = (np.array([0, 2, 0, 0]) + 1 * 0.25) / 3
    after_2 = (np.array([1, 0, 1, 0]) + 2 * 0.25) / 4
    never = np.full(4, 0.25)
    found = probabilities(model, [1, 2, 3, 4, 0, 1])
    np.testing.assert_allclose(found, [after_1, after_2, never, never, never, after_1], rtol=1e-6)


def test_transitions_of_a_window_begin_anywhere_and_end_in_it():
    uniform = Popularity(np.array([0, 1, 1, 1, 1]) / 4)
    model = fit_transitions(
        LOG, LOG.counts_before(10 * HOUR), backoff=uniform, since=before(10 * HOUR, 5)
    )
    # at hour 5 user 2 goes from 1 to 2, at hour 9 from 2 to 3
    after_1 = (np.array([0, 1, 0, 0]) + 1 * 0.25) / 2
    np.testing.assert_allclose(probabilities(model, [1]), [after_1], rtol=1e-6)


def test_transitions_learn_a_cycle_and_popularity_does_not():
    # each user walks 1, 2, 3, 4, 1, ...: the last item says all, counts say nothing
    rows = [(user, (user + step) % 4 + 1, step) for step in range(20) for user in range(1, 9)]
    events = events_of(rows)
    popularity = fit_popularity(events, events.counts_before(20), n_items=4)
    transitions = fit_transitions(
        events, events.counts_before(20), backoff=popularity, since=before(20, None)
    )
    assert probabilities(transitions, [1, 2, 3, 4]).argmax(axis=1).tolist() == [1, 2, 3, 0]
    assert np.ptp(popularity.share[1:]) == pytest.approx(0.0)


def changed_after(events: Events, cut: int) -> Events:
    """The same log up to the cut; later events have other items, and half of them are gone."""
    rows = [
        (int(user), int(item) if time < cut else int(item) % 9 + 1, int(time))
        for user, item, time, row in zip(
            events.user_idx, events.item_idx, events.timestamp, events.source_row, strict=True
        )
        if time < cut or row % 2
    ]
    return events_of(rows)


def test_the_future_changes_no_score():
    events = events_of(random_rows(500, users=30, items=9, end=50 * HOUR))
    cut = 30 * HOUR
    future = changed_after(events, cut)
    assert len(future) < len(events)
    for hours in (1.0, 24.0):
        here = fit_recent_popularity(
            events, events.counts_before(cut), n_items=9, since=before(cut, hours)
        )
        there = fit_recent_popularity(
            future, future.counts_before(cut), n_items=9, since=before(cut, hours)
        )
        assert np.array_equal(here.share, there.share)
    here, there = (
        fit_popularity(log, log.counts_before(cut), n_items=9) for log in (events, future)
    )
    assert np.array_equal(here.share, there.share)
    for window in (None, 6.0):
        every = list(range(10))
        found = [
            probabilities(
                fit_transitions(
                    log, log.counts_before(cut), backoff=here, since=before(cut, window)
                ),
                every,
            )
            for log in (events, future)
        ]
        assert np.array_equal(found[0], found[1])
    # and the past does
    later = fit_popularity(events, events.counts_before(cut + 10 * HOUR), n_items=9)
    assert not np.array_equal(here.share, later.share)
