"""Item-item models against naive loops, and by answers known by construction."""

import dataclasses

import numpy as np
import pytest

from recsys_core.errors import ModelError
from recsys_core.models.baselines import Popularity, fit_transitions
from recsys_core.models.item_neighbours import ItemNeighboursSettings, fit_item_neighbours
from recsys_core.models.item_table import (
    ItemTableScores,
    table_of_array,
    transition_shares,
    transition_table,
)
from recsys_core.models.linear_items import (
    LARGEST_CATALOGUE,
    LinearItemsAndTransitions,
    LinearItemsSettings,
    fit_linear_items,
)
from tests.event_rows import events_of, random_rows
from tests.history_batches import everything, histories_of, log_of_sets, scores_of

COSINE = ItemNeighboursSettings(
    shrink=0.0, balance=0.5, breadth=0.0, neighbours=10, recency=0.0, latest=100
)
RIDGE = LinearItemsSettings(l2=2.0, recency=0.0, latest=100)
RANDOM = events_of(random_rows(400, users=30, items=14, end=1000))


def sets_of(events, counts, n_items, latest):
    """The items of each user, by the definition."""
    sets = []
    for user in range(1, events.n_users + 1):
        first = events.offsets[user]
        items = [i for i in events.item_idx[first : first + counts[user]].tolist() if i <= n_items]
        sets.append(set(items[-latest:]))
    return sets


@pytest.mark.parametrize("n_items", [14, 12])
@pytest.mark.parametrize(
    "settings",
    [
        COSINE,
        ItemNeighboursSettings(
            shrink=3.0, balance=0.7, breadth=0.5, neighbours=4, recency=1.0, latest=8
        ),
    ],
)
def test_item_neighbours_are_what_the_equations_say(settings, n_items):
    counts = everything(RANDOM) * 2 // 3
    sets = sets_of(RANDOM, counts, n_items, settings.latest)
    c = np.zeros((n_items + 1, n_items + 1))
    for had in sets:
        for i in had:
            for j in had:
                c[i, j] += len(had) ** -settings.breadth
    model = fit_item_neighbours(RANDOM, counts, n_items=n_items, settings=settings)
    for i in range(1, n_items + 1):
        weight = {}
        for j in range(1, n_items + 1):
            if j != i and c[i, j] > 0:
                size = c[i, i] ** settings.balance * c[j, j] ** (1 - settings.balance)
                weight[j] = c[i, j] / (size + settings.shrink)
        nearest = sorted(weight.values(), reverse=True)[: settings.neighbours]
        found = model.table.weight[i]
        np.testing.assert_allclose(found[: len(nearest)], nearest, rtol=1e-5)
        assert np.all(found[len(nearest) :] == 0)
        for neighbour, value in zip(model.table.neighbour[i], found, strict=True):
            if neighbour:
                assert value == pytest.approx(weight[int(neighbour)], rel=1e-5)


def test_a_history_sums_its_items_each_once_and_older_ones_less():
    model = fit_item_neighbours(RANDOM, everything(RANDOM), n_items=14, settings=COSINE)
    w = model.table.matrix.toarray()[:, 1:]
    batch = histories_of([3, 5, 3], [], [5])
    np.testing.assert_allclose(scores_of(model, batch), [w[3] + w[5], 0 * w[3], w[5]], rtol=1e-5)
    recent = dataclasses.replace(model, recency=2.0)
    np.testing.assert_allclose(scores_of(recent, batch)[0], w[3] + w[5] / 4, rtol=1e-5)


def test_of_equal_neighbours_the_lowest_item_is_kept():
    # 1 is had with 2, 3 and 4, once each
    log = log_of_sets([1, 4], [1, 3], [1, 2])
    two = dataclasses.replace(COSINE, neighbours=2)
    table = fit_item_neighbours(log, everything(log), n_items=5, settings=two).table
    assert table.neighbour[1].tolist() == [2, 3]
    np.testing.assert_allclose(table.weight[1], 1 / np.sqrt(3), rtol=1e-6)
    # item 5 never occurred
    assert table.neighbour[5].tolist() == [0, 0]
    assert table.neighbour[0].tolist() == [0, 0]


