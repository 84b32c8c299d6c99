"""What the report says of its population."""

import numpy as np
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.evaluation.cohorts import cohorts
from recsys_core.evaluation.report import population, two_time_scales
from recsys_core.evaluation.targets import targets_of
from tests.event_rows import events_of, period_of


@pytest.mark.parametrize(
    ("active", "inactive", "enough"),
    [
        (10, 90, True),  # exactly a tenth is enough
        (90, 10, True),
        (9, 91, False),
        (91, 9, False),
        (1, 9, True),
        (99, 892, False),  # 9.99 %: rounding does not lift it
        (0, 5, False),
        (5, 0, False),
    ],
)
def test_both_time_scales_need_a_tenth_of_the_targets(
    active: int, inactive: int, enough: bool
) -> None:
    found = two_time_scales(np.arange(active + inactive) < active)
    assert found["both_at_least_a_tenth"] is enough
    assert found["active_share"] == pytest.approx(active / (active + inactive), rel=1e-5)
    assert found["active_share"] + found["inactive_share"] == pytest.approx(1.0, rel=1e-5)


def test_events_of_unknown_items_are_counted_for_each_target_that_they_miss() -> None:
    # item 9 is unknown; user 1 has it before the period and in it, user 2 has nothing else
    events = events_of(
        [(1, 9, 0), (1, 1, 1), (2, 9, 2), (3, 1, 3), (1, 9, 10), (1, 2, 11), (2, 1, 12), (3, 2, 13)]
    )
    targets = targets_of("successive", events, period_of(events, 10, 20, n_items=2), n_items=2)
    before = Cut.at(events, 10, n_items=2)
    groups = cohorts(targets, before=before, candidates=np.arange(3) > 0, t_star=2)
    report = population([], groups, targets, in_period=4)
    assert report["rows"] == {"in": 4, "out": 4, "not_asked": 0}
    assert report["history_events_left_out"] == 1 + 2 + 1 + 0
    assert report["targets_without_known_history"] == 1
    assert report["targets"]["inactive"] == 4
    assert report["two_time_scales"]["both_at_least_a_tenth"] is False
