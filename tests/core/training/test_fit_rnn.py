"""Stage two."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import ModelError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import Scorer, rank_targets
from recsys_core.evaluation.scorers import history_scorer, vector_scorer
from recsys_core.evaluation.targets import Targets, targets_of
from recsys_core.models.baselines import fit_popularity
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.history_model import FromLastItem
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Read, TrainRnn
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import TOGETHER, Phase, RnnTrainer
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Checkpoint, Fit
from recsys_core.training.rewards import Rewards
from recsys_core.training.validation import Validation
from tests.feature_log import known_features
from tests.markov_log import (
    CPU,
    CUT,
    N_ITEMS,
    STAGE_ONE,
    STAGE_TWO,
    log_of,
    markov_events,
    other_future,
    period_of,
    validation_of,
    without_item,
)
from tests.serving_world import MINUTE, make_events


def embeddings_of(log: LogUntil) -> Embeddings:
    trainer = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)
    for _ in Fit(trainer, phase="t", max_epochs=1, patience=None, checkpoint=None).run():
        pass
    return trainer.embeddings(fold_in_l2=10.0)


def trainer_of(
    log: LogUntil,
    params: TrainRnn = STAGE_TWO,
    *,
    validation: Validation | None = None,
    phase: Phase = TOGETHER,
    after: TwoTimeScale | None = None,
) -> RnnTrainer:
    return RnnTrainer(
        log,
        params,
        embeddings=embeddings_of(log),
        seed=1,
        device=CPU,
        validation=validation,
        phase=phase,
        after=after,
    )


def train(
    trainer: RnnTrainer, *, epochs: int, checkpoint: Checkpoint | None = None
) -> TwoTimeScale:
    fit = Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=checkpoint)
    for _ in fit.run():
        pass
    return trainer.finished_model()


def same(one: TwoTimeScale, two: TwoTimeScale) -> bool:
    return all(
        np.array_equal(value, two.to_arrays()[name]) for name, value in one.to_arrays().items()
    )


@pytest.mark.parametrize(("order", "low", "high"), [(0.95, 0.7, 1.0), (0.0, 0.0, 0.25)])
def test_it_learns_the_order_where_there_is_one(order: float, low: float, high: float) -> None:
    """Guessing among 30 items has an mrr@20 of about .12; a known successor nearly 1."""
    events = markov_events(order)
    validation = validation_of(events)
    params = replace(STAGE_TWO, max_epochs=15)
    trainer = trainer_of(log_of(events), params, validation=validation)
    train(trainer, epochs=15)
    assert low <= trainer.validate() <= high


def test_it_learns_the_order_without_a_time_input() -> None:
    events = markov_events(0.95)
    params = replace(STAGE_TWO, reads=(), max_epochs=15)
    trainer = trainer_of(log_of(events), params, validation=validation_of(events))
    model = train(trainer, epochs=15)
    assert 0.7 <= trainer.validate() <= 1.0
    assert model.inactive.read.in_features == STAGE_ONE.dim


@pytest.mark.parametrize(
    ("backbone", "loss", "score"),
    [
        ("lru", "softmax", "cosine"),
        ("lstm", "softmax", "dot"),
        ("lru", "sampled_softmax", "cosine"),
        ("lru", "bpr_max", "dot"),
    ],
)
def test_every_backbone_and_objective_learns_the_order(
    backbone: str, loss: str, score: str
) -> None:
    events = markov_events(0.95)
    params = replace(
        STAGE_TWO,
        backbone=backbone,
        depth=2,
        loss=loss,
        score=score,
        score_penalty=0.01,
        embedding_dropout=0.1,
        negatives=16,
        batch=128,
    )
    trainer = trainer_of(log_of(events), params, validation=validation_of(events))
    train(trainer, epochs=15)
    assert 0.6 <= trainer.validate() <= 1.0


def test_two_networks_begin_as_the_one_that_learned_from_everybody() -> None:
    """Whoever is folded in. Then each learns alone, and the item table stands still."""
    log, params = log_of(markov_events(0.95, users=400)), replace(STAGE_TWO, gamma=1.0)
    one = train(trainer_of(log, params), epochs=2)
    users = np.flatnonzero(log.counts)
    history = log.counts[users]

    def answers(model: TwoTimeScale) -> np.ndarray:
        return user_vectors(model, log.events, user_idx=users, history=history)

    said, items = answers(one), one.item_vectors.detach().clone()
    two = train(trainer_of(log, params, phase="inactive", after=one), epochs=0)
    active = two.input_spec.is_active(history)
    assert 0 < active.sum() < len(active)
    assert not one.input_spec.is_active(history).any()
    np.testing.assert_allclose(answers(two), said, rtol=1e-4, atol=1e-6)
    for phase, learner in (("inactive", ~active), ("active", active)):
        before = answers(two)
        two = train(trainer_of(log, params, phase=phase, after=two), epochs=1)
        np.testing.assert_array_equal((answers(two) != before).any(axis=1), learner)
    assert torch.equal(two.item_vectors, items)


def test_the_sampled_softmax_over_all_items_is_the_full_one() -> None:
    """As many negatives as items: the first epoch's loss is that of the full softmax."""
    log, losses = log_of(markov_events(0.9)), {}
    for loss in ("softmax", "sampled_softmax"):
        params = replace(STAGE_TWO, loss=loss, learning_rate_items=1e-6, batch=10**6)
        *_, (_, _, losses[loss]) = trainer_of(log, params).epoch(1)
    assert losses["softmax"] == pytest.approx(losses["sampled_softmax"], rel=1e-4)


