"""The two-time-scale recommender (2TS, section 1.2 of its specification): two GRUs by activity.

    inactive (fast)   h_0 = p                       phi_t = P_in h_t + c
    active (slow)     h_0 = tanh(W_0 phi_u + c_0)   phi_t = phi_u + gamma P_ac h_t
    both              x_t = [ v_(i_t) ; emb(gap) ]  h_t = GRU(x_t, h_(t-1))     time_dim 0: v_(i_t)
    score             s(u, i | t) = <phi_t, v_i> + b_i

Nothing is shared but the item vectors V. phi_u is folded in (`fold_in.py`) from the events before
the window, so that the active network never sees what it is asked for. Row 0 of V is PAD and scores
minus infinity.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.models.fold_in import FoldIn
from recsys_core.models.requests import InputSpec

GAP_BUCKETS = 30


@dataclass(frozen=True)
class TwoTimeScaleConfig:
    """The sizes of a model: enough to build it before its weights are loaded."""

    n_items: int
    dim: int
    hidden: int
    time_dim: int
    t_star: int
    window: int
    fold_in_l2: float
    fold_in_limit: int


class RecurrentNetwork(nn.Module):
    """A GRU over events: the item's vector, and an embedding of the gap since the event before.

    With `time_dim` 0 no gap is read: only the order of events counts.
    """

    gap_edges: Tensor

    def __init__(self, *, dim: int, hidden: int, time_dim: int) -> None:
        super().__init__()
        self.gap_embedding = nn.Embedding(GAP_BUCKETS + 1, time_dim) if time_dim else None
        self.gru = nn.GRU(dim + time_dim, hidden, batch_first=True)
        self.project = nn.Linear(hidden, dim)
        # bucket b holds gaps of 2^(b-1) - 1 up to 2^b - 2 seconds; comparisons, unlike a logarithm,
        # fall into the same bucket in every runtime
        edges = torch.tensor([2.0**power - 1.0 for power in range(GAP_BUCKETS)])
        self.register_buffer("gap_edges", edges, persistent=False)

    def inputs(self, embedded: Tensor, gap_seconds: Tensor) -> Tensor:
        """Item vectors (B, T, D) and gaps (B, T) in seconds, -1 for none: (B, T, D + time_dim)."""
        if self.gap_embedding is None:
            return embedded
        bucket = (gap_seconds.unsqueeze(-1) >= self.gap_edges).sum(-1)  # (B, T)
        return torch.cat([embedded, self.gap_embedding(bucket)], dim=-1)  # (B, T, D + time_dim)

    def states(self, embedded: Tensor, gap_seconds: Tensor, initial: Tensor) -> Tensor:
        """The state before any event and after each of them. (B, T + 1, H)

        Takes item vectors (B, T, D), gaps (B, T) and the initial state (B, H).
        """
        inputs = self.inputs(embedded, gap_seconds)  # (B, T, D + time_dim)
        # an expanded view as the initial state is refused by cuDNN and by the exporter
        outputs, _ = self.gru(inputs, initial.unsqueeze(0).contiguous())  # (B, T, H)
        return torch.cat([initial.unsqueeze(1), outputs], dim=1)  # (B, T + 1, H)


class InactiveNetwork(RecurrentNetwork):
    """The fast scale: inductive, from a learned prior; it never reads a user's id or vector."""

    def __init__(self, *, dim: int, hidden: int, time_dim: int) -> None:
        super().__init__(dim=dim, hidden=hidden, time_dim=time_dim)
        self.prior = nn.Parameter(torch.zeros(hidden))

    def initial(self, user_vector: Tensor) -> Tensor:
        """The prior, once for each row of `user_vector` (B, D); its values are not read. (B, H)"""
        return self.prior.unsqueeze(0).expand(user_vector.shape[0], -1)

    def vectors(self, states: Tensor, user_vector: Tensor) -> Tensor:  # noqa: ARG002 (one shape for both networks)
        """User vectors of states: (..., H) to (..., D)."""
        projected: Tensor = self.project(states)
        return projected


