"""Which slices of histories train which network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.training.windows import active_windows, bucket_by_length, inactive_windows

COUNTS = st.lists(st.integers(0, 120), min_size=1, max_size=30).map(np.array)


def test_inactive_windows_are_the_first_t_star_events_of_everyone() -> None:
    windows = inactive_windows(np.array([0, 3, 0, 10, 25]), t_star=10)
    assert windows.user_idx.tolist() == [1, 3, 4]
    assert windows.start.tolist() == windows.first_target.tolist() == [0, 0, 0]
    assert windows.stop.tolist() == [3, 10, 10]


@given(COUNTS, st.integers(1, 20), st.integers(1, 40), st.integers(0, 9))
def test_each_event_from_t_star_on_is_an_active_target_once(
    counts: np.ndarray, t_star: int, window: int, seed: int
) -> None:
    windows = active_windows(counts, t_star=t_star, window=window, rng=np.random.default_rng(seed))
    targets = sorted(
        (int(user), position)
        for user, first, stop in zip(
            windows.user_idx, windows.first_target, windows.stop, strict=True
        )
        for position in range(first, stop)
    )
    assert targets == [
        (user, position) for user, count in enumerate(counts) for position in range(t_star, count)
    ]
    assert (windows.start <= windows.first_target).all()
    assert (windows.start >= t_star // 2).all()
    assert (windows.length <= max(window + 1, t_star - t_star // 2 + max(1, window // 2))).all()


def test_the_phase_changes_with_the_generator() -> None:
    counts = np.full(40, 100)
    first, again, other = (
        active_windows(counts, t_star=10, window=32, rng=np.random.default_rng(seed)).stop.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


@given(COUNTS, st.integers(1, 300))
def test_batches_hold_every_window_once_within_the_budget(counts: np.ndarray, budget: int) -> None:
    windows = inactive_windows(counts, t_star=50)
    batches = bucket_by_length(windows, budget=budget, rng=np.random.default_rng(3))
    users = sorted(user for batch in batches for user in batch.user_idx.tolist())
    assert users == windows.user_idx.tolist()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * batch.length.max() <= budget


@pytest.mark.parametrize("counts", [[0], [0, 0]])
def test_a_log_of_nobody_has_no_windows(counts: list[int]) -> None:
    none = np.array(counts)
    rng = np.random.default_rng(1)
    assert len(inactive_windows(none, t_star=3)) == 0
    assert bucket_by_length(inactive_windows(none, t_star=3), budget=9, rng=rng) == []
    assert len(active_windows(none, t_star=3, window=4, rng=rng)) == 0
