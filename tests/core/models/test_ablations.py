"""What each ablation reads, trains and answers with."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from recsys_core.models.ablations import Ablation
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import InputSpec, make_requests
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Ablation as InParams
from recsys_core.training.fit_rnn import PHASES, TOGETHER
from tests.core.training.test_fit_rnn import embeddings_of, train, trainer_of
from tests.markov_log import N_ITEMS, STAGE_TWO, log_of, markov_events

LOG = log_of(markov_events(0.9))
USERS = np.flatnonzero(LOG.counts)
HISTORY = LOG.counts[USERS]
ACTIVE = STAGE_TWO.t_star <= HISTORY


def trained(ablation: Ablation, **changes: float) -> TwoTimeScale:
    params = replace(STAGE_TWO, ablation=ablation, **changes)
    model = None
    for phase in PHASES if ablation != "one_rnn" else (TOGETHER,):
        model = train(trainer_of(LOG, params, phase=phase, after=model), epochs=2)
    assert model is not None
    return model


def vectors(model: TwoTimeScale, history: np.ndarray = HISTORY) -> np.ndarray:
    return user_vectors(model, LOG.events, user_idx=USERS, history=history)


def spec_of(ablation: Ablation) -> InputSpec:
    return InputSpec(
        n_items=N_ITEMS, dim=16, t_star=6, window=4, remembered=0, ablation=ablation, reads=()
    )


def test_params_name_the_ablations_that_there_are() -> None:
    assert get_args(InParams) == get_args(Ablation)


HISTORIES = np.array([0, 2, 5, 6, 9])


@pytest.mark.parametrize(
    ("ablation", "active", "start", "folded"),
    [
        ("none", [0, 0, 0, 1, 1], [0, 0, 0, 2, 5], [0, 0, 0, 6, 9]),
        ("one_rnn", [0, 0, 0, 0, 0], [0, 0, 1, 2, 5], [0, 0, 0, 0, 0]),
        ("active_static", [0, 0, 0, 1, 1], [0, 0, 0, 6, 9], [0, 0, 0, 6, 9]),
        ("swap", [1, 1, 1, 0, 0], [0, 0, 1, 2, 5], [0, 2, 5, 0, 0]),
    ],
)
def test_who_answers_whom_from_what(
    ablation: Ablation, active: list[int], start: list[int], folded: list[int]
) -> None:
    spec = spec_of(ablation)
    assert spec.is_active(HISTORIES).astype(int).tolist() == active
    assert spec.window_start(HISTORIES).tolist() == start
    assert spec.folded(HISTORIES).tolist() == folded
    assert (HISTORIES - spec.window_start(HISTORIES) <= spec.max_length).all()


def test_one_network_answers_and_learns_for_everybody() -> None:
    before, model = (
        trainer_of(LOG, replace(STAGE_TWO, ablation="one_rnn")).model,
        trained("one_rnn"),
    )
    for name, value in before.active.state_dict().items():
        assert torch.equal(value, model.active.state_dict()[name]), f"{name} is never trained"
    answers = vectors(model)
    with torch.no_grad():
        model.active.project.bias.add_(1.0)
    np.testing.assert_array_equal(vectors(model), answers)


def test_static_active_users_are_what_all_their_events_imply() -> None:
    model = trained("active_static")
    folded = model.fold_in.vectors(LOG.events, USERS, count=HISTORY)
    np.testing.assert_allclose(vectors(model)[ACTIVE], folded[ACTIVE], rtol=1e-4, atol=1e-6)
    assert not model.active.gamma.any()
    assert (vectors(model)[~ACTIVE] != folded[~ACTIVE]).any()


def test_without_stage_one_nobody_is_folded_in_and_items_begin_at_random() -> None:
    params = replace(STAGE_TWO, ablation="no_stage1")
    one = trainer_of(LOG, params).finished_model()
    initial = trainer_of(LOG, params, phase="inactive", after=one).model
    requests = make_requests(
        initial.input_spec, initial.transductive, LOG.events, user_idx=USERS, history=HISTORY
    )
    assert requests.active.any()
    assert not requests.user_vector.any()
    stage_one = embeddings_of(LOG).items
    assert not np.allclose(initial.item_vectors.detach().numpy()[1:], stage_one[1:], atol=0.05)
    assert np.isfinite(vectors(trained("no_stage1"))).all()


def test_swapped_networks_answer_the_other_group() -> None:
    model = trained("swap")
    answers = vectors(model)
    with torch.no_grad():
        model.active.project.bias.add_(1.0)
    changed = (vectors(model) != answers).any(axis=1)
    np.testing.assert_array_equal(changed, ~ACTIVE)
    swapped, usual = trained("swap").to_arrays(), trained("none").to_arrays()
    for name, value in usual.items():
        np.testing.assert_array_equal(value, swapped[name], err_msg="both are trained alike")


def test_learned_vectors_are_the_rows_of_stage_one() -> None:
    model = trained("learned_phi", gamma=0.0)
    with torch.no_grad():
        model.active.gamma.zero_()
    rows = embeddings_of(LOG).users[USERS]
    np.testing.assert_array_equal(vectors(model)[ACTIVE], rows[ACTIVE])
    again = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    np.testing.assert_array_equal(vectors(again), vectors(model))
    stranger = np.array([len(LOG.counts) + 5])
    assert not model.transductive.vectors(LOG.events, stranger, count=np.array([9])).any()
