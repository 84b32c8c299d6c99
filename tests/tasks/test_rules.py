"""Every rule of the door: a corruption that only it catches, and that passes without it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json
from recsys_core.data.duck import open_duckdb
from recsys_core.data.log_facts import find_repeats, repeats_of
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from tasks.door import Door, Rule, judge, open_door
from tasks.future import future_of
from tasks.rules import log_rules, row_rules
from tasks.stages import validate
from tests.door_logs import BEFORE, FULL, N, card, clean_rows, described, ingested, run_validate
from tests.small_logs import DAY

ROW = 13
"""The row that is corrupted: in no day that a rule compares alone."""

YEAR = 366 * DAY

CORRUPTED_CELLS: dict[str, tuple[str, Any]] = {
    "user_id_missing": ("user_id", None),
    "user_id_blank": ("user_id", " \t"),
    "user_id_has_control_characters": ("user_id", 'u1,i2\n"u2'),
    "user_id_does_not_match": ("user_id", "x1"),
    "item_id_missing": ("item_id", None),
    "item_id_blank": ("item_id", "\u3000"),
    "item_id_has_control_characters": ("item_id", "i\x001"),
    "item_id_does_not_match": ("item_id", "x1"),
    "timestamp_missing": ("timestamp", None),
    "timestamp_out_of_range": ("timestamp", DAY - 1),
    "timestamp_in_future": ("timestamp", 1_700_000_000_000_000 + YEAR),
    "event_type_missing": ("event_type", None),
    "event_type_does_not_match": ("event_type", "preview"),
    "value_missing": ("value", None),
    "value_not_finite": ("value", math.nan),
    "value_below_min": ("value", 0.699),
    "value_above_max": ("value", 1.001),
    "session_id_missing": ("session_id", None),
    "session_id_has_control_characters": ("session_id", "s1\r"),
    "session_id_does_not_match": ("session_id", "x1"),
    "os_missing": ("os", None),
    "os_does_not_match": ("os", "windows"),
    "price_missing": ("price", None),
    "price_below_min": ("price", -1e-9),
    "price_above_max": ("price", 99.6),
}


@dataclass
class Log:
    """The three tables of a log, and the unit that ingest thinks its times have."""

    rows: list[dict[str, Any]] = field(default_factory=clean_rows)
    items: list[dict[str, str]] = field(default_factory=lambda: described("item"))
    users: list[dict[str, str]] = field(default_factory=lambda: described("user"))
    unit_hint: str | None = None


def repeat_a_row(log: Log) -> None:
    log.rows[ROW] = {**log.rows[ROW - 2], "source_row": ROW}


def lose_days(log: Log) -> None:
    del log.rows[4:9]


def lose_most_of_the_last_day(log: Log) -> None:
    del log.rows[33:36]


def lose_an_item(log: Log) -> None:
    del log.items[2]


def lose_a_user(log: Log) -> None:
    del log.users[2]


def lose_five_ids(log: Log) -> None:
    for row in log.rows[4:24:4]:
        row["item_id"] = None
    log.rows += [
        {**row, "source_row": row["source_row"] + N, "item_id": "i0"} for row in log.rows[4:9]
    ]


def count_in_seconds(log: Log) -> None:
    for row in log.rows:
        row["timestamp"] //= 1_000  # seconds, read as milliseconds
    log.unit_hint = "s"


CORRUPTED_TABLES: dict[str, Callable[[Log], None]] = {
    "repeats_an_earlier_row": repeat_a_row,
    "rows": lose_days,
    "unit_fits": count_in_seconds,
    "last_day_share": lose_most_of_the_last_day,
    "items_described": lose_an_item,
    "users_described": lose_a_user,
    "bad_share": lose_five_ids,
}
REMEDY = {"unit_fits": r"look like s: set time\.unit to s in the card"}
EVERY_CORRUPTION = [*CORRUPTED_CELLS, *CORRUPTED_TABLES]


def corrupted(root: Path, rule: str) -> Layout:
    log = Log()
    if rule in CORRUPTED_CELLS:
        column, value = CORRUPTED_CELLS[rule]
        log.rows[ROW][column] = value
    else:
        CORRUPTED_TABLES[rule](log)
    # no rule on days: in another unit there are none to compare
    expected = {**FULL["expected"], **({"last_day_share": None} if log.unit_hint else {})}
    return ingested(
        root,
        log.rows,
        card(expected=expected),
        items=log.items,
        users=log.users,
        unit_hint=log.unit_hint,
    )


def broken_rules(layout: Layout) -> tuple[set[str], set[str]]:
    """The rules for rows, and for the whole log, that the report calls broken."""
    report = read_json(layout.report("validate"))
    rows = {name for name, found in report["row_rules"].items() if found["rows"]}
    return rows, {name for name, found in report["log_rules"].items() if not found["held"]}


def test_every_rule_has_a_corruption_and_a_name_of_its_own() -> None:
    rules = [*row_rules(card(), knows_future=True), *log_rules(card())]
    assert sorted(rule.name for rule in rules) == sorted(EVERY_CORRUPTION)


def test_the_clean_log_breaks_none(tmp_path: Path) -> None:
    layout = ingested(tmp_path, clean_rows(), card())
    run_validate(layout)
    assert broken_rules(layout) == (set(), set())
    assert pq.read_table(layout.valid_interactions).num_rows == N


@pytest.mark.parametrize("rule", EVERY_CORRUPTION)
def test_only_its_rule_catches_a_corruption(rule: str, tmp_path: Path) -> None:
    layout = corrupted(tmp_path, rule)
    if rule in log_rule_names():
        with pytest.raises(DataError, match=REMEDY.get(rule, rf"expected\.{rule}")) as error:
            run_validate(layout)
        assert "\n" not in str(error.value)
        rows = {"item_id_missing"} if rule == "bad_share" else set()
        assert broken_rules(layout) == (rows, {rule})
        # the run stops after everything is written, for whoever wants to know why
        assert str(error.value) in unescape(layout.validation_page.read_text(encoding="utf-8"))
        return
    run_validate(layout)
    assert broken_rules(layout) == ({rule}, set())
    (row,) = pq.read_table(layout.quarantine).to_pylist()
    assert (row["source_row"], row.pop("reason")) == (ROW, rule)
    # as it came: apart from the reason, the row is the one that ingest wrote
    assert str(row) == str(pq.read_table(layout.interactions).to_pylist()[ROW])


@pytest.mark.parametrize("rule", EVERY_CORRUPTION)
def test_without_its_rule_a_corruption_passes(
    rule: str, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = corrupted(tmp_path, rule)
    if rule in log_rule_names():
        monkeypatch.setattr(validate, "log_rules", without(rule, log_rules))
        run_validate(layout)
        assert broken_rules(layout)[1] == set()
        return
    # not the whole stage: the table's contract refuses a missing id a second time
    table = pq.read_table(layout.interactions)
    with open_duckdb(tmp_path, memory_mb=128) as connection:
        find_repeats(connection, layout.interactions, columns=table.column_names[1:])
        repeats = repeats_of(connection, table["source_row"].to_numpy())
    future = future_of(read_json(layout.parts), before=BEFORE)
    rows = validate.judged_columns(table, repeats=repeats, future=future)
    every = row_rules(card(), knows_future=True)
    broken = {name for name, rows in judge(door, rows, every).items() if rows.any()}
    assert broken == {rule}
    others = without(rule, row_rules)(card(), knows_future=True)
    assert not any(broken.any() for broken in judge(door, rows, others).values())


@pytest.fixture(scope="module")
def door() -> Door:
    return open_door()


def log_rule_names() -> set[str]:
    return {rule.name for rule in log_rules(card())}


def without(rule: str, rules: Callable[..., list[Rule]]) -> Callable[..., list[Rule]]:
    return lambda *args, **keywords: [r for r in rules(*args, **keywords) if r.name != rule]


@pytest.mark.parametrize(
    ("time", "timestamp", "held"),
    [
        ({"kind": "absolute", "unit": "s"}, DAY - 1, False),
        ({"kind": "absolute", "unit": "s"}, DAY, True),
        ({"kind": "absolute", "unit": "s"}, 4_102_444_800_000_000, False),
        ({"kind": "absolute", "unit": "s"}, 4_102_444_800_000_000 - 1, True),
        ({"kind": "relative", "unit": "s"}, 0, True),
        ({"kind": "relative", "unit": "s"}, -1, False),
        ({"kind": "relative", "unit": "s"}, 4_102_444_800_000_000, False),
        ({"kind": "rank", "unit": None}, 0, True),
        ({"kind": "rank", "unit": None}, -1, False),
        ({"kind": "rank", "unit": None}, 4_102_444_800_000_000, True),
    ],
)
def test_the_clock_decides_which_times_can_be(
    time: dict[str, Any], timestamp: int, held: bool, tmp_path: Path
) -> None:
    rows = clean_rows()
    rows[0]["timestamp"] = timestamp
    expected = {"bad_share": 0.1}
    layout = ingested(tmp_path, rows, card(time=time, expected=expected))
    run_validate(layout, before=None)
    assert broken_rules(layout)[0] == (set() if held else {"timestamp_out_of_range"})


@pytest.mark.parametrize("kind", ["relative", "rank"])
def test_only_a_date_can_lie_in_the_future(kind: str, tmp_path: Path) -> None:
    time = {"kind": kind, "unit": "s" if kind == "relative" else None}
    rules = row_rules(card(time=time, expected={"bad_share": 0.1}), knows_future=True)
    assert "timestamp_in_future" not in {rule.name for rule in rules}


def test_the_day_itself_is_the_future(tmp_path: Path) -> None:
    rows = clean_rows()
    midnight = 1_702_598_400_000_000  # of 2023-12-15
    rows[20]["timestamp"], rows[21]["timestamp"] = midnight - 1, midnight
    expected = {"bad_share": 0.1}
    layout = ingested(tmp_path, rows, card(expected=expected))
    run_validate(layout)
    assert pq.read_table(layout.quarantine)["source_row"].to_pylist() == [21]


def test_repeats_may_be_kept(tmp_path: Path) -> None:
    log = Log()
    repeat_a_row(log)
    layout = ingested(tmp_path, log.rows, card(duplicates="keep"))
    run_validate(layout)
    assert broken_rules(layout) == (set(), set())
    assert pq.read_table(layout.valid_interactions).num_rows == N


def test_repeats_are_found_across_batches_and_nulls_are_equal(tmp_path: Path) -> None:
    rows = clean_rows()
    for place, row in enumerate(rows):
        row |= {**rows[place % 7], "source_row": place, "value": None}
    rules = {"price": {"min": 0.0}}
    expected = {"bad_share": 0.9}
    layout = ingested(tmp_path, rows, card(rules=rules, expected=expected))
    run_validate(layout, batch_rows=3)
    assert pq.read_table(layout.valid_interactions)["source_row"].to_pylist() == list(range(7))
    rejected = pq.read_table(layout.quarantine)
    assert rejected["source_row"].to_pylist() == list(range(7, N))
    assert set(rejected["reason"].to_pylist()) == {"repeats_an_earlier_row"}