class ActiveNetwork(RecurrentNetwork):
    """The slow scale: the transductive embedding, and a small correction that starts from it."""

    def __init__(self, *, dim: int, hidden: int, time_dim: int) -> None:
        super().__init__(dim=dim, hidden=hidden, time_dim=time_dim)
        self.start = nn.Linear(dim, hidden)
        self.gamma = nn.Parameter(torch.zeros(()))

    def initial(self, user_vector: Tensor) -> Tensor:
        """(B, D) to (B, H)."""
        return torch.tanh(self.start(user_vector))

    def vectors(self, states: Tensor, user_vector: Tensor) -> Tensor:
        """User vectors of states: (..., H) and (..., D) to (..., D).

        With gamma = 0 they are exactly `user_vector`.
        """
        projected: Tensor = self.project(states)
        return user_vector + self.gamma * projected


class TwoTimeScale(nn.Module):
    """Both networks, the item table that they share, and what folds a user in."""

    item_vectors: Tensor
    item_bias: Tensor
    fold_in_items: Tensor
    fold_in_mean: Tensor
    fold_in_basis: Tensor
    fold_in_variance: Tensor

    def __init__(self, config: TwoTimeScaleConfig) -> None:
        super().__init__()
        self.config = config
        sizes = {"dim": config.dim, "hidden": config.hidden, "time_dim": config.time_dim}
        self.inactive = InactiveNetwork(**sizes)
        self.active = ActiveNetwork(**sizes)
        self.item_vectors = nn.Parameter(torch.zeros(config.n_items + 1, config.dim))
        self.item_bias = nn.Parameter(torch.zeros(config.n_items + 1))
        # stage one's side, for fold-in: never trained here
        self.register_buffer("fold_in_items", torch.zeros(config.n_items + 1, config.dim))
        self.register_buffer("fold_in_mean", torch.zeros(config.dim))
        self.register_buffer("fold_in_basis", torch.zeros(config.dim, config.dim))
        self.register_buffer("fold_in_variance", torch.zeros(config.dim))

    @property
    def input_spec(self) -> InputSpec:
        """What the model reads: batches, the export's example and the parity test follow it."""
        config = self.config
        return InputSpec(
            n_items=config.n_items, dim=config.dim, t_star=config.t_star, window=config.window
        )

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

    def forward(
        self,
        items: Tensor,
        gap_seconds: Tensor,
        length: Tensor,
        user_vector: Tensor,
        active: Tensor,
    ) -> Tensor:
        """User vectors after the history: (B, T), (B, T), (B,), (B, D), (B,) to (B, D).

        PAD steps come after `length` events and are not read: the state is taken at `length`. Both
        networks run for every row, and `active` picks one of the two vectors.
        """
        embedded = self.item_vectors[items]  # (B, T, D)
        last = length.view(-1, 1, 1).expand(-1, 1, self.config.hidden)  # (B, 1, H)
        vectors = []
        for network in (self.inactive, self.active):
            states = network.states(embedded, gap_seconds, network.initial(user_vector))
            state = states.gather(1, last).squeeze(1)  # (B, H)
            vectors.append(network.vectors(state, user_vector))  # (B, D)
        return torch.where(active.unsqueeze(1), vectors[1], vectors[0])

    def scores(self, vectors: Tensor) -> Tensor:
        """Logits of all items: (B, D) to (B, V + 1); column 0 (PAD) is minus infinity."""
        scores = torch.addmm(self.item_bias, vectors, self.item_vectors.T)
        scores[:, 0] = -torch.inf
        return scores

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All weights by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def to_json(self) -> dict[str, int | float]:
        """The configuration, to build the model again."""
        return asdict(self.config)

    @classmethod
    def from_arrays(
        cls, config: Mapping[str, int | float], arrays: Mapping[str, npt.NDArray[np.generic]]
    ) -> "TwoTimeScale":
        """The model of `to_json` and `to_arrays`."""
        model = cls(TwoTimeScaleConfig(**config))  # type: ignore[arg-type]
        model.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
        )
        return model.eval()
