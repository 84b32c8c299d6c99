"""Refuses what needs clock times where the log has none.

    absolute   date and time                  everything may be used
    relative   counted from the log's start   everything may be used: the time between two events is
                                              a real one; dates of items are refused
    rank       an order without clock times   nothing that asks how long between, or how long ago

Where each user is cut at a moment of their own (leave_one_out), nothing is known to be recent for
everybody either: half-lives and windows of hours are refused, gaps are not.

A stage asks for its own sections, and a run for all of them, before anything is trained.
"""

from dataclasses import dataclass
from typing import Literal

from recsys_core.artifacts import read_json
from recsys_core.data.splits import Split
from recsys_core.errors import ConfigError, ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Evaluate, Gate, Score, TrainEmbeddings, TrainMemory, TrainRnn
from recsys_core.sections_of_data import DaysSplit, FrameSplit, SplitParams

TimeKind = Literal["absolute", "relative", "rank"]


def time_kind(layout: Layout) -> TimeKind:
    """What kind of times the sessionized log has, as its card says."""
    if not layout.time_kind.exists():
        raise ContractError(f"{layout.time_kind}: no such file; run `dvc repro sessionize`")
    kind: TimeKind = read_json(layout.time_kind)["kind"]
    return kind


@dataclass(frozen=True)
class Clock:
    """What a log's times can give: their kind, and whether all users are cut at one time."""

    kind: TimeKind
    one_time: bool


def clock_of(layout: Layout) -> Clock:
    """That of the sessionized log and its split."""
    kind = time_kind(layout)  # says what to run where there is nothing yet
    return Clock(kind, one_time=not Split(**read_json(layout.split)).leaves_one_out)


def check_clock(
    clock: Clock,
    *,
    split: SplitParams | None = None,
    train_embeddings: TrainEmbeddings | None = None,
    train_rnn: TrainRnn | None = None,
    train_memory: TrainMemory | None = None,
    evaluate: Evaluate | None = None,
    gate: Gate | None = None,
    score: Score | None = None,
) -> None:
    """Raise `ConfigError` with everything in these sections that such times cannot give."""
    if clock.kind == "relative" and score is not None and score.filters.available is not None:
        raise ConfigError(
            "the card's time is relative, counted from the log's start, but "
            "score.filters.available compares dates of items with it; run with "
            "-S score.filters.available=null, or give the log dates"
        )
    ranks = clock.kind == "rank"
    if not ranks and clock.one_time:
        return
    refused: list[tuple[str, str]] = []  # what was found and why not, what to set instead
    if ranks and isinstance(split, DaysSplit | FrameSplit):
        unit = "days" if isinstance(split, DaysSplit) else "hours"
        found = f"split.kind is {split.kind} (there are no {unit})"
        refused.append((found, "'split={kind: quantile, share: 0.1}'"))
    for section, half_life in (
        ("train_embeddings", train_embeddings and train_embeddings.half_life_days),
        ("train_rnn", train_rnn and train_rnn.half_life_days),
    ):
        if half_life is not None:
            found = f"{section}.half_life_days is {half_life:g} (events have no age)"
            refused.append((found, f"{section}.half_life_days=null"))
    if train_rnn is not None and train_rnn.trend_hours is not None:
        found = f"train_rnn.trend_hours is {train_rnn.trend_hours:g} (there are no hours)"
        refused.append((found, "train_rnn.trend_hours=null"))
    times = {"gap", "request", "session"}  # a request opens a session after a time
    if ranks and train_rnn is not None and times & set(train_rnn.reads):
        read = ", ".join(train_rnn.reads)
        others = ", ".join(one for one in train_rnn.reads if one not in times)
        found = f"train_rnn.reads is [{read}] (there is no time between events, or until a request)"
        refused.append((found, f"'train_rnn.reads=[{others}]'"))
    if train_memory is not None and set(train_memory.windows) != {None}:
        windows = ", ".join("null" if one is None else f"{one:g}" for one in train_memory.windows)
        found = f"train_memory.windows is [{windows}] (there are no hours)"
        refused.append((found, "'train_memory.windows=[null]'"))
    if train_memory is not None and train_memory.origins > 1:
        found = f"train_memory.origins is {train_memory.origins} (no period is as long as another)"
        refused.append((found, "train_memory.origins=1"))
    for unit in ("hours", "minutes"):
        if evaluate is not None and getattr(evaluate, f"recent_{unit}"):
            windows = ", ".join(f"{one:g}" for one in getattr(evaluate, f"recent_{unit}"))
            found = f"evaluate.recent_{unit} is [{windows}] (there are no {unit})"
            refused.append((found, f"'evaluate.recent_{unit}=[]'"))
    if evaluate is not None and evaluate.streaming:
        found = "evaluate.streaming is true (no time says what lies before a target for everybody)"
        refused.append((found, "evaluate.streaming=false"))
    if gate is not None and gate.floor == "recent_popularity":
        found = "gate.floor is recent_popularity (nothing is known to be recent)"
        refused.append((found, "gate.floor=popularity"))
    if ranks and score is not None:
        refused += _of_scoring(score)
    if refused:
        found = "; ".join(what for what, _ in refused)
        instead = " ".join(f"-S {setting}" for _, setting in refused)
        why = (
            "the card's time is a rank, an order without clock times"
            if ranks
            else "split.kind is leave_one_out, where each user is cut at a time of their own"
        )
        raise ConfigError(f"{why}, but {found}; run with {instead}, or set these in params.yaml")


def asks_for_clock(score: Score) -> bool:
    """Whether scoring asks how long ago something was, or for a date."""
    return bool(_of_scoring(score))


def _of_scoring(score: Score) -> list[tuple[str, str]]:
    """What of scoring needs clock times, and what to set instead."""
    asked = []
    if score.active_within is not None:
        found = f"score.active_within is {score.active_within:g} (there are no days)"
        asked.append((found, "score.active_within=null"))
    if score.filters.available is not None:
        found = "score.filters.available is set (no time says when an item is to be had)"
        asked.append((found, "score.filters.available=null"))
    if score.cold is not None and score.cold.hours is not None:
        found = f"score.cold.hours is {score.cold.hours:g} (there are no hours)"
        asked.append((found, "score.cold.hours=null"))
    return asked
