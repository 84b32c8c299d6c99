"""User neighbours: what the users nearest to a history had.

    w(h, u) = |h and u| / (sqrt(|h| |u|) + shrink)        score(j) = sum of w(h, u) over u who had j

with h the different items of the history and u those of a known user, u among the N nearest.
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

    shrink: float
    neighbours: int
    latest: int


GRID = tuple(
    UserNeighboursSettings(shrink=shrink, neighbours=neighbours, latest=1024)
    for shrink, neighbours in product((0.0, 3.0, 10.0), (50, 200, 1000))
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
        requests = histories.item_matrix(self.n_items)  # (B, V + 1)
        had = np.diff(requests.indptr)  # (B,)
        length = np.diff(self.users.indptr)  # (U + 1,)

        def nearest(block: slice) -> sparse.csr_array:
            weight = (requests[block] @ self.items).tocsr()  # (rows of the block, U + 1)
            row = np.repeat(had[block], np.diff(weight.indptr))
            cosine = np.sqrt(row * length[weight.indices].astype(np.float64))
            weight.data /= (cosine + self.settings.shrink).astype(np.float32)
            return strongest_of_rows(weight, self.settings.neighbours)

        additions = requests @ np.diff(self.items.indptr)
        users = in_blocks(additions.astype(np.int64), most=PRODUCT_ENTRIES, work=nearest)
        return write_scores(out, users @ self.users)


def fit_user_neighbours(
    events: Events, counts: Int64, *, n_items: int, settings: UserNeighboursSettings
) -> UserNeighbours:
    """What is known of `events`: the first `counts` (U + 1,) of each user."""
    users = user_items(events, counts, n_items=n_items, latest=settings.latest)
    return UserNeighbours(settings=settings, users=users, items=users.T.tocsr())
