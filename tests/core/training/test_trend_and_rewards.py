"""What the trend and rewards do to a model that is trained with them (HRNN-meta, 2.2.7, 2.2.8)."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError, DataError
from recsys_core.models.predict import user_vectors
from recsys_core.models.trend import HasTrend, TrendIndex, trend_in_period, trend_of
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import TrainRnn
from recsys_core.training import validation as validation_module
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from recsys_core.training.rewards import Rewards
from recsys_core.training.validation import Validation
from tests.core.training.test_fit_rnn import embeddings_of
from tests.markov_log import CPU, N_ITEMS, STAGE_ONE, STAGE_TWO, START
from tests.serving_world import make_model

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


def test_validation_counts_a_trend_once_and_freezes_it_at_its_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = fashion_events(users=40)
    cuts = [Cut.at(events, START + hours * HOUR, n_items=N_ITEMS) for hours in (40, CUT_HOUR)]
    counted: list[Cut] = []

    def counting(
        config: HasTrend, events: Events, cut: Cut, *, streaming: bool
    ) -> TrendIndex | None:
        counted.append(cut)
        return trend_in_period(config, events, cut, streaming=streaming)

    monkeypatch.setattr(validation_module, "trend_in_period", counting)
    validation = Validation(
        events,
        period=Period(*cuts),
        kind="successive",
        seen_filter=False,
        streaming=False,
        metric_name="mrr@20",
        limit=10_000,
        rng=np.random.default_rng(1),
    )
    model = make_model(n_items=N_ITEMS, trend_hours=1.0)
    some = np.arange(len(validation.targets)) % 3 == 0
    whole, part = validation.trend(model), validation.among(some).trend(model)
    assert counted == cuts[:1]
    assert whole is not None
    assert part is not None
    np.testing.assert_array_equal(whole(np.flatnonzero(some)), part(slice(None)))
    at_cut = trend_of(model.config, events, until=None)
    assert at_cut is not None
    now = at_cut.offset(np.array([cuts[0].time]), None)
    np.testing.assert_array_equal(whole(slice(None)), np.repeat(now, len(some), axis=0))
    assert validation.trend(make_model(n_items=N_ITEMS)) is None


BUY, RETURN = 0, 1


def returned_events(users: int = 300, length: int = 10, seed: int = 1) -> Events:
    """Everybody takes anything; the first half of the items is bought, the other sent back."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, N_ITEMS, (users, length))
    types = np.where(items < N_ITEMS // 2, BUY, RETURN)
    times = START + np.sort(rng.integers(0, 40 * HOUR, (users, length)), axis=1)
    return events_of(items, times, types)


def log_with(events: Events, rule: Rewards) -> LogUntil:
    cut = Cut.at(events, START + 50 * HOUR, n_items=N_ITEMS)
    return LogUntil(events, cut, type_names=("buy", "return"), reward_rule=rule)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("by", ["type", "value"])
def test_what_is_sent_back_is_pushed_down(
    loss: Literal["softmax", "sampled_softmax"], by: Literal["type", "value"]
) -> None:
    """Whether its type says so, or that it was left after a second."""
    events = returned_events()
    seconds = np.where(events.event_type == RETURN, 1.0, 60.0).astype(np.float32)
    events = replace(events, value=seconds)
    params = replace(ONE, loss=loss, negatives=16)
    pushed = {"rewards": {"return": 0.0}} if by == "type" else {"low_value": 5.0}

    def gap(model: TwoTimeScale) -> float:
        """How far what is bought lies above what is sent back, for a new user."""
        nobody = user_vectors(model, events, user_idx=np.array([1]), history=np.array([0]))
        with torch.no_grad():
            scores = model.scores(torch.from_numpy(nobody))[0, 1:]
        half = N_ITEMS // 2
        return float(scores[:half].mean() - scores[half:].mean())

    alike, told = (
        gap(trained(log_with(events, Rewards.of(one)), one, epochs=4))
        for one in (params, replace(params, **pushed))
    )
    assert abs(alike) < 0.3
    assert told > alike + 1.0


def test_low_values_are_worth_less_and_a_missing_one_is_not_low() -> None:
    events = returned_events(users=3, length=4)
    value = np.array([1, 3, 5, np.nan] * 3, dtype=np.float32)
    events = replace(events, value=value, event_type=np.zeros(12, dtype=np.int8))
    assert log_with(events, Rewards()).rewards is None
    rule = Rewards({"buy": 0.5}, low_value=3.0, low_value_reward=0.25)
    found = log_with(events, rule).rewards
    assert found is not None
    assert found.tolist() == [0.25, 0.25, 0.5, 0.5] * 3


def test_a_type_that_the_log_has_not_got_is_refused() -> None:
    log = log_with(returned_events(users=3, length=4), Rewards({"refund": 0.0}))
    with pytest.raises(ConfigError, match=r"\['refund'\], the log has \['buy', 'return'\]"):
        _ = log.rewards


def test_stage_one_learns_what_was_kept_alone() -> None:
    """Its tables are those of a log without what was sent back, and who kept nothing has none."""
    events = returned_events(users=40)
    types = np.where(events.user_idx == 3, RETURN, events.event_type).astype(np.int8)
    events = replace(events, event_type=types)
    both = log_with(events, Rewards({"return": 0.0}))
    kept_events, kept_cut = both.reward_rule.wanted_part(events, both.cut, both.type_names)
    assert (kept_events.event_type == BUY).all()
    assert kept_cut.counts.sum() == len(both.wanted_rows) < len(both.rows)
    tables = []
    for log in (both, LogUntil(kept_events, kept_cut)):
        trainer = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)
        for _ in trainer.epoch(1):
            pass
        tables.append((trainer.user_vectors, trainer.item_vectors, trainer.item_bias))
    for one, other in zip(*tables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not tables[0][0][3].any()
    assert tables[0][0][4].any()


def test_where_nothing_was_wanted_nothing_is_learned() -> None:
    events = returned_events(users=3, length=4)
    log = log_with(events, Rewards({"buy": 0.0, "return": 0.0}))
    with pytest.raises(ConfigError, match="all 12 events before the cut a reward of 0"):
        EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)


