"""The baselines by name: what validation chooses, and that every one can be fitted and ranked."""

import doctest
from typing import get_args

import numpy as np
import pytest

from recsys_core.data.cuts import Period
from recsys_core.evaluation import baselines
from recsys_core.evaluation.baselines import NEEDS, Choice, Fits, choose_settings
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.ranks import candidates_at, rank_targets
from recsys_core.evaluation.scorers import history_scorer
from recsys_core.evaluation.targets import targets_of
from recsys_core.models.history_model import HistoryModel
from recsys_core.models.requests import known_events
from recsys_core.sections import BaselineName
from tests.event_rows import HOUR, events_of, period_of, random_rows

ALL = get_args(BaselineName)


def chooser(
    rows: list[tuple[int, int, int]],
    names: tuple[BaselineName, ...],
    *,
    n_items: int,
    hours: tuple[float, ...] = (1.0, 50.0),
) -> dict[BaselineName, Choice]:
    """What is chosen on hours 100 to 110 of a log."""
    events = events_of(rows)
    period = period_of(events, 100 * HOUR, 110 * HOUR, n_items=n_items)

    def value(model: HistoryModel) -> float:
        return metric(model, rows, period, n_items=n_items)

    return choose_settings(
        names, events, period.before, hours=hours, timed=True, streaming=False, value=value
    )


def metric(
    model: HistoryModel, rows: list[tuple[int, int, int]], period: Period, *, n_items: int
) -> float:
    events = events_of(rows)
    targets = targets_of("successive", events, period, n_items=n_items)
    scorer = history_scorer(model, known_events(events, n_items), targets, likelihood=False)
    ranks = rank_targets(
        scorer,
        targets,
        events=events,
        candidates=candidates_at(events, period.before),
        batch=4,
        seen_filter=False,
    )
    return float(metric_of(ranks.rank, "mrr@5").mean())


def news(last_hour: int, before: int) -> list[tuple[int, int, int]]:
    """Twenty users: item `before` from hour 60, item `last_hour` in the hour before validation."""
    long_ago = [(user, before, (60 + user) * HOUR) for user in range(1, 21)] * 2
    lately = [(user, last_hour, 100 * HOUR - user) for user in range(1, 21)]
    return [*long_ago, *lately]


def test_doctests() -> None:
    assert doctest.testmod(baselines).failed == 0


def test_every_name_of_the_params_is_known_and_needs_what_is_known() -> None:
    assert set(NEEDS) == set(ALL)
    assert {needed for names in NEEDS.values() for needed in names} <= set(ALL)


def test_a_short_window_where_only_the_latest_items_go_on() -> None:
    rows = [*news(last_hour=1, before=2), *((user, 1, 105 * HOUR) for user in range(1, 21))]
    found = chooser(rows, ("recent_popularity",), n_items=2)["recent_popularity"]
    assert found == Choice(1.0, {1.0: 1.0, 50.0: 0.5})


def test_a_long_window_where_the_latest_items_pass() -> None:
    rows = [*news(last_hour=1, before=2), *((user, 2, 105 * HOUR) for user in range(1, 21))]
    assert chooser(rows, (), n_items=2)["recent_popularity"].setting == 50.0


def test_transitions_over_the_whole_log_where_they_are_old_and_still_true() -> None:
    # each user walks 1, 2, 3, 1, ... long before the windows begin, and goes on in validation
    walk = [(user, (user + step) % 3 + 1, step) for step in range(30) for user in range(1, 10)]
    valid = [(user, (user + 30) % 3 + 1, 105 * HOUR) for user in range(1, 10)]
    found = chooser([*walk, *valid], ("transitions",), n_items=3)["transitions"]
    assert found.setting is None
    assert found.values[None] == 1.0
    assert found.values[50.0] < 1.0


def test_of_equal_windows_the_first() -> None:
    rows = [(user, user % 2 + 1, 99 * HOUR + user) for user in range(1, 9)]
    rows += [(user, 1, 105 * HOUR) for user in range(1, 9)]
    found = chooser(rows, (), n_items=2)["recent_popularity"]
    assert found.values[1.0] == found.values[50.0]
    assert found.setting == 1.0


def test_without_hours_there_is_nothing_to_choose_of_windows() -> None:
    found = chooser(news(1, 2), ("transitions",), n_items=2, hours=())
    assert found == {"recent_popularity": Choice(None, {}), "transitions": Choice(None, {})}


def test_what_lies_behind_validation_has_no_say() -> None:
    rows = [*news(last_hour=1, before=2), *((user, 1, 105 * HOUR) for user in range(1, 21))]
    later = [(user, 2, 115 * HOUR) for user in range(1, 21)] * 5
    names: tuple[BaselineName, ...] = ("transitions", "item_knn", "ease_transitions")
    assert chooser([*rows, *later], names, n_items=2) == chooser(rows, names, n_items=2)


@pytest.mark.parametrize("name", ALL)
def test_every_baseline_is_chosen_fitted_and_ranked(name: BaselineName) -> None:
    """And none of it changes with what lies behind the cut."""
    rows = random_rows(500, users=30, items=9, end=120 * HOUR)
    events = events_of(rows)
    period = period_of(events, 100 * HOUR, 110 * HOUR, n_items=9)
    chosen = chooser(rows, (name,), n_items=9)
    assert set(NEEDS[name]) < set(chosen)
    settings = {one: choice.setting for one, choice in chosen.items()}
    here = Fits(events, period.before, settings, streaming=False).model(name, settings[name])
    assert here.n_items == 9
    assert 0.1 < metric(here, rows, period, n_items=9) < 0.8
    past = events_of([row for row in rows if row[2] < 100 * HOUR])
    there = Fits(past, period.before, settings, streaming=False).model(name, settings[name])
    assert metric(there, rows, period, n_items=9) == metric(here, rows, period, n_items=9)
    assert np.isfinite(metric(there, rows, period, n_items=9))
