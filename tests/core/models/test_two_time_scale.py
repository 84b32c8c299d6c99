"""The two-time-scale model: acceptance behaviours of section 1.6 that need no training."""

from typing import Literal, get_args

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models import predict
from recsys_core.models.backbones import BackboneName
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import Requests, make_requests
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Read
from tests.serving_world import make_events, make_model, random_histories

LENGTHS = [0, 1, 2, 3, 4, 5, 6, 9, 10, 25, 60]
READS: tuple[Read, ...] = get_args(Read)
EVENTS = make_events(random_histories(LENGTHS))
USERS = np.arange(1, len(LENGTHS) + 1)
HISTORY = np.array(LENGTHS)


def network_inputs(requests: Requests) -> dict[str, torch.Tensor]:
    """What the networks read of the requests; the rest is for a memory beside them."""
    names = ("items", "event_numbers", "length", "user_vector", "active")
    return {name: torch.from_numpy(getattr(requests, name)) for name in names}


def vectors_of(model: TwoTimeScale, *, batch: int = 2048) -> np.ndarray:
    return user_vectors(model, EVENTS, user_idx=USERS, history=HISTORY, batch=batch)


def test_users_with_t_star_events_use_the_active_network_and_others_the_inactive_one() -> None:
    model = make_model()
    before = vectors_of(model)
    with torch.no_grad():
        model.active.project.weight.add_(1.0)
    changed = (vectors_of(model) != before).any(axis=1)
    np.testing.assert_array_equal(changed, model.config.t_star <= HISTORY)


def test_inactive_output_is_inductive() -> None:
    """Permuting users, or spoiling what is folded in, changes nothing for them."""
    model = make_model()
    inactive = model.config.t_star > HISTORY
    before = vectors_of(model)[inactive]
    order = np.random.default_rng(1).permutation(len(LENGTHS))
    histories = [EVENTS.item_idx[EVENTS.offsets[u] : EVENTS.offsets[u + 1]].tolist() for u in USERS]
    moved = make_events([histories[index] for index in order])
    with torch.no_grad():
        model.fold_in_items.zero_()
    got = user_vectors(model, moved, user_idx=USERS, history=HISTORY[order])
    np.testing.assert_allclose(got[np.argsort(order)][inactive], before, rtol=1e-5, atol=1e-6)


def test_without_gamma_the_active_output_is_exactly_the_folded_in_vector() -> None:
    model = make_model()
    with torch.no_grad():
        model.active.gamma.zero_()
    requests = make_requests(
        model.input_spec, model.fold_in, EVENTS, user_idx=USERS, history=HISTORY
    )
    active = requests.active
    np.testing.assert_array_equal(vectors_of(model)[active], requests.user_vector[active])


def test_cost_is_bounded_by_the_window() -> None:
    """It grows up to K events, and is the same for any number from there on."""
    model = make_model()
    events = make_events(random_histories([6, 10_000]))

    def flops(user: int, history: int) -> int:
        requests = make_requests(
            model.input_spec,
            model.fold_in,
            events,
            user_idx=np.array([user]),
            history=np.array([history]),
        )
        inputs = network_inputs(requests)
        with FlopCounterMode(display=False) as counter:
            model(**inputs)
        return int(counter.get_total_flops())

    model.requires_grad_(False)
    spec = model.input_spec
    full = spec.window  # from here on the window is full
    assert flops(2, full) == flops(2, full + 1) == flops(2, 1_000) == flops(2, 10_000)
    assert flops(2, full) > flops(2, full - 1) > flops(1, spec.t_star) > 0


@pytest.mark.parametrize("backbone", ["gru", "lstm", "lru"])
def test_batched_equals_one_by_one(backbone: BackboneName) -> None:
    model = make_model(backbone=backbone, depth=2)
    whole = vectors_of(model)
    np.testing.assert_allclose(vectors_of(model, batch=1), whole, rtol=1e-5, atol=1e-6)


