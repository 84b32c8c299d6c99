"""On a CUDA device training and scoring come to what they come to on the CPU, but for rounding."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Read
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.rewards import Rewards
from tests.feature_log import known_features
from tests.markov_log import CPU, N_ITEMS, STAGE_ONE, STAGE_TWO, log_of, markov_events

EVENTS = markov_events(0.95)
USERS = np.arange(1, EVENTS.n_users + 1)

cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


def trained_on(
    device: torch.device,
    *,
    features: KnownFeatures | None = None,
    **asked: Any,
) -> tuple[TwoTimeScale, float, float]:
    """The model after one epoch of each stage, and the mean loss of either."""
    params = replace(STAGE_TWO, dropout=0.1, **asked)
    log = replace(log_of(EVENTS), type_names=("only",), reward_rule=Rewards.of(params))
    stage_one = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=device, validation=None)
    *_, (_, _, first_loss) = stage_one.epoch(1)
    stage_two = RnnTrainer(
        log,
        params,
        embeddings=stage_one.embeddings(fold_in_l2=10.0),
        seed=1,
        device=device,
        validation=None,
        features=features,
    )
    *_, (_, _, second_loss) = stage_two.epoch(1)
    return stage_two.finished_model(), first_loss, second_loss


def vectors_of(model: TwoTimeScale) -> np.ndarray:
    return user_vectors(model, EVENTS, user_idx=USERS, history=np.diff(EVENTS.offsets)[USERS])


@pytest.mark.parametrize("device", [cuda])
@pytest.mark.parametrize("reads", [("gap", "request", "session", "type", "value"), ()])
def test_an_epoch_and_its_scores_are_those_of_the_cpu(device: str, reads: tuple[Read, ...]) -> None:
    """Losses of an epoch agree within 2 % (the softmax is bfloat16 on CUDA), the scores of one
    model within a hundredth (the recurrence is TF32), and the trained model really lies there."""
    ours, *losses = trained_on(torch.device(device), reads=reads)
    _, *expected = trained_on(CPU, reads=reads)
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert ours.item_vectors.device.type == device
    there = vectors_of(ours)
    here = vectors_of(TwoTimeScale.from_arrays(ours.to_json(), ours.to_arrays()))
    assert np.abs(here).max() > 0.1, "there is something to compare"
    np.testing.assert_allclose(there, here, atol=0.01 * np.abs(here).max())


@pytest.mark.parametrize("device", [cuda])
@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize(
    "asked",
    [
        {"backbone": "hgru", "reads": ("session",)},
        {"trend_hours": 2.0},
        {"rewards": {"only": 0.5}},
    ],
    ids=["hgru", "trend", "rewards"],
)
def test_sessions_trend_and_rewards_are_learned_as_on_the_cpu(
    device: str, loss: str, asked: dict[str, Any]
) -> None:
    ours, *losses = trained_on(torch.device(device), loss=loss, **asked)
    _, *expected = trained_on(CPU, loss=loss, **asked)
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    there = vectors_of(ours)
    here = vectors_of(TwoTimeScale.from_arrays(ours.to_json(), ours.to_arrays()))
    np.testing.assert_allclose(there, here, atol=0.01 * np.abs(here).max())


@pytest.mark.parametrize("device", [cuda])
def test_item_features_are_learned_as_on_the_cpu(device: str) -> None:
    """Losses agree within 2 %, and the finished model scores here what it scores there."""
    features = known_features(N_ITEMS)
    ours, *losses = trained_on(torch.device(device), reads=("gap",), features=features)
    _, *expected = trained_on(CPU, reads=("gap",), features=features)
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert ours.decoder is not None
    assert {value.device.type for value in ours.state_dict().values()} == {device}
    there = vectors_of(ours)
    here = vectors_of(TwoTimeScale.from_arrays(ours.to_json(), ours.to_arrays()))
    np.testing.assert_allclose(there, here, atol=0.01 * np.abs(here).max())
