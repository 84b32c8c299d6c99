"""Stage one."""

import numpy as np
import torch

from recsys_core.training.fit_embeddings import EmbeddingTrainer, choose_fold_in_l2
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from recsys_core.training.validation import Validation
from tests.markov_log import CPU, CUT, STAGE_ONE, after, log_of, markov_events, validation_of
from tests.serving_world import make_events


def fitted(
    log: LogUntil, *, epochs: int = 3, validation: Validation | None = None
) -> EmbeddingTrainer:
    trainer = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=validation)
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass
    return trainer


def checkerboard() -> LogUntil:
    """Users of an even number like even items, the others odd ones; each has bought all but one of
    eight."""
    histories = [
        [item for item in range(1, 17) if item % 2 == user % 2 and item != missing]
        for user in range(40)
        for missing in [1 + user % 16]
    ]
    events = make_events(histories)
    return LogUntil(events, int(events.timestamp.max()) + 1, 16)


def test_checkerboard() -> None:
    log = checkerboard()
    trainer = fitted(log, epochs=60)
    scores = trainer.user_vectors @ trainer.item_vectors.T + trainer.item_bias
    even = np.arange(41) % 2 == 1  # user_idx 1 is user 0
    own = np.where(even[1:, None], np.arange(2, 17, 2), np.arange(1, 17, 2))
    others = np.where(even[1:, None], np.arange(1, 17, 2), np.arange(2, 17, 2))
    lowest_own = np.take_along_axis(scores[1:], own, axis=1).min(axis=1)
    highest_other = np.take_along_axis(scores[1:], others, axis=1).max(axis=1)
    assert (lowest_own > highest_other).all(), "the item left out is of the user's own colour"


def test_every_known_item_has_a_trained_vector() -> None:
    log = log_of(markov_events(0.9))
    before = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)
    trained = fitted(log, epochs=1)
    moved = (before.item_vectors != trained.item_vectors).any(axis=1)
    assert moved[1:].all()
    assert not trained.item_vectors[0].any()


def test_the_future_changes_nothing() -> None:
    events = markov_events(0.9)
    one, two = (fitted(log_of(log), epochs=1) for log in (events, after(events, CUT, 5)))
    np.testing.assert_array_equal(one.item_vectors, two.item_vectors)
    np.testing.assert_array_equal(one.user_vectors, two.user_vectors)


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
    events = markov_events(0.9)
    validation = validation_of(events)
    trainer = fitted(log_of(events), validation=validation)
    chosen = choose_fold_in_l2(trainer, validation, events=events)
    assert chosen.fold_in_l2 in (1.0, 3.0, 10.0, 30.0, 100.0)
    np.testing.assert_array_equal(chosen.items, trainer.item_vectors)
