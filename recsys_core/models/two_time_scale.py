"""The two-time-scale recommender (2TS, section 1.2 of its specification): two networks by activity.

    both              x_t = W [ v_(i_t) ; e_t ; f_u ] + b    x_0 = s + W [ 0 ; 0 ; f_u ], before any
                      o_t = P Stack(x_0 ... x_t; h_0) + c          event, from a learned start s
    inactive (fast)   h_0 = p                                phi_t = o_t
    active (slow)     h_0 = p + tanh(W_0 phi_u + c_0)        phi_t = phi_u + gamma (a_t - phi_u)
                                                             a_t = o_t + A phi_u
    score, dot        s(u, i | t) = <phi_t, v_i> + b_i
    score, cosine     s(u, i | t) = <phi_t / |phi_t|, v_i / |v_i|> / temperature + b_i

e_t is what else is read of the event, f_u what is known of the user, whom nobody has met perhaps.
gamma is a number for each dimension: 0 is the transductive embedding, 1 what the network says, and
between them a user who evolves slowly. Nothing is shared but the item vectors V, of which cosine
reads the directions alone. phi_u is
folded in (`fold_in.py`) from earlier events than any that the active network is asked for. Row 0 of
V is PAD and scores minus infinity. `ablations.py` says what may be taken away.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models.ablations import Ablation
from recsys_core.models.backbones import BackboneName
from recsys_core.models.blocks import Drop, Stack, keep_all
from recsys_core.models.event_reader import EventReader
from recsys_core.models.field_reader import FieldReader
from recsys_core.models.fold_in import FoldIn, FreeRows, UserVectors
from recsys_core.models.item_decoder import FeatureDecoder, FeatureDecoderConfig
from recsys_core.models.ratings import RatingTable
from recsys_core.models.requests import InputSpec
from recsys_core.sections import Read

SMALLEST_SQUARE = 1e-12
"""Added to a squared length before dividing by it: the zero vector stays zero."""


@dataclass(frozen=True)
class TwoTimeScaleConfig:
    """The sizes of a model: enough to build it before its weights are loaded."""

    n_items: int
    dim: int
    backbone: BackboneName
    hidden: int
    depth: int
    ffn: int
    reads: tuple[Read, ...]
    time_dim: int
    n_types: int
    """Event types of the log."""
    score: Literal["dot", "cosine"]
    temperature: float
    t_star: int
    window: int
    fold_in_l2: float
    fold_in_limit: int
    trend_hours: float | None
    """The window of the trend that is added to the logits; None: there is none."""
    trend_temperature: float
    ablation: Ablation
    free_users: int
    """Users whose free vectors of stage one the model holds: 0 unless it is `learned_phi`."""
    features: FeatureDecoderConfig | None
    """Of what reads item features; None where ids alone tell items."""
    rating: bool
    """Whether the values of events are predicted too."""
    context: FieldSizes = NO_FIELDS
    """What is read of how an event came about."""
    users: FieldSizes = NO_FIELDS
    """What is read of a user."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TwoTimeScaleConfig":
        """The configuration of `TwoTimeScale.to_json`."""
        features = value["features"]
        built = {
            "reads": tuple(value["reads"]),
            "features": features and FeatureDecoderConfig.from_json(features),
            "context": FieldSizes.from_json(value["context"]),
            "users": FieldSizes.from_json(value["users"]),
        }
        return cls(**{**value, **built})

    @property
    def input_spec(self) -> InputSpec:
        """What the model reads: batches, the export's example and the parity test follow it.

        Nothing is remembered here: a memory stands beside the model.
        """
        return InputSpec(
            n_items=self.n_items,
            dim=self.dim,
            t_star=self.t_star,
            window=self.window,
            remembered=0,
            ablation=self.ablation,
            reads=self.reads,
            context=self.context,
            users=self.users,
        )


