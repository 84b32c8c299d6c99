"""Windows of the baselines: chosen by what validation shows, and by nothing later."""

import pytest

from recsys_core.data.splits import Split
from recsys_core.errors import DataError
from recsys_core.evaluation.windows import Windows, choose_windows
from tests.event_rows import HOUR, events_of

SPLIT = Split(valid_start=100 * HOUR, test_start=110 * HOUR, end=120 * HOUR, as_of=119 * HOUR)


def choose(
    rows: list[tuple[int, int, int]], *, n_items: int, hours: tuple[float, ...] = (1.0, 50.0)
) -> Windows:
    return choose_windows(
        events_of(rows),
        SPLIT,
        n_items=n_items,
        hours=hours,
        metric="mrr@5",
        seen_filter=False,
        batch=4,
    )


def news(last_hour: int, before: int) -> list[tuple[int, int, int]]:
    """Twenty users: item `before` from hour 60, item `last_hour` in the hour before validation."""
    long_ago = [(user, before, (60 + user) * HOUR) for user in range(1, 21)] * 2
    lately = [(user, last_hour, 100 * HOUR - user) for user in range(1, 21)]
    return [*long_ago, *lately]


def test_a_short_window_where_only_the_latest_items_go_on():
    rows = news(last_hour=1, before=2)
    found = choose([*rows, *((user, 1, 105 * HOUR) for user in range(1, 21))], n_items=2)
    assert found.recent_hours == 1.0
    assert found.recent_values[1.0] == 1.0
    assert found.recent_values[50.0] == 0.5


def test_a_long_window_where_the_latest_items_pass():
    rows = news(last_hour=1, before=2)
    found = choose([*rows, *((user, 2, 105 * HOUR) for user in range(1, 21))], n_items=2)
    assert found.recent_hours == 50.0


def test_transitions_over_the_whole_log_where_they_are_old_and_still_true():
    # each user walks 1, 2, 3, 1, ... long before the windows begin, and goes on in validation
    walk = [(user, (user + step) % 3 + 1, step) for step in range(30) for user in range(1, 10)]
    valid = [(user, (user + 30) % 3 + 1, 105 * HOUR) for user in range(1, 10)]
    found = choose([*walk, *valid], n_items=3)
    assert found.transition_hours is None
    assert found.transition_values[None] == 1.0
    assert found.transition_values[50.0] < 1.0


def test_of_equal_windows_the_first():
    rows = [(user, user % 2 + 1, 99 * HOUR + user) for user in range(1, 9)]
    found = choose([*rows, *((user, 1, 105 * HOUR) for user in range(1, 9))], n_items=2)
    assert found.recent_values[1.0] == found.recent_values[50.0]
    assert found.recent_hours == 1.0


def test_without_hours_the_whole_log_is_counted():
    """Back-off is popularity then: user 9 goes on after an item that nothing ever followed."""
    walk = [(user, (user + step) % 3 + 1, step) for step in range(30) for user in range(1, 9)]
    alone = [(9, 4, 50 * HOUR)]
    valid = [*((user, (user + 30) % 3 + 1, 105 * HOUR) for user in range(1, 9)), (9, 1, 105 * HOUR)]
    found = choose([*walk, *alone, *valid], n_items=4, hours=())
    assert (found.recent_hours, found.transition_hours) == (None, None)
    assert found.recent_values == {}
    # eight targets first; items 1, 2 and 3 occurred equally often, and ties count against
    assert found.transition_values == {None: (8 + 1 / 3) / 9}


def test_the_test_period_has_no_say():
    rows = [*news(last_hour=1, before=2), *((user, 1, 105 * HOUR) for user in range(1, 21))]
    later = [(user, 2, 115 * HOUR) for user in range(1, 21)] * 5
    assert choose([*rows, *later], n_items=2) == choose(rows, n_items=2)


def test_nothing_to_choose_on_is_said():
    with pytest.raises(DataError, match=r"make `split` in params\.yaml longer"):
        choose([(1, 1, 0), (2, 1, 105 * HOUR)], n_items=1)
