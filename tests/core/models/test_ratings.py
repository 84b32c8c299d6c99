"""The rating head: its equation, what it reads, and acceptance behaviour 2.7.13 of HRNN-meta."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.data.events import Events
from recsys_core.data.histories import Read
from recsys_core.errors import DataError
from recsys_core.models.predict import expected_ratings
from recsys_core.models.ratings import RatingTable
from recsys_core.models.rolling_average import rolling_average
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.training.fit_rnn import PHASES, TOGETHER, RnnTrainer
from recsys_core.training.loop import Checkpoint, Fit
from tests.core.training.test_fit_rnn import embeddings_of
from tests.markov_log import CPU, CUT, N_ITEMS, STAGE_TWO, log_of, markov_events
from tests.serving_world import make_events, make_model, random_histories

LENGTHS = [0, 1, 3, 5, 9]
HISTORIES = random_histories(LENGTHS)
USERS, HISTORY = np.arange(1, len(LENGTHS) + 1), np.array(LENGTHS)
RATED = replace(STAGE_TWO, rating=True, ablation="one_rnn", loss="softmax")


def test_the_equation_and_its_bounds() -> None:
    table = RatingTable(2, 2)
    table.scale.copy_(torch.tensor([3.0, 2.0, 1.0, 5.0]))
    with torch.no_grad():
        table.rows[1] = torch.tensor([1.0, 0.0, 0.25])
        table.rows[2] = torch.tensor([0.0, 2.0, -0.25])
    asked = torch.tensor([[0.5, -0.125, 0.0], [4.0, 0.0, 1.0]])  # P h, and behind it u . h
    found = table(asked, torch.tensor([[1, 2], [1, 2]])).detach()
    expected = [[3 + 2 * (0.5 + 0.25), 3 + 2 * (2 * -0.125 - 0.25)], [5.0, 3 + 2 * (1 - 0.25)]]
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(table.expected(torch.tensor([2, 1])), torch.tensor([-0.25, 0.25]))


def valued_events(seed: int) -> Events:
    events = make_events(HISTORIES)
    values = np.random.default_rng(seed).integers(1, 6, len(events)).astype(np.float32)
    return replace(events, value=values)


def ratings_of(model: TwoTimeScale, events: Events) -> np.ndarray:
    items = np.full(len(USERS), 7)
    return expected_ratings(model, events, user_idx=USERS, history=HISTORY, items=items)


@pytest.mark.parametrize("reads", [(), ("value",)])
def test_values_are_read_where_they_are_named(reads: tuple[Read, ...]) -> None:
    model = make_model(rating=True, reads=reads)
    assert model.ratings is not None
    model.ratings.scale.copy_(torch.tensor([0.0, 1.0, -99.0, 99.0]))
    one, two = (ratings_of(model, valued_events(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(one != two, (HISTORY > 0) & ("value" in reads))


def test_a_value_is_read_beside_what_its_item_is_given() -> None:
    """Other b of the items in a history is another history; where no value is, none is read."""
    model = make_model(rating=True, reads=("value",))
    assert model.ratings is not None
    model.ratings.scale.copy_(torch.tensor([0.0, 1.0, -99.0, 99.0]))
    events = valued_events(1)
    without = replace(events, value=np.full(len(events), np.nan, dtype=np.float32))
    before = [ratings_of(model, log) for log in (events, without)]
    with torch.no_grad():
        others = torch.arange(41) != 7
        model.ratings.rows[others, -1] += 1.0
    after = [ratings_of(model, log) for log in (events, without)]
    np.testing.assert_array_equal(before[0] != after[0], HISTORY > 0)
    np.testing.assert_array_equal(before[1], after[1])


def test_weights_of_another_head_are_round_trips() -> None:
    model = make_model(rating=True)
    again = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    events = valued_events(1)
    np.testing.assert_array_equal(ratings_of(again, events), ratings_of(model, events))


def biased_events(seed: int = 1) -> Events:
    """What an item is given beside the others, and a user gives beside others; items at random."""
    events = markov_events(0.0, users=300, seed=seed)
    rng = np.random.default_rng(seed)
    of_user = rng.normal(0.0, 1.0, events.n_users + 1)[events.user_idx]
    of_item = rng.normal(0.0, 0.5, N_ITEMS + 1)[events.item_idx]
    noise = rng.normal(0.0, 0.1, len(events))
    return replace(events, value=(3.0 + of_user + of_item + noise).astype(np.float32))


def trained(events: Events, *reads: Read, epochs: int = 6) -> TwoTimeScale:
    log = log_of(events)
    params = replace(RATED, reads=reads, window=16)
    trainer = RnnTrainer(
        log, params, embeddings=embeddings_of(log), seed=1, device=CPU, validation=None
    )
    fit = Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None)
    for _ in fit.run():
        pass
    return trainer.finished_model()


def test_with_feedback_a_user_is_known_better_than_by_averages_and_without_is_not() -> None:
    events = biased_events()
    rows = np.flatnonzero((events.timestamp >= CUT) & (events.position > 2))
    value, items = events.value[rows].astype(np.float64), events.item_idx[rows].astype(np.int64)

    def rmse(ratings: np.ndarray) -> float:
        return float(np.sqrt(np.mean((ratings - value) ** 2)))

    def of_model(*reads: Read) -> float:
        model = trained(events, *reads)
        return rmse(
            expected_ratings(
                model,
                events,
                user_idx=events.user_idx[rows].astype(np.int64),
                history=events.position[rows],
                items=items,
            )
        )

    averages = rmse(rolling_average(events, log_of(events).cut, rows, item_idx=items))
    assert of_model("value") < 0.7 * averages
    assert of_model() > averages


def test_phases_apart_leave_the_items_part_alone_and_teach_the_networks() -> None:
    log = log_of(biased_events())
    params = replace(RATED, ablation="none", reads=("value",), loss="sampled_softmax")
    embeddings, model, states = embeddings_of(log), None, []
    for phase in PHASES:
        trainer = RnnTrainer(
            log,
            params,
            embeddings=embeddings,
            seed=1,
            device=CPU,
            validation=None,
            phase=phase,
            after=model,
        )
        for _ in Fit(trainer, phase="t", max_epochs=1, patience=None, checkpoint=None).run():
            pass
        model = trainer.finished_model()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    together, inactive, active = states
    for apart in (inactive, active):
        assert torch.equal(apart["ratings.rows"], together["ratings.rows"])
        assert torch.equal(apart["ratings.scale"], together["ratings.scale"])
    assert not torch.equal(inactive["inactive.rate.weight"], together["inactive.rate.weight"])
    assert torch.equal(inactive["inactive.rate.weight"], active["inactive.rate.weight"])
    assert not torch.equal(active["active.rate.weight"], inactive["active.rate.weight"])


def test_an_interrupted_fit_goes_on_bit_equal(tmp_path: Path) -> None:
    log = log_of(biased_events())
    params = replace(RATED, reads=("value",), loss="sampled_softmax")
    embeddings = embeddings_of(log)

    def fit(epochs: int, checkpoint: Checkpoint | None) -> TwoTimeScale:
        trainer = RnnTrainer(
            log, params, embeddings=embeddings, seed=1, device=CPU, validation=None, phase=TOGETHER
        )
        run = Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=checkpoint)
        for _ in run.run():
            pass
        return trainer.finished_model()

    kept = Checkpoint(tmp_path / "fit.safetensors", "same")
    fit(1, kept)
    whole, resumed = fit(2, None), fit(2, kept)
    for name, value in whole.to_arrays().items():
        np.testing.assert_array_equal(resumed.to_arrays()[name], value, err_msg=name)


def test_without_a_value_nothing_is_predicted() -> None:
    log = log_of(markov_events(0.0))
    with pytest.raises(DataError, match=r"no event before the cut has a value.*rating=false"):
        RnnTrainer(log, RATED, embeddings=embeddings_of(log), seed=1, device=CPU, validation=None)


def test_the_future_changes_nothing() -> None:
    events = biased_events()
    future = events.timestamp >= CUT
    other = replace(events, value=np.where(future, np.float32(99.0), events.value))
    one, two = (trained(each, "value", epochs=1).to_arrays() for each in (events, other))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)