def test_each_network_learns_in_its_own_phase() -> None:
    """A single epoch together leaves both guessing; alone each comes to predict the order, on the
    targets of its own cohort."""
    events = markov_events(0.95, users=400)
    log, params = log_of(events), replace(STAGE_TWO, t_star=10, max_epochs=15)
    targets = targets_of("successive", events, period_of(events), n_items=N_ITEMS)
    active = targets.history >= params.t_star
    assert 0.2 < active.mean() < 0.8
    cohorts = {"inactive": targets.take(~active), "active": targets.take(active)}

    def metric(scorer: Scorer, cohort: Targets) -> float:
        ranks = rank_targets(
            scorer,
            cohort,
            events=events,
            candidates=np.ones(N_ITEMS + 1, dtype=bool),
            batch=256,
            seen_filter=False,
        )
        return float(metric_of(ranks.rank, "mrr@20").mean())

    def metric_of_model(model: TwoTimeScale, cohort: Targets) -> float:
        vectors = user_vectors(
            model,
            events,
            user_idx=cohort.user_idx.astype(np.int64),
            history=cohort.history.astype(np.int64),
        )
        scorer = vector_scorer(
            vectors,
            item_vectors=model.item_vectors.detach().numpy(),
            item_bias=model.item_bias.detach().numpy(),
        )
        return metric(scorer, cohort)

    popularity = fit_popularity(events, events.counts_before(CUT), n_items=N_ITEMS)
    model = train(trainer_of(log, params), epochs=1)
    for phase in ("inactive", "active"):
        cohort = cohorts[phase]
        scorer = history_scorer(FromLastItem(popularity), events, cohort, likelihood=True)
        floor, before = metric(scorer, cohort), metric_of_model(model, cohort)
        model = train(trainer_of(log, params, phase=phase, after=model), epochs=12)
        after = metric_of_model(model, cohort)
        assert floor < 0.2
        assert before < 0.5
        assert after > max(0.5, before + 0.2)


def successor_scores(model: TwoTimeScale) -> np.ndarray:
    """After a history of item i alone: the score of its successor above the best other. (V,)"""
    histories = make_events([[item] for item in range(1, N_ITEMS + 1)])
    users = np.arange(1, N_ITEMS + 1)
    vectors = user_vectors(model, histories, user_idx=users, history=np.ones_like(users))
    scores = model.scores(torch.from_numpy(vectors)).detach().numpy()[:, 1:]  # (V, V)
    item = np.arange(N_ITEMS)
    successor = scores[item, (item + 1) % N_ITEMS]
    scores[item, (item + 1) % N_ITEMS] = -np.inf
    return np.asarray(successor - scores.max(axis=1))


