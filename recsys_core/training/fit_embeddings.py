"""Stage one: transductive embeddings by softmax factorisation (2TS specification, section 1.2).

    s(u, i) = <phi_u, v_i> + b_i
    loss    = mean over events of -log softmax(s) + l2 (|phi_u|^2 + |v_i|^2) / 2

The softmax is sampled, with log q correction; only rows that a batch touches are updated. Events
with a reward of 0 are none to learn from here (`rewards.py`).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.data.events import Events
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.fold_in import FOLD_IN_LIMIT, FoldIn
from recsys_core.models.requests import known_events
from recsys_core.rng import derive_seed, generator
from recsys_core.sections import TrainEmbeddings
from recsys_core.training.log_until import LogUntil, log_popularity
from recsys_core.training.losses import pull, sampled_softmax
from recsys_core.training.row_table import RowTable
from recsys_core.training.samplers import Candidates, NegativeSampler
from recsys_core.training.validation import Validation

INITIAL_SCALE = 0.1

FOLD_IN_L2 = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Ridges to choose from, in units of the item vectors' squared length."""


class EmbeddingTrainer:
    """Trains the tables of users (U + 1, D) and of items (V + 1, D + 1), the last column a bias."""

    stage = "train_embeddings"

    def __init__(
        self,
        log: LogUntil,
        params: TrainEmbeddings,
        *,
        seed: int,
        device: torch.device,
        validation: Validation | None,
    ) -> None:
        self._log = log
        self._params = params
        self._seed = seed
        self._device = device
        self._validation = validation
        self.metric_name = "" if validation is None else validation.metric_name
        weights = log.weights(params.half_life_days)
        self._rows = log.wanted_rows
        frequency = log.item_frequency(weights, self._rows)
        self._weights = weights
        self._sampler = NegativeSampler(
            torch.from_numpy(frequency), power=params.sampling_power, draws=params.negatives
        )
        users, items = initial_tables(log, frequency, dim=params.dim, seed=seed)
        taught = np.bincount(log.events.user_idx[self._rows], minlength=len(users))
        users[torch.from_numpy(taught == 0)] = 0.0  # whoever has nothing that was wanted
        self._users = RowTable(users.to(device), learning_rate=params.learning_rate)
        self._items = RowTable(items.to(device), learning_rate=params.learning_rate)

    def epoch(self, number: int) -> Iterator[tuple[int, int, float]]:
        """One pass over all events in an order of its own; see `loop.Trainer`."""
        events, size = self._log.events, self._params.batch
        rng = generator(self._seed, self.stage, "order", number)
        draws = torch.Generator().manual_seed(
            derive_seed(self._seed, self.stage, "negatives", number)
        )
        rows = self._rows[rng.permutation(len(self._rows))]
        user_of_row = events.user_idx
        losses = 0.0
        for begin in range(0, len(rows), size):
            batch = rows[begin : begin + size]
            users = torch.from_numpy(user_of_row[batch].astype(np.int64)).to(self._device)  # (B,)
            items = torch.from_numpy(events.item_idx[batch].astype(np.int64)).to(
                self._device
            )  # (B,)
            weights = torch.from_numpy(self._weights[batch]).to(self._device)  # (B,)
            loss = self._step(users, items, weights, self._sampler.draw(draws))
            losses += loss * len(batch)
            done = begin + len(batch)
            yield done, len(rows), losses / done

    def _step(self, users: Tensor, items: Tensor, weights: Tensor, drawn: Candidates) -> float:
        candidates = Candidates(drawn.items.to(self._device), drawn.log_expected.to(self._device))
        (vectors,) = self._users.gather([users])  # (B, D)
        positive, negative = self._items.gather([items, candidates.items])  # (B, D + 1), (M, D + 1)
        nll = sampled_softmax(
            vectors,
            items,
            positive=(positive[:, :-1], positive[:, -1]),
            candidates=candidates,
            negative=(negative[:, :-1], negative[:, -1]),
        )
        penalty = pull(vectors) + pull(positive[:, :-1])  # (B,)
        loss = (weights * (nll + self._params.l2 * penalty)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._users.step()
        self._items.step()
        return float(loss.detach())

    def validate(self) -> float:
        """The validation metric of the free user vectors; who has none has the zero vector."""
        assert self._validation is not None
        users = self._users.values.detach().cpu().numpy()

        def vectors(
            user_idx: npt.NDArray[np.int64], _: npt.NDArray[np.int64]
        ) -> npt.NDArray[np.float32]:
            return np.asarray(users[user_idx])

        return self._validation.metric(vectors, self.item_vectors, self.item_bias)

    def embeddings(self, *, fold_in_l2: float) -> Embeddings:
        """The tables as they are now."""
        return Embeddings(
            users=self.user_vectors,
            items=self.item_vectors,
            item_bias=self.item_bias,
            fold_in_l2=fold_in_l2,
        )

    @property
    def user_vectors(self) -> npt.NDArray[np.float32]:
        """(U + 1, D)"""
        return self._users.values.detach().cpu().numpy()

    @property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(V + 1, D)"""
        return self._items.values.detach()[:, :-1].cpu().numpy()

    @property
    def item_bias(self) -> npt.NDArray[np.float32]:
        """(V + 1,)"""
        return self._items.values.detach()[:, -1].cpu().numpy()

    def weights(self) -> dict[str, Tensor]:
        return {"users": self._users.values.detach(), "items": self._items.values.detach()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self._users.values.data.copy_(weights["users"])
        self._items.values.data.copy_(weights["items"])

    def state(self) -> dict[str, Tensor]:
        users = {f"users.{name}": value for name, value in self._users.state().items()}
        return users | {f"items.{name}": value for name, value in self._items.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for table, prefix in ((self._users, "users."), (self._items, "items.")):
            table.load_state(
                {
                    name.removeprefix(prefix): value
                    for name, value in state.items()
                    if name.startswith(prefix)
                }
            )


def choose_fold_in_l2(
    trainer: EmbeddingTrainer, validation: Validation, *, events: Events
) -> Embeddings:
    """The embeddings, with the ridge whose folded-in vectors alone predict validation best."""
    draft = trainer.embeddings(fold_in_l2=FOLD_IN_L2[0])
    known = known_events(events, draft.n_items)
    metrics = []
    for l2 in FOLD_IN_L2:
        fold_in = FoldIn.fit(draft.items, draft.item_bias, l2=l2, limit=FOLD_IN_LIMIT)

        def vectors(
            user_idx: npt.NDArray[np.int64],
            history: npt.NDArray[np.int64],
            fold_in: FoldIn = fold_in,
        ) -> npt.NDArray[np.float32]:
            return fold_in.vectors(known, user_idx, count=history)

        metrics.append(validation.metric(vectors, draft.items, draft.item_bias))
    return replace(draft, fold_in_l2=FOLD_IN_L2[int(np.argmax(metrics))])


def initial_tables(
    log: LogUntil, frequency: npt.NDArray[np.float64], *, dim: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Tables before training: small random vectors, zero for users without training events.

    Biases are log popularity: with those the model begins as the popularity baseline, and its
    vectors learn what differs from it.
    """
    rng = generator(seed, "train_embeddings", "init")
    items = rng.normal(0.0, INITIAL_SCALE, (log.n_items + 1, dim)).astype(np.float32)
    users = rng.normal(0.0, INITIAL_SCALE, (log.events.n_users + 1, dim)).astype(np.float32)
    users[log.counts == 0] = 0.0
    items[0] = 0.0
    table = np.column_stack([items, log_popularity(frequency)])
    return torch.from_numpy(users), torch.from_numpy(table)
