"""Acceptance behaviours 4, 5, 8 and 9 of section 1.6, on logs whose preferences are known.

Those that need no training (1 to 3 and 6) are in `test_two_time_scale.py`, what stays frozen (7) in
`test_fit_rnn.py`.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from recsys_core.models.ablations import Ablation
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.predict import user_vectors
from recsys_core.models.step_sizes import choose_t_star, step_sizes
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.training.log_until import LogUntil
from tests.markov_log import STAGE_TWO
from tests.preference_log import World, log_of_all_but, stage_one, stage_two

T_STAR = 10
MIXED = replace(
    STAGE_TWO, t_star=T_STAR, window=16, batch=1024, reads=(), negatives=300, max_epochs_apart=2
)


class Stationary(NamedTuple):
    """Users who choose by preferences that stay, and stage one's embeddings of them."""

    world: World
    log: LogUntil
    embeddings: Embeddings


@pytest.fixture(scope="module")
def stationary() -> Stationary:
    rng = np.random.default_rng(1)
    world = World.drawn(rng, n_items=100, centres=4, spread=0.4, order=0.0)
    events, _ = world.people(rng, np.full(500, 120))
    log = log_of_all_but(events, 0, n_items=100)
    return Stationary(world, log, stage_one(log, dim=8, l2=0.01, epochs=20, seed=1))


def test_steps_fall_where_preferences_stay(stationary: Stationary) -> None:
    steps = step_sizes(
        FoldIn.of(stationary.embeddings), stationary.log.events, stationary.log.counts
    )
    assert len(steps.users) == 119
    correlation = spearmanr(np.arange(len(steps.step)), steps.step).statistic
    assert correlation < -0.9


def test_a_users_own_embedding_overtakes_the_network_near_t_star(stationary: Stationary) -> None:
    """The error is how far (Kullback-Leibler) predictions are from what users choose by."""
    world, log, embeddings = stationary
    fold_in = FoldIn.of(embeddings)
    t_star = choose_t_star(step_sizes(fold_in, log.events, log.counts), rho=0.2)
    params = replace(
        STAGE_TWO, ablation="one_rnn", t_star=t_star, window=16, hidden=8, reads=(),
        negatives=100, batch=4096,
    )  # fmt: skip
    inductive = stage_two(log, params, embeddings=embeddings, epochs=8, seed=1)
    others, chances = world.people(np.random.default_rng(2), np.full(400, 160))
    users = np.arange(1, 401)

    def errors(history: int) -> tuple[float, float]:
        count = np.full(len(users), history)
        folded = fold_in.vectors(others, users, count=count)
        static = folded @ embeddings.items[1:].T + embeddings.item_bias[1:]
        queries = user_vectors(inductive, others, user_idx=users, history=count)
        network = inductive.scores(torch.from_numpy(queries)).detach().numpy()[:, 1:]
        return divergence(chances, static), divergence(chances, network)

    for few in (1, 2, 3):  # of nobody's events both know what is popular, and no more
        transductive, learned = errors(few)
        assert transductive > learned, few
    for many in (80, 160):
        transductive, learned = errors(many)
        assert transductive < learned, many
    crossing = next(n for n in range(4, 160) if errors(n)[0] < errors(n)[1])
    assert t_star / 2 <= crossing <= 2 * t_star


def divergence(chances: np.ndarray, scores: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of softmax(scores) from the chances, both (U, V)."""
    said = torch.log_softmax(torch.from_numpy(scores).double(), dim=1).numpy()
    return float((chances * (np.log(chances) - said)).sum(axis=1).mean())


class Mixed(NamedTuple):
    """Half of the users with a few events, half with many; an order and tastes."""

    log: LogUntil
    embeddings: Embeddings
    target: np.ndarray  # (U,) each user's last event
    history: np.ndarray  # (U,)

    @classmethod
    def drawn(cls, seed: int) -> "Mixed":
        rng = np.random.default_rng(seed)
        world = World.drawn(rng, n_items=300, centres=5, spread=0.7, order=0.4)
        lengths = np.where(
            np.arange(800) % 2 == 0, rng.integers(3, 10, 800), rng.integers(20, 90, 800)
        )
        events, _ = world.people(rng, lengths)
        log = log_of_all_but(events, 1, n_items=300)
        embeddings = stage_one(log, dim=16, l2=0.01, epochs=6, seed=seed)
        return cls(log, embeddings, events.item_idx[events.offsets[2:] - 1], log.counts[1:])

    def trained(self, ablation: Ablation, *, epochs: int, seed: int) -> TwoTimeScale:
        params = replace(MIXED, ablation=ablation)
        return stage_two(self.log, params, embeddings=self.embeddings, epochs=epochs, seed=seed)

    def recall_at_20(self, model: TwoTimeScale) -> float:
        users = np.arange(1, len(self.target) + 1)
        queries = user_vectors(model, self.log.events, user_idx=users, history=self.history)
        scores = model.scores(torch.from_numpy(queries)).detach().numpy()
        own = scores[users - 1, self.target][:, None]
        return float(((scores >= own).sum(axis=1) <= 20).mean())


@pytest.mark.slow
def test_two_networks_are_not_worse_than_one_or_than_static_active_users() -> None:
    """Mean over three seeds, with as many epochs for one network as for two."""
    recall: dict[Ablation, list[float]] = {"none": [], "one_rnn": [], "active_static": []}
    for seed in (1, 2, 3):
        mixed = Mixed.drawn(seed)
        for ablation, found in recall.items():
            epochs = 8 if ablation == "one_rnn" else 6
            found.append(mixed.recall_at_20(mixed.trained(ablation, epochs=epochs, seed=seed)))
    mean = {ablation: float(np.mean(found)) for ablation, found in recall.items()}
    assert mean["none"] >= 0.99 * max(mean["one_rnn"], mean["active_static"]), recall


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(((one * two).sum(axis=1) / lengths).mean())


def test_promotion_is_continuous(stationary: Stationary) -> None:
    """The last answer of the inactive network and the first one of the active network are near."""
    _, log, embeddings = stationary
    params = replace(MIXED, negatives=100)
    model = stage_two(log, params, embeddings=embeddings, epochs=1, seed=1)
    users = np.flatnonzero(log.counts >= T_STAR)
    last, first = (
        user_vectors(model, log.events, user_idx=users, history=np.full(len(users), history))
        for history in (T_STAR - 1, T_STAR)
    )
    assert cosine(last, first) > 0.5


def test_after_the_same_events_both_networks_answer_alike() -> None:
    """Where there is an order one event moves any answer, and a promotion is one event more."""
    mixed = Mixed.drawn(1)
    model = mixed.trained("none", epochs=3, seed=1)
    later = TwoTimeScale.from_arrays({**model.to_json(), "t_star": T_STAR + 1}, model.to_arrays())
    users = np.flatnonzero(mixed.log.counts > T_STAR)
    at_t_star = np.full(len(users), T_STAR)
    active, inactive = (
        user_vectors(one, mixed.log.events, user_idx=users, history=at_t_star)
        for one in (model, later)
    )
    assert cosine(active, inactive) > 0.5
