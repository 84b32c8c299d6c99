"""Item neighbours: what the same users had (Deshpande and Karypis 2004; shrinkage as in Bell and
Koren 2007).

    w(i, j) = c(i, j) / (c(i)^balance c(j)^(1 - balance) + shrink)        c(i) = c(i, i)
    c(i, j) = sum over users u who had both of |u|^-breadth

with |u| the different items that u had: who had everything says little of any two. With balance
0.5 and breadth 0 it is the cosine of two columns of zeros and ones, and less where few users stand
behind it. A larger balance spares what is popular. Each item keeps its N nearest; a history's
scores are those of its table (`item_table.py`), in which older items count less.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys_core.data.events import Events
from recsys_core.models.history_model import in_blocks
from recsys_core.models.item_table import ItemTableScores, table_of_matrix
from recsys_core.models.user_items import PRODUCT_ENTRIES, strongest_of_rows, user_items

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemNeighboursSettings:
    """`latest` events of each user are read: they cost the square of that."""

    shrink: float
    balance: float
    breadth: float
    neighbours: int
    recency: float
    latest: int


GRID = tuple(
    ItemNeighboursSettings(
        shrink=shrink, balance=balance, breadth=breadth, neighbours=200, recency=recency, latest=512
    )
    for shrink, balance, breadth, recency in product(
        (2.0, 10.0), (0.3, 0.5, 0.7), (0.5, 1.0), (0.0, 0.5, 1.0, 2.0)
    )
)


def fit_item_neighbours(
    events: Events, counts: Int64, *, n_items: int, settings: ItemNeighboursSettings
) -> ItemTableScores:
    """The nearest items of each item by what is known of `events`: the first `counts` (U + 1,) of
    each user. An item without an event has no neighbours."""
    users = user_items(events, counts, n_items=n_items, latest=settings.latest)
    length = np.diff(users.indptr)  # (U + 1,)
    items = users.T.tocsr()  # (V + 1, U + 1)
    additions = (items @ length.astype(np.float64)).astype(np.int64)
    users.data[:] = np.repeat(np.maximum(length, 1.0) ** -settings.breadth, length)
    had = (users.T @ np.ones(len(length))).astype(np.float64)  # (V + 1,) c(i)
    own, others = had**settings.balance, had ** (1.0 - settings.balance)

    def nearest(block: slice) -> sparse.csr_array:
        together = (items[block] @ users).tocoo()  # (rows of the block, V + 1)
        row, item = together.coords
        other = row + block.start != item
        row, item = row[other], item[other]
        weight = together.data[other] / (own[row + block.start] * others[item] + settings.shrink)
        near = sparse.csr_array((weight.astype(np.float32), (row, item)), shape=together.shape)
        return strongest_of_rows(near, settings.neighbours)

    nearest_items = in_blocks(additions, most=PRODUCT_ENTRIES, work=nearest)
    table = table_of_matrix(nearest_items, settings.neighbours)
    return ItemTableScores(table=table, recency=settings.recency)
