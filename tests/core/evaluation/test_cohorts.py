"""Cohorts: who belongs where, at the edges."""

import numpy as np

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.evaluation.cohorts import COHORTS, cohorts
from recsys_core.evaluation.targets import Targets, targets_of
from tests.event_rows import events_of, period_of


def cohorts_of(
    targets: Targets, events: Events, *, start: int, t_star: int, n_items: int
) -> dict[str, np.ndarray]:
    """The cohorts where all `n_items` are candidates."""
    before = Cut.at(events, start, n_items=n_items)
    everything = np.arange(n_items + 1) > 0
    return cohorts(targets, before=before, candidates=everything, t_star=t_star)


def test_an_item_without_an_event_before_the_period_is_unknown():
    events = events_of([(1, 1, 0), (1, 2, 10), (1, 1, 11)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    before = Cut.at(events, 10, n_items=2)
    groups = cohorts(targets, before=before, candidates=np.array([False, True, False]), t_star=9)
    assert groups["known"].tolist() == [False, True]


def test_every_edge():
    # user 1 comes before the period with two known events, user 2 in it, user 3 with an unknown one
    events = events_of(
        [
            (1, 1, 0),
            (1, 2, 1),
            (3, 9, 2),
            (1, 9, 10),
            (1, 1, 11),
            (2, 1, 10),
            (2, 2, 11),
            (3, 2, 12),
        ]
    )
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    groups = cohorts_of(targets, events, start=10, t_star=2, n_items=2)
    assert tuple(groups) == COHORTS
    found = {name: targets.source_row[members].tolist() for name, members in groups.items()}
    assert found == {
        "all": [3, 4, 6, 7],
        "active": [3, 4],  # exactly t_star known events is active; the unknown one does not count
        "inactive": [6, 7],
        "new_user": [6],
        "known": [4, 6, 7],
        "unknown": [3],
    }


def test_active_is_inclusive_and_counts_known_events():
    events = events_of([(1, 1, 0), (1, 9, 1), (1, 1, 2), (1, 1, 10), (1, 1, 11)])
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    groups = cohorts_of(targets, events, start=10, t_star=3, n_items=2)
    assert targets.history.tolist() == [2, 3]
    assert groups["active"].tolist() == [False, True]
