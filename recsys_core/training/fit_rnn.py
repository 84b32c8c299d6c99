"""Stage two: the two networks of the two-time-scale model, first as one, then each by itself.

together   one network learns from every event, and with it the item table, started from stage one
           and pulled towards it; where item features are read, what makes rows of them too, since
           the batch reads and scores mixtures of both
inactive   both networks begin as that one; then each learns from the events of its own cohort
active     alone, and is judged by them. The item table, already mixed, stands still: it is the
           other's too

A cohort alone is often too little to learn an order of events from: networks that begin apart lose
to one network that answers everybody. All targets of a window are predicted at once.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from recsys_core.data.cuts import MICROSECONDS_PER_HOUR
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.trend import Refresh, trend_of
from recsys_core.models.two_time_scale import (
    ActiveNetwork,
    InactiveNetwork,
    TwoTimeScale,
    session_starts,
)
from recsys_core.rng import derive_seed, generator
from recsys_core.sections import TrainRnn
from recsys_core.training.batches import Batch, make_batch
from recsys_core.training.dense_table import DenseTable
from recsys_core.training.dropout import Dropout, hide_fields, hide_users
from recsys_core.training.initial_model import initial_model, parted
from recsys_core.training.item_mixing import ItemMixing, KnownFeatures
from recsys_core.training.log_until import LogUntil
from recsys_core.training.objectives import SampledObjective, SoftmaxObjective
from recsys_core.training.optimisers import (
    load_optimiser_state,
    network_optimiser,
    optimiser_state,
    rate_factor,
    set_learning_rate,
)
from recsys_core.training.rating_objective import RatingObjective
from recsys_core.training.rewards import Rewards
from recsys_core.training.row_table import RowTable
from recsys_core.training.samplers import NegativeSampler, draws_of
from recsys_core.training.validation import Validation
from recsys_core.training.windows import (
    Windows,
    active_windows,
    bucket_by_length,
    inactive_windows,
    windows_of_all,
)

Phase = Literal["together", "inactive", "active"]
TOGETHER: Phase = "together"
PHASES: tuple[Phase, ...] = (TOGETHER, "inactive", "active")

STEPS_A_MESSAGE = 8
"""Between two messages the loss stays on its device, so that a GPU need not wait for the CPU."""


class RnnTrainer:
    """Trains a `TwoTimeScale` on the events of `log`.

    `after` is the model of the phase before: none before `together`, and a phase of one network
    leaves the other as it is there. `features` are those of the log's items, read together.
    """

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
        phase: Phase = TOGETHER,
        after: TwoTimeScale | None = None,
        features: KnownFeatures | None = None,
    ) -> None:
        assert (phase == TOGETHER) == (after is None), "a phase apart begins with a trained model"
        if phase != TOGETHER:
            params = replace(params, finetune_items=False)
        self._log = log
        self._params = params
        self._seed = seed
        self._device = device
        self._validation = validation
        self.metric_name = "" if validation is None else validation.metric_name
        self._counts = log.counts
        self._weights = log.weights(params.half_life_days)
        assert log.reward_rule == Rewards.of(params), "the log's rule is that of the section"
        self._rewards = log.rewards
        self.phase = phase
        if after is None:
            begun = initial_model(
                log,
                params,
                embeddings=embeddings,
                seed=seed,
                together=True,
                features=None if features is None else features.decoder_config(embeddings.dim),
            )
        elif after.config.ablation == "one_rnn" != params.ablation:
            begun = parted(after, log, params, embeddings=embeddings, seed=seed)
        else:
            begun = after
        self.model = begun.to(device)
        self._fold_in = self.model.transductive
        sizes = self.model.config.users
        self._nobody = torch.from_numpy(sizes.unknown).to(device) if sizes.width else None
        self._mixing: ItemMixing | None = None
        if phase == TOGETHER and features is not None:
            assert self.model.decoder is not None, "built for these features"
            self._mixing = ItemMixing(
                self.model.decoder, features, counts=log.item_counts, device=device
            )
        self._objective = self._make_objective()
        self._items = self._objective.table
        self._rating = (
            None if self.model.ratings is None else RatingObjective(self.model.ratings, params)
        )
        self._tables: dict[str, DenseTable | RowTable] = {"items": self._items}
        if self._rating is not None:
            self._tables["ratings"] = self._rating.table
        # what both networks share stands still once they are apart
        self._learns = {"items": params.finetune_items, "ratings": phase == TOGETHER}
        self._network: InactiveNetwork | ActiveNetwork = self.model.inactive
        self._rate = params.learning_rate_inactive
        if phase == "active":
            self._network, self._rate = self.model.active, params.learning_rate_active
        # a decoder learns with the network that it is read by
        self._learner: nn.Module = self._network
        if self._mixing is not None:
            self._learner = nn.ModuleList([self._network, self._mixing.decoder])
        self._optimiser = network_optimiser(
            self._learner, learning_rate=self._rate, weight_decay=params.weight_decay
        )

    def _make_objective(self) -> SoftmaxObjective | SampledObjective:
        """What is minimised; its item table begins as the model's."""
        params, model = self._params, self.model
        # of a target only what came before it counts, so that nothing after the cut ever does
        trend = trend_of(model.config, self._log.events, until=None, refresh=self._refresh())
        if params.ablation == "no_stage1":
            params = replace(params, item_pull=0.0)  # there is nothing to be near to
        values = torch.cat(
            [model.item_vectors.detach(), model.item_bias.detach().unsqueeze(1)], dim=1
        )  # (V + 1, D + 1)
        if params.loss == "softmax":
            return SoftmaxObjective(
                values, params, item_rows=model.item_rows, mixing=self._mixing, trend=trend
            )
        sampler = NegativeSampler(
            torch.from_numpy(self._log.item_frequency(self._weights)),
            power=params.sampling_power,
            draws=draws_of(params.negatives, self._log.n_items),
        )
        return SampledObjective(
            values,
            params,
            item_rows=model.item_rows,
            sampler=sampler,
            mixing=self._mixing,
            trend=trend,
        )

    def _refresh(self) -> Refresh | None:
        """When the trend that training sees is refreshed, the last time at the cut."""
        hours = self._params.trend_refresh_hours
        if hours is None:
            return None
        anchor = self._log.cut.one_time("trend_refresh_hours")
        return Refresh(every_us=round(hours * MICROSECONDS_PER_HOUR), anchor=anchor)

    def epoch(self, number: int) -> Iterator[tuple[int, int, float]]:
        """One pass over the windows of the phase; see `loop.Trainer`."""
        rng = generator(self._seed, self.stage, self.phase, "windows", number)
        negatives = torch.Generator().manual_seed(
            derive_seed(self._seed, self.stage, self.phase, "negatives", number)
        )
        dropped = torch.Generator(self._device).manual_seed(
            derive_seed(self._seed, self.stage, self.phase, "dropout", number)
        )
        windows = self._windows(rng)
        batches = bucket_by_length(windows, budget=self._params.batch, rng=rng)
        total = int((windows.stop - windows.first_target).sum())
        done, losses = 0, torch.zeros((), device=self._device)
        self.model.train()
        for step, index in enumerate(rng.permutation(len(batches))):
            batch = batches[index]
            self._set_learning_rates(number, step, steps=len(batches))
            targets = int((batch.stop - batch.first_target).sum())
            losses += targets * self._step(batch, negatives, dropped)
            done += targets
            if (step + 1) % STEPS_A_MESSAGE == 0 or step + 1 == len(batches):
                yield done, total, float(losses) / done

    def _windows(self, rng: np.random.Generator) -> Windows:
        """What is learned from in one epoch."""
        counts, window, lead = self._counts, self._params.window, self._params.lead
        t_star = self.model.config.t_star
        if self.phase == TOGETHER or self._params.ablation == "one_rnn":
            return windows_of_all(counts, window=window, lead=lead, rng=rng)
        if self.phase == "inactive":
            return inactive_windows(counts, t_star=t_star)
        return active_windows(counts, t_star=t_star, window=window, lead=lead, rng=rng)

    def _set_learning_rates(self, epoch: int, step: int, *, steps: int) -> None:
        params = self._params
        factor = rate_factor(
            epoch, step, steps=steps, warmup=params.warmup, decay=params.rate_decay
        )
        if self.phase != TOGETHER:
            factor *= params.apart_rate
        for table in self._tables.values():
            table.set_learning_rate(factor * params.learning_rate_items)
        set_learning_rate(self._optimiser, factor * self._rate)

    def _step(
        self, windows: Windows, negatives: torch.Generator, dropped: torch.Generator
    ) -> Tensor:
        """Learn from one batch; returns its loss before that. ()"""
        params = self._params
        batch = make_batch(
            self._log.events,
            windows,
            weights=self._weights,
            rewards=self._rewards,
            fold_in=self._fold_in,
            reads=self.model.config.reads,
            device=self._device,
        )

        outputs: list[Tensor] = []

        def queries(embedded: Tensor) -> Tensor:
            outputs.append(self._outputs(batch, embedded, dropped))  # (N, H)
            return self._queries(batch, outputs[0])

        loss = self._objective.loss(batch, queries, negatives)
        if self._rating is not None:
            assert self._network.rate is not None, "of the same configuration"
            loss = loss + self._rating.loss(batch, self._network.rate(outputs[0]))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learner.parameters(), params.grad_clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        for name, table in self._tables.items():
            if self._learns[name]:
                table.step()
            else:
                table.forget()
        return loss.detach()

    def _outputs(self, batch: Batch, embedded: Tensor, dropped: torch.Generator) -> Tensor:
        """What the network makes of what lies before each target: (B, T, D) to (N, H)."""
        params, network = self._params, self._network
        events = Dropout(params.embedding_dropout, dropped).whole_vectors(embedded)  # (B, T, D)
        numbers = hide_fields(
            batch.numbers, self.model.config.reads, share=params.field_dropout, draws=dropped
        )
        user_fields = batch.user_fields
        if self._nobody is not None:
            user_fields = hide_users(
                user_fields, self._nobody, share=params.field_dropout, draws=dropped
            )
        initial = network.initial(batch.user_vector)  # (B, S)
        outputs = network.outputs(
            events,
            numbers,
            initial,
            Dropout(params.dropout, dropped),
            session_starts(batch.numbers),
            expected=None if self._rating is None else self._rating.expected(batch.items),
            user_fields=user_fields,
        )  # (B, T + 1, H)
        return outputs.flatten(0, 1).index_select(0, batch.place)  # (N, H)

    def _queries(self, batch: Batch, outputs: Tensor) -> Tensor:
        """What is asked of the item table at each target: (N, H) to (N, D)."""
        user_vector = batch.user_vector.index_select(0, batch.row)  # (N, D)
        return self.model.queries(self._network.vectors(outputs, user_vector))  # (N, D)

    def validate(self) -> float:
        """The validation metric of the whole, routed model, on the targets that it was given."""
        assert self._validation is not None
        return self._validation.metric_of_model(self.finished_model(), self._log)

    def finished_model(self) -> TwoTimeScale:
        """The model with the item table as it is now, mixed where features are read, ready to
        predict."""
        values = self._items.values.detach()
        if self._mixing is not None:
            values = self._mixing.finished(values)
        if self._mixing is not None or self._params.finetune_items:
            self.model.set_items(values[:, :-1], values[:, -1])
        if self._rating is not None:
            assert self.model.ratings is not None, "of the same configuration"
            self.model.ratings.rows.data.copy_(self._rating.table.values.detach())
        return self.model.eval()

    def _network_weights(self) -> dict[str, Tensor]:
        parts: dict[str, nn.Module] = {"inactive": self.model.inactive, "active": self.model.active}
        if self._mixing is not None:
            parts["decoder"] = self._mixing.decoder
        return {
            f"{name}.{key}": value.detach()
            for name, part in parts.items()
            for key, value in part.named_parameters()
        }

    def weights(self) -> dict[str, Tensor]:
        tables = {name: table.values.detach() for name, table in self._tables.items()}
        return self._network_weights() | tables

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._network_weights().items():
                value.copy_(weights[name])
            for name, table in self._tables.items():
                table.values.copy_(weights[name])

    def state(self) -> dict[str, Tensor]:
        state = self._network_weights()
        for table_name, table in self._tables.items():
            state |= {f"{table_name}.{name}": value for name, value in table.state().items()}
        moments = optimiser_state(self._optimiser)
        return state | {f"optimiser.{name}": value for name, value in moments.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, value in self._network_weights().items():
            value.copy_(state[name])
        for name, table in self._tables.items():
            table.load_state(_below(state, f"{name}."))
        load_optimiser_state(self._optimiser, _below(state, "optimiser."))


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
