"""Logs of users whose preferences are known by construction: they choose by softmax(<phi, v>), phi
near one of a few centres, and may follow an order of items instead, the same for everybody."""

from dataclasses import dataclass, replace

import numpy as np

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import TrainRnn
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import PHASES, TOGETHER, RnnTrainer
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit, Trainer
from tests.markov_log import CPU, STAGE_ONE
from tests.serving_world import make_events

DIM = 8
ITEM_SCALE = 0.8


@dataclass(frozen=True)
class World:
    """Items, what users are like, and what follows what."""

    items: np.ndarray  # (V, D)
    centres: np.ndarray  # (C, D)
    following: np.ndarray  # (V,)
    spread: float
    order: float
    """The probability that the next event is what follows the last one, and no choice."""

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, *, n_items: int, centres: int, spread: float, order: float
    ) -> "World":
        return cls(
            items=rng.normal(0.0, ITEM_SCALE, (n_items, DIM)),
            centres=rng.normal(0.0, 1.0, (centres, DIM)),
            following=rng.permutation(n_items),
            spread=spread,
            order=order,
        )

    def people(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[Events, np.ndarray]:
        """A log of users with so many events each, and what they choose by. (U, V)"""
        users = len(lengths)
        tastes = self.centres[rng.integers(len(self.centres), size=users)]
        tastes = tastes + self.spread * rng.normal(0.0, 1.0, tastes.shape)  # (U, D)
        chances = np.exp(tastes @ self.items.T)
        chances /= chances.sum(axis=1, keepdims=True)
        histories = []
        for chance, length in zip(chances, lengths, strict=True):
            history = rng.choice(len(chance), length, p=chance)
            for event in np.flatnonzero(rng.random(length) < self.order):
                if event > 0:
                    history[event] = self.following[history[event - 1]]
            histories.append((history + 1).tolist())
        return make_events(histories), chances


def log_of_all_but(events: Events, last: int, *, n_items: int) -> LogUntil:
    """The log without each user's `last` events."""
    counts = np.maximum(np.diff(events.offsets) - last, 0)
    return LogUntil(events, Cut(counts, n_items, None))


def finish(trainer: Trainer, epochs: int) -> None:
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass


def stage_one(log: LogUntil, *, dim: int, l2: float, epochs: int, seed: int) -> Embeddings:
    params = replace(
        STAGE_ONE, dim=dim, negatives=log.n_items, batch=1024, l2=l2, learning_rate=0.03
    )
    trainer = EmbeddingTrainer(log, params, seed=seed, device=CPU, validation=None)
    finish(trainer, epochs)
    return trainer.embeddings(fold_in_l2=1.0)


def stage_two(
    log: LogUntil, params: TrainRnn, *, embeddings: Embeddings, epochs: int, seed: int
) -> TwoTimeScale:
    """`epochs` together, and where there are two networks `params.max_epochs_apart` of each."""
    model: TwoTimeScale | None = None
    for phase in PHASES if params.ablation != "one_rnn" else (TOGETHER,):
        trainer = RnnTrainer(
            log,
            params,
            embeddings=embeddings,
            seed=seed,
            device=CPU,
            validation=None,
            phase=phase,
            after=model,
        )
        finish(trainer, epochs if phase == TOGETHER else params.max_epochs_apart)
        model = trainer.finished_model()
    assert model is not None
    return model
