"""The two-time-scale model before its training, and where one network becomes two."""

from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.data.features import mean_and_deviation
from recsys_core.data.field_rows import NO_FIELDS
from recsys_core.models.ablations import Ablation
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.event_reader import EventReader
from recsys_core.models.fold_in import FOLD_IN_LIMIT, FoldIn
from recsys_core.models.item_decoder import FeatureDecoder, FeatureDecoderConfig
from recsys_core.models.two_time_scale import TwoTimeScale, TwoTimeScaleConfig
from recsys_core.rng import derive_seed
from recsys_core.sections import Read, TrainRnn
from recsys_core.training.fit_embeddings import initial_tables
from recsys_core.training.log_until import LogUntil, log_popularity
from recsys_core.training.rating_objective import begin_ratings

PROJECTION_SCALE = 0.1
"""Of the last matrix of a network: a fit begins close to the vector that it corrects."""


def initial_model(
    log: LogUntil,
    params: TrainRnn,
    *,
    embeddings: Embeddings,
    seed: int,
    together: bool,
    features: FeatureDecoderConfig | None,
) -> TwoTimeScale:
    """Networks and decoder drawn from the seed, and the item vectors of stage one.

    `together`: the inactive network is to answer everybody. Before any event it predicts for about
    the mean active user. `params.t_star` is a number, not yet to be chosen. With `features` there
    is a decoder of them, and the item vectors are those of ids alone, not yet mixed. What fields
    are read is what the events have of them.
    """
    assert params.t_star != "auto", "t* is resolved before anything is trained"
    ablation: Ablation = "one_rnn" if together else params.ablation
    folded, learned_phi = embeddings.items, ablation == "learned_phi"
    if params.ablation == "no_stage1":
        embeddings = _random_embeddings(log, dim=embeddings.dim, seed=seed)
        folded = np.zeros_like(embeddings.items)  # whatever is folded in is zero
    fields = log.events.field_rows
    config = TwoTimeScaleConfig(
        n_items=log.n_items,
        dim=embeddings.dim,
        backbone=params.backbone,
        hidden=params.hidden,
        depth=params.depth,
        ffn=params.ffn,
        reads=tuple(read for read in get_args(Read) if read in params.reads),
        time_dim=params.time_dim,
        n_types=int(log.events.event_type[log.rows].max(initial=0)) + 1,
        score=params.score,
        temperature=params.temperature,
        t_star=params.t_star,
        window=params.window,
        fold_in_l2=embeddings.fold_in_l2,
        fold_in_limit=FOLD_IN_LIMIT,
        trend_hours=params.trend_hours,
        trend_temperature=params.trend_temperature,
        ablation=ablation,
        free_users=len(embeddings.users) - 1 if learned_phi else 0,
        features=features,
        context=NO_FIELDS if fields is None else fields.context.sizes,
        users=NO_FIELDS if fields is None else fields.users.sizes,
        rating=params.rating,
    )
    draws = torch.Generator().manual_seed(derive_seed(seed, "train_rnn", "init"))
    model = TwoTimeScale(config)
    for network in (model.active, model.inactive):
        for name, parameter in sorted(network.named_parameters()):
            _initialise(name, parameter, draws)
        for reader in (network.reader.context, network.user_reader):
            reader.forget_unknown()
        _take_scales(network.reader, log)
    if model.decoder is not None:
        _initialise_decoder(model.decoder, seed=seed)
    if model.ratings is not None:
        begin_ratings(model.ratings, log, seed=seed)
    fold_in = FoldIn.of(replace(embeddings, items=folded))
    active = log.counts >= params.t_star
    with torch.no_grad():
        model.active.gamma.fill_(params.gamma)
        if ablation == "active_static":
            model.active.gamma.zero_()
            model.active.gamma.requires_grad_(False)
        if active.any():
            mean = embeddings.users[active].mean(axis=0)
            model.inactive.project.bias.copy_(torch.from_numpy(mean))
        if learned_phi:
            model.free_rows.copy_(torch.from_numpy(embeddings.users))
        model.fold_in_items.copy_(torch.from_numpy(fold_in.items))
        model.fold_in_mean.copy_(torch.from_numpy(fold_in.mean))
        model.fold_in_basis.copy_(torch.from_numpy(fold_in.basis))
        model.fold_in_variance.copy_(torch.from_numpy(fold_in.variance))
    bias = _initial_bias(log, params, embeddings=embeddings)
    model.set_items(torch.from_numpy(embeddings.items), torch.from_numpy(bias))
    return model