def test_blocks_change_no_neighbour(monkeypatch):
    whole = fit_item_neighbours(RANDOM, everything(RANDOM), n_items=14, settings=COSINE).table
    ease = fit_linear_items(RANDOM, everything(RANDOM), n_items=14, settings=RIDGE)
    for module in ("item_neighbours", "linear_items"):
        monkeypatch.setattr(f"recsys_core.models.{module}.PRODUCT_ENTRIES", 50)
    parts = fit_item_neighbours(RANDOM, everything(RANDOM), n_items=14, settings=COSINE).table
    assert np.array_equal(whole.neighbour, parts.neighbour)
    assert np.array_equal(whole.weight, parts.weight)
    again = fit_linear_items(RANDOM, everything(RANDOM), n_items=14, settings=RIDGE)
    assert np.array_equal(ease.weight, again.weight)


@pytest.mark.parametrize("n_items", [14, 12, 3])
def test_ease_is_its_closed_form(n_items):
    counts = everything(RANDOM) // 2
    x = np.zeros((RANDOM.n_users, n_items))
    for user, had in enumerate(sets_of(RANDOM, counts, n_items, 100)):
        x[user, [item - 1 for item in had]] = 1.0
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(n_items))
    expected = np.eye(n_items) - inverse / np.diag(inverse)
    model = fit_linear_items(RANDOM, counts, n_items=n_items, settings=RIDGE)
    np.testing.assert_allclose(model.weight[1:, 1:], expected, atol=1e-5)
    assert not model.weight[0].any()
    assert not model.weight[:, 0].any()
    assert not np.diag(model.weight).any()
    # and each column is the ridge from the others: the gradient is zero
    for j in range(n_items):
        others = [i for i in range(n_items) if i != j]
        b = expected[others, j]
        gradient = x[:, others].T @ (x[:, others] @ b - x[:, j]) + 2.0 * b
        np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_ease_of_more_items_than_a_block_of_columns():
    events = events_of(random_rows(3000, users=200, items=700, end=1000))
    model = fit_linear_items(events, everything(events), n_items=700, settings=RIDGE)
    x = np.zeros((200, 700))
    x[events.user_idx - 1, events.item_idx - 1] = 1.0
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(700))
    np.testing.assert_allclose(
        model.weight[1:, 1:], np.eye(700) - inverse / np.diag(inverse), atol=1e-5
    )


def test_ease_scores_and_its_table():
    model = fit_linear_items(RANDOM, everything(RANDOM), n_items=14, settings=RIDGE)
    w = model.weight[:, 1:]
    batch = histories_of([3, 5, 3], [], [5])
    np.testing.assert_allclose(
        scores_of(model, batch), [w[3] + w[5], 0 * w[3], w[5]], rtol=1e-4, atol=1e-6
    )
    recent = dataclasses.replace(model, recency=1.0)
    np.testing.assert_allclose(scores_of(recent, batch)[0], w[3] + w[5] / 2, rtol=1e-4, atol=1e-6)
    # a table with room for all is the same model; a short one keeps what weighs most
    whole = ItemTableScores(model.table(14), recency=1.0)
    np.testing.assert_allclose(scores_of(whole, batch), scores_of(recent, batch), atol=1e-6)
    short = model.table(3)
    for item in range(1, 15):
        largest = np.sort(np.abs(model.weight[item]))[::-1][:3]
        np.testing.assert_array_equal(np.abs(short.weight[item]), largest)
        np.testing.assert_array_equal(model.weight[item, short.neighbour[item]], short.weight[item])


