"""Item factors by implicit alternating least squares: what goes together, in few dimensions.

    loss = sum over observed (u, i) of (1 - <x_u, y_i>)^2
           + alpha sum over all (u, i) of <x_u, y_i>^2
           + l2 sum_u (n_u + alpha V) |x_u|^2 + l2 sum_i (n_i + alpha U) |y_i|^2

(Hu, Koren and Volinsky, ICDM 2008; the ridge that grows with what was observed: Rendle et al.,
RecSys 2022.) Given Y, the vector of user u solves

    (alpha Y'Y + sum_i y_i y_i' + l2 (n_u + alpha V) I) x_u = sum_i y_i

over the n_u items i that the user had, and that of an item likewise. Only Y is kept: who a user is
now is folded in from what they had (`memory.py`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recsys_core.data.events import Events
from recsys_core.models.user_items import user_items
from recsys_core.rng import generator

CELLS = 2_000_000
"""Numbers of gathered vectors worked on at once: 8 MB, or what one row takes where it has more."""

SWEEPS = 6
"""Over users and items: after these the vectors move little."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemFactorsSettings:
    """`alpha` is the weight of what was not observed, `l2` the ridge; of each user the `latest`
    events are learned from."""

    dim: int
    alpha: float
    l2: float
    latest: int


class ItemFactors(NamedTuple):
    """In the axes in which the items' covariance under popularity is diagonal, of trace 1."""

    items: Float32  # (V + 1, D) those of items without an event are the mean, as PAD's
    mean: Float32  # (D,) under popularity
    variance: Float32  # (D,)


def fit_item_factors(
    events: Events, counts: Int64, *, n_items: int, settings: ItemFactorsSettings
) -> ItemFactors:
    """The factors of the items idx <= `n_items` from the first `counts` (U + 1,) events of each
    user. Where nobody had two items all are nothing."""
    had = user_items(events, counts, n_items=n_items, latest=settings.latest)  # (U + 1, V + 1)
    by_item = had.T.tocsr()
    draws = generator(0, "item_factors").normal(size=(n_items + 1, settings.dim))
    items = torch.from_numpy((draws * (0.1 / settings.dim**0.5)).astype(np.float32))
    items[0] = 0.0
    for _ in range(SWEEPS):
        users = _solved(had, items, settings)
        items = _solved(by_item, users, settings)
    return _diagonal(items.numpy().astype(np.float64), np.diff(by_item.indptr))


def _diagonal(items: npt.NDArray[np.float64], count: npt.NDArray[np.integer]) -> ItemFactors:
    """Vectors turned and scaled, so that their covariance under popularity is as it should be."""
    share = count / max(1, int(count.sum()))  # (V + 1,)
    mean: npt.NDArray[np.float64] = share @ items
    centred = items - mean
    centred[count == 0] = 0.0
    variance, basis = np.linalg.eigh((centred * share[:, None]).T @ centred)
    variance = np.maximum(variance, 0.0)
    scale = max(float(variance.sum()), float(np.finfo(np.float32).tiny)) ** -0.5
    turned = (centred + mean) @ basis * scale
    return ItemFactors(
        items=turned.astype(np.float32),
        mean=(mean @ basis * scale).astype(np.float32),
        variance=(variance * scale**2).astype(np.float32),
    )


def _solved(observed: sparse.csr_array, other: Tensor, settings: ItemFactorsSettings) -> Tensor:
    """The vectors of the rows of `observed` (N, M), given those of its columns (M, D); of a row
    without an entry zero. (N, D)"""
    dim, alpha = other.shape[1], settings.alpha
    everywhere = alpha * (other.T @ other)  # (D, D)
    found = torch.zeros(observed.shape[0], dim)
    entries = np.diff(observed.indptr)
    for rows in _of_one_length(entries, dim=dim):
        count = entries[rows]
        entry, there = _entries(observed.indptr[rows], count)
        columns = np.where(there, observed.indices[entry], 0).astype(np.int64)
        vectors = other[torch.from_numpy(columns)]  # (B, L, D)
        vectors = vectors * torch.from_numpy(there).unsqueeze(2)
        ridge = settings.l2 * (count + alpha * (observed.shape[1] - 1))  # (B,)
        matrix = everywhere + vectors.mT @ vectors  # (B, D, D)
        of_row = torch.from_numpy(ridge.astype(np.float32)).unsqueeze(1)
        matrix.diagonal(dim1=1, dim2=2).add_(of_row)
        factor = torch.linalg.cholesky(matrix)
        solved = torch.cholesky_solve(vectors.sum(1).unsqueeze(2), factor)
        found[torch.from_numpy(rows)] = solved.squeeze(2)
    return found


def _of_one_length(count: npt.NDArray[np.integer], *, dim: int) -> list[Int64]:
    """Rows with entries, in groups of about one number of them: little is filled up."""
    some = np.flatnonzero(count)
    by_count = some[np.argsort(count[some], kind="stable")]
    groups, start = [], 0
    while start < len(by_count):
        # as many as fit with the longest of them, found by halving what is too much
        size = len(by_count) - start
        while size > 1 and size * max(int(count[by_count[start + size - 1]]), dim) * dim > CELLS:
            size = (size + 1) // 2
        groups.append(by_count[start : start + size])
        start += size
    return groups


def _entries(
    first: npt.NDArray[np.integer], count: npt.NDArray[np.integer]
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Where the entries of some rows lie, (B, L), and which of these there are."""
    place = np.arange(int(count.max()))
    there = place < count[:, None]
    return np.where(there, first[:, None] + place, 0).astype(np.int64), there
