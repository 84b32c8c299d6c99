"""Rows of items without history, by a regression onto the rows that a finished fit has.

A decoder that is trained with the network learns what helps the network where the ids are there
too; of items that have nothing but features it is the beginning alone. Here everything else stands
still, and what the decoder leaves of the finished rows of items with events is told by a ridge over
wide columns (`models/wide_features.py`):

    B = (X^T S X + l2 I)^-1 X^T S (R - w(f)),      S = sqrt(events) / mean of sqrt(events)

for rows R (V, D + 1) and columns X (V, F). The column of ones is not shrunk, so that a new item is
about as popular as others of its features, neither above nor below all that is known. l2 is that
which tells held-out items best. Rows of items with events stay the same bits: to mix in what is
told in hindsight would undo what the network learned to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys_core.errors import ModelError
from recsys_core.models.item_features import ItemFeatures, feature_rows, new_item_rows
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.models.wide_features import CHUNK, Atoms, columns_of
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.wide_columns import choose_columns

FOLDS = 5
FEWEST_ITEMS = 2 * FOLDS
"""With fewer there is nothing to hold out."""


@dataclass(frozen=True)
class ColdRows:
    """What a regression found: the ridge, and the share of the variance of held-out rows that it
    explains; what the decoder as trained explains of them, had it their mean."""

    items: int
    columns: int
    ridge: float
    explained: float
    explained_as_trained: float


@dataclass(frozen=True)
class _Sums:
    """X^T S X, X^T S Y and Y^T S Y of some items, Y being what the decoder leaves over."""

    gram: Tensor  # (F, F)
    cross: Tensor  # (F, D + 1)
    square: Tensor  # ()

    def solved(self, l2: float) -> Tensor:
        """The coefficients; `ModelError` for a ridge that is nothing beside the gram. (F, D + 1)"""
        gram = self.gram.clone()
        gram.diagonal()[1:] += l2  # the mean item, column 0, is as far away as it is
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise ModelError(
                f"features.cold_ridges: with {l2:g} the regression on {len(gram)} columns has no "
                "one solution; choose ridges of about 1 to 1000"
            )
        return torch.cholesky_solve(self.cross, factor)

    def missed(self, coefficients: Tensor) -> float:
        """The weighted squared error of coefficients on these items."""
        told = 2.0 * (coefficients * self.cross).sum()
        return float(self.square - told + (coefficients * (self.gram @ coefficients)).sum())


def with_cold_rows(
    model: TwoTimeScale,
    known: KnownFeatures,
    *,
    counts: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[TwoTimeScale, ColdRows | None]:
    """The model with a decoder that tells items without history by the rows of the others.

    `counts` are the events of each item (V + 1,), of the fit; `rng` draws the folds. The items of
    the vocabulary that have none take their new rows up. The given model stays as it is, and comes
    back where no ridges are given, or fewer than `FEWEST_ITEMS` items have events. Raises
    `ModelError` where a ridge is too small to solve with.
    """
    ridges, items = known.params.cold_ridges, np.flatnonzero(counts > 0)
    if not ridges or len(items) < FEWEST_ITEMS:
        return model, None
    here = _copy(model, columns=0)
    assert here.decoder is not None, "a model of these features"
    features = ItemFeatures.of(known.encoded, device=torch.device("cpu"))
    taught = features.take(torch.from_numpy(items))
    atoms = Atoms(known.encoding.n_codes, known.encoding.n_numbers)
    paired = [bag.kind != "text" for bag in known.encoding.bags]
    columns = choose_columns(atoms, taught, paired=paired)  # (F, 2)
    trained = feature_rows(here.decoder, taught).double()  # (I, D + 1)
    rows = _finished_rows(here, torch.from_numpy(items), like=trained)
    weight = torch.from_numpy(np.sqrt(counts[items]))
    weight /= weight.mean()
    fold = torch.from_numpy(rng.permutation(len(items)) % FOLDS)
    sums = [
        _sums(atoms, columns, taught, rows - trained, weight * (fold == one))
        for one in range(FOLDS)
    ]
    missed = {l2: sum(_missed_held_out(sums, one, l2=l2) for one in range(FOLDS)) for l2 in ridges}
    ridge = min(ridges, key=lambda l2: missed[l2])
    variance = max(_variance(rows, weight), 1e-30)
    found = ColdRows(
        items=len(items),
        columns=len(columns),
        ridge=ridge,
        explained=1.0 - missed[ridge] / variance,
        explained_as_trained=1.0 - _variance(rows - trained, weight) / variance,
    )
    told = _copy(here, columns=len(columns))
    assert told.decoder is not None, "of this configuration"
    assert told.decoder.wide is not None, "of this configuration"
    told.decoder.wide.columns.copy_(columns)
    told.decoder.wide.coefficients.copy_(_added(sums).solved(ridge))
    _take_up(told, features, np.flatnonzero(counts[1:] == 0) + 1)
    return told.to(model.item_vectors.device), found


def _copy(model: TwoTimeScale, *, columns: int) -> TwoTimeScale:
    """The model on the CPU, its decoder with room for so many columns, of which it has none."""
    features = model.config.features
    assert features is not None, "a model that reads features"
    config = replace(model.config, features=replace(features, columns=columns))
    copy = TwoTimeScale(config)
    weights = {name: w for name, w in model.state_dict().items() if ".wide." not in name}
    copy.load_state_dict(copy.state_dict() | weights)
    return copy.eval()


def _finished_rows(model: TwoTimeScale, items: Tensor, *, like: Tensor) -> Tensor:
    """The rows of items as they are scored, with biases: (I,) to (I, D + 1).

    Of a cosine they have length 1: they take that of the decoder's rows, which are normalised when
    they are scored too.
    """
    vectors = model.item_vectors.detach()[items].double()  # (I, D)
    bias = model.item_bias.detach()[items].double().unsqueeze(1)  # (I, 1)
    if model.config.score == "cosine":
        vectors = vectors * like[:, :-1].norm(dim=1, keepdim=True)
    return torch.cat([vectors, bias], dim=1)


def _variance(rows: Tensor, weight: Tensor) -> float:
    """The weighted squared distance of rows (I, D + 1) from their mean."""
    mean = (weight.unsqueeze(1) * rows).sum(0) / weight.sum()
    return float((weight.unsqueeze(1) * (rows - mean).square()).sum())


def _sums(
    atoms: Atoms, columns: Tensor, features: ItemFeatures, left: Tensor, weight: Tensor
) -> _Sums:
    """Those of items (I,) by their weights, none of which is 0 for those of the part."""
    n = columns.shape[0]
    gram = torch.zeros(n, n, dtype=torch.float64)
    cross = torch.zeros(n, left.shape[1], dtype=torch.float64)
    for first in range(0, len(features), CHUNK):
        part = slice(first, first + CHUNK)
        here = torch.nonzero(weight[part] > 0).flatten() + first
        own = features.take(here)
        wide = columns_of(atoms.of(own.codes, own.weights, own.numbers), columns).double()  # (I, F)
        weighted = wide * weight[here].unsqueeze(1)
        gram += weighted.T @ wide
        cross += weighted.T @ left[here]
    return _Sums(gram, cross, (weight.unsqueeze(1) * left.square()).sum())


def _added(sums: Sequence[_Sums]) -> _Sums:
    return _Sums(
        gram=torch.stack([one.gram for one in sums]).sum(0),
        cross=torch.stack([one.cross for one in sums]).sum(0),
        square=torch.stack([one.square for one in sums]).sum(),
    )


def _missed_held_out(sums: Sequence[_Sums], fold: int, *, l2: float) -> float:
    """The error on the items of a fold of what the others say."""
    others = _added([one for place, one in enumerate(sums) if place != fold])
    return sums[fold].missed(others.solved(l2))


@torch.no_grad()
def _take_up(model: TwoTimeScale, features: ItemFeatures, items: npt.NDArray[np.int64]) -> None:
    """Give items of the vocabulary that have no event the rows that features alone say."""
    assert model.decoder is not None, "a model that reads features"
    place = torch.from_numpy(items)
    rows = new_item_rows(model.decoder, features.take(place))  # (M, D + 1)
    model.item_vectors[place] = model.item_rows(rows[:, :-1])
    model.item_bias[place] = rows[:, -1]
