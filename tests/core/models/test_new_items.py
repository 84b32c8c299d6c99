"""Items that a model never met: told by features, and nothing else moves."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from recsys_core.errors import ModelError
from recsys_core.models.item_decoder import FeatureDecoderConfig
from recsys_core.models.item_features import ItemFeatures, feature_rows
from recsys_core.models.new_items import memory_with_new_items, with_new_items
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.parity import example_inputs
from tests.serving_world import (
    N_ITEMS,
    make_events,
    make_memory,
    make_model,
    make_spec,
    random_histories,
)

NEW = 7
DECODER = FeatureDecoderConfig(dim=8, hidden=5, n_codes=(4,), n_numbers=2)
HISTORIES = random_histories([0, 1, 3, 5, 9, 12])
EVENTS = make_events(HISTORIES)
USERS = np.arange(1, len(HISTORIES) + 1)


def new_rows(model: TwoTimeScale) -> torch.Tensor:
    """Of seven items, what the decoder says of their features."""
    assert model.decoder is not None
    draws = torch.Generator().manual_seed(6)
    features = ItemFeatures(
        codes=(torch.randint(4, (NEW + 1, 2), generator=draws),),
        weights=(torch.rand(NEW + 1, 2, generator=draws),),
        numbers=torch.randn(NEW + 1, 2, generator=draws),
    )
    rows = feature_rows(model.decoder, features)
    torch.testing.assert_close(rows, features.read_by(model.decoder).detach())
    return rows[1:]


def queries_of(model: TwoTimeScale) -> torch.Tensor:
    history = np.array([len(history) for history in HISTORIES])
    return torch.from_numpy(user_vectors(model, EVENTS, user_idx=USERS, history=history))


@pytest.mark.parametrize("score", ["dot", "cosine"])
@torch.no_grad()
def test_a_new_item_is_scored_by_its_features_and_the_old_ones_as_before(
    score: Literal["dot", "cosine"],
) -> None:
    model = make_model(score=score, features=DECODER)
    before = {name: value.copy() for name, value in model.to_arrays().items()}
    rows = new_rows(model)
    grown = with_new_items(model, rows)
    assert grown.input_spec.n_items == N_ITEMS + NEW
    queries = queries_of(grown)
    assert torch.equal(queries, queries_of(model))
    assert torch.equal(grown.item_vectors[: N_ITEMS + 1], model.item_vectors)
    assert torch.equal(grown.item_bias[: N_ITEMS + 1], model.item_bias)
    scores, old = grown.scores(queries), model.scores(queries)
    # to the bit but for how a wider product is rounded, which each machine decides
    torch.testing.assert_close(scores[:, : N_ITEMS + 1], old, rtol=0, atol=1e-5)
    vectors = rows[:, :-1]
    if score == "cosine":
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    expected = queries @ vectors.T + rows[:, -1]  # w(f) . h + b(f)
    torch.testing.assert_close(scores[:, N_ITEMS + 1 :], expected)
    assert all(np.array_equal(model.to_arrays()[name], value) for name, value in before.items())


def test_a_new_item_says_nothing_of_a_direction_to_fold_in() -> None:
    """Of the new event its place alone is known."""
    model = make_model(features=DECODER)
    grown = with_new_items(model, new_rows(model))
    np.testing.assert_array_equal(grown.fold_in.items[: N_ITEMS + 1], model.fold_in.items)
    one, other = [3, 9, N_ITEMS + 2], [3, 9, N_ITEMS + 5]
    events = make_events([one, other, [N_ITEMS + 2, N_ITEMS + 5, N_ITEMS + 2]])
    users, history = np.array([1, 2, 3]), np.array([3, 3, 3])
    found = grown.fold_in.vectors(events, users, count=history)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[2], 0.0, atol=1e-6)


def test_a_new_item_in_the_history_is_read() -> None:
    model = make_model(features=DECODER)
    grown = with_new_items(model, new_rows(model))
    events = make_events([[3, N_ITEMS + 1], [3, N_ITEMS + 2]])
    users, history = np.array([1, 2]), np.array([2, 2])
    vectors = user_vectors(grown, events, user_idx=users, history=history)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_no_new_item_changes_nothing() -> None:
    model = make_model(features=DECODER)
    grown = with_new_items(model, torch.zeros(0, 9))
    assert grown.config == model.config
    for name, value in model.to_arrays().items():
        np.testing.assert_array_equal(grown.to_arrays()[name], value)


@pytest.mark.parametrize("shape", [(3, 8), (9,), (2, 10)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"must be \(N, 9\)"):
        with_new_items(make_model(features=DECODER), torch.zeros(shape))


def test_round_trip() -> None:
    model = make_model(features=DECODER)
    again = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    assert again.config == model.config
    assert again.to_arrays().keys() == model.to_arrays().keys()
    assert torch.equal(new_rows(again), new_rows(model))


def test_new_items_in_the_memory_follow_nothing_and_are_no_less_asked_for_than_the_mean() -> None:
    memory = make_memory()
    before = {name: value.copy() for name, value in memory.to_arrays().items()}
    grown = memory_with_new_items(memory, NEW)
    assert grown.config == replace(memory.config, n_items=N_ITEMS + NEW)
    axes = {"next_items": 1, "next_share": 1, "similar_items": 0, "similar_weight": 0}
    for name, value in grown.to_arrays().items():
        axis = {**axes, "log_recent": 1, "factor_items": 0}.get(name)
        if axis is None:
            np.testing.assert_array_equal(value, before[name])
            continue
        old, new = np.split(value, [N_ITEMS + 1], axis=axis)
        np.testing.assert_array_equal(old, before[name])
        assert new.shape[axis] == NEW
        if name == "factor_items":
            np.testing.assert_array_equal(new, np.tile(before["factor_mean"], (NEW, 1)))
        elif name != "log_recent":
            assert not new.any()
    for window in range(2):
        mean = before["log_recent"][window, 1:].mean()
        np.testing.assert_allclose(grown.log_recent[window, N_ITEMS + 1 :], mean, rtol=1e-6)
    assert all(np.array_equal(memory.to_arrays()[name], value) for name, value in before.items())


@torch.no_grad()
def test_a_grown_memory_says_the_same_of_the_items_that_were_there() -> None:
    memory, spec = make_memory(), make_spec()
    inputs = next(example_inputs(spec, rng=np.random.default_rng(1)))
    names = ("active", "own_items", "own_numbers", "user_numbers")
    read = {name: torch.from_numpy(inputs[name]) for name in names}
    logits = torch.randn(len(inputs["length"]), N_ITEMS + 1 + NEW)
    logits[:, N_ITEMS + 1 :] = -1e4  # in no sum of probabilities
    said = memory_with_new_items(memory, NEW)(logits, **read)[:, 1 : N_ITEMS + 1]
    torch.testing.assert_close(said, memory(logits[:, : N_ITEMS + 1], **read)[:, 1:])


@pytest.mark.parametrize("terms", [(), ("own",), ("similar",)])
def test_a_memory_without_a_term_has_no_table_of_it(terms: tuple[str, ...]) -> None:
    grown = memory_with_new_items(make_memory(terms=terms), NEW)
    assert grown.next_items.numel() == 0
    assert len(grown.similar_items) == (N_ITEMS + 1 + NEW if "similar" in terms else 0)


def test_a_new_item_is_rated_as_the_user_rates_on_the_whole() -> None:
    model = make_model(features=DECODER, rating=True)
    grown = with_new_items(model, new_rows(model))
    assert model.ratings is not None
    assert grown.ratings is not None
    assert torch.equal(grown.ratings.rows[: N_ITEMS + 1], model.ratings.rows)
    assert not grown.ratings.rows[N_ITEMS + 1 :].any()
