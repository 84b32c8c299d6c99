"""EASE: each item predicted from all others by a ridge, in closed form (Steck 2019, eq. 8).

    P = (X^T X + l2 I)^-1        B = I - P diag(1 / P_jj)        scores = x B

with X the zeros and ones of users and items. In the history x of a request an item counts by how
recently it occurred, x_i = (1 + age(i))^-recency; with recency 0 the paper's ones are left.

B is dense: (V + 1)^2 numbers in float32, worked out in one room of that size, so the catalogue is
bounded (25,000 items are 2.5 GB); the time grows with V^3. With transitions, the last item's
successors are added:

    scores = x B + weight n(i, j) / (n(i) + d(i))        i the last item
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import lapack

from recsys_core.data.events import Events
from recsys_core.errors import ModelError
from recsys_core.models.history_model import RequestHistories, blocks_of
from recsys_core.models.item_table import ItemTable, table_of_array
from recsys_core.models.user_items import PRODUCT_ENTRIES, user_items

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LARGEST_CATALOGUE = 25_000
"""Items; the weights are this number squared."""


@dataclass(frozen=True)
class LinearItemsSettings:
    """`l2` holds the weights down; by `recency` older items of a history count less; `latest`
    events of each user are read."""

    l2: float
    recency: float
    latest: int


GRID = tuple(
    LinearItemsSettings(l2=l2, recency=recency, latest=1024)
    for l2, recency in product((10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0), (0.0, 0.5, 1.0, 2.0))
)
TRANSITION_GRID = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Weights of transitions beside EASE."""


@dataclass(frozen=True)
class LinearItems:
    """The weight of each item of a history for every other item."""

    weight: Float32  # (V + 1, V + 1) row 0, column 0 and the diagonal are 0
    recency: float

    @property
    def n_items(self) -> int:
        return len(self.weight) - 1

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """The sum of weights over the different items of each history. (B, V + 1)"""
        own = histories.item_matrix(self.n_items, histories.recency(self.recency))
        out[:] = own @ self.weight
        out[:, 0] = -np.inf
        return out

    def table(self, n: int) -> ItemTable:
        """The `n` weights of largest magnitude of each item."""
        return table_of_array(self.weight, n)


@dataclass(frozen=True)
class LinearItemsAndTransitions:
    """EASE, and `weight` times what came directly after the last item."""

    linear: LinearItems
    shares: sparse.csr_array  # (V + 1, V + 1) of `item_table.transition_shares`
    weight: float

    @property
    def n_items(self) -> int:
        return self.linear.n_items

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """Both together; EASE alone where there is no history. (B, V + 1)"""
        self.linear.scores(histories, out=out)
        following = self.shares[histories.last_item].tocoo()  # (B, V + 1)
        out[following.coords] += np.float32(self.weight) * following.data
        return out


def fit_linear_items(
    events: Events, counts: Int64, *, n_items: int, settings: LinearItemsSettings
) -> LinearItems:
    """EASE by what is known of `events`: the first `counts` (U + 1,) of each user.

    Raises `ModelError` for more than `LARGEST_CATALOGUE` items, and where the ridge cannot be
    solved in float32.
    """
    if n_items > LARGEST_CATALOGUE:
        raise ModelError(
            f"EASE: {n_items} items; it holds their square in memory, so at most "
            f"{LARGEST_CATALOGUE} are allowed; leave ease out, or take item neighbours"
        )
    weight = _gram(user_items(events, counts, n_items=n_items, latest=settings.latest))
    diagonal = np.einsum("ii->i", weight)  # a view
    diagonal += np.float32(settings.l2)
    _invert_in_place(weight, settings.l2)
    weight /= -diagonal.copy()  # column by column
    diagonal[:] = 0.0
    return LinearItems(weight, settings.recency)


def _gram(users: sparse.csr_array) -> Float32:
    """How many users had both items, of each pair. (V + 1, V + 1)"""
    items = users.T.tocsr()
    additions = (items @ np.diff(users.indptr).astype(np.float64)).astype(np.int64)
    gram = np.empty((items.shape[0], items.shape[0]), dtype=np.float32)
    for block in blocks_of(additions + 1, most=PRODUCT_ENTRIES):
        (items[block] @ users).toarray(out=gram[block])
    return gram


def _invert_in_place(matrix: Float32, l2: float) -> None:
    """The inverse of a symmetric positive definite matrix, in its own room."""
    # LAPACK works by columns: of the transposed view it fills the lower half, our upper one
    factor, failed = lapack.spotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    inverse, singular = (factor, 1) if failed else lapack.spotri(factor, lower=1, overwrite_c=1)
    if singular:
        raise ModelError(
            f"EASE: its matrix is not positive definite in float32 with l2 {l2}; choose a larger l2"
        )
    assert np.shares_memory(inverse, matrix), "LAPACK has worked in place"
    width = 512  # columns at a time: of the size of a cache
    for start in range(0, len(matrix), width):
        stop = start + width
        matrix[start:stop, :start] = matrix[:start, start:stop].T
        corner = matrix[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