def test_negative_weights_keep_their_sign_in_a_table():
    weight = np.array([[0, 0, 0, 0], [0, 0, -3, 1], [0, 2, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    table = table_of_array(weight, 2)
    assert table.neighbour.tolist() == [[0, 0], [2, 3], [1, 0], [0, 0]]
    assert table.weight.tolist() == [[0, 0], [-3, 1], [2, 0], [0, 0]]
    assert np.array_equal(table.matrix.toarray(), weight)


def test_ease_refuses_a_catalogue_that_does_not_fit():
    with pytest.raises(ModelError, match=f"25001 items.*at most {LARGEST_CATALOGUE}"):
        fit_linear_items(RANDOM, everything(RANDOM), n_items=25_001, settings=RIDGE)


def test_ease_refuses_a_ridge_that_cannot_be_solved():
    log = log_of_sets([1, 2], [1, 2])
    settings = dataclasses.replace(RIDGE, l2=0.0)
    with pytest.raises(ModelError, match="choose a larger l2"):
        fit_linear_items(log, everything(log), n_items=2, settings=settings)


def test_one_user_and_one_item():
    log = log_of_sets([1, 1])
    batch = histories_of([1], [])
    ease = fit_linear_items(log, everything(log), n_items=1, settings=RIDGE)
    near = fit_item_neighbours(log, everything(log), n_items=1, settings=COSINE)
    assert scores_of(ease, batch).tolist() == [[0.0], [0.0]]
    assert scores_of(near, batch).tolist() == [[0.0], [0.0]]


def test_a_log_in_which_nothing_is_known():
    nothing = np.zeros(RANDOM.n_users + 1, dtype=np.int64)
    batch = histories_of([3, 5], [])
    for model in (
        fit_linear_items(RANDOM, nothing, n_items=14, settings=RIDGE),
        fit_item_neighbours(RANDOM, nothing, n_items=14, settings=COSINE),
    ):
        assert not scores_of(model, batch).any()


def transitions_of(events, n_items):
    uniform = Popularity(np.array([0.0, *[1 / n_items] * n_items]))
    return fit_transitions(events, everything(events), backoff=uniform, since=None)


def test_shares_are_transitions_without_their_backoff():
    # 1 is followed by 2 twice, by 3 once
    log = log_of_sets([1, 2], [1, 2], [1, 3], [4])
    shares = transition_shares(transitions_of(log, 4)).toarray()
    assert shares[1].tolist() == pytest.approx([0, 0, 2 / 5, 1 / 5, 0])
    assert not shares[[0, 2, 3, 4]].any()
    table = transition_table(transitions_of(log, 4), 1)
    assert table.neighbour[:, 0].tolist() == [0, 2, 0, 0, 0]
    assert table.weight[1, 0] == pytest.approx(2 / 5)


def test_ease_and_transitions_are_added():
    ease = fit_linear_items(RANDOM, everything(RANDOM), n_items=14, settings=RIDGE)
    shares = transition_shares(transitions_of(RANDOM, 14))
    model = LinearItemsAndTransitions(ease, shares, 0.5)
    batch = histories_of([3, 5], [], [9])
    expected = scores_of(ease, batch) + 0.5 * shares.toarray()[[5, 0, 9], 1:]
    np.testing.assert_allclose(scores_of(model, batch), expected, rtol=1e-5)


def test_what_goes_together_is_found():
    # even items are had together, and odd ones
    rng = np.random.default_rng(4)
    users = [(2 * rng.permutation(6)[:4] + 1 + user % 2).tolist() for user in range(60)]
    log = log_of_sets(*users)
    batch = histories_of([1, 3], [2, 4])
    for model in (
        fit_item_neighbours(log, everything(log), n_items=12, settings=COSINE),
        fit_linear_items(log, everything(log), n_items=12, settings=RIDGE),
    ):
        found = scores_of(model, batch)
        assert found[0, [4, 6, 8, 10]].min() > found[0, 1::2].max()
        assert found[1, [5, 7, 9, 11]].min() > found[1, 0::2].max()


def test_the_future_changes_nothing():
    counts = everything(RANDOM) // 2
    past = np.flatnonzero(RANDOM.position < counts[RANDOM.user_idx])
    items = np.array(RANDOM.item_idx)
    changed = items % 14 + 1
    changed[past] = items[past]
    future = dataclasses.replace(RANDOM, item_idx=changed.astype(np.int32))
    for log in (fit_item_neighbours, fit_linear_items):
        settings = COSINE if log is fit_item_neighbours else RIDGE
        here, there = (
            scores_of(log(events, counts, n_items=14, settings=settings), histories_of([1, 2]))
            for events in (RANDOM, future)
        )
        assert np.array_equal(here, there)
