"""A backtest: the end of a log in frames, asked of models that were trained before them.

    ...... train ......  valid | frame 0 | frame 1 | frame 2 | ... |   the end of the log
    origin 0             ------|=========|=========|=========|=====|   trained once, asked in all
    origin 1                      -------|=========|                   every frame: each trained on
    origin 2                                -------|=========|         what lies before it

An *origin* is the start of a frame before which a model was trained. Two curves of the first
metric over the frames, and each of them with the trend as it was when its model was trained and
with the trend of each moment (HRNN-meta, Ma et al., KDD 2020, figure 5):

| curve             | its weights               | its trend          | its candidates, known at |
|-------------------|---------------------------|--------------------|--------------------------|
| offline           | of origin 0               | of origin 0        | origin 0                 |
| offline_trend     | of origin 0               | before each target | origin 0                 |
| online            | of the latest origin      | of the same origin | the latest origin        |
| online_trend      | of the latest origin      | before each target | the latest origin        |
| recent_popularity | none: its window is       | before each target | the latest origin        |
|                   | chosen before origin 0    |                    |                          |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_core.data.cuts import MICROSECONDS_PER_HOUR
from recsys_core.errors import ContractError
from recsys_core.evaluation.significance import Interval, mean_intervals
from recsys_core.rng import generator
from recsys_core.sections import Backtest

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BASELINE = "recent_popularity"


@dataclass(frozen=True)
class Origin:
    """A model is trained before the frame `first` and asked in the frames up to `last`, which is
    not among them."""

    first: int
    last: int


def first_origin(backtest: Backtest) -> Origin:
    """That of all frames."""
    return Origin(0, backtest.frames)


def later_origins(backtest: Backtest) -> list[Origin]:
    """Where a model is trained again, in the order of time; none where it never is."""
    if backtest.retrain == "never":
        return []
    step = 1 if backtest.retrain == "every" else backtest.retrain
    firsts = range(step, backtest.frames, step)
    return [Origin(first, min(first + step, backtest.frames)) for first in firsts]


def frame_starts(backtest: Backtest, end: int) -> Int64:
    """Where each frame begins, and the end of the last one, all in microseconds. (F + 1,)"""
    frame_us = round(backtest.frame_hours * MICROSECONDS_PER_HOUR)
    return end - frame_us * np.arange(backtest.frames, -1, -1, dtype=np.int64)


@dataclass(frozen=True)
class Asked:
    """What the targets of an origin's frames got from each model, a value each."""

    user_idx: Int64  # (N,)
    position: Int64  # (N,)
    timestamp: Int64  # (N,) microseconds
    values: Mapping[str, Float64]  # (N,) each, of the first metric
    known: Bool  # (N,) whether the target was a candidate

    def take(self, rows: Int64) -> "Asked":
        """The targets at these row numbers."""
        values = {name: values[rows] for name, values in self.values.items()}
        return Asked(
            user_idx=self.user_idx[rows],
            position=self.position[rows],
            timestamp=self.timestamp[rows],
            values=values,
            known=self.known[rows],
        )

    def of_frames(self, starts: Int64) -> "Asked":
        """The targets from the first of `starts` on and before the last, in the order of frames."""
        frame = frame_of(starts, self.timestamp)
        inside = np.flatnonzero((frame >= 0) & (frame < len(starts) - 1))
        return self.take(inside[np.argsort(frame[inside], kind="stable")])


def frame_of(starts: Int64, timestamp: Int64) -> Int64:
    """The frame of each time; -1 before the first, as many as there are behind the last. (N,)"""
    return np.searchsorted(starts, timestamp, side="right") - 1


@dataclass(frozen=True)
class Curves:
    """Every curve on the same targets, in the order of frames."""

    frame: Int64  # (N,)
    user_idx: Int64  # (N,)
    values: Mapping[str, Float64]  # (N,) each
    known: Mapping[str, Bool]  # (N,) each
    origin: Mapping[str, Int64]  # (F,) each: the frame before which what is asked was trained


