"""Settings that would do nothing are refused, each in a line that says what to do instead."""

import shlex
from dataclasses import replace
from typing import Any

import pytest

from recsys_core.errors import ConfigError
from tasks.card_settings import check_settings, settings_without_use
from tests.small_logs import params_for, small_card

PARAMS = params_for("small", "data").train_rnn
COLUMNS = {"user_id": "user", "item_id": "item", "timestamp": "at"}
RICH: dict[str, Any] = {
    "columns": {**COLUMNS, "event_type": "kind", "value": "rating"},
    "event_types": {"buy": 1.0, "return": 1.0},
}
"""A card with sessions, values and two types of events."""


def settings_in(said: str) -> list[str]:
    """The settings of the remedy, as a shell would read them."""
    words = shlex.split(said.partition("or run with ")[2])
    assert words[::2] == ["-S"] * len(words[1::2])
    return words[1::2]


def test_a_card_that_has_it_all_passes() -> None:
    asked = replace(
        PARAMS,
        reads=("gap", "request", "session", "type", "value"),
        rewards={"return": 0.0},
        low_value=2.0,
    )
    check_settings(small_card(**RICH), asked)


def test_what_asks_for_nothing_passes_every_card() -> None:
    check_settings(small_card(sessions={"kind": "none"}), replace(PARAMS, reads=("gap", "request")))


@pytest.mark.parametrize(
    ("changes", "asked", "found", "remedy"),
    [
        (
            {"sessions": {"kind": "none"}},
            {"reads": ("gap", "session")},
            "reads names session, but the card's sessions are none",
            ["train_rnn.reads=[gap]"],
        ),
        (
            {"sessions": {"kind": "none"}},
            {"reads": ("session",), "backbone": "hgru"},
            "reads names session, but the card's sessions are none",
            ["train_rnn.reads=[]", "train_rnn.backbone=gru"],
        ),
        (
            {"columns": COLUMNS, "event_types": None},
            {"reads": ("value", "gap")},
            "reads names value, but the card's columns.value is null",
            ["train_rnn.reads=[gap]"],
        ),
        (
            {"columns": COLUMNS, "event_types": None},
            {"reads": ("type",)},
            "reads names type, but the card keeps one event type, interaction",
            ["train_rnn.reads=[]"],
        ),
        (
            {"event_types": {"buy": 1.0}},
            {"reads": ("type",)},
            "reads names type, but the card keeps one event type, buy",
            ["train_rnn.reads=[]"],
        ),
        (
            {},
            {"rewards": {"refund": 0.0, "return": 0.5, "loss": 0.1}},
            "rewards names loss, refund, but the event types that the card keeps are buy, return",
            ["train_rnn.rewards={return: 0.5}"],
        ),
        (
            {"columns": COLUMNS, "event_types": None},
            {"low_value": 2.0},
            "low_value is 2, but the card's columns.value is null",
            ["train_rnn.low_value=null"],
        ),
    ],
)
def test_each_is_refused_alone(
    changes: dict[str, Any], asked: dict[str, Any], found: str, remedy: list[str]
) -> None:
    card = small_card(**{**RICH, **changes})
    with pytest.raises(ConfigError) as caught:
        check_settings(card, replace(PARAMS, **asked))
    said = str(caught.value)
    assert found in said
    assert "\n" not in said
    assert settings_in(said) == remedy


def test_all_that_is_without_use_is_told_and_a_run_stops_at_the_first() -> None:
    card = small_card(sessions={"kind": "none"})
    asked = replace(
        PARAMS, reads=("session", "type", "value"), rewards={"return": 0.0}, low_value=1.0
    )
    lines = list(settings_without_use(card, asked))
    assert len(lines) == 5
    with pytest.raises(ConfigError) as caught:
        check_settings(card, asked)
    assert str(caught.value) == lines[0]
