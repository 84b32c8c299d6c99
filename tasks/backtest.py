"""What a backtest asks of the workspaces of its origins: params, which ones there are, and what
was found in each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from recsys_core.artifacts import read_json
from recsys_core.columns import MODEL
from recsys_core.config import Params
from recsys_core.data.cards import DatasetCard
from recsys_core.data.cuts import MICROSECONDS_PER_HOUR
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.errors import ConfigError, ContractError
from recsys_core.evaluation.backtest import (
    BASELINE,
    Asked,
    Origin,
    first_origin,
    frame_of,
    frame_starts,
    later_origins,
)
from recsys_core.evaluation.metrics import metric_of
from recsys_core.layout import Layout
from recsys_core.sections import Backtest
from recsys_core.tables import RANKS, read_events, read_table

STREAMING, FROZEN = "two_time_scale", "two_time_scale_frozen_trend"
"""The model as the stage evaluate ranks it; the second only where it has a trend."""


def check_backtest(params: Params, card: DatasetCard) -> None:
    """Raise `ConfigError` where these params, of this card's log, cannot be asked in frames."""
    evaluate = params.evaluate
    if card.snapshot is not None:
        raise ConfigError(
            "the card's log arrives in deliveries (`snapshot`), in which somebody may come late, "
            "but a backtest cuts one whole log; write a card of the folder without `snapshot`"
        )
    if card.time.kind == "rank":
        raise ConfigError(
            "the card's time is a rank, an order without clock times, but the frames of a backtest "
            "are hours; evaluate such a log with `twotempo run` and another `split`"
        )
    if evaluate.targets != "successive":
        raise ConfigError(
            f"evaluate.targets is {evaluate.targets}, but a backtest asks for every event of its "
            "frames; run it with -S evaluate.targets=successive"
        )
    if not evaluate.windows:
        raise ConfigError(
            "evaluate.recent_hours and recent_minutes are empty, but a backtest stands beside "
            "recent popularity; name windows, as -S 'evaluate.recent_hours=[1, 6, 24]'"
        )


def origin_overrides(
    backtest: Backtest, origin: Origin, *, end: int | None, window: float | None
) -> list[str]:
    """What differs in an origin's params: its frames, and evaluation that streams.

    `end` is where the log ends, in microseconds, and `window` the hours of recent popularity; both
    are None for the first origin, which has the whole log and chooses the window.
    """
    frame_us = round(backtest.frame_hours * MICROSECONDS_PER_HOUR)
    split = {
        "kind": "frame",
        "hours": frame_us * (origin.last - origin.first) / MICROSECONDS_PER_HOUR,
        "valid_hours": backtest.valid_hours,
        "end": None if end is None else int(frame_starts(backtest, end)[origin.last]),
    }
    changes: dict[str, Any] = {
        "split": split,
        "evaluate.streaming": True,
        "evaluate.train_only": False,
        "evaluate.baselines": [BASELINE],
        "evaluate.bootstrap_draws": 20,  # their intervals are not shown
        "gate.floor": BASELINE,
    }
    if window is not None:
        changes |= {"evaluate.recent_hours": [window], "evaluate.recent_minutes": []}
    return [
        f"{name}={yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]}"
        for name, value in changes.items()
    ]


def end_of(layout: Layout) -> int:
    """Where the log of the first origin ends, in microseconds."""
    return Split(**read_json(_first(layout).split)).end


def window_of(layout: Layout) -> float:
    """The hours of recent popularity that the first origin chose."""
    return float(read_json(_first(layout).report("evaluate"))["recent_hours"])


def origins(layout: Layout, backtest: Backtest) -> list[Origin]:
    """The first origin and those later ones that can be trained and asked, by the first one's log.

    One without an event to ask for, or without one to choose by, has no model: the frames stay with
    the one before.
    """
    starts = frame_starts(backtest, end_of(layout))
    return origins_of(read_events(_first(layout).events), backtest, starts)


def origins_of(events: Events, backtest: Backtest, starts: npt.NDArray[np.int64]) -> list[Origin]:
    """The origins of a log whose frames begin at `starts`; see `origins`."""
    at = np.sort(events.timestamp[events.position > 0])
    valid_us = round(backtest.valid_hours * MICROSECONDS_PER_HOUR)
    found = [first_origin(backtest)]
    for origin in later_origins(backtest):
        begin, end = starts[origin.first], starts[origin.last]
        before, first, last = np.searchsorted(at, [begin - valid_us, begin, end])
        if before < first < last:
            found.append(origin)
    ends = [origin.first for origin in found[2:]] + [backtest.frames]
    later = (replace(one, last=end) for one, end in zip(found[1:], ends, strict=False))
    return [found[0], *later]


def asked_of(layout: Layout, backtest: Backtest, origin: Origin, *, metric: str) -> Asked:
    """What the targets of an origin's frames got from its model and from recent popularity.

    Raises `ContractError` where its workspace was run for other frames.
    """
    one = Layout(layout.origin(origin.first))
    starts = frame_starts(backtest, end_of(layout))
    split = Split(**read_json(one.split))
    if (split.test_start, split.end) != (starts[origin.first], starts[origin.last]):
        raise ContractError(
            f"{one.root}: its frames are from {split.test_start} to {split.end}, not from "
            f"{starts[origin.first]} to {starts[origin.last]}; run `twotempo backtest` again"
        )
    events, ranks = read_events(one.events), read_table(one.ranks, RANKS).to_pandas()
    by_model = dict(iter(ranks.groupby(MODEL, sort=False)))
    targets = by_model[STREAMING]
    user_idx, position = (targets[name].to_numpy(np.int64) for name in ("user_idx", "position"))
    models: Mapping[str, str] = {
        "streaming": STREAMING,
        "frozen": FROZEN if FROZEN in by_model else STREAMING,
        BASELINE: BASELINE,
    }
    return Asked(
        user_idx=user_idx,
        position=position,
        timestamp=np.asarray(events.timestamp[events.offsets[user_idx] + position]),
        values={
            name: metric_of(by_model[model]["rank"].to_numpy(np.int32), metric)
            for name, model in models.items()
        },
        known=targets["known"].to_numpy(bool),
    )


def has_trend(layout: Layout) -> bool:
    """Whether the first origin's model has a trend that can be refreshed."""
    found = read_table(_first(layout).ranks, RANKS, columns=[MODEL])
    return FROZEN in found.column(MODEL).unique().to_pylist()


def events_in_frames(layout: Layout, backtest: Backtest) -> tuple[int, list[int]]:
    """The events from the first frame on, and the frames in which nobody can be asked."""
    events = read_events(_first(layout).events)
    starts = frame_starts(backtest, end_of(layout))
    frame = frame_of(starts, np.asarray(events.timestamp))
    inside = (frame >= 0) & (frame < backtest.frames)
    met = np.bincount(frame[inside & (events.position > 0)], minlength=backtest.frames)
    return int(inside.sum()), np.flatnonzero(met == 0).tolist()


def _first(layout: Layout) -> Layout:
    return Layout(layout.origin(0))