def test_every_item_has_a_vector_that_stage_two_trained() -> None:
    """Each says what follows it and what it follows; those of a model that never met it do not."""
    events, params = markov_events(0.95), replace(STAGE_TWO, batch=128, ablation="one_rnn")
    trained = successor_scores(train(trainer_of(log_of(events), params), epochs=20))
    assert (trained > 0.5).all()
    guesses = []
    for item in (1, 7, N_ITEMS):
        log = log_of(without_item(events, item))
        ignorant = successor_scores(train(trainer_of(log, params), epochs=20))
        guesses.append(ignorant[item - 1])
        assert ignorant[item - 2] < 0.0, "what it follows"
    assert np.mean(guesses) < 0.0, "what follows it; one may be right by chance"


@pytest.mark.parametrize("half_life_days", [None, 0.5])
def test_the_future_changes_nothing(half_life_days: float | None) -> None:
    """Neither other events after the cut, nor fewer or more of them, nor new users and items."""
    params = replace(STAGE_TWO, half_life_days=half_life_days)
    events = markov_events(0.9)
    one, two = (
        train(trainer_of(log_of(log), params), epochs=1)
        for log in (events, other_future(events, CUT))
    )
    assert same(one, two)


def with_fields(events: Events) -> Events:
    """The same log with types, values and sessions, which of an event only itself and those before
    it decide."""
    minute = events.timestamp // MINUTE
    away = np.diff(events.timestamp, prepend=0) >= 30 * MINUTE
    starts = away | (events.position == 0)
    return replace(
        events,
        event_type=((events.item_idx + minute) % 2).astype(np.int8),
        value=np.where(minute % 7 == 0, np.nan, events.item_idx % 5).astype(np.float32),
        session_idx=np.cumsum(starts),
        session_start=starts,
    )


@pytest.mark.parametrize("backbone", ["gru", "hgru"])
@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_the_future_changes_nothing_with_everything_on(backbone: str, loss: str) -> None:
    """Everything that is read, a trend, rewards, weights by age, features."""
    params = replace(
        STAGE_TWO,
        backbone=backbone,
        loss=loss,
        reads=get_args(Read),
        half_life_days=0.5,
        trend_hours=2.0,
        rewards={"b": 0.25},
        low_value=1.0,
        low_value_reward=0.0,
        negatives="auto",
    )
    events, features = markov_events(0.9, users=60), known_features(N_ITEMS)
    models = []
    for log in (events, other_future(events, CUT)):
        whole = with_fields(log)
        known = LogUntil(
            whole,
            Cut.at(whole, CUT, n_items=N_ITEMS),
            np.ones(2, dtype=np.float32),
            ("a", "b"),
            Rewards.of(params),
        )
        assert known.rewards is not None
        assert np.unique(known.rewards[known.rows]).tolist() == [0.0, 0.25, 1.0]
        trainer = RnnTrainer(
            known,
            params,
            embeddings=embeddings_of(known),
            seed=1,
            device=CPU,
            validation=None,
            features=features,
        )
        models.append(train(trainer, epochs=1))
    assert same(*models)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator() -> None:
    log = log_of(markov_events(0.9))
    params = replace(STAGE_TWO, dropout=0.3, negatives=8)
    torch.manual_seed(1)
    one = train(trainer_of(log, params), epochs=2)
    torch.manual_seed(2)
    assert same(one, train(trainer_of(log, params), epochs=2))
    other = RnnTrainer(
        log, params, embeddings=embeddings_of(log), seed=2, device=CPU, validation=None
    )
    assert not same(one, train(other, epochs=2))