def parted(
    together: TwoTimeScale, log: LogUntil, params: TrainRnn, *, embeddings: Embeddings, seed: int
) -> TwoTimeScale:
    """Two networks that are both what one has become, with its item vectors and its decoder.

    With gamma at one they say what it said, whatever is folded in.
    """
    model = initial_model(
        log,
        params,
        embeddings=embeddings,
        seed=seed,
        together=False,
        features=together.config.features,
    )
    one = together.inactive.state_dict()
    model.inactive.load_state_dict(one)
    model.active.load_state_dict({**model.active.state_dict(), **one})
    model.set_items(together.item_vectors.detach(), together.item_bias.detach())
    if model.decoder is not None:
        assert together.decoder is not None, "of the same configuration"
        model.decoder.load_state_dict(together.decoder.state_dict())
    if model.ratings is not None:
        assert together.ratings is not None, "of the same params"
        model.ratings.load_state_dict(together.ratings.state_dict())
    return model


def _take_scales(reader: EventReader, log: LogUntil) -> None:
    """What times and values are standardised by: mean and deviation over the known events."""
    rows, events = log.rows, log.events
    if "request_scale" in reader.state_dict():
        followed = rows[events.position[rows] + 1 < log.counts[events.user_idx[rows]]]
        seconds = (events.timestamp[followed + 1] - events.timestamp[followed]) / 1e6
        reader.request_scale.copy_(torch.tensor(mean_and_deviation(np.log1p(seconds))))
    if "value_scale" in reader.state_dict():
        values = events.value[rows].astype(np.float64)
        reader.value_scale.copy_(torch.tensor(mean_and_deviation(values)))


def _random_embeddings(log: LogUntil, *, dim: int, seed: int) -> Embeddings:
    """What stage one begins with, and nothing that it learned: users without vectors."""
    _, table = initial_tables(log, log.item_frequency(log.weights(None)), dim=dim, seed=seed)
    values = table.numpy()  # (V + 1, D + 1)
    return Embeddings(
        users=np.zeros((len(log.counts), dim), dtype=np.float32),
        items=values[:, :-1].copy(),
        item_bias=values[:, -1].copy(),
        fold_in_l2=1.0,
    )


def _initial_bias(
    log: LogUntil, params: TrainRnn, *, embeddings: Embeddings
) -> npt.NDArray[np.float32]:
    """Stage one's biases; with a half-life the log popularity of the weighted log instead, and with
    a trend nothing: it is the trend that says how popular an item is. (V + 1,)

    Vectors are best learned from the whole log, but how popular an item is, from its last hours.
    """
    if params.trend_hours is not None:
        return np.zeros_like(embeddings.item_bias)
    if params.half_life_days is None:
        return embeddings.item_bias
    return log_popularity(log.item_frequency(log.weights(params.half_life_days)))


def _initialise(name: str, parameter: Tensor, draws: torch.Generator) -> None:
    """Matrices uniform in +-1/sqrt(fan in), recurrent ones orthogonal per gate, biases zero
    but for that of what is read.

    What a user vector does to state and output begins at nothing. All else begins as its module
    made it, without a draw: norms at one, the prior at zero, decays.
    """
    with torch.no_grad():
        if name in ("start", "read.bias"):
            # what is normalised first must not be close to zero: the gradient that comes back
            # through it grows as it shrinks, and that of the item table, read and scored with the
            # same rows, would follow what is read alone
            parameter.uniform_(-1.0, 1.0, generator=draws)
        elif name in ("from_user.weight", "read_user.weight"):
            parameter.zero_()
        elif "weight_hh" in name:  # of a GRU, an LSTM and the two cells of hgru
            for gate in torch.split(parameter, parameter.shape[1]):
                nn.init.orthogonal_(gate, generator=draws)
        elif parameter.dim() == 2:
            bound = parameter.shape[1] ** -0.5
            if name in ("project.weight", "rate.weight"):
                bound *= PROJECTION_SCALE
            parameter.uniform_(-bound, bound, generator=draws)
        elif "bias" in name:
            parameter.zero_()


def _initialise_decoder(decoder: FeatureDecoder, *, seed: int) -> None:
    """As the networks, from draws of its own: those of the networks are what they are without it.

    Code 0 stays what the decoder made it, nothing: see there.
    """
    draws = torch.Generator().manual_seed(derive_seed(seed, "train_rnn", "init decoder"))
    for name, parameter in sorted(decoder.named_parameters()):
        _initialise(name, parameter[1:] if name.startswith("tables.") else parameter, draws)