def join_curves(asked: Mapping[int, Asked], starts: Int64, *, has_trend: bool) -> Curves:
    """The curves of what was asked of each origin, by its first frame; `starts` are the frames'.

    Without a trend there is nothing to refresh, and without a second origin nothing is online.
    Raises `ContractError` where a later origin was asked for other targets than the first.
    """
    firsts = sorted(asked)
    offline = asked[0].of_frames(starts)
    frame = frame_of(starts, offline.timestamp)
    parts, origin = [], np.zeros(len(starts) - 1, dtype=np.int64)
    for first, last in zip(firsts, [*firsts[1:], len(starts) - 1], strict=True):
        parts.append(asked[first].of_frames(starts[first : last + 1]))
        origin[first:last] = first
    online = _joined(parts)
    for column in ("user_idx", "position", "timestamp"):
        if not np.array_equal(getattr(offline, column), getattr(online, column)):
            raise ContractError(
                f"the origins {firsts[1:]} were asked for other targets than the first one (their "
                f"`{column}` differs); delete the folder `origins` and run the backtest again"
            )
    curves: dict[str, tuple[Float64, Bool, Int64]] = {}
    named = [("offline", offline, np.zeros_like(origin))]
    named += [("online", online, origin)] if len(firsts) > 1 else []
    for name, one, trained in named:
        for ending, model in (("", "frozen"), ("_trend", "streaming")):
            if has_trend or not ending:
                curves[f"{name}{ending}"] = (one.values[model], one.known, trained)
    curves[BASELINE] = (online.values[BASELINE], online.known, origin)
    return Curves(
        frame=frame,
        user_idx=offline.user_idx,
        values={name: values for name, (values, _, _) in curves.items()},
        known={name: known for name, (_, known, _) in curves.items()},
        origin={name: trained for name, (_, _, trained) in curves.items()},
    )


def _joined(parts: list[Asked]) -> Asked:
    """The targets of all parts, one after the other."""
    names = parts[0].values
    return Asked(
        **{
            column: np.concatenate([getattr(part, column) for part in parts])
            for column in ("user_idx", "position", "timestamp", "known")
        },
        values={name: np.concatenate([part.values[name] for part in parts]) for name in names},
    )


@dataclass(frozen=True)
class CurveRow:
    """The first metric of one curve in one frame."""

    frame: int
    model: str
    interval: Interval
    targets: int
    users: int
    known: int


def curve_rows(curves: Curves, *, seed: int, draws: int) -> list[CurveRow]:
    """By frame, then curve; a frame without targets has none. All curves see the same draws."""
    rows = []
    for frame in np.unique(curves.frame).tolist():
        inside = curves.frame == frame
        intervals = _intervals(curves, inside, seed=seed, draws=draws, name=f"frame {frame}")
        users = len(np.unique(curves.user_idx[inside]))
        rows += [
            CurveRow(
                frame=frame,
                model=name,
                interval=interval,
                targets=int(inside.sum()),
                users=users,
                known=int(curves.known[name][inside].sum()),
            )
            for name, interval in intervals.items()
        ]
    return rows


def whole(curves: Curves, rows: list[CurveRow], *, seed: int, draws: int) -> dict[str, Any]:
    """All frames together: each curve's mean over targets, its paired difference to recent
    popularity, in how many frames it is above it, and what a trend of each moment recovers."""
    everything = np.ones(len(curves.frame), dtype=bool)
    means = _intervals(curves, everything, seed=seed, draws=draws, name="whole")
    by_frame = {(row.frame, row.model): row.interval.value for row in rows}
    frames = sorted({row.frame for row in rows})
    report: dict[str, Any] = {}
    for name, mean in means.items():
        report[name] = {"interval": _rounded(mean), "known": int(curves.known[name].sum())}
        if name != BASELINE:
            difference = (curves.values[name] - curves.values[BASELINE])[:, None]
            rng = generator(seed, "backtest", "difference")
            found = mean_intervals(difference, curves.user_idx, rng=rng, draws=draws)[0]
            above = [by_frame[frame, name] > by_frame[frame, BASELINE] for frame in frames]
            report[name] |= {
                f"minus {BASELINE}": _rounded(found),
                "frames_above": sum(above),
            }
    return {"curves": report, "trend_recovers": _recovered(means)}


def _recovered(means: Mapping[str, Interval]) -> float | None:
    """The share of what stale weights with a stale trend lose to new ones with a new trend that
    stale weights with a new trend do not lose; None where nothing is lost."""
    if not {"offline_trend", "online_trend"} <= set(means):
        return None
    lost = means["online_trend"].value - means["offline"].value
    if lost <= 0:
        return None
    return float(f"{(means['offline_trend'].value - means['offline'].value) / lost:.6g}")


def _intervals(
    curves: Curves, inside: Bool, *, seed: int, draws: int, name: str
) -> dict[str, Interval]:
    values = np.stack([values[inside] for values in curves.values.values()], axis=1)
    rng = generator(seed, "backtest", name)
    intervals = mean_intervals(values, curves.user_idx[inside], rng=rng, draws=draws)
    return dict(zip(curves.values, intervals, strict=True))


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in vars(interval).items()}