def test_validation_asks_for_what_was_wanted_and_counts_the_rest() -> None:
    events = returned_events(users=30)
    cuts = [Cut.at(events, START + hours * HOUR, n_items=N_ITEMS) for hours in (20, 50)]
    rule, names = Rewards({"return": 0.0}), ("buy", "return")

    def validation(rule: Rewards, limit: int = 10_000) -> Validation:
        return Validation(
            events,
            period=Period(*cuts),
            kind="successive",
            seen_filter=False,
            streaming=False,
            metric_name="mrr@20",
            limit=limit,
            rng=np.random.default_rng(1),
            wanted=rule.wanted(events, names),
        )

    everything, wanted = validation(Rewards()), validation(rule)
    found = len(everything.targets)
    kept = int((everything.targets.item_idx <= N_ITEMS // 2).sum())
    assert everything.counted == {"validation_targets": {"in": found, "out": found, "not_drawn": 0}}
    assert (wanted.targets.item_idx <= N_ITEMS // 2).all()
    counts = {"in": found, "out": kept, "not_drawn": 0, "unwanted": found - kept}
    assert wanted.counted == {"validation_targets": counts}
    drawn = validation(rule, limit=20).counted["validation_targets"]
    assert drawn["in"] == found == drawn["out"] + drawn["not_drawn"] + drawn["unwanted"]
    assert drawn["not_drawn"] > 0
    with pytest.raises(DataError, match=f"all {found} successive targets of the validation period"):
        validation(Rewards({"buy": 0.0, "return": 0.0}))


def test_training_sees_the_trend_of_the_latest_refresh() -> None:
    events, cut = fashion_events(users=60), START + CUT_HOUR * HOUR
    log = LogUntil(events, Cut.at(events, cut, n_items=N_ITEMS))
    params = replace(ONE, trend_hours=1.0, dropout=0.0)
    nothing = trained(log, replace(params, trend_temperature=1e9), epochs=1)
    # the last refresh is at the cut, the one before it before any event: nobody has seen a trend
    never = trained(log, replace(params, trend_refresh_hours=float(HOURS)), epochs=1)
    np.testing.assert_allclose(never.item_bias.detach(), nothing.item_bias.detach(), atol=1e-5)
    daily = trained(log, replace(params, trend_refresh_hours=CUT_HOUR / 2), epochs=1)
    difference = (daily.item_bias - nothing.item_bias).abs().max()
    assert difference > 0.01, "half of the log has seen that of its middle"


def test_a_refresh_without_a_trend_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no trend to refresh"):
        replace(ONE, trend_refresh_hours=24.0)
    for hours in (1e-10, 0.01, 1e300):
        with pytest.raises(ValueError, match="must be at least a minute"):
            replace(ONE, trend_hours=1.0, trend_refresh_hours=hours)
