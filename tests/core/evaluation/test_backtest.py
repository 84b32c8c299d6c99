"""Frames, origins and curves, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.errors import ContractError
from recsys_core.evaluation.backtest import (
    Asked,
    Origin,
    curve_rows,
    first_origin,
    frame_of,
    frame_starts,
    join_curves,
    later_origins,
    whole,
)
from recsys_core.sections import Backtest
from tests.event_rows import HOUR

BACKTEST = Backtest(frame_hours=2.0, frames=5, valid_hours=1.0, retrain="every")
END = 100 * HOUR
STARTS = [90 * HOUR, 92 * HOUR, 94 * HOUR, 96 * HOUR, 98 * HOUR, END]


def test_frames_end_with_the_log() -> None:
    starts = frame_starts(BACKTEST, END)
    assert starts.tolist() == STARTS
    times = np.array([90 * HOUR - 1, 90 * HOUR, 92 * HOUR - 1, 92 * HOUR, END - 1, END])
    assert frame_of(starts, times).tolist() == [-1, 0, 0, 1, 4, 5]


def test_origins_cover_every_frame_once() -> None:
    assert first_origin(BACKTEST) == Origin(0, 5)
    assert later_origins(BACKTEST) == [Origin(1, 2), Origin(2, 3), Origin(3, 4), Origin(4, 5)]
    assert later_origins(replace(BACKTEST, retrain=2)) == [Origin(2, 4), Origin(4, 5)]
    assert later_origins(replace(BACKTEST, retrain="never")) == []
    assert later_origins(replace(BACKTEST, retrain=5)) == []


def asked(rows: list[tuple[int, int, int]], *, base: float, known: bool = True) -> Asked:
    """Targets (user, position, time); what each got is `base` and its place, by model."""
    user, position, time = np.array(rows, dtype=np.int64).T
    place = time / HOUR / 1000
    values = {"streaming": base + place, "frozen": base / 2 + place, "recent_popularity": place}
    return Asked(user, position, time, values, np.full(len(rows), known))


ROWS = [
    (1, 3, 91 * HOUR),
    (1, 4, 95 * HOUR),
    (2, 7, 90 * HOUR),
    (2, 8, 93 * HOUR),
    (3, 1, 99 * HOUR),
    (3, 2, 99 * HOUR + 5),
]
"""In the order of users; the fourth frame, from hour 96 on, is empty."""


def test_each_frame_is_asked_of_the_latest_origin() -> None:
    origins = {
        0: asked(ROWS, base=0.1),
        1: asked([row for row in ROWS if row[2] >= 92 * HOUR], base=0.2, known=False),
        4: asked([row for row in ROWS if row[2] >= 98 * HOUR], base=0.4),
    }
    # an origin that is asked for more than its own frames is read in these alone
    curves = join_curves(origins, np.array(STARTS), has_trend=True)
    assert curves.frame.tolist() == [0, 0, 1, 2, 4, 4]
    assert curves.user_idx.tolist() == [1, 2, 2, 1, 3, 3]
    assert list(curves.values) == [
        "offline",
        "offline_trend",
        "online",
        "online_trend",
        "recent_popularity",
    ]
    place = np.array([91, 90, 93, 95, 99, 99 + 5 / HOUR]) / 1000
    base = np.array([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])
    np.testing.assert_allclose(curves.values["offline"], 0.05 + place)
    np.testing.assert_allclose(curves.values["offline_trend"], 0.1 + place)
    np.testing.assert_allclose(curves.values["online"], base / 2 + place)
    np.testing.assert_allclose(curves.values["online_trend"], base + place)
    np.testing.assert_allclose(curves.values["recent_popularity"], place)
    assert curves.known["online"].tolist() == [True, True, False, False, True, True]
    assert curves.known["offline"].all()
    assert curves.origin["online_trend"].tolist() == [0, 1, 1, 1, 4]
    assert curves.origin["offline_trend"].tolist() == [0] * 5


def test_without_a_trend_or_a_second_origin_there_are_fewer_curves() -> None:
    origins = {0: asked(ROWS, base=0.1)}
    once = join_curves(origins, np.array(STARTS), has_trend=True)
    assert list(once.values) == ["offline", "offline_trend", "recent_popularity"]
    plain = join_curves(origins, np.array(STARTS), has_trend=False)
    assert list(plain.values) == ["offline", "recent_popularity"]


def test_an_origin_that_was_asked_for_others_is_refused() -> None:
    fewer = [row for row in ROWS if row[2] >= 92 * HOUR][1:]
    moved = [(user, position + 1, time) for user, position, time in ROWS if time >= 92 * HOUR]
    for rows in (fewer, moved):
        with pytest.raises(ContractError, match="were asked for other targets than the first one"):
            join_curves(
                {0: asked(ROWS, base=0.1), 1: asked(rows, base=0.1)},
                np.array(STARTS),
                has_trend=True,
            )


def test_rows_are_means_of_their_frame_and_the_whole_of_all() -> None:
    origins = {
        0: asked(ROWS, base=0.1),
        1: asked([row for row in ROWS if row[2] >= 92 * HOUR], base=0.3),
    }
    curves = join_curves(origins, np.array(STARTS), has_trend=True)
    rows = curve_rows(curves, seed=1, draws=20)
    assert sorted({row.frame for row in rows}) == [0, 1, 2, 4]
    assert len(rows) == 4 * len(curves.values)
    for row in rows:
        inside = curves.frame == row.frame
        assert row.interval.value == pytest.approx(curves.values[row.model][inside].mean())
        assert row.interval.low <= row.interval.value <= row.interval.high
        assert row.targets == inside.sum()
        assert row.users == len(set(curves.user_idx[inside].tolist()))
    assert sum(row.targets for row in rows if row.model == "online") == len(ROWS)
    report = whole(curves, rows, seed=1, draws=20)
    of = report["curves"]
    for name, values in curves.values.items():
        assert of[name]["interval"]["value"] == pytest.approx(values.mean(), rel=1e-5)
    difference = of["online_trend"]["minus recent_popularity"]
    assert difference["value"] == pytest.approx((2 * 0.1 + 4 * 0.3) / 6, rel=1e-5)
    assert of["online_trend"]["frames_above"] == 4
    # stale: .05, stale with a new trend: .1, new: .1 in frame 0 and .3 after it
    assert report["trend_recovers"] == pytest.approx(0.05 / (1.4 / 6 - 0.05), rel=1e-5)


def test_where_nothing_is_lost_nothing_is_recovered() -> None:
    curves = join_curves({0: asked(ROWS, base=0.1)}, np.array(STARTS), has_trend=True)
    rows = curve_rows(curves, seed=1, draws=20)
    assert whole(curves, rows, seed=1, draws=20)["trend_recovers"] is None
    worse = {
        0: asked(ROWS, base=0.3),
        1: asked([row for row in ROWS if row[2] >= 92 * HOUR], base=-0.3),
    }
    curves = join_curves(worse, np.array(STARTS), has_trend=True)
    rows = curve_rows(curves, seed=1, draws=20)
    assert whole(curves, rows, seed=1, draws=20)["trend_recovers"] is None
