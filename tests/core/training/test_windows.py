"""Which slices of histories train which network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.training.windows import (
    active_windows,
    bucket_by_length,
    inactive_windows,
    windows_of_all,
)

COUNTS = st.lists(st.integers(0, 120), min_size=1, max_size=30).map(np.array)


def test_inactive_windows_are_the_first_t_star_events_of_everyone() -> None:
    windows = inactive_windows(np.array([0, 3, 0, 10, 25]), t_star=10)
    assert windows.user_idx.tolist() == [1, 3, 4]
    assert windows.start.tolist() == windows.first_target.tolist() == [0, 0, 0]
    assert windows.stop.tolist() == [3, 10, 10]


def test_one_network_has_every_event_as_a_target_once_and_folds_nobody_in() -> None:
    counts, rng = np.array([0, 1, 7, 40]), np.random.default_rng(1)
    windows = windows_of_all(counts, window=8, lead=0.5, rng=rng)
    assert int((windows.stop - windows.first_target).sum()) == 48
    assert (windows.length <= 9).all()
    assert not windows.folded.any()


@given(
    COUNTS,
    st.integers(1, 20),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    st.integers(0, 9),
)
def test_each_event_from_t_star_on_is_an_active_target_once(
    counts: np.ndarray, t_star: int, window: int, lead: float, seed: int
) -> None:
    windows = active_windows(
        counts,
        t_star=t_star,
        window=window,
        lead=lead,
        rng=np.random.default_rng(seed),
    )
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
    assert (windows.length <= window + 1).all()
    # no target is folded in, and all else is
    np.testing.assert_array_equal(windows.folded, windows.first_target)


@pytest.mark.parametrize(
    ("window", "lead", "targets"),
    [(10, 0.5, 5), (7, 0.5, 3), (10, 0.2, 8), (10, 0.0, 10), (2, 0.9, 1)],
)
def test_the_lead_is_the_share_of_a_window_read_before_its_first_target(
    window: int, lead: float, targets: int
) -> None:
    counts, rng = np.array([0, 400]), np.random.default_rng(1)
    windows = active_windows(counts, t_star=4, window=window, lead=lead, rng=rng)
    # neither the first block, of a random length, nor the last, which the history cuts short
    inner = windows.take(np.arange(3 + window, len(windows) - 1))
    assert set((inner.stop - inner.first_target).tolist()) == {targets}
    # at least one event is read before a target, and window events before the last of them
    assert set((inner.stop - 1 - inner.start).tolist()) == {window}


def test_the_phase_changes_with_the_generator() -> None:
    counts = np.full(40, 100)
    first, again, other = (
        active_windows(
            counts, t_star=10, window=32, lead=0.5, rng=np.random.default_rng(seed)
        ).stop.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


@given(COUNTS, st.integers(1, 300))
def test_batches_hold_every_window_once_within_the_budget(counts: np.ndarray, budget: int) -> None:
    rng = np.random.default_rng(3)
    windows = inactive_windows(counts, t_star=50)
    batches = bucket_by_length(windows, budget=budget, rng=rng)
    users = sorted(user for batch in batches for user in batch.user_idx.tolist())
    assert users == sorted(windows.user_idx.tolist())
    for batch in batches:
        assert len(batch) == 1 or len(batch) * batch.length.max() <= budget


@pytest.mark.parametrize("counts", [[0], [0, 0]])
def test_a_log_of_nobody_has_no_windows(counts: list[int]) -> None:
    none = np.array(counts)
    rng = np.random.default_rng(1)
    nothing = inactive_windows(none, t_star=3)
    assert len(nothing) == 0
    assert bucket_by_length(nothing, budget=9, rng=rng) == []
    assert len(active_windows(none, t_star=3, window=4, lead=0.5, rng=rng)) == 0
