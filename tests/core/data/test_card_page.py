"""docs/dataset-cards.md names every key of a card, and its example is a card."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from recsys_core.data.card_parts import (
    Columns,
    Expected,
    Feature,
    FilesSource,
    GapSessions,
    GivenSessions,
    NoSessions,
    PostgresSource,
    Rule,
    Snapshot,
    Time,
)
from recsys_core.data.cards import DatasetCard, parse_card

PAGE = Path(__file__).parents[3] / "docs" / "dataset-cards.md"
PARTS = (Columns, Expected, Feature, Rule, Snapshot, Time)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def code(text: str) -> set[str]:
    """The words in code marks."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", prose))))


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^###? {title}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {title!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """The names in code marks in the first column of the tables."""
    rows = re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_table_of_keys_is_that_of_the_card(page: str) -> None:
    assert first_cells(section(page, "Keys")) == set(DatasetCard.model_fields)


@pytest.mark.parametrize(
    ("title", "part"), [("rules", Rule), ("expected", Expected), ("snapshot", Snapshot)]
)
def test_a_parts_table_has_its_keys(page: str, title: str, part: type[Rule]) -> None:
    assert first_cells(section(page, title)) == set(part.model_fields)


def test_sources_are_described(page: str) -> None:
    for source in (FilesSource, PostgresSource):
        assert {field.name for field in fields(source)} <= code(section(page, "source"))


def test_columns_time_sessions_and_features_are_described(page: str) -> None:
    assert set(Columns.model_fields) <= code(section(page, "columns"))
    assert set(Time.model_fields) <= code(section(page, "time"))
    assert {"absolute", "relative", "rank", "s", "ms", "us", "iso"} <= code(section(page, "time"))
    told = code(section(page, "sessions"))
    for sessions in (GapSessions, GivenSessions, NoSessions):
        assert set(sessions.model_fields) <= told
    assert {"gap", "given", "none"} <= told
    kinds = Feature.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
    assert {*kinds, "separator"} <= code(section(page, "Features"))


def test_the_example_is_a_card_with_every_role(page: str) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    value = yaml.safe_load(text)
    assert parse_card(value, where=str(PAGE)).name == "shop"
    assert set(value) == set(DatasetCard.model_fields) - {"snapshot"}
    assert set(value["columns"]) == set(Columns.model_fields)


def test_no_key_of_a_part_is_left_out(page: str) -> None:
    for part in PARTS:
        assert set(part.model_fields) <= code(page), part
