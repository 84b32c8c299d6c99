"""What the trend and rewards do to a model that is trained with them (HRNN-meta, 2.2.7, 2.2.8)."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError
from recsys_core.models.predict import user_vectors
from recsys_core.models.trend import trend_of
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import TrainRnn
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from tests.core.training.test_fit_rnn import embeddings_of
from tests.markov_log import CPU, N_ITEMS, STAGE_TWO, START

HOUR = 3_600_000_000
HOURS, CUT_HOUR = 60, 50
ONE = replace(
    STAGE_TWO, ablation="one_rnn", reads=(), loss="softmax", max_epochs=6, finetune_items=True
)


def fashion_events(users: int = 400, length: int = 15, seed: int = 1) -> Events:
    """Nobody has a taste: everybody takes what is in fashion, which turns every five hours."""
    rng = np.random.default_rng(seed)
    heat = np.exp(rng.normal(0.0, 2.0, (HOURS // 5, N_ITEMS)))
    times = np.sort(rng.integers(0, HOURS * HOUR, (users, length)), axis=1)
    chances = heat / heat.sum(axis=1, keepdims=True)
    items = np.array([rng.choice(N_ITEMS, p=chances[at // (5 * HOUR)]) for at in times.ravel()])
    return events_of(items.reshape(users, length), START + times)


def events_of(items: np.ndarray, times: np.ndarray, types: np.ndarray | None = None) -> Events:
    """Users with histories of one length; items (U, L) from 0."""
    users, length = items.shape
    n = users * length
    return Events(
        offsets=np.concatenate([[0], length * np.arange(users + 1)]),
        item_idx=(items + 1).ravel().astype(np.int32),
        timestamp=times.ravel().astype(np.int64),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8) if types is None else types.ravel().astype(np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def trained(log: LogUntil, params: TrainRnn, *, epochs: int) -> TwoTimeScale:
    trainer = RnnTrainer(
        log, params, embeddings=embeddings_of(log), seed=1, device=CPU, validation=None
    )
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass
    return trainer.finished_model()


def log_likelihood(model: TwoTimeScale, events: Events, *, until: int | None) -> float:
    """The mean over the events after the cut, with the trend as it is known."""
    rows = np.flatnonzero((events.timestamp >= START + CUT_HOUR * HOUR) & (events.position > 0))
    users = events.user_idx[rows].astype(np.int64)
    vectors = user_vectors(model, events, user_idx=users, history=events.position[rows])
    with torch.no_grad():
        logits = model.scores(torch.from_numpy(vectors))
    index = trend_of(model.config, events, until=until)
    if index is not None:
        logits += torch.from_numpy(index.offset(events.timestamp[rows], None))
    said = torch.log_softmax(logits, dim=1)[np.arange(len(rows)), events.item_idx[rows]]
    return float(said.mean())


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_a_model_with_the_trend_follows_the_fashion_without_being_trained_again(
    loss: Literal["softmax", "sampled_softmax"],
) -> None:
    events, cut = fashion_events(), START + CUT_HOUR * HOUR
    log = LogUntil(events, Cut.at(events, cut, n_items=N_ITEMS))
    params = replace(ONE, loss=loss, negatives=16)
    plain = trained(log, params, epochs=6)
    trending = trained(log, replace(params, trend_hours=1.0), epochs=6)
    fresh = log_likelihood(trending, events, until=None)
    assert fresh > log_likelihood(plain, events, until=None) + 0.3
    assert fresh > log_likelihood(trending, events, until=cut) + 0.3, "a stale trend"


BUY, RETURN = 0, 1


def returned_events(users: int = 300, length: int = 10, seed: int = 1) -> Events:
    """Everybody takes anything; the first half of the items is bought, the other sent back."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, N_ITEMS, (users, length))
    types = np.where(items < N_ITEMS // 2, BUY, RETURN)
    times = START + np.sort(rng.integers(0, 40 * HOUR, (users, length)), axis=1)
    return events_of(items, times, types)


def log_with_names(events: Events) -> LogUntil:
    cut = Cut.at(events, START + 50 * HOUR, n_items=N_ITEMS)
    return LogUntil(events, cut, type_names=("buy", "return"))


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_what_is_sent_back_is_pushed_down(loss: Literal["softmax", "sampled_softmax"]) -> None:
    log = log_with_names(returned_events())
    params = replace(ONE, loss=loss, negatives=16)

    def gap(model: TwoTimeScale) -> float:
        """How far what is bought lies above what is sent back, for a new user."""
        nobody = user_vectors(model, log.events, user_idx=np.array([1]), history=np.array([0]))
        with torch.no_grad():
            scores = model.scores(torch.from_numpy(nobody))[0, 1:]
        half = N_ITEMS // 2
        return float(scores[:half].mean() - scores[half:].mean())

    alike, told = (
        gap(trained(log, replace(params, rewards=rewards), epochs=4))
        for rewards in ({}, {"return": 0.0})
    )
    assert abs(alike) < 0.3
    assert told > alike + 1.0


def test_low_values_are_worth_less_and_a_missing_one_is_not_low() -> None:
    events = returned_events(users=3, length=4)
    value = np.array([1, 3, 5, np.nan] * 3, dtype=np.float32)
    log = log_with_names(replace(events, value=value, event_type=np.zeros(12, dtype=np.int8)))
    assert log.rewards({}, low_value=None, low_value_reward=0.0) is None
    found = log.rewards({"buy": 0.5}, low_value=3.0, low_value_reward=0.25)
    assert found is not None
    assert found.tolist() == [0.25, 0.25, 0.5, 0.5] * 3


def test_a_type_that_the_log_has_not_got_is_refused() -> None:
    log = log_with_names(returned_events(users=3, length=4))
    with pytest.raises(ConfigError, match=r"\['refund'\], the log has \['buy', 'return'\]"):
        log.rewards({"refund": 0.0}, low_value=None, low_value_reward=0.0)
