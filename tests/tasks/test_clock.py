"""What needs clock times is refused for a log that has none: by name, at once, with the remedy."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_core.artifacts import write_json
from recsys_core.config import Params
from recsys_core.data.splits import Split
from recsys_core.errors import ConfigError, ContractError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import QuantileSplit
from recsys_core.sections_of_scoring import Available, Cold
from tasks.clock import Clock, TimeKind, check_clock, time_kind
from tests.small_logs import params_for, run_stages

RANK = Clock("rank", one_time=True)
QUANTILE = QuantileSplit(kind="quantile", share=0.1)
PARAMS = params_for("small", "data")
CLOCKLESS = {
    "split": QUANTILE,
    "train_embeddings": PARAMS.train_embeddings,
    "train_rnn": replace(PARAMS.train_rnn, reads=("type",)),
    "train_memory": replace(PARAMS.train_memory, windows=(None,)),
    "evaluate": replace(PARAMS.evaluate, recent_hours=()),
    "gate": replace(PARAMS.gate, floor="popularity"),
}
"""Sections that ask for no clock."""


def test_what_asks_for_no_clock_passes() -> None:
    check_clock(RANK, **CLOCKLESS)


@pytest.mark.parametrize(
    ("section", "value", "found", "remedy"),
    [
        ("split", PARAMS.split, "split.kind is days", "split={kind: quantile, share: 0.1}"),
        (
            "train_embeddings",
            replace(PARAMS.train_embeddings, half_life_days=1.5),
            "train_embeddings.half_life_days is 1.5",
            "train_embeddings.half_life_days=null",
        ),
        (
            "train_rnn",
            replace(PARAMS.train_rnn, reads=(), half_life_days=2),
            "train_rnn.half_life_days is 2",
            "train_rnn.half_life_days=null",
        ),
        ("train_rnn", PARAMS.train_rnn, "train_rnn.reads is [gap]", "train_rnn.reads=[]"),
        (
            "train_rnn",
            replace(PARAMS.train_rnn, reads=(), trend_hours=1.5),
            "train_rnn.trend_hours is 1.5",
            "train_rnn.trend_hours=null",
        ),
        (
            "train_rnn",
            replace(PARAMS.train_rnn, reads=("type", "request", "session")),
            "train_rnn.reads is [type, request, session]",
            "train_rnn.reads=[type]",
        ),
        (
            "train_memory",
            PARAMS.train_memory,
            "train_memory.windows is [24, null]",
            "train_memory.windows=[null]",
        ),
        (
            "train_memory",
            replace(PARAMS.train_memory, windows=(0.5,)),
            "train_memory.windows is [0.5]",
            "train_memory.windows=[null]",
        ),
        (
            "evaluate",
            replace(PARAMS.evaluate, recent_hours=(0.5, 24.0)),
            "evaluate.recent_hours is [0.5, 24]",
            "evaluate.recent_hours=[]",
        ),
        ("gate", PARAMS.gate, "gate.floor is recent_popularity", "gate.floor=popularity"),
        (
            "score",
            replace(PARAMS.score, active_within=30.0),
            "score.active_within is 30",
            "score.active_within=null",
        ),
        (
            "score",
            replace(PARAMS.score, cold=Cold(segment=None, hours=1.5)),
            "score.cold.hours is 1.5",
            "score.cold.hours=null",
        ),
        (
            "score",
            replace(
                PARAMS.score,
                filters=replace(PARAMS.score.filters, available=Available("launch", None)),
            ),
            "score.filters.available is set",
            "score.filters.available=null",
        ),
    ],
)
def test_each_is_refused_alone(section: str, value: Any, found: str, remedy: str) -> None:
    sections = {**CLOCKLESS, section: value}
    with pytest.raises(ConfigError) as caught:
        check_clock(RANK, **sections)
    said = str(caught.value)
    assert found in said
    assert "\n" not in said
    assert settings_in(said) == [remedy]
    check_clock(Clock("absolute", one_time=True), **sections)
    if "available" not in remedy:  # dates, which a relative time does not have either
        check_clock(Clock("relative", one_time=True), **sections)


def test_where_each_is_cut_at_a_time_of_their_own_nothing_is_recent() -> None:
    """Gaps between events are real there, and may be read."""
    clock = Clock("absolute", one_time=False)
    check_clock(clock, **{**CLOCKLESS, "train_rnn": PARAMS.train_rnn})
    for section, value, remedy in (
        ("evaluate", PARAMS.evaluate, "evaluate.recent_hours=[]"),
        ("gate", PARAMS.gate, "gate.floor=popularity"),
        ("train_memory", PARAMS.train_memory, "train_memory.windows=[null]"),
        (
            "train_rnn",
            replace(PARAMS.train_rnn, half_life_days=2),
            "train_rnn.half_life_days=null",
        ),
        ("train_rnn", replace(PARAMS.train_rnn, trend_hours=1.5), "train_rnn.trend_hours=null"),
    ):
        with pytest.raises(ConfigError, match="leave_one_out") as caught:
            check_clock(clock, **{**CLOCKLESS, section: value})
        assert settings_in(str(caught.value)) == [remedy]


def test_all_that_is_wrong_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        check_clock(
            RANK,
            split=PARAMS.split,
            train_embeddings=replace(PARAMS.train_embeddings, half_life_days=1),
            train_rnn=replace(PARAMS.train_rnn, half_life_days=1),
            train_memory=PARAMS.train_memory,
            evaluate=PARAMS.evaluate,
            gate=PARAMS.gate,
        )
    assert len(settings_in(str(caught.value))) == 7
    assert "\n" not in str(caught.value)


def settings_in(said: str) -> list[str]:
    """The settings of the remedy, as a shell would read them."""
    words = shlex.split(said.partition("; run with ")[2].partition(", or set")[0])
    assert words[::2] == ["-S"] * len(words[1::2])
    return words[1::2]


@pytest.mark.parametrize(
    "stage", ["train_embeddings", "train_rnn", "train_memory", "evaluate", "refit"]
)
def test_a_stage_refuses_before_it_reads_the_log(stage: str, tmp_path: Path) -> None:
    """There is no log here: whoever came to read it would fail in another way."""
    layout = Layout(tmp_path)
    params: Params = params_for(
        "small", "data", train_embeddings={"half_life_days": 1}, refit={"kind": "scratch"}
    )
    with pytest.raises(ContractError, match=r"time\.json: no such file"):
        run_stages(layout, stage, params=params)
    write_json(layout.time_kind, {"kind": "rank"})
    write_json(layout.split, Split(valid_start=1, test_start=2, end=3, as_of=2).to_json())
    with pytest.raises(ConfigError, match="time is a rank"):
        run_stages(layout, stage, params=params)


@pytest.mark.parametrize("kind", ["absolute", "relative", "rank"])
def test_the_kind_is_read_as_written(kind: TimeKind, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_json(layout.time_kind, {"kind": kind})
    assert time_kind(layout) == kind


def test_dates_of_items_are_refused_where_the_log_has_none() -> None:
    filters = replace(PARAMS.score.filters, available=Available("launch", None))
    relative = Clock("relative", one_time=True)
    check_clock(relative, score=PARAMS.score)
    check_clock(Clock("absolute", one_time=True), score=replace(PARAMS.score, filters=filters))
    with pytest.raises(ConfigError, match="compares dates of items with it"):
        check_clock(relative, score=replace(PARAMS.score, filters=filters))
