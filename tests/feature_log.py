"""A log of users with tastes in genres, and the features that say which item is of which genre.

Items 1 to `WARM` are in the log, the `COLD` behind them are not. Stage one tells the tastes by the
ids alone, so that a network has nothing to learn of the features but what it is made to.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from recsys_core.data.cuts import Cut
from recsys_core.data.features import FeatureEncoding, encode, fit_encoding
from recsys_core.sections import Features
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.log_until import LogUntil
from tests.serving_world import make_events

GENRES, WARM, COLD = 6, 60, 60
N_ITEMS = WARM + COLD

FEATURES = Features(
    items=("genre", "launch"),
    categories=100,
    words=100,
    decoder_hidden=32,
    training_share=None,
    warm_share=0.5,
    share_events=None,
    cold_ridges=(),
)


def genre_of(items: np.ndarray) -> np.ndarray:
    return items * 7 % GENRES


def item_table(n_items: int) -> pa.Table:
    """A row for each item: its genre, and a number that says nothing."""
    items = np.arange(1, n_items + 1)
    return pa.table(
        {
            "item_id": [f"i{item}" for item in items],
            "genre": [f"genre {genre}" for genre in genre_of(items)],
            "launch": np.random.default_rng(5).normal(size=n_items),
        }
    )


def encoding_of(n_items: int) -> FeatureEncoding:
    """What the first items say."""
    table = item_table(n_items)
    kinds: dict[str, Any] = {"genre": "categorical", "launch": "numeric"}
    return fit_encoding(table, kinds, ids=table["item_id"], most=100, words=100)


def known_features(n_items: int, params: Features = FEATURES) -> KnownFeatures:
    """Those of items 1 to n, as a fit knows them."""
    table, encoding = item_table(n_items), encoding_of(n_items)
    ids = table["item_id"].combine_chunks()
    return KnownFeatures(encoding, encode(encoding, table, ids), params)


def genre_histories(seed: int, *, users: int = 200, length: int = 10) -> list[list[int]]:
    """Nine of ten items are of the user's one genre."""
    rng = np.random.default_rng(seed)
    warm = np.arange(1, WARM + 1)
    taste = rng.integers(GENRES, size=users)
    genre = np.where(
        rng.random((users, length)) < 0.9,
        taste[:, None],
        rng.integers(GENRES, size=(users, length)),
    )
    return [[int(rng.choice(warm[genre_of(warm) == one])) for one in row] for row in genre]


def genre_log(seed: int) -> LogUntil:
    """All of them, known."""
    events = make_events(genre_histories(seed))
    return LogUntil(events, Cut.at(events, int(events.timestamp.max()) + 1, n_items=WARM))