@pytest.mark.parametrize(
    ("backbone", "loss"), [("gru", "sampled_softmax"), ("lru", "softmax"), ("lstm", "bpr_max")]
)
def test_an_interrupted_fit_ends_with_the_same_bits(
    backbone: str, loss: str, tmp_path: Path
) -> None:
    """Stopped in the middle of an epoch, with dropout, sampling and random windows on."""
    log = log_of(markov_events(0.9))
    params = replace(
        STAGE_TWO,
        backbone=backbone,
        loss=loss,
        dropout=0.3,
        embedding_dropout=0.2,
        negatives=8,
        batch=64,
    )
    whole = train(trainer_of(log, params), epochs=4)
    checkpoint = Checkpoint(tmp_path / "t.safetensors", "mine")
    interrupted = Fit(
        trainer_of(log, params), phase="t", max_epochs=4, patience=None, checkpoint=checkpoint
    )
    for progress in interrupted.run():
        if progress.epoch == 3:
            break
    trainer = trainer_of(log, params)
    resumed = Fit(trainer, phase="t", max_epochs=4, patience=None, checkpoint=checkpoint)
    epochs = {progress.epoch for progress in resumed.run()}
    assert epochs == {3, 4}, "the first two are not trained again"
    assert same(trainer.finished_model(), whole)
    assert len(resumed.curve) == 4


@pytest.mark.parametrize("loss", ["sampled_softmax", "softmax"])
def test_frozen_item_vectors_stay_bit_identical(loss: str) -> None:
    log = log_of(markov_events(0.9))
    stage_one = embeddings_of(log)
    users = stage_one.users.copy()
    params = replace(STAGE_TWO, finetune_items=False, loss=loss)
    trainer = RnnTrainer(log, params, embeddings=stage_one, seed=1, device=CPU, validation=None)
    model = train(trainer, epochs=1)
    np.testing.assert_array_equal(model.item_vectors.detach().numpy(), stage_one.items)
    np.testing.assert_array_equal(model.item_bias.detach().numpy(), stage_one.item_bias)
    np.testing.assert_array_equal(stage_one.users, users)
    assert not np.array_equal(
        train(trainer_of(log), epochs=1).item_vectors.detach().numpy(), stage_one.items
    )


def test_the_model_of_a_cosine_has_items_of_length_one() -> None:
    trainer = trainer_of(log_of(markov_events(0.9)), replace(STAGE_TWO, score="cosine"))
    lengths = train(trainer, epochs=1).item_vectors.detach().norm(dim=1)
    torch.testing.assert_close(lengths[1:], torch.ones(N_ITEMS))
    assert lengths[0] == 0.0, "PAD"


def test_fine_tuning_leaves_what_folds_users_in_as_stage_one_made_it() -> None:
    trainer = trainer_of(log_of(markov_events(0.9)))
    before = {name: array.copy() for name, array in trainer.model.to_arrays().items()}
    after = train(trainer, epochs=1).to_arrays()
    for name in ("fold_in_items", "fold_in_mean", "fold_in_basis", "fold_in_variance"):
        assert before[name].any()
        assert after[name].tobytes() == before[name].tobytes(), name
    assert (after["item_vectors"][1:] != before["item_vectors"][1:]).any(axis=1).all()
    np.testing.assert_array_equal(after["item_vectors"][0], 0.0)


def test_the_pull_keeps_item_vectors_near_stage_one() -> None:
    log = log_of(markov_events(0.9))
    stage_one = embeddings_of(log).items

    def distance(item_pull: float) -> float:
        model = train(trainer_of(log, replace(STAGE_TWO, item_pull=item_pull)), epochs=3)
        return float(np.square(model.item_vectors.detach().numpy() - stage_one).sum())

    assert distance(10.0) < 0.5 * distance(0.0)


def test_the_inactive_prior_starts_at_the_mean_active_user() -> None:
    log = log_of(markov_events(0.9))
    embeddings = embeddings_of(log)
    model = trainer_of(log).model
    mean = embeddings.users[log.counts >= STAGE_TWO.t_star].mean(axis=0)
    np.testing.assert_allclose(model.inactive.project.bias.detach().numpy(), mean, rtol=1e-5)


def test_a_log_without_active_users_trains() -> None:
    events = markov_events(0.9)
    log = log_of(events)
    model = train(trainer_of(log, replace(STAGE_TWO, t_star=1000)), epochs=1)
    assert np.isfinite(model.item_vectors.detach().numpy()).all()


def test_a_diverging_loss_is_an_error_with_a_remedy() -> None:
    log = log_of(markov_events(0.9))
    trainer = trainer_of(log, replace(STAGE_TWO, learning_rate_items=1e38))
    with pytest.raises(ModelError, match="lower the learning rates"):
        train(trainer, epochs=3)