def test_batches_shrink_with_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = make_model(), []
    whole, queries = vectors_of(model), model.cohort_answers

    def watched(network, items, *rest):
        sizes.append(items.numel())
        return queries(network, items, *rest)

    monkeypatch.setattr(predict, "EVENTS_AT_ONCE", 2 * model.input_spec.max_length)
    monkeypatch.setattr(model, "cohort_answers", watched)
    np.testing.assert_allclose(vectors_of(model), whole, rtol=1e-5, atol=1e-6)
    assert max(sizes) <= 2 * model.input_spec.max_length


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_cohort_by_cohort_equals_both_networks_and_a_choice(
    score: Literal["dot", "cosine"],
) -> None:
    model = make_model(score=score)
    requests = make_requests(
        model.input_spec, model.fold_in, EVENTS, user_idx=USERS, history=HISTORY
    )
    inputs = network_inputs(requests)
    with torch.no_grad():
        both = model(**inputs).numpy()
    np.testing.assert_allclose(vectors_of(model), both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backbone", ["gru", "lstm", "lru"])
def test_padding_is_not_read(backbone: BackboneName) -> None:
    model = make_model(backbone=backbone, depth=2)
    requests = make_requests(
        model.input_spec, model.fold_in, EVENTS, user_idx=USERS, history=HISTORY
    )
    inputs = network_inputs(requests)
    padded = dict(inputs)
    padded["items"] = torch.nn.functional.pad(inputs["items"], (0, 5), value=7)
    padded["event_numbers"] = torch.nn.functional.pad(
        inputs["event_numbers"], (0, 0, 0, 5), value=99.0
    )
    with torch.no_grad():
        torch.testing.assert_close(model(**padded), model(**inputs), rtol=1e-5, atol=1e-6)


NUMBERS_READ: dict[Read, tuple[str, ...]] = {
    "gap": ("gap_seconds",),
    "request": ("request_seconds",),
    "session": ("opens_session",),
    "type": ("event_type",),
    "value": ("value", "has_value"),
}


@pytest.mark.parametrize("read", READS)
def test_what_is_read_of_an_event_changes_the_answer_and_nothing_else_does(read: Read) -> None:
    model = make_model(reads=(read,))
    requests = make_requests(
        model.input_spec, model.fold_in, EVENTS, user_idx=USERS, history=HISTORY
    )
    inputs = network_inputs(requests)
    for name in EVENT_NUMBERS:
        numbers = inputs["event_numbers"].clone()
        number = numbers[..., EVENT_NUMBERS.index(name)]  # another bucket, flag and type
        number.copy_(torch.where(number == 1.0, 0.0, 1.0) if name != "gap_seconds" else 1000.0)
        if name == "value":
            numbers[..., EVENT_NUMBERS.index("has_value")] = 1.0
        with torch.no_grad():
            answers = model(**inputs), model(**{**inputs, "event_numbers": numbers})
        changed = (answers[0] != answers[1]).any(dim=1).numpy()
        reaches = name in NUMBERS_READ[read]
        np.testing.assert_array_equal(changed, (HISTORY > 0) & reaches, err_msg=name)


def test_the_cosine_is_between_directions_alone() -> None:
    model = make_model(score="cosine")
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    table = torch.randn(41, 8, generator=torch.Generator().manual_seed(2))
    model.set_items(table, torch.zeros(41))
    scores = model.scores(model.queries(vectors)).detach()
    cosine = torch.nn.functional.cosine_similarity(vectors.unsqueeze(1), table[1:], dim=-1)
    torch.testing.assert_close(scores[:, 1:], cosine / model.config.temperature)
    torch.testing.assert_close(model.queries(3.0 * vectors), model.queries(vectors))
    assert not model.queries(torch.zeros(1, 8)).any()
    items = model.item_vectors.detach().clone()
    model.set_items(items, torch.zeros(41))
    torch.testing.assert_close(model.item_vectors.detach(), items)  # of length 1 they stay


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_pad_is_never_scored(score: Literal["dot", "cosine"]) -> None:
    model = make_model(score=score)
    scores = model.scores(torch.from_numpy(vectors_of(model)))
    assert scores.shape == (len(LENGTHS), 41)
    assert torch.isneginf(scores[:, 0]).all()
    assert torch.isfinite(scores[:, 1:]).all()


def test_round_trip() -> None:
    model = make_model(backbone="lstm", depth=2, score="cosine")
    again = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    np.testing.assert_array_equal(vectors_of(again), vectors_of(model))
