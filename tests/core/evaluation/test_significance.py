"""The bootstrap by user: its width where it is known, its coverage, and pairing."""

import numpy as np
import pytest

from recsys_core.evaluation import significance
from recsys_core.evaluation.significance import mean_intervals, paired_difference
from recsys_core.rng import generator


def users_with_effects(rng: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Values with mean 0 over 1 to 4 targets a user, which share the user's effect."""
    sizes = rng.integers(1, 5, users)
    user = np.repeat(np.arange(users), sizes)
    return rng.normal(size=users)[user] + 0.5 * rng.normal(size=len(user)), user


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for trial in range(300):
        rng = generator(1, "coverage", trial)
        values, user = users_with_effects(rng, 80)
        interval = mean_intervals(values[:, None], user, rng=rng, draws=200)[0]
        covered += interval.low <= 0.0 <= interval.high
    # 95 % of 300 is 285; four standard errors, and a percentile interval is a little short
    assert 0.88 <= covered / 300 <= 0.99


def test_width_for_one_target_a_user_is_the_textbook_one():
    rng = generator(2, "width")
    values = rng.normal(size=2000)
    interval = mean_intervals(values[:, None], np.arange(2000), rng=rng, draws=2000)[0]
    assert interval.value == pytest.approx(values.mean())
    expected = 2 * 1.96 * values.std() / np.sqrt(2000)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)


def test_targets_of_one_user_are_not_independent():
    rng = generator(3, "clusters")
    effects = rng.normal(size=200)
    user = np.repeat(np.arange(200), 25)
    values = effects[user][:, None]
    by_user = mean_intervals(values, user, rng=generator(4), draws=500)[0]
    by_target = mean_intervals(values, np.arange(5000), rng=generator(4), draws=500)[0]
    # 25 copies of a value say no more than one: five times as wide
    ratio = (by_user.high - by_user.low) / (by_target.high - by_target.low)
    assert ratio == pytest.approx(5, rel=0.2)


def test_a_draw_forms_the_ratio_of_sums_again():
    # user 0 has three targets of 1, user 1 one target of 0: a draw gives 1, 3/4 or 0
    values, user = np.array([1.0, 1.0, 1.0, 0.0]), np.array([5, 5, 5, 9])
    drawn = significance.bootstrap_means(values[:, None], user, rng=generator(5), draws=400)
    assert sorted(set(drawn[:, 0].tolist())) == [0.0, 0.75, 1.0]
    share_of_mixed_draws = float(np.mean(drawn == 0.75))
    assert share_of_mixed_draws == pytest.approx(1 / 2, abs=0.1)


def test_blocks_of_draws_change_nothing(monkeypatch):
    values, user = users_with_effects(generator(6), 50)
    whole = mean_intervals(values[:, None], user, rng=generator(7), draws=100)
    monkeypatch.setattr(significance, "BLOCK_CELLS", 7 * 50)
    assert mean_intervals(values[:, None], user, rng=generator(7), draws=100) == pytest.approx(
        whole
    )


def test_the_same_seed_gives_the_same_interval_and_one_user_none():
    values, user = users_with_effects(generator(8), 50)
    first = mean_intervals(values[:, None], user, rng=generator(9), draws=100)
    assert mean_intervals(values[:, None], user, rng=generator(9), draws=100) == first
    assert mean_intervals(values[:, None], user, rng=generator(10), draws=100) != first
    alone = mean_intervals(values[:, None], np.zeros(len(user), int), rng=generator(9), draws=9)[0]
    assert alone.low == pytest.approx(alone.value)
    assert alone.high == pytest.approx(alone.value)


def test_paired_differences_cancel_what_both_share():
    rng = generator(11)
    theirs, user = users_with_effects(rng, 100)
    same = paired_difference(theirs, theirs, user, rng=rng, draws=100)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    ours = theirs + 0.01 * rng.normal(size=len(theirs)) + 0.1
    better = paired_difference(ours, theirs, user, rng=rng, draws=200)
    assert better.low > 0.09
    assert better.high < 0.11
    alone = mean_intervals(theirs[:, None], user, rng=rng, draws=200)[0]
    assert alone.high - alone.low > 10 * (better.high - better.low)


def test_all_columns_see_the_same_draws():
    values, user = users_with_effects(generator(12), 30)
    both = mean_intervals(np.stack([values, values + 1], axis=1), user, rng=generator(13), draws=50)
    assert both[1].low - both[0].low == pytest.approx(1.0)
    assert both[1].high - both[0].high == pytest.approx(1.0)
