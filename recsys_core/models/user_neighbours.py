"""User neighbours: what the users nearest to a history had.

    w(h, u) = |u|^-1/2 sum over items i of both of (1 + age(i))^-recency c(i)^-rarity
    score(j) = sum of w(h, u) over the N nearest u who had j

with u the different items of a known user, age(i) the events of h since its latest one of i, and
c(i) the users who had i. With recency and rarity 0 it is the cosine, but for the length of h, which
scales all scores of a request alike.

Nobody is left out of their own neighbours: with a longer history than was known they are their
own nearest one, which says that people come back to what they had; a seen filter takes it away.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.data.events import Events
from recsys_core.models.history_model import RequestHistories, in_blocks, write_scores
from recsys_core.models.user_items import PRODUCT_ENTRIES, strongest_of_rows, user_items

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UserNeighboursSettings:
    """`latest` events of each user are read; of equally near users the lowest user_idx counts."""

    recency: float
    rarity: float
    neighbours: int
    latest: int


GRID = tuple(
    UserNeighboursSettings(recency=recency, rarity=rarity, neighbours=neighbours, latest=1024)
    for recency, rarity, neighbours in product((0.0, 0.5, 1.0), (0.0, 0.5), (50, 200))
)


@dataclass(frozen=True)
class UserNeighbours:
    """What the known users had, by user and by item."""

    settings: UserNeighboursSettings
    users: sparse.csr_array  # (U + 1, V + 1) 1 where a user had an item
    items: sparse.csr_array  # (V + 1, U + 1) the same

    @property
    def n_items(self) -> int:
        return int(self.users.shape[1]) - 1

    def scores(self, histories: RequestHistories, *, out: Float32) -> Float32:
        """The weights of the nearest users who had each item; 0 for others. (B, V + 1)"""
        recency = histories.recency(self.settings.recency)
        requests = histories.item_matrix(self.n_items, recency)  # (B, V + 1)
        had = np.diff(self.items.indptr)  # (V + 1,) users of each item
        requests.data *= _power(had, -self.settings.rarity)[requests.indices]
        length = _power(np.diff(self.users.indptr), -0.5)  # (U + 1,)

        def nearest(block: slice) -> sparse.csr_array:
            weight = (requests[block] @ self.items).tocsr()  # (rows of the block, U + 1)
            weight.data *= length[weight.indices]
            return strongest_of_rows(weight, self.settings.neighbours)

        additions = (requests > 0) @ had
        users = in_blocks(additions.astype(np.int64), most=PRODUCT_ENTRIES, work=nearest)
        return write_scores(out, users @ self.users)


def fit_user_neighbours(
    events: Events, counts: Int64, *, n_items: int, settings: UserNeighboursSettings
) -> UserNeighbours:
    """What is known of `events`: the first `counts` (U + 1,) of each user."""
    users = user_items(events, counts, n_items=n_items, latest=settings.latest)
    return UserNeighbours(settings=settings, users=users, items=users.T.tocsr())


def _power(count: Int64, power: float) -> Float32:
    """A power of counts; that of 0 is never looked up."""
    return (np.maximum(count, 1.0) ** power).astype(np.float32)
