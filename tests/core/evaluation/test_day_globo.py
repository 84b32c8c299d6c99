"""`day-globo` on its log, where that lies beside the checkout: its targets, its floors."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events
from recsys_core.data.splits import MICROSECONDS_PER_DAY
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import candidates_at, rank_targets
from recsys_core.evaluation.scorers import history_scorer
from recsys_core.evaluation.targets import targets_of
from recsys_core.models.baselines import fit_recent_popularity, fit_transitions
from recsys_core.models.history_model import FromLastItem
from recsys_core.models.requests import known_events

END = 17_456 * MICROSECONDS_PER_DAY
"""2017-10-17 00:00 UTC; the test period is the day before."""


def first_appearance_idx(ids: np.ndarray) -> np.ndarray:
    """Ids as 1, 2, ... in the order in which they first appear."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    idx = np.empty(len(first), dtype=np.int64)
    idx[np.argsort(first)] = np.arange(1, len(first) + 1)
    return idx[inverse]


@pytest.fixture(scope="module")
def globo(shared_data: Path) -> Events:
    table = pq.read_table(
        shared_data / "globo_news" / "events.parquet", columns=["user_id", "item_id", "timestamp"]
    )
    users, items, seconds = (table.column(name).to_numpy() for name in table.schema.names)
    time = seconds * 1_000_000
    kept = np.flatnonzero(time < END)
    kept = kept[np.argsort(time[kept], kind="stable")]
    user, item = first_appearance_idx(users[kept]), first_appearance_idx(items[kept])
    by_user = np.argsort(user, kind="stable")
    n = len(kept)
    offsets = np.zeros(user.max() + 2, dtype=np.int64)
    np.cumsum(np.bincount(user), out=offsets[1:])
    return Events(
        offsets=offsets,
        item_idx=item[by_user].astype(np.int32),
        timestamp=time[kept][by_user],
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=kept[by_user],
    )


def test_targets_and_floors(globo):
    assert len(globo) == 2_988_181 - 20_376
    cut = END - MICROSECONDS_PER_DAY
    n_items = int(globo.item_idx[globo.timestamp < cut].max())
    before, end = (Cut.at(globo, time, n_items=n_items) for time in (cut, END))
    targets = targets_of("successive", globo, Period(before, end), n_items=n_items)
    assert len(targets) == 180_963
    assert np.mean(targets.item_idx > n_items) == pytest.approx(0.332, abs=0.0005)

    counts, since = before.counts, before.since(1.0)
    recent = fit_recent_popularity(globo, counts, n_items=n_items, since=since)
    transitions = fit_transitions(globo, counts, backoff=recent, since=since)
    known, candidates = known_events(globo, n_items), candidates_at(globo, before)
    # the published floors: .0792 / .1563, and for transitions .0781 / .1587 at least
    floors = [(recent, 0.0792, 0.1563), (transitions, 0.0811, 0.1604)]
    for model, mrr, recall in floors:
        scorer = history_scorer(FromLastItem(model), known, targets, likelihood=False)
        ranks = rank_targets(
            scorer, targets, events=globo, candidates=candidates, batch=512, seen_filter=False
        )
        assert metric_of(ranks.rank, "mrr@20").mean() == pytest.approx(mrr, abs=0.0002)
        assert metric_of(ranks.rank, "recall@20").mean() == pytest.approx(recall, abs=0.0003)