class RecurrentNetwork(nn.Module):
    """A stack over events: the item's vector, and what else is read of them (`event_reader.py`).

    Where nothing is, only the order of items counts.
    """

    def __init__(self, config: TwoTimeScaleConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden
        self.reader = EventReader(
            config.reads,
            time_dim=config.time_dim,
            n_types=config.n_types,
            rating=config.rating,
            context=config.context,
        )
        self.read = nn.Linear(dim + self.reader.size, hidden)
        self.user_reader = FieldReader(config.users)
        size = self.user_reader.size
        # the same matrix as `read`, cut in two: a user's part is worked out once, not at each step
        self.read_fields = nn.Linear(size, hidden, bias=False) if size else None
        self.start = nn.Parameter(torch.zeros(hidden))
        self.stack = Stack(
            config.backbone,
            width=hidden,
            depth=config.depth,
            ffn=config.ffn,
            max_length=config.input_spec.max_length + 1,  # the start before the events
        )
        self.project = nn.Linear(hidden, dim)
        self.rate = nn.Linear(hidden, dim + 1) if config.rating else None
        self.prior = nn.Parameter(torch.zeros(self.stack.state_size))

    def outputs(
        self,
        embedded: Tensor,
        numbers: Tensor,
        initial: Tensor,
        drop: Drop = keep_all,
        session_start: Tensor | None = None,
        *,
        expected: Tensor | None = None,
        user_fields: Tensor | None = None,
    ) -> Tensor:
        """The output before any event and after each of them. (B, T + 1, H)

        Takes item vectors (B, T, D), the events' numbers (B, T, .), the initial states of all
        blocks (B, S), and users' fields (B, .) where they are read. `session_start` (B, T + 2) is
        that of the numbers, unless some are hidden there: a network is not told, but a hierarchy
        still knows where sessions end. `expected` (B, T) is what values are compared with, where
        they are predicted (`ratings.py`).
        """
        if session_start is None:
            session_start = session_starts(numbers)
        steps = drop(self.steps(embedded, numbers, expected=expected, user_fields=user_fields))
        outputs: Tensor = self.stack(steps, initial, drop, session_start)
        return outputs  # (B, T + 1, H)

    def steps(
        self,
        embedded: Tensor,
        numbers: Tensor,
        *,
        expected: Tensor | None,
        user_fields: Tensor | None,
    ) -> Tensor:
        """What the stack reads: the start, and each event. As for `outputs`. (B, T + 1, H)"""
        told = self.reader(numbers, expected)
        events = self.read(torch.cat([embedded, *told], dim=-1))  # (B, T, H)
        start = self.start.expand(events.shape[0], 1, -1)  # (B, 1, H)
        steps = torch.cat([start, events], dim=1)  # (B, T + 1, H)
        if self.read_fields is None:
            return steps
        assert user_fields is not None, "this network reads the fields of users"
        known = self.read_fields(torch.cat(self.user_reader(user_fields), dim=-1))  # (B, H)
        with_fields: Tensor = steps + known.unsqueeze(1)
        return with_fields


class InactiveNetwork(RecurrentNetwork):
    """The fast scale: inductive, from a learned prior; it never reads a user's id or vector."""

    def initial(self, user_vector: Tensor) -> Tensor:
        """The prior, once for each row of `user_vector` (B, D); its values are not read. (B, S)"""
        return self.prior.unsqueeze(0).expand(user_vector.shape[0], -1)

    def vectors(self, outputs: Tensor, user_vector: Tensor) -> Tensor:  # noqa: ARG002 (one shape for both networks)
        """User vectors of outputs: (..., H) to (..., D)."""
        projected: Tensor = self.project(outputs)
        return projected


class ActiveNetwork(RecurrentNetwork):
    """The slow scale: a network that knows the transductive embedding, and moves away from it."""

    def __init__(self, config: TwoTimeScaleConfig) -> None:
        super().__init__(config)
        self.from_user = nn.Linear(config.dim, self.stack.state_size)
        self.read_user = nn.Linear(config.dim, config.dim, bias=False)
        self.gamma = nn.Parameter(torch.zeros(config.dim))

    def initial(self, user_vector: Tensor) -> Tensor:
        """(B, D) to (B, S)."""
        return self.prior + torch.tanh(self.from_user(user_vector))

    def vectors(self, outputs: Tensor, user_vector: Tensor) -> Tensor:
        """User vectors of outputs: (..., H) and (..., D) to (..., D).

        With gamma = 0 they are exactly `user_vector`.
        """
        moved: Tensor = self.read_user(user_vector) + self.project(outputs)
        vectors: Tensor = user_vector + self.gamma * (moved - user_vector)
        return vectors


class TwoTimeScale(nn.Module):
    """Both networks, the item table that they share, and what folds a user in.

    `item_vectors` are what a query is multiplied with: of length 1 where the score is cosine. Where
    `decoder` reads item features, they are the mixture with what it says (`item_decoder.py`), so
    that nothing but an item that is new asks it anything.
    """

    item_vectors: Tensor
    item_bias: Tensor
    fold_in_items: Tensor
    fold_in_mean: Tensor
    fold_in_basis: Tensor
    fold_in_variance: Tensor
    free_rows: Tensor

    def __init__(self, config: TwoTimeScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.inactive = InactiveNetwork(config)
        self.active = ActiveNetwork(config)
        self.item_vectors = nn.Parameter(torch.zeros(config.n_items + 1, config.dim))
        self.item_bias = nn.Parameter(torch.zeros(config.n_items + 1))
        self.decoder = None if config.features is None else FeatureDecoder(config.features)
        self.ratings = RatingTable(config.n_items, config.dim) if config.rating else None
        # stage one's side, for fold-in: never trained here
        self.register_buffer("fold_in_items", torch.zeros(config.n_items + 1, config.dim))
        self.register_buffer("fold_in_mean", torch.zeros(config.dim))
        self.register_buffer("fold_in_basis", torch.zeros(config.dim, config.dim))
        self.register_buffer("fold_in_variance", torch.zeros(config.dim))
        if config.ablation == "learned_phi":
            self.register_buffer("free_rows", torch.zeros(config.free_users + 1, config.dim))

    @property
    def input_spec(self) -> InputSpec:
        """What the model reads: that of its configuration."""
        return self.config.input_spec

    @property
    def fold_in(self) -> FoldIn:
        """The fold-in of stage one, as NumPy."""
        return FoldIn(
            items=self.fold_in_items.cpu().numpy(),
            mean=self.fold_in_mean.cpu().numpy(),
            basis=self.fold_in_basis.cpu().numpy(),
            variance=self.fold_in_variance.cpu().numpy(),
            l2=self.config.fold_in_l2,
            limit=self.config.fold_in_limit,
        )

    @property
    def transductive(self) -> UserVectors:
        """Where phi_u comes from, as NumPy."""
        if self.config.ablation == "learned_phi":
            return FreeRows(self.free_rows.cpu().numpy())
        return self.fold_in

    def forward(
        self,
        items: Tensor,
        event_numbers: Tensor,
        length: Tensor,
        user_vector: Tensor,
        active: Tensor,
        user_fields: Tensor | None = None,
    ) -> Tensor:
        """Queries after the history: (B, T), (B, T, .), (B,), (B, D), (B,), (B, .) to (B, D).

        PAD steps come after `length` events and are not read: the output is taken at `length`. Nor
        are users' fields, where the model reads none. Both networks run for every row, and `active`
        picks one of the two vectors.
        """
        return self.answers(items, event_numbers, length, user_vector, active, user_fields)[0]

    def answers(
        self,
        items: Tensor,
        event_numbers: Tensor,
        length: Tensor,
        user_vector: Tensor,
        active: Tensor,
        user_fields: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The queries of `forward` (B, D), and what is asked of the ratings (B, D + 1) where they
        are predicted."""
        inactive, slow = (
            self.cohort_answers(network, items, event_numbers, length, user_vector, user_fields)
            for network in (self.inactive, self.active)
        )
        picked = active.unsqueeze(1)  # (B, 1)
        queries = torch.where(picked, slow[0], inactive[0])  # (B, D)
        if inactive[1] is None or slow[1] is None:
            return queries, None
        return queries, torch.where(picked, slow[1], inactive[1])

    def cohort_answers(
        self,
        network: InactiveNetwork | ActiveNetwork,
        items: Tensor,
        event_numbers: Tensor,
        length: Tensor,
        user_vector: Tensor,
        user_fields: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The answers of one network alone; inputs as for `forward`."""
        embedded = self.item_vectors[items]  # (B, T, D)
        outputs = network.outputs(
            embedded,
            event_numbers,
            network.initial(user_vector),
            expected=None if self.ratings is None else self.ratings.expected(items),
            user_fields=user_fields,
        )
        last = length.view(-1, 1, 1).expand(-1, 1, self.config.hidden)  # (B, 1, H)
        output = outputs.gather(1, last).squeeze(1)  # (B, H)
        queries = self.queries(network.vectors(output, user_vector))  # (B, D)
        return queries, None if network.rate is None else network.rate(output)

    def queries(self, vectors: Tensor) -> Tensor:
        """What user vectors (..., D) are multiplied with the item table as. (..., D)"""
        if self.config.score == "dot":
            return vectors
        return unit_length(vectors) / self.config.temperature

    def scores(self, queries: Tensor) -> Tensor:
        """Logits of all items: (B, D) to (B, V + 1); column 0 (PAD) is minus infinity."""
        scores = torch.addmm(self.item_bias, queries, self.item_vectors.T)
        scores[:, 0] = -torch.inf
        return scores

    def set_items(self, vectors: Tensor, bias: Tensor) -> None:
        """Take up an item table (V + 1, D) with its biases (V + 1,), as this model scores it."""
        with torch.no_grad():
            self.item_vectors.copy_(self.item_rows(vectors))
            self.item_bias.copy_(bias)

    def item_rows(self, vectors: Tensor) -> Tensor:
        """Trained item vectors (..., D) as they are read and scored: for cosine of length 1."""
        return vectors if self.config.score == "dot" else unit_length(vectors)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All weights by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def to_json(self) -> dict[str, Any]:
        """The configuration, to build the model again."""
        features = self.config.features
        return {**asdict(self.config), "features": features and features.to_json()}

    @classmethod
    def from_arrays(
        cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[np.generic]]
    ) -> "TwoTimeScale":
        """The model of `to_json` and `to_arrays`."""
        model = cls(TwoTimeScaleConfig.from_json(config))
        model.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
        )
        return model.eval()


def session_starts(numbers: Tensor) -> Tensor:
    """Which steps open a session: the learned start, T events by their numbers (B, T, .), and what
    is asked for behind them. (B, T + 2)

    The start opens none, the first event that is read does, wherever in a history it stands.
    """
    opens = numbers[..., EVENT_NUMBERS.index("opens_session")] > 0.0  # (B, T)
    first = torch.ones_like(opens[:, :1])
    return torch.cat([~first, first, opens], dim=1)


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length; zero stays zero."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + SMALLEST_SQUARE)
