"""Stage one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_core.data.cuts import Cut
from recsys_core.models.fold_in import FOLD_IN_LIMIT, FoldIn
from recsys_core.sections import TrainEmbeddings
from recsys_core.training.fit_embeddings import FOLD_IN_L2, EmbeddingTrainer, choose_fold_in_l2
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from recsys_core.training.samplers import Candidates
from recsys_core.training.validation import Validation
from tests.markov_log import (
    CPU,
    CUT,
    N_ITEMS,
    STAGE_ONE,
    log_of,
    markov_events,
    other_future,
    taste_events,
    validation_of,
    without_item,
)
from tests.serving_world import make_events


def fitted(
    log: LogUntil,
    params: TrainEmbeddings = STAGE_ONE,
    *,
    epochs: int = 3,
    validation: Validation | None = None,
) -> EmbeddingTrainer:
    trainer = EmbeddingTrainer(log, params, seed=1, device=CPU, validation=validation)
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass
    return trainer


def checkerboard() -> LogUntil:
    """Users of an even number like even items, the others odd ones; each has seven of the eight."""
    histories = [
        [item for item in range(1, 17) if item % 2 == user % 2 and (item - 1) // 2 != user // 2 % 8]
        for user in range(40)
    ]
    events = make_events(histories)
    return LogUntil(events, Cut.at(events, int(events.timestamp.max()) + 1, n_items=16))


def test_checkerboard() -> None:
    log = checkerboard()
    assert set(log.counts[1:]) == {7}
    trainer = fitted(log, epochs=60)
    scores = trainer.user_vectors @ trainer.item_vectors.T + trainer.item_bias
    even = np.arange(41) % 2 == 1  # user_idx 1 is user 0
    own = np.where(even[1:, None], np.arange(2, 17, 2), np.arange(1, 17, 2))
    others = np.where(even[1:, None], np.arange(1, 17, 2), np.arange(2, 17, 2))
    lowest_own = np.take_along_axis(scores[1:], own, axis=1).min(axis=1)
    highest_other = np.take_along_axis(scores[1:], others, axis=1).max(axis=1)
    assert (lowest_own > highest_other).all(), "the item left out is of the user's own colour"


def test_every_item_is_a_target_in_every_epoch() -> None:
    log = log_of(markov_events(0.9))
    asked: list[np.ndarray] = []

    class Listening(EmbeddingTrainer):
        def _step(self, users: Tensor, items: Tensor, weights: Tensor, drawn: Candidates) -> float:
            asked.append(items.numpy())
            return super()._step(users, items, weights, drawn)

    trainer = Listening(log, STAGE_ONE, seed=1, device=CPU, validation=None)
    expected = np.bincount(log.events.item_idx[log.rows], minlength=N_ITEMS + 1)
    assert (expected[1:] > 0).all()
    orders = []
    for number in (1, 2):
        asked.clear()
        assert [done for done, _, _ in trainer.epoch(number)][-1] == len(log.rows)
        orders.append(np.concatenate(asked))
        np.testing.assert_array_equal(np.bincount(orders[-1], minlength=N_ITEMS + 1), expected)
    assert not np.array_equal(*orders), "each epoch has an order of its own"


def nearness(trainer: EmbeddingTrainer) -> np.ndarray:
    """How far <v_i, v_j> of item i and its successor j is above that of i and any other. (V,)"""
    vectors = trainer.item_vectors[1:]
    products = vectors @ vectors.T
    item = np.arange(N_ITEMS)
    others = (products.sum(axis=1) - products[item, item]) / (N_ITEMS - 1)
    return np.asarray(products[item, (item + 1) % N_ITEMS] - others)


@pytest.mark.parametrize("half_life_days", [None, 0.5])
def test_every_known_item_has_a_trained_vector(half_life_days: float | None) -> None:
    """It carries who else liked it, also where old events hardly count; a model that never had the
    item as a target does not know that."""
    params = replace(STAGE_ONE, half_life_days=half_life_days)
    events = markov_events(0.95)
    trained = fitted(log_of(events), params, epochs=6)
    assert (nearness(trained) > 1.0).all()
    assert not trained.item_vectors[0].any()
    for item in (1, 7, N_ITEMS):
        ignorant = fitted(log_of(without_item(events, item)), params, epochs=6)
        assert nearness(ignorant)[item - 1] < 0.5 * nearness(trained)[item - 1], item


@pytest.mark.parametrize("half_life_days", [None, 0.5])
def test_the_future_changes_nothing(half_life_days: float | None) -> None:
    """Neither other events after the cut, nor fewer or more of them, nor new users and items."""
    params = replace(STAGE_ONE, half_life_days=half_life_days)
    events = markov_events(0.9)
    other = other_future(events, CUT)
    assert other.n_users > events.n_users
    assert other.item_idx.max() > N_ITEMS
    one, two = (fitted(log_of(log), params, epochs=2) for log in (events, other))
    np.testing.assert_array_equal(one.item_vectors, two.item_vectors)
    np.testing.assert_array_equal(one.item_bias, two.item_bias)
    np.testing.assert_array_equal(one.user_vectors, two.user_vectors[: events.n_users + 1])
    assert not two.user_vectors[events.n_users + 1 :].any()


def test_users_without_training_events_stay_at_zero() -> None:
    events = markov_events(0.9)
    log = log_of(events, until=int(np.sort(events.timestamp)[30]))
    trainer = fitted(log, epochs=1)
    trained = trainer.user_vectors.any(axis=1)
    np.testing.assert_array_equal(trained, log.counts > 0)


def test_the_same_seed_gives_the_same_weights() -> None:
    log = log_of(markov_events(0.5))
    torch.manual_seed(1)
    one = fitted(log, epochs=2)
    torch.manual_seed(2)
    two = fitted(log, epochs=2)
    np.testing.assert_array_equal(one.user_vectors, two.user_vectors)


def test_it_starts_as_popularity() -> None:
    log = log_of(markov_events(0.0))
    trainer = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)
    share = np.bincount(log.events.item_idx[log.rows], minlength=31)[1:] / len(log.rows)
    np.testing.assert_allclose(np.exp(trainer.item_bias[1:]), share, rtol=1e-5)


def test_the_fold_in_is_chosen_where_it_predicts_best() -> None:
    events = taste_events()
    validation = validation_of(events)
    trainer = fitted(log_of(events), validation=validation, epochs=6)
    chosen = choose_fold_in_l2(trainer, validation, events=events)

    def metric(l2: float) -> float:
        fold_in = FoldIn.fit(trainer.item_vectors, trainer.item_bias, l2=l2, limit=FOLD_IN_LIMIT)
        return validation.metric(
            lambda user_idx, history: fold_in.vectors(events, user_idx, count=history),
            trainer.item_vectors,
            trainer.item_bias,
        )

    metrics = {l2: metric(l2) for l2 in FOLD_IN_L2}
    assert max(metrics.values()) > max(metrics[FOLD_IN_L2[0]], metrics[FOLD_IN_L2[-1]])
    assert chosen.fold_in_l2 == max(metrics, key=lambda l2: metrics[l2])
    np.testing.assert_array_equal(chosen.items, trainer.item_vectors)
