"""ALS and BPR of the `implicit` library (extra `[peers]`), as models that read histories.

ALS folds each history in: the user's vector is solved anew from the items that they had up to the
request. BPR has no such way: users keep the vector of training, and whoever was not there then gets
popularity's scores. Both read each user's latest events, of each item one, in one thread, so that a
seed gives the same vectors again.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy import sparse

from recsys_core.data.events import Events
from recsys_core.models.history_model import RequestHistories
from recsys_core.models.user_items import user_items

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LATEST = 1024
"""Events of each user that are read."""


@dataclass(frozen=True)
class AlsSettings:
    """Implicit ALS (Hu, Koren and Volinsky 2008); `alpha` is the confidence in what occurred."""

    factors: int
    l2: float
    alpha: float
    iterations: int


@dataclass(frozen=True)
class BprSettings:
    """BPR (Rendle et al. 2009)."""

    factors: int
    l2: float
    learning_rate: float
    iterations: int


ALS_GRID = tuple(
    AlsSettings(factors=factors, l2=l2, alpha=alpha, iterations=15)
    for factors, l2, alpha in product((64, 128), (0.1, 10.0), (1.0, 10.0))
)
BPR_GRID = tuple(
    BprSettings(factors=64, l2=l2, learning_rate=rate, iterations=30)
    for l2, rate in product((0.001, 0.01), (0.01, 0.05))
)


@dataclass(frozen=True)
class Als:
    """Item vectors, from which the vector of any history follows."""

    model: AlternatingLeastSquares
    n_items: int

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Dot products with the vectors of the histories; an empty one has zeros. (B, V + 1)"""
        items = sparse.csr_matrix(histories.item_matrix(self.n_items))
        users = self.model.recalculate_user(np.arange(len(histories)), items)  # (B, D)
        np.matmul(users, self.model.item_factors.T, out=out)
        out[:, 0] = -np.inf
        return out


@dataclass(frozen=True)
class Bpr:
    """The vectors of users and items; of a user without one, the logarithm of popularity."""

    user_vectors: Float32  # (U + 1, D) one of them the weight of the item's bias
    item_vectors: Float32  # (V + 1, D)
    known: npt.NDArray[np.bool_]  # (U + 1,) users who were there in training
    log_popularity: Float32  # (V + 1,)

    @property
    def n_items(self) -> int:
        return len(self.item_vectors) - 1

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Dot products with the users' vectors, whatever their histories. (B, V + 1)"""
        np.matmul(self.user_vectors[histories.user_idx], self.item_vectors.T, out=out)
        out[~self.known[histories.user_idx]] = self.log_popularity
        out[:, 0] = -np.inf
        return out


def fit_als(
    events: Events, counts: Int64, *, n_items: int, settings: AlsSettings, seed: int
) -> Als:
    """ALS by what is known of `events`: the first `counts` (U + 1,) of each user."""
    model = AlternatingLeastSquares(
        factors=settings.factors,
        regularization=settings.l2,
        alpha=settings.alpha,
        iterations=settings.iterations,
        num_threads=1,
        random_state=seed,
    )
    model.fit(_matrix(events, counts, n_items), show_progress=False)
    return Als(model=model, n_items=n_items)


def fit_bpr(
    events: Events, counts: Int64, *, n_items: int, settings: BprSettings, seed: int
) -> Bpr:
    """BPR by what is known of `events`: the first `counts` (U + 1,) of each user."""
    matrix = _matrix(events, counts, n_items)
    model = BayesianPersonalizedRanking(
        factors=settings.factors,
        regularization=settings.l2,
        learning_rate=settings.learning_rate,
        iterations=settings.iterations,
        num_threads=1,
        random_state=seed,
    )
    model.fit(matrix, show_progress=False)
    times = np.asarray(matrix.sum(axis=0)).reshape(-1)
    return Bpr(
        user_vectors=model.user_factors,
        item_vectors=model.item_factors,
        known=np.diff(matrix.indptr) > 0,
        log_popularity=np.log(times + 1.0).astype(np.float32),
    )


def _matrix(events: Events, counts: Int64, n_items: int) -> sparse.csr_matrix:
    """The library takes the older kind of matrix. (U + 1, V + 1)"""
    return sparse.csr_matrix(user_items(events, counts, n_items=n_items, latest=LATEST))
