"""Cohorts: who belongs where, at the edges."""

from recsys_core.evaluation.cohorts import COHORTS, cohorts
from recsys_core.evaluation.targets import successive_targets
from tests.event_rows import events_of


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
    targets = successive_targets(events, 10, end=20, n_items=2)
    groups = cohorts(targets, events, start=10, t_star=2, n_items=2)
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
    targets = successive_targets(events, 10, end=20, n_items=2)
    groups = cohorts(targets, events, start=10, t_star=3, n_items=2)
    assert targets.history.tolist() == [2, 3]
    assert groups["active"].tolist() == [False, True]
