"""Streaming baselines against the same ones fitted anew before each request."""

import numpy as np
import numpy.typing as npt
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.models.baselines import fit_popularity_within, fit_transitions
from recsys_core.models.history_model import (
    FromLastItem,
    HistoryModel,
    RequestHistories,
    gather_request_histories,
)
from recsys_core.models.requests import known_events
from recsys_core.models.streaming import stream_popularity, stream_transitions
from tests.event_rows import HOUR, events_of, random_rows

V = 9
"""Items 10 to 12 of the log are unknown."""
N_EVENTS = 600
Row = tuple[int, int, int]


def log_rows() -> list[Row]:
    """Events at whole tenths of an hour, so that many have one time."""
    rows = random_rows(N_EVENTS, users=25, items=12, end=1000, seed=2)
    return [(user, item, HOUR + time * HOUR // 10) for user, item, time in rows]


def requests_of(events: Events, rows: npt.NDArray[np.int64]) -> RequestHistories:
    """A request just before each of the events `rows`, with the histories of known items."""
    known = known_events(events, V)
    first = events.offsets[events.user_idx[rows]]
    history = [
        int(np.count_nonzero(events.item_idx[begin:row] <= V))
        for begin, row in zip(first, rows, strict=True)
    ]
    return gather_request_histories(
        known,
        events.user_idx[rows].astype(np.int64),
        history=np.array(history),
        request_time=np.asarray(events.timestamp[rows]),
        limit=None,
    )


def scores_of(model: HistoryModel, requests: RequestHistories) -> npt.NDArray[np.float32]:
    return np.array(model.scores(requests, out=np.full((len(requests), V + 1), 7.0, np.float32)))


def anew(events: Events, when: int, *, hours: float | None, transitions: bool) -> HistoryModel:
    """The baseline fitted on what lies before one time."""
    cut = Cut.at(events, when, n_items=V)
    since = None if hours is None else cut.since(hours)
    popularity = fit_popularity_within(events, cut.counts, n_items=V, since=since)
    if not transitions:
        return FromLastItem(popularity)
    return FromLastItem(fit_transitions(events, cut.counts, backoff=popularity, since=since))


def streamed(events: Events, *, hours: float | None, transitions: bool) -> HistoryModel:
    popularity = stream_popularity(events, n_items=V, hours=hours)
    if not transitions:
        return popularity
    return stream_transitions(events, backoff=popularity, hours=hours)


@pytest.mark.parametrize("transitions", [False, True])
@pytest.mark.parametrize("hours", [None, 0.1, 1 / 3, 7.0, 1000.0])
def test_scores_are_those_of_a_model_fitted_just_before(
    hours: float | None, transitions: bool
) -> None:
    """In whatever order they are asked for: by user, as evaluation does."""
    events = events_of(log_rows())
    rows = np.arange(0, len(events), 3)
    requests = requests_of(events, rows)
    found = scores_of(streamed(events, hours=hours, transitions=transitions), requests)
    for place, row in enumerate(rows):
        one = requests_of(events, rows[place : place + 1])
        when = int(events.timestamp[row])
        expected = scores_of(anew(events, when, hours=hours, transitions=transitions), one)
        np.testing.assert_allclose(found[place], expected[0], rtol=1e-5)
    # two requests for one time and last item are answered alike, to the bit
    twice = requests_of(events, np.array([5, 5]))
    first, second = scores_of(streamed(events, hours=hours, transitions=transitions), twice)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("transitions", [False, True])
@pytest.mark.parametrize("hours", [None, 0.5])
def test_what_happens_then_or_later_changes_nothing(hours: float | None, transitions: bool) -> None:
    """Each item was the last one of a request, at a time at which some of the events lie."""
    rows, when = log_rows(), HOUR + 500 * HOUR // 10
    before = [row for row in rows if row[2] < when]
    after = [row for row in rows if row[2] >= when]
    assert any(time == when for _, _, time in after)
    last = np.arange(1, V + 1)
    requests = RequestHistories(
        user_idx=last,
        request_time=np.full(V, when),
        offsets=np.arange(V + 1),
        item_idx=last.astype(np.int32),
        timestamp=np.full(V, when - 1),
        session_idx=np.zeros(V, dtype=np.int64),
    )
    moved = [(user, item % V + 1, time) for user, item, time in after]
    found = [
        scores_of(
            streamed(events_of([*before, *later]), hours=hours, transitions=transitions), requests
        )
        for later in ([], after, moved, [*after, (1, 9, when), (25, 9, when)])
    ]
    for scores in found[1:]:
        np.testing.assert_array_equal(scores, found[0])
    # what lies just before it does count
    earlier = [*before, (1, 9, when - 1), (2, 9, when - 1)]
    other = scores_of(streamed(events_of(earlier), hours=hours, transitions=transitions), requests)
    assert (other[:, 9] > found[0][:, 9]).all()


def test_before_anything_happened_all_items_are_alike() -> None:
    events = events_of([(1, 2, 10), (1, 3, 20)])
    requests = requests_of(events, np.array([0]))
    for hours in (None, 1.0):
        for transitions in (False, True):
            scores = scores_of(streamed(events, hours=hours, transitions=transitions), requests)
            np.testing.assert_allclose(scores[0, 1:], np.log(1 / V), rtol=1e-6)
            assert scores[0, 0] == -np.inf
