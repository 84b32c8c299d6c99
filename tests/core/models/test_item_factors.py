"""Item factors: the equations hold at the end of a sweep, and what goes together lies together."""

import numpy as np
import pytest
import torch

from recsys_core.models import item_factors
from recsys_core.models.item_factors import (
    ItemFactorsSettings,
    _solved,
    fit_item_factors,
)
from recsys_core.models.user_items import user_items
from tests.serving_world import make_events

SETTINGS = ItemFactorsSettings(dim=4, alpha=0.05, l2=0.02, latest=512)


def two_tastes(users: int = 60, items: int = 20, seed: int = 0) -> list[list[int]]:
    """Even users have even items, odd users odd ones, six to ten each."""
    rng = np.random.default_rng(seed)
    own = [np.arange(2 - user % 2, items + 1, 2) for user in range(users)]
    return [rng.choice(one, rng.integers(6, 11), replace=False).tolist() for one in own]


@pytest.mark.parametrize("cells", [2_000_000, 64])
def test_each_row_solves_its_equation(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the textbook, one user after the other; however many at once."""
    monkeypatch.setattr(item_factors, "CELLS", cells)
    histories = [*two_tastes(users=9), [], [3], [5, 5, 5, 7]]
    events = make_events(histories)
    had = user_items(events, np.diff(events.offsets), n_items=20, latest=None)
    items = torch.randn(21, 4, generator=torch.Generator().manual_seed(1))
    items[0] = 0.0
    found = _solved(had, items, SETTINGS)
    assert not found[0].any()
    for user, history in enumerate(histories, start=1):
        own = items[sorted(set(history))].double()
        every = items[1:].double()
        ridge = SETTINGS.l2 * (len(own) + SETTINGS.alpha * 20)
        matrix = SETTINGS.alpha * every.T @ every + own.T @ own + ridge * torch.eye(4)
        expected = torch.linalg.solve(matrix, own.sum(0)) if history else torch.zeros(4)
        np.testing.assert_allclose(found[user], expected, rtol=1e-4, atol=1e-6)


def test_what_goes_together_lies_together() -> None:
    events = make_events(two_tastes())
    factors = fit_item_factors(events, np.diff(events.offsets), n_items=20, settings=SETTINGS)
    centred = factors.items[1:] - factors.mean
    products = centred @ centred.T
    alike = np.arange(20)[:, None] % 2 == np.arange(20) % 2
    assert products[alike].min() > products[~alike].max()


def test_the_axes_are_those_of_the_covariance_under_popularity() -> None:
    events = make_events([*two_tastes(), [20], [20]])
    counts = np.diff(events.offsets)
    factors = fit_item_factors(events, counts, n_items=22, settings=SETTINGS)
    share = np.bincount(events.item_idx, minlength=23) / len(events)
    np.testing.assert_allclose(factors.mean, share @ factors.items, atol=1e-5)
    centred = factors.items - factors.mean
    covariance = (centred * share[:, None]).T @ centred
    np.testing.assert_allclose(covariance, np.diag(factors.variance), atol=1e-5)
    assert factors.variance.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(factors.items[[0, 21, 22]], np.tile(factors.mean, (3, 1)), atol=1e-6)


def test_where_nothing_is_known_all_is_nothing() -> None:
    events = make_events([[], []])
    factors = fit_item_factors(events, np.diff(events.offsets), n_items=3, settings=SETTINGS)
    for values in factors:
        assert np.isfinite(values).all()
    assert not factors.items.any()


def test_later_events_change_nothing() -> None:
    histories = two_tastes()
    counts = np.array([0, *(len(history) for history in histories)])
    one = make_events(histories)
    two = make_events([[*history, 1, 2, 3] for history in histories])
    a, b = (fit_item_factors(log, counts, n_items=20, settings=SETTINGS) for log in (one, two))
    np.testing.assert_array_equal(a.items, b.items)
