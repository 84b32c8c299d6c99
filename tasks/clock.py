"""Refuses what needs clock times where the log has none.

    absolute   date and time                  everything may be used
    relative   counted from the log's start   everything may be used: the time between two events is
                                              a real one, and the card itself refuses dates
    rank       an order without clock times   nothing that asks how long between, or how long ago

A stage asks for its own sections, and a run for all of them, before anything is trained.
"""

from typing import Literal

from recsys_core.artifacts import read_json
from recsys_core.errors import ConfigError, ContractError
from recsys_core.layout import Layout
from recsys_core.sections import DaysSplit, Evaluate, Gate, SplitParams, TrainEmbeddings, TrainRnn

TimeKind = Literal["absolute", "relative", "rank"]


def time_kind(layout: Layout) -> TimeKind:
    """What kind of times the sessionized log has, as its card says."""
    if not layout.time_kind.exists():
        raise ContractError(f"{layout.time_kind}: no such file; run `dvc repro sessionize`")
    kind: TimeKind = read_json(layout.time_kind)["kind"]
    return kind


def check_clock(
    kind: TimeKind,
    *,
    split: SplitParams | None = None,
    train_embeddings: TrainEmbeddings | None = None,
    train_rnn: TrainRnn | None = None,
    evaluate: Evaluate | None = None,
    gate: Gate | None = None,
) -> None:
    """Raise `ConfigError` with everything in these sections that such times cannot give."""
    if kind != "rank":
        return
    refused: list[tuple[str, str]] = []  # what was found and why not, what to set instead
    if isinstance(split, DaysSplit):
        refused.append(
            ("split.kind is days (there are no days)", "'split={kind: quantile, share: 0.1}'")
        )
    for section, half_life in (
        ("train_embeddings", train_embeddings and train_embeddings.half_life_days),
        ("train_rnn", train_rnn and train_rnn.half_life_days),
    ):
        if half_life is not None:
            found = f"{section}.half_life_days is {half_life:g} (events have no age)"
            refused.append((found, f"{section}.half_life_days=null"))
    if train_rnn is not None and train_rnn.time_dim > 0:
        found = f"train_rnn.time_dim is {train_rnn.time_dim} (there are no gaps between events)"
        refused.append((found, "train_rnn.time_dim=0"))
    if evaluate is not None and evaluate.recent_hours:
        hours = ", ".join(f"{hour:g}" for hour in evaluate.recent_hours)
        found = f"evaluate.recent_hours is [{hours}] (there are no hours)"
        refused.append((found, "'evaluate.recent_hours=[]'"))
    if gate is not None and gate.floor == "recent_popularity":
        found = "gate.floor is recent_popularity (nothing is known to be recent)"
        refused.append((found, "gate.floor=popularity"))
    if refused:
        found = "; ".join(what for what, _ in refused)
        instead = " ".join(f"-S {setting}" for _, setting in refused)
        raise ConfigError(
            f"the card's time is a rank, an order without clock times, but {found}; "
            f"run with {instead}, or set these in params.yaml"
        )
