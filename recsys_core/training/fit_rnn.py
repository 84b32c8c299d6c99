"""Stage two: the two networks of the two-time-scale model, trained side by side on one item table.

Each batch belongs to one network; each network has its own optimiser, and the item table, started
from stage one and pulled towards it, has a third. All targets of a window are predicted at once.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.data.histories import gather_histories
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.fold_in import FOLD_IN_LIMIT, FoldIn
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import (
    ActiveNetwork,
    InactiveNetwork,
    TwoTimeScale,
    TwoTimeScaleConfig,
)
from recsys_core.rng import derive_seed, generator
from recsys_core.sections import TrainRnn
from recsys_core.training.log_until import LogUntil, log_popularity
from recsys_core.training.losses import pull, sampled_softmax
from recsys_core.training.row_table import RowTable, load_optimiser_state, optimiser_state
from recsys_core.training.samplers import Candidates, NegativeSampler
from recsys_core.training.validation import Validation
from recsys_core.training.windows import Windows, active_windows, bucket_by_length, inactive_windows


class RnnTrainer:
    """Trains a `TwoTimeScale` on the events of `log`."""

    stage = "train_rnn"

    def __init__(
        self,
        log: LogUntil,
        params: TrainRnn,
        *,
        embeddings: Embeddings,
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
        self._counts = log.counts
        self._weights = log.weights(params.half_life_days)
        self._sampler = NegativeSampler(
            torch.from_numpy(log.item_frequency(self._weights)),
            power=params.sampling_power,
            draws=params.negatives,
        )
        self.model = initial_model(log, params, embeddings=embeddings, seed=seed).to(device)
        self._fold_in = self.model.fold_in
        self._stage_one = torch.cat(
            [self.model.item_vectors.detach(), self.model.item_bias.detach().unsqueeze(1)], dim=1
        )  # (V + 1, D + 1)
        self._items = RowTable(self._stage_one.clone(), learning_rate=params.learning_rate_items)
        self._optimisers = {
            "inactive": torch.optim.Adam(
                self.model.inactive.parameters(), lr=params.learning_rate_inactive
            ),
            "active": torch.optim.Adam(
                self.model.active.parameters(), lr=params.learning_rate_active
            ),
        }

    def epoch(self, number: int) -> Iterator[tuple[int, int, float]]:
        """One pass over the windows of both networks, mixed; see `loop.Trainer`."""
        params = self._params
        rng = generator(self._seed, self.stage, "windows", number)
        draws = torch.Generator().manual_seed(derive_seed(self._seed, self.stage, "draws", number))
        windows = {
            "inactive": inactive_windows(self._counts, t_star=params.t_star),
            "active": active_windows(
                self._counts, t_star=params.t_star, window=params.window, rng=rng
            ),
        }
        batches = [
            (name, batch)
            for name, part in windows.items()
            for batch in bucket_by_length(part, budget=params.batch, rng=rng)
        ]
        total = sum(int((part.stop - part.first_target).sum()) for part in windows.values())
        done, losses = 0, 0.0
        self.model.train()
        self._set_learning_rates(number)
        for index in rng.permutation(len(batches)):
            name, batch = batches[index]
            targets = int((batch.stop - batch.first_target).sum())
            losses += self._step(name, batch, draws) * targets
            done += targets
            yield done, total, losses / done

    def _set_learning_rates(self, number: int) -> None:
        """Rates fall by a factor each epoch, so that the later ones settle the weights."""
        params = self._params
        factor = params.rate_decay ** (number - 1)
        self._items.learning_rate = factor * params.learning_rate_items
        for name, rate in (
            ("inactive", params.learning_rate_inactive),
            ("active", params.learning_rate_active),
        ):
            for group in self._optimisers[name].param_groups:
                group["lr"] = factor * rate

    def _step(self, name: str, windows: Windows, draws: torch.Generator) -> float:
        params, events, device = self._params, self._log.events, self._device
        network: InactiveNetwork | ActiveNetwork = getattr(self.model, name)
        inputs = gather_histories(
            events, windows.user_idx, start=windows.start, stop=windows.stop - 1
        )
        targets, weights, chosen = self._targets(windows, width=inputs.items.shape[1] + 1)
        if name == "active":
            folded = self._fold_in.vectors(events, windows.user_idx, count=windows.start)
        else:
            folded = np.zeros((len(windows), self.model.config.dim), dtype=np.float32)
        user_vector = torch.from_numpy(folded).to(device)  # (B, D)
        items = torch.from_numpy(inputs.items).to(device)  # (B, T)
        gaps = torch.from_numpy(inputs.gap_seconds).to(device)  # (B, T)
        drawn = self._sampler.draw(draws)
        candidates = Candidates(drawn.items.to(device), drawn.log_expected.to(device))
        mask = torch.from_numpy(chosen).to(device)  # (B, T + 1)
        target = torch.from_numpy(targets).to(device)  # (N,)
        embedded, positive, negative = self._items.gather([items, target, candidates.items])
        dropped = dropout(embedded[..., :-1], params.dropout, draws)  # (B, T, D)
        states = network.states(dropped, gaps, network.initial(user_vector))  # (B, T + 1, H)
        start = user_vector.unsqueeze(1).expand(-1, states.shape[1], -1)[mask]  # (N, D)
        vectors = network.vectors(dropout(states[mask], params.dropout, draws), start)  # (N, D)
        # on CUDA the large product runs in bfloat16; the recurrence stays in float32, for
        # autocast would run it in float16, whose gradients underflow without loss scaling
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            nll = sampled_softmax(
                vectors,
                target,
                positive=(positive[:, :-1], positive[:, -1]),
                candidates=candidates,
                negative=(negative[:, :-1], negative[:, -1]),
            ).float()
        loss = (torch.from_numpy(weights).to(device) * nll).mean()
        if params.finetune_items:
            loss = loss + params.item_pull * pull(positive, self._stage_one[target]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), params.grad_clip)
        self._optimisers[name].step()
        self._optimisers[name].zero_grad(set_to_none=True)
        if params.finetune_items:
            self._items.step()
        return float(loss.detach())

    def _targets(
        self, windows: Windows, *, width: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """What states are asked for: targets (N,), their weights (N,), which states (B, T + 1)."""
        position = windows.start[:, None] + np.arange(width)  # (B, T + 1)
        chosen = (position >= windows.first_target[:, None]) & (position < windows.stop[:, None])
        rows = (self._log.events.offsets[windows.user_idx][:, None] + position)[chosen]
        return self._log.events.item_idx[rows].astype(np.int64), self._weights[rows], chosen

    def validate(self) -> float:
        """The validation metric of the whole, routed model."""
        assert self._validation is not None
        model = self.finished_model()
        known = known_events(self._log.events, self._log.n_items)

        def vectors(
            user_idx: npt.NDArray[np.int64], history: npt.NDArray[np.int64]
        ) -> npt.NDArray[np.float32]:
            return user_vectors(model, known, user_idx=user_idx, history=history)

        return self._validation.metric(
            vectors,
            model.item_vectors.detach().cpu().numpy(),
            model.item_bias.detach().cpu().numpy(),
        )

    def finished_model(self) -> TwoTimeScale:
        """The model with the item table as it is now, ready to predict."""
        with torch.no_grad():
            self.model.item_vectors.copy_(self._items.values[:, :-1])
            self.model.item_bias.copy_(self._items.values[:, -1])
        return self.model.eval()

    def _network_weights(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value.detach()
            for name in self._optimisers
            for key, value in getattr(self.model, name).named_parameters()
        }

    def weights(self) -> dict[str, Tensor]:
        return self._network_weights() | {"items": self._items.values.detach()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._network_weights().items():
                value.copy_(weights[name])
            self._items.values.copy_(weights["items"])

    def state(self) -> dict[str, Tensor]:
        state = self._network_weights()
        state |= {f"items.{name}": value for name, value in self._items.state().items()}
        for name, optimiser in self._optimisers.items():
            state |= {f"optimiser.{name}.{key}": v for key, v in optimiser_state(optimiser).items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, value in self._network_weights().items():
            value.copy_(state[name])
        self._items.load_state(_below(state, "items."))
        for name, optimiser in self._optimisers.items():
            load_optimiser_state(optimiser, _below(state, f"optimiser.{name}."))


def initial_model(
    log: LogUntil, params: TrainRnn, *, embeddings: Embeddings, seed: int
) -> TwoTimeScale:
    """Networks drawn from the seed, and the item vectors of stage one.

    Before any event the inactive network predicts for the mean active user.
    """
    config = TwoTimeScaleConfig(
        n_items=log.n_items,
        dim=embeddings.dim,
        hidden=params.hidden,
        time_dim=params.time_dim,
        t_star=params.t_star,
        window=params.window,
        fold_in_l2=embeddings.fold_in_l2,
        fold_in_limit=FOLD_IN_LIMIT,
    )
    draws = torch.Generator().manual_seed(derive_seed(seed, "train_rnn", "init"))
    model = TwoTimeScale(config)
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith(("inactive.", "active.")):
            _initialise(name, parameter, draws)
    fold_in = FoldIn.fit(
        embeddings.items,
        embeddings.item_bias,
        l2=embeddings.fold_in_l2,
        limit=FOLD_IN_LIMIT,
    )
    active = log.counts >= params.t_star
    with torch.no_grad():
        model.active.gamma.fill_(params.gamma)
        if active.any():
            mean = embeddings.users[active].mean(axis=0)
            model.inactive.project.bias.copy_(torch.from_numpy(mean))
        model.item_vectors.copy_(torch.from_numpy(embeddings.items))
        model.item_bias.copy_(torch.from_numpy(_initial_bias(log, params, embeddings=embeddings)))
        model.fold_in_items.copy_(torch.from_numpy(fold_in.items))
        model.fold_in_mean.copy_(torch.from_numpy(fold_in.mean))
        model.fold_in_basis.copy_(torch.from_numpy(fold_in.basis))
        model.fold_in_variance.copy_(torch.from_numpy(fold_in.variance))
    return model


def _initial_bias(
    log: LogUntil, params: TrainRnn, *, embeddings: Embeddings
) -> npt.NDArray[np.float32]:
    """Stage one's biases; with a half-life the log popularity of the weighted log instead. (V + 1,)

    Vectors are best learned from the whole log, but how popular an item is, from its last hours.
    """
    if params.half_life_days is None:
        return embeddings.item_bias
    return log_popularity(log.item_frequency(log.weights(params.half_life_days)))


def _initialise(name: str, parameter: nn.Parameter, draws: torch.Generator) -> None:
    """Matrices uniform in +-1/sqrt(fan in), recurrent ones orthogonal per gate, vectors zero."""
    with torch.no_grad():
        if name.endswith("weight_hh_l0"):
            for gate in parameter.chunk(3):
                nn.init.orthogonal_(gate, generator=draws)
        elif parameter.dim() == 2:
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=draws)
        else:
            parameter.zero_()


def dropout(values: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Zeroes a share of the values and scales the rest; drawn on the CPU, from `draws` alone."""
    if share == 0.0:
        return values
    keep = torch.rand(values.shape, generator=draws) >= share
    return values * (keep.to(values.device) / (1.0 - share))


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
