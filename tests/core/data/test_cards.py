"""Dataset cards: the project's own are read and resolved; what does not fit is refused."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from recsys_core.data.card_parts import FilesSource, GivenSessions, SimulatorSource
from recsys_core.data.cards import (
    parse_card,
    read_card,
    read_resolved_card,
    write_resolved_card,
)
from recsys_core.errors import ConfigError
from tests.small_logs import REPOSITORY, card_value, small_card

CARDS = sorted((REPOSITORY / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_survives_the_round_trip_and_is_named_like_its_file(
    path: Path, tmp_path: Path
) -> None:
    card = read_card(path)
    write_resolved_card(tmp_path / "card.json", card)
    assert read_resolved_card(tmp_path / "card.json") == card
    assert card.name == path.stem


def test_globo_news_cuts_at_midnight_and_brings_its_sessions() -> None:
    card = read_card(REPOSITORY / "datasets" / "globo_news.yaml")
    assert card.cut_off_microseconds == 1_508_198_400 * 1_000_000
    assert isinstance(card.sessions, GivenSessions)
    assert isinstance(card.source, FilesSource)
    assert card.kept_types == ("interaction",)


def test_a_simulator_card_is_the_simulators_configuration() -> None:
    card = read_card(REPOSITORY / "datasets" / "simulator-tiny.yaml")
    assert isinstance(card.source, SimulatorSource)
    assert card.source.users > 0
    assert card.kept_types == ("cart", "purchase", "view")


def test_a_row_key_names_each_column_once() -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.row_key.*names \['user'\] twice"):
        small_card(snapshot={"row_key": ["user", "at", "user"]})


def test_order_in_the_file_does_not_matter_to_types_and_context(tmp_path: Path) -> None:
    types = {"view": 1.0, "buy": 5.0}
    card = small_card(
        columns={"user_id": "u", "item_id": "i", "timestamp": "t", "event_type": "e"},
        event_types=types,
        context={"os": "categorical", "dwell": "numeric"},
    )
    write_resolved_card(tmp_path / "card.json", card)
    again = read_resolved_card(tmp_path / "card.json")
    assert again.kept_types == card.kept_types == ("buy", "view")
    assert again.context_fields == [pa.field("dwell", pa.float64()), pa.field("os", pa.string())]


def test_the_short_form_of_a_multi_categorical_feature_means_a_bar() -> None:
    source = {"kind": "files", "interactions": "log.csv", "items": "items.csv", "users": None}
    features = {
        "tags": "multi_categorical",
        "words": {"kind": "multi_categorical", "separator": " "},
    }
    card = small_card(source=source, item_features=features)
    assert card.item_features["tags"].separator == "|"
    assert card.item_features["words"].separator == " "


WITH_TYPE = {"user_id": "u", "item_id": "i", "timestamp": "t", "event_type": "e"}
FILES = {"kind": "files", "interactions": "log.parquet", "items": None, "users": None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"columns": {"user_id": "u", "item_id": "i"}}, "columns.timestamp: Field required"),
        ({"columns": {"user_id": "u", "item_id": "u", "timestamp": "t"}}, "['u'] have two roles"),
        ({"columns": WITH_TYPE}, "event_type and event_types belong together"),
        ({"event_types": {"view": 1.0}}, "event_type and event_types belong together"),
        ({"columns": WITH_TYPE, "event_types": {}}, "at least 1 item"),
        ({"columns": WITH_TYPE, "event_types": {f"t{n}": 1.0 for n in range(128)}}, "at most 127"),
        ({"columns": WITH_TYPE, "event_types": {"view": float("nan")}}, "finite number"),
        ({"sessions": {"kind": "given"}}, "columns.session_id is null"),
        ({"sessions": {"kind": "gap", "gap_seconds": 0}}, "greater than 0"),
        ({"time": {"kind": "rank", "unit": "s"}}, "only a rank has unit null"),
        ({"time": {"kind": "absolute", "unit": None}}, "only a rank has unit null"),
        ({"time": {"kind": "relative", "unit": "iso"}}, "a date is absolute"),
        ({"cut_off": "2024-01-01T00:00:00+02:00"}, "must be in UTC"),
        ({"cut_off": "2024-01-01T00:00:00"}, "timezone"),
        (
            {"time": {"kind": "relative", "unit": "s"}, "cut_off": "2024-01-01T00:00:00Z"},
            "set cut_off to null",
        ),
        ({"context": {"timestamp": "numeric"}}, "['timestamp'], in capitals or not: our own"),
        ({"context": {"reason": "categorical"}}, "['reason'], in capitals or not: our own"),
        ({"context": {"Value": "numeric"}}, "rename them in the export"),
        (
            {"context": {"os": "categorical", "OS": "numeric"}},
            "['OS', 'os'] differ in capitals alone, which our tables cannot tell apart; rename",
        ),
        (
            {
                "source": {**FILES, "items": "items.csv"},
                "item_features": {"hue": "categorical", "Hue": "text"},
            },
            "['Hue', 'hue'] differ in capitals alone",
        ),
        (
            {"source": {**FILES, "items": "items.csv"}, "item_features": {"ITEM": "text"}},
            "'item' is the features' key, so ['item'], in capitals or not, cannot be",
        ),
        (
            {"rules": {"item_id": {"matches": "^[[:alpha:]]+$"}}},
            "does not say what it seems to (Possible nested set at position 2); write `[a-zA-Z]`",
        ),
        ({"context": {"os": "text"}}, "context.os"),
        ({"columns": WITH_TYPE, "event_types": {"view": 0.0}}, "greater than 0"),
        ({"scenario": "os"}, "must be a categorical column of `context`"),
        ({"scenario": "os", "context": {"os": "numeric"}}, "must be a categorical column"),
        ({"expected": {"bad_share": 1.0}}, "less than 1"),
        ({"source": {**FILES, "interactions": "../log.parquet"}}, "must lie inside"),
        ({"source": {**FILES, "items": "items.json"}}, "must be a file whose name ends in one of"),
        ({"source": {**FILES, "items": "items.csv"}}, "a file and its columns belong together"),
        ({"item_features": {"title": "text"}}, "a file and its columns belong together"),
        (
            {"source": {**FILES, "items": "items.csv"}, "item_features": {"item": "text"}},
            "cannot be features as well; leave them out",
        ),
        (
            {
                "source": {**FILES, "items": "items.csv"},
                "item_features": {"title": {"kind": "text", "separator": "|"}},
            },
            "it is for multi_categorical",
        ),
        ({"source": {"kind": "sql"}}, "source"),
        ({"source": {"kind": "simulator", "users": 0}}, "source.simulator"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        parse_card(card_value(**changes), where="small.yaml")
    assert str(caught.value).startswith("small.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_cut_off_in_yaml_is_utc(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        yaml.safe_dump(card_value()).replace("cut_off: null", "cut_off: 1970-01-01T00:00:01Z")
    )
    assert read_card(path).cut_off_microseconds == 1_000_000
