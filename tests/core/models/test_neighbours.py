"""User and session neighbours against naive loops, and by answers known by construction."""

import dataclasses
import math

import numpy as np
import pytest

from recsys_core.models.session_neighbours import (
    MICROSECONDS_PER_DAY,
    SessionNeighboursSettings,
    fit_session_neighbours,
)
from recsys_core.models.user_neighbours import UserNeighboursSettings, fit_user_neighbours
from tests.event_rows import events_of, random_rows
from tests.history_batches import (
    everything,
    gathered,
    histories_of,
    log_of_sessions,
    log_of_sets,
    scores_of,
)

NEAREST = UserNeighboursSettings(recency=0.0, rarity=0.0, neighbours=5, latest=100)
RANDOM = events_of(random_rows(400, users=30, items=14, end=1000))
STAN = SessionNeighboursSettings(
    own_events=2.0,
    days=3.0,
    between_events=4.0,
    neighbours=6,
    recent=1000,
    own_items=True,
    whole_users=False,
)


@pytest.mark.parametrize("settings", [NEAREST, UserNeighboursSettings(1.0, 0.5, 200, 5)])
def test_user_neighbours_are_what_the_equations_say(settings):
    counts = everything(RANDOM) // 2
    users = []
    for user in range(1, RANDOM.n_users + 1):
        first = RANDOM.offsets[user]
        items = [i for i in RANDOM.item_idx[first : first + counts[user]].tolist() if i <= 12]
        users.append(set(items[-settings.latest :]))
    batch = histories_of([3, 5, 3, 9], [1], [])
    found = scores_of(fit_user_neighbours(RANDOM, counts, n_items=12, settings=settings), batch)
    had_by = [sum(item in had for had in users) for item in range(13)]
    for row, ages in enumerate([{9: 0, 3: 1, 5: 2}, {1: 0}, {}]):
        own = {
            item: (1 + age) ** -settings.recency * had_by[item] ** -settings.rarity
            for item, age in ages.items()
        }
        near = []
        for number, had in enumerate(users):
            if own.keys() & had:
                shared = sum(own[item] for item in own.keys() & had)
                near.append((-shared / math.sqrt(len(had)), number))
        expected = np.zeros(12)
        for weight, number in sorted(near)[: settings.neighbours]:
            for item in users[number]:
                expected[item - 1] -= weight
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_of_equally_near_users_the_lowest_count():
    log = log_of_sets([1, 2], [1, 3], [1, 4], [5])
    settings = dataclasses.replace(NEAREST, neighbours=2)
    model = fit_user_neighbours(log, everything(log), n_items=5, settings=settings)
    share = 1 / math.sqrt(2)
    np.testing.assert_allclose(
        scores_of(model, histories_of([1])), [[2 * share, share, share, 0, 0]], rtol=1e-6
    )


def test_blocks_of_requests_change_no_score(monkeypatch):
    requests = histories_of([1, 2], [3], [4, 5, 6], [], [7])
    models = (
        fit_user_neighbours(RANDOM, everything(RANDOM), n_items=14, settings=NEAREST),
        fit_session_neighbours(RANDOM, everything(RANDOM), n_items=14, settings=STAN),
    )
    whole = [scores_of(model, requests) for model in models]
    for module in ("user_neighbours", "session_neighbours"):
        monkeypatch.setattr(f"recsys_core.models.{module}.PRODUCT_ENTRIES", 20)
    for model, scores in zip(models, whole, strict=True):
        assert scores.any()
        assert np.array_equal(scores_of(model, requests), scores)


