"""Joins what the origins of a backtest found to curves over time: a table, a report, a picture."""

import logging

import pyarrow as pa

from recsys_core.artifacts import atomic_path, write_json
from recsys_core.evaluation.backtest import (
    CurveRow,
    curve_rows,
    frame_starts,
    join_curves,
    whole,
)
from recsys_core.layout import Layout
from recsys_core.sections import Backtest, Evaluate
from recsys_core.tables import CURVE, write_table
from tasks.backtest import (
    asked_of,
    end_of,
    events_in_frames,
    has_trend,
    origins,
    window_of,
)
from tasks.clock import time_kind
from tasks.curve_picture import curve_picture
from tasks.step import main

logger = logging.getLogger(__name__)

PROTOCOL = {
    "targets": "each event of a frame that has an earlier event of its user",
    "rank": "1 + other candidates with a score >= the target's; an unknown target is a miss",
    "candidates": "offline: items known at the first origin; all others: items known at the latest",
    "trend": "two curves with the trend as it was at the origin, those that end with _trend by "
    "every event before a target; recent popularity by every event before a target too",
    "trend_recovers": "(offline_trend - offline) / (online_trend - offline), all frames together",
    "value": "mean over targets; the interval is 95 %, a bootstrap over users; differences paired",
}


def run(
    *, layout: Layout, backtest: Backtest, evaluate: Evaluate, first_metric: str, seed: int
) -> None:
    """Write the curves of all origins, which must have been evaluated."""
    planned = origins(layout, backtest)
    asked = {
        origin.first: asked_of(layout, backtest, origin, metric=first_metric) for origin in planned
    }
    starts = frame_starts(backtest, end_of(layout))
    curves = join_curves(asked, starts, has_trend=has_trend(layout))
    draws = evaluate.bootstrap_draws
    rows = curve_rows(curves, seed=seed, draws=draws)
    start, end = pa.array(starts[:-1]), pa.array(starts[1:])
    frame = pa.array([row.frame for row in rows], pa.int32())
    trained = [int(starts[curves.origin[row.model][row.frame]]) for row in rows]
    columns = {
        "frame": frame,
        "model": [row.model for row in rows],
        "start": start.take(frame).cast(CURVE.field("start").type),
        "end": end.take(frame).cast(CURVE.field("end").type),
        "trained_before": pa.array(trained, pa.int64()).cast(CURVE.field("trained_before").type),
        "metric": [first_metric] * len(rows),
        "value": [row.interval.value for row in rows],
        "low": [row.interval.low for row in rows],
        "high": [row.interval.high for row in rows],
        "targets": [row.targets for row in rows],
        "users": [row.users for row in rows],
        "known": [row.known for row in rows],
    }
    write_table(layout.curve, pa.table(columns, schema=CURVE), CURVE)
    in_frames, without = events_in_frames(layout, backtest)
    total = whole(curves, rows, seed=seed, draws=draws)
    n_targets = len(curves.frame)
    report = {
        "first_metric": first_metric,
        "rows": {"in": in_frames, "out": n_targets, "not_asked": in_frames - n_targets},
        "frames": {"in": backtest.frames, "out": backtest.frames - len(without)},
        "frames_without_targets": without,
        "origins": [origin.first for origin in planned],
        "recent_hours": window_of(layout),
        "protocol": PROTOCOL,
        **total,
    }
    write_json(layout.report("backtest"), report)
    picture = curve_picture(
        _lines(rows), starts.tolist(), metric=first_metric, kind=time_kind(Layout(layout.origin(0)))
    )
    with atomic_path(layout.curve.with_suffix(".svg")) as temporary:
        temporary.write_text(picture, encoding="utf-8")
    for name, found in total["curves"].items():
        logger.info("event=curve model=%s %s=%g", name, first_metric, found["interval"]["value"])


def _lines(rows: list[CurveRow]) -> dict[str, list[tuple[int, float, float, float]]]:
    """Of each curve its frames with value and bounds."""
    lines: dict[str, list[tuple[int, float, float, float]]] = {}
    for row in rows:
        interval = row.interval
        point = (row.frame, interval.value, interval.low, interval.high)
        lines.setdefault(row.model, []).append(point)
    return lines


if __name__ == "__main__":
    main(run)