def random_sessions(n, *, seed):
    """Sessions of 1 to 6 events of eight users, whose times are all different."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(10_000, n, replace=False)) * (MICROSECONDS_PER_DAY // 1000)
    return [
        (int(rng.integers(1, 9)), int(time), rng.integers(1, 13, rng.integers(1, 7)).tolist())
        for time in times
    ]


def naive_stan(sessions, current, settings, n_items):
    """Garg et al., equations 2 to 5, one session at a time."""
    last = {}
    for place, item in enumerate(current):
        last[item] = place
    own = {
        item: math.exp((place - len(current) + 1) / settings.own_events)
        for item, place in last.items()
    }
    latest = max(time + len(items) - 1 for _, time, items in sessions)
    near = []
    for _, time, items in sessions:
        places = {item: place for place, item in enumerate(items)}
        together = sum(own[item] for item in own if item in places)
        if together == 0:
            continue
        end = time + len(items) - 1
        weight = together / math.sqrt(len(places))
        if settings.days is not None:
            weight *= math.exp((end - latest) / MICROSECONDS_PER_DAY / settings.days)
        near.append((-weight, -end, places))
    scores = np.zeros(n_items)
    for weight, _, places in sorted(near, key=lambda pair: pair[:2])[: settings.neighbours]:
        match = max((item for item in own if item in places), key=lambda item: last[item])
        for item, place in places.items():
            between = abs(place - places[match])
            scores[item - 1] -= weight * math.exp(-between / settings.between_events)
    return scores


@pytest.mark.parametrize("days", [3.0, None])
@pytest.mark.parametrize("neighbours", [3, 100])
def test_session_neighbours_are_what_the_equations_say(days, neighbours):
    sessions = random_sessions(80, seed=6)
    log = log_of_sessions(*sessions)
    settings = dataclasses.replace(STAN, days=days, neighbours=neighbours)
    model = fit_session_neighbours(log, everything(log), n_items=12, settings=settings)
    requests = [[4], [1, 2, 3], [5, 6, 5, 7], [12, 11, 12]]
    found = scores_of(model, histories_of(*requests))
    for row, current in enumerate(requests):
        expected = naive_stan(sessions, current, settings, 12)
        # the naive score lacks 1 / sqrt(|s|), alike for all items
        np.testing.assert_allclose(found[row], expected, rtol=2e-5)


def test_a_user_may_be_one_session():
    log = log_of_sessions(*random_sessions(80, seed=6))
    one = dataclasses.replace(log, session_idx=log.user_idx.astype(np.int64))
    whole = dataclasses.replace(STAN, whole_users=True)
    model = fit_session_neighbours(log, everything(log), n_items=12, settings=whole)
    same = fit_session_neighbours(one, everything(log), n_items=12, settings=STAN)
    users, history = [1, 2, 3], [5, 0, 9]
    np.testing.assert_array_equal(
        scores_of(model, gathered(log, users, history)),
        scores_of(same, gathered(one, users, history)),
    )


def test_own_items_may_be_left_out():
    log = log_of_sessions(*random_sessions(80, seed=6))
    batch = histories_of([4], [1, 2, 3], [12, 11, 12])
    others = dataclasses.replace(STAN, own_items=False)
    expected, found = (
        scores_of(fit_session_neighbours(log, everything(log), n_items=12, settings=one), batch)
        for one in (STAN, others)
    )
    own = np.zeros(expected.shape, dtype=bool)
    own[batch.row, batch.item_idx - 1] = True
    assert np.all(expected[own] > 0)
    np.testing.assert_array_equal(found, np.where(own, 0, expected))


def test_only_the_session_of_the_last_event_is_read():
    log = log_of_sessions((1, 0, [1, 2]), (2, 10, [3, 4]), (3, 20, [1, 5]), (3, 30, [3, 6]))
    model = fit_session_neighbours(log, everything(log), n_items=6, settings=STAN)
    # user 3 has read 1, 5 in one session, then 3 in another
    found = scores_of(model, gathered(log, [3, 1, 2], [3, 0, 1]))
    assert np.flatnonzero(found[0]).tolist() == [2, 3, 5]
    assert not found[1].any()
    np.testing.assert_array_equal(found[0], found[2])


def test_sessions_that_overlap_stay_apart():
    # user 1 reads 1 and 3 in one session and, in between, 2 and 4 in another
    log = log_of_sessions((1, 0, [1]), (1, 1, [2]), (1, 2, [3]), (1, 3, [4]))
    log = dataclasses.replace(log, session_idx=np.array([1, 2, 1, 2]))
    model = fit_session_neighbours(log, everything(log), n_items=4, settings=STAN)
    assert np.flatnonzero(scores_of(model, histories_of([1]))[0]).tolist() == [0, 2]
    assert np.flatnonzero(scores_of(model, histories_of([4]))[0]).tolist() == [1, 3]


def test_recent_sessions_count_more_and_old_ones_may_be_left_out():
    day = MICROSECONDS_PER_DAY
    log = log_of_sessions((1, 0, [1, 2]), (2, 5 * day, [1, 3]), (3, 6 * day, [1, 4]))
    model = fit_session_neighbours(log, everything(log), n_items=4, settings=STAN)
    found = scores_of(model, histories_of([1]))[0]
    assert found[3] > found[2] > found[1] > 0
    np.testing.assert_allclose(found[1] / found[3], math.exp(-2.0), rtol=1e-5)
    short = dataclasses.replace(STAN, recent=2)
    model = fit_session_neighbours(log, everything(log), n_items=4, settings=short)
    found = scores_of(model, histories_of([1]))[0]
    assert found[1] == 0
    assert found[2] > 0
    # with one neighbour and no decay, of equally near sessions the latest is taken
    alike = dataclasses.replace(STAN, days=None, neighbours=1)
    model = fit_session_neighbours(log, everything(log), n_items=4, settings=alike)
    assert np.flatnonzero(scores_of(model, histories_of([1]))[0]).tolist() == [0, 3]


def test_of_a_long_session_the_latest_events_are_read():
    log = log_of_sets([*range(1, 151)], [1, 151])
    log = dataclasses.replace(log, session_idx=log.user_idx.astype(np.int64))
    model = fit_session_neighbours(log, everything(log), n_items=151, settings=STAN)
    assert not scores_of(model, histories_of([50]))[0].any()
    found = scores_of(model, histories_of([51]))[0]
    assert np.flatnonzero(found).tolist() == [*range(50, 150)]
    # and of the request: an item from before them matches nothing
    assert not scores_of(model, histories_of([51, *[50] * 100]))[0].any()


def test_counts_and_vocabulary_bound_what_is_known():
    log = log_of_sessions((1, 0, [1, 2, 5, 3]), (2, 10, [1, 4]))
    counts = np.array([0, 3, 0])
    model = fit_session_neighbours(log, counts, n_items=4, settings=STAN)
    assert np.flatnonzero(scores_of(model, histories_of([1]))[0]).tolist() == [0, 1]
    users = fit_user_neighbours(log, counts, n_items=4, settings=NEAREST)
    assert np.flatnonzero(scores_of(users, histories_of([1]))[0]).tolist() == [0, 1]


def test_a_log_in_which_nothing_is_known():
    nothing = np.zeros(RANDOM.n_users + 1, dtype=np.int64)
    batch = histories_of([3, 5], [])
    for model in (
        fit_user_neighbours(RANDOM, nothing, n_items=14, settings=NEAREST),
        fit_session_neighbours(RANDOM, nothing, n_items=14, settings=STAN),
    ):
        assert not scores_of(model, batch).any()
