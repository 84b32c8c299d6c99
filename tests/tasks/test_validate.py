"""validate: each rule catches what only it can, and every row goes one way."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_core.artifacts import read_json
from recsys_core.data.cards import read_resolved_card
from recsys_core.errors import ContractError, DataError
from recsys_core.layout import Layout
from recsys_core.tables import VALID_INTERACTIONS, read_table
from tasks.door import Door, between, judge, matches, not_null, open_door
from tasks.rules import row_rules
from tasks.stages import validate
from tests.door_logs import card as full_card
from tests.door_logs import clean_rows, ingested, run_validate
from tests.small_logs import (
    DAY,
    REPOSITORY,
    START,
    contents,
    params_for,
    run_stages,
    small_log,
    workspace,
)

RICH: dict[str, Any] = {
    "columns": {
        "user_id": "user",
        "item_id": "item",
        "timestamp": "at",
        "event_type": "type",
        "value": "value",
        "session_id": "visit",
    },
    "event_types": {"view": 1.0},
    "sessions": {"kind": "given"},
    "context": {"os": "categorical"},
    "expected": {"bad_share": 0.5},
}


def rich_log(**changed: Any) -> pa.Table:
    """Eight clean rows in RICH's columns; `changed` gives the value of a column in row 3."""
    log = small_log(8)
    for name, value in (("type", "view"), ("value", 1.0), ("visit", "s"), ("os", "x")):
        log = log.append_column(name, pa.array([value] * 8))
    for name, value in changed.items():
        values = log[name].to_pylist()
        values[3] = value
        kind = log[name].type if not isinstance(value, str) else pa.string()
        if kind == pa.string():
            values = [None if v is None else str(v) for v in values]
        log = log.set_column(log.column_names.index(name), name, pa.array(values, kind))
    return log


@pytest.fixture(scope="module")
def door() -> Door:
    return open_door()


def quarantine(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(layout.quarantine).to_pylist()
    return rows


def test_a_clean_log_passes_whole(tmp_path: Path) -> None:
    layout = workspace(tmp_path, rich_log(), **RICH)
    run_stages(layout, "ingest", "validate")
    report = read_json(layout.report("validate"))
    nothing = {"rows": 0, "share": 0.0, "examples": []}
    card = read_resolved_card(layout.resolved_card)
    rules = [rule.name for rule in row_rules(card, knows_future=False)]
    assert len(rules) == 13
    assert report == {
        "rows_in": 8,
        "rows_out": 8,
        "quarantined": 0,
        "quarantined_by_reason": {},
        "users_in": 2,
        "users_out": 2,
        "items_in": 3,
        "items_out": 3,
        "row_rules": {name: nothing for name in rules},
        "log_rules": {
            "bad_share": {"found": 0.0, "at_most": 0.5, "held": True},
            "rows": {"found": 8, "at_least": 1, "held": True},
            "unit_fits": {"found": 1, "at_least": 1, "held": True},
        },
    }
    schema = pa.schema([*VALID_INTERACTIONS, pa.field("os", pa.string())])
    valid = read_table(layout.valid_interactions, schema)
    assert valid.to_pylist() == pq.read_table(layout.interactions).to_pylist()
    assert quarantine(layout) == []


@pytest.mark.parametrize(
    ("changed", "rule", "shown"),
    [
        ({"user": ""}, "user_id_blank", ""),
        ({"item": "<script>"}, None, None),
        ({"at": "yesterday"}, "timestamp_missing", None),
        ({"at": -DAY}, "timestamp_out_of_range", "1969-12-31T00:00:00Z"),
        ({"value": "many"}, "value_not_finite", "no number"),
        ({"value": math.inf}, "value_not_finite", "inf"),
        ({"visit": "v" * 10_000 + "\0"}, "session_id_has_control_characters", "v" * 80),
    ],
)
def test_what_a_file_can_hold_is_caught_and_shown(
    changed: dict[str, Any], rule: str | None, shown: str | None, tmp_path: Path
) -> None:
    layout = workspace(tmp_path, rich_log(**changed), **RICH)
    run_stages(layout, "ingest", "validate")
    report = read_json(layout.report("validate"))
    found = {name: facts for name, facts in report["row_rules"].items() if facts["rows"]}
    if rule is None:
        assert found == {}
        return
    ((name, facts),) = found.items()
    assert (name, facts["rows"], facts["share"]) == (rule, 1, 1 / 8)
    (example,) = facts["examples"]
    assert example["source_row"] == 3
    assert example["value"] == shown or example["value"] == f"{shown}… (10,001 characters)"
    valid = pq.read_table(layout.valid_interactions)
    assert valid["source_row"].to_pylist() == [0, 1, 2, 4, 5, 6, 7]
    assert report["quarantined_by_reason"] == {rule: 1}
    assert report["rows_in"] == report["rows_out"] + report["quarantined"] == 8


@pytest.mark.parametrize(
    "changed",
    [
        {"at": DAY},
        {"at": 4_102_444_799_999_999},
        {"value": None},
        {"value": 3.4028234663852886e38},
        {"type": "a type that is not kept"},
        {"user": " u "},
        {"os": None},
    ],
)
def test_what_is_only_rare_passes(changed: dict[str, Any], tmp_path: Path) -> None:
    layout = workspace(tmp_path, rich_log(**changed), **RICH)
    run_stages(layout, "ingest", "validate")
    assert quarantine(layout) == []


def test_a_row_that_breaks_many_rules_names_them_all(tmp_path: Path) -> None:
    layout = workspace(tmp_path, rich_log(user=None, item="", at=None, value=math.nan), **RICH)
    run_stages(layout, "ingest", "validate")
    (row,) = quarantine(layout)
    assert row["reason"] == "user_id_missing;item_id_blank;timestamp_missing;value_not_finite"


def test_a_column_that_is_missing_in_every_row_is_found(tmp_path: Path) -> None:
    log = rich_log().set_column(0, "user", pa.nulls(8, pa.string()))
    layout = workspace(tmp_path, log, **RICH)
    with pytest.raises(DataError, match=r"8 of 8 rows break a rule \{'user_id_missing': 8\}"):
        run_stages(layout, "ingest", "validate")
    assert len(quarantine(layout)) == 8
    assert read_json(layout.report("validate"))["rows_out"] == 0


def test_the_expected_share_is_allowed_and_one_row_more_is_not(tmp_path: Path) -> None:
    log = rich_log(user=None)  # one row of eight
    run_stages(
        workspace(tmp_path / "a", log, **{**RICH, "expected": {"bad_share": 0.125}}), "ingest"
    )
    run_stages(Layout(tmp_path / "a"), "validate")
    layout = workspace(tmp_path / "b", log, **{**RICH, "expected": {"bad_share": 0.124}})
    with pytest.raises(
        DataError, match=r"1 of 8 rows .*at most 0\.124; look at artifacts/validate/summary\.html"
    ):
        run_stages(layout, "ingest", "validate")


def test_verdicts_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    n = 997
    log = pa.table(
        {
            "user": rng.choice(np.array(["u", "", None], dtype=object), n, p=[0.8, 0.1, 0.1]),
            "item": [f"i{row}" for row in range(n)],
            "at": rng.choice([0, START], n, p=[0.1, 0.9]),
        }
    )
    found = {}
    for rows in (100, 997, 5_000):
        layout = workspace(tmp_path / str(rows), log, expected={"bad_share": 0.9})
        params = params_for("small", "data", validate={"batch_rows": rows})
        run_stages(layout, "ingest", "validate", params=params)
        found[rows] = contents(layout.stage("validate"))
    assert found[100] == found[997] == found[5_000]
    bad = [
        (user is None) or (user == "") or (at == 0)
        for user, at in zip(log["user"].to_pylist(), log["at"].to_pylist(), strict=True)
    ]
    rejected = pq.read_table(tmp_path / "100" / "artifacts" / "validate" / "quarantine.parquet")
    assert rejected["source_row"].to_pylist() == np.flatnonzero(bad).tolist()


def test_a_log_without_rows_is_an_error(tmp_path: Path) -> None:
    layout = workspace(tmp_path, small_log())
    run_stages(layout, "ingest")
    pq.write_table(pq.read_table(layout.interactions).slice(0, 0), layout.interactions)
    with pytest.raises(DataError, match="it has no rows"):
        run_stages(layout, "validate")


def test_a_log_counted_from_its_start_may_begin_at_zero(tmp_path: Path) -> None:
    log = small_log().set_column(2, "at", pa.array(range(8), pa.int64()))
    layout = workspace(tmp_path, log, time={"kind": "relative", "unit": "s"})
    run_stages(layout, "ingest", "validate")
    assert quarantine(layout) == []


def test_an_empty_suite_calls_nothing_valid(door: Door) -> None:
    with pytest.raises(DataError, match="0 of 0 expectations"):
        judge(door, pa.table({"a": [1]}), [])


def test_a_rule_on_a_missing_column_calls_nothing_valid(door: Door) -> None:
    rules = [between("a_low", "a", low=0), not_null("b_missing", "b")]
    with pytest.raises(DataError, match=r"1 of 2 expectations were evaluated, without \['b_m"):
        judge(door, pa.table({"a": [1]}), rules)


def test_a_rule_that_fails_to_run_calls_nothing_valid(door: Door) -> None:
    # a number has no order with a text: the rule raises inside, and its suite still returns
    rules = [not_null("a_missing", "a"), between("a_low", "a", low=0)]
    with pytest.raises(DataError, match=r"1 of 2 expectations were evaluated, without \['a_low'\]"):
        judge(door, pa.table({"a": ["x"]}), rules)


def test_each_distinct_value_is_judged_for_all_its_rows(door: Door) -> None:
    rules = [matches("a_odd", "a", "^(a|b)$"), not_null("a_missing", "a")]
    broken = judge(door, pa.table({"a": ["a", None, "c", "b", "c", None]}), rules)
    assert list(broken) == ["a_odd", "a_missing"]
    assert broken["a_odd"].tolist() == [False, False, True, False, True, False]
    assert broken["a_missing"].tolist() == [False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        ("(?x) a b", "ab"),
        ("^a*+b", "aab"),
        ("(?>a|ab)b", "ab"),
        ("^a{,2}b", "aab"),
        ("(?#a remark)a", "a"),
        (r"^\w$", "é"),
        ("a$", "a\n"),
    ],
)
def test_a_regular_expression_means_what_it_means_in_python(
    regex: str, text: str, door: Door
) -> None:
    assert re.search(regex, text)
    broken = judge(door, pa.table({"a": [text, "-"]}), [matches("a_odd", "a", regex)])
    assert broken["a_odd"].tolist() == [False, True]


@pytest.mark.parametrize("values", [1, 2, 3, 4])
def test_verdicts_do_not_depend_on_how_many_values_are_judged_at_once(
    values: int, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.door.VALUES_AT_ONCE", values)
    rules = [matches("a_odd", "a", "^(a|b)$"), not_null("a_missing", "a")]
    broken = judge(door, pa.table({"a": ["a", None, "c", "b", "c", None]}), rules)
    assert broken["a_odd"].tolist() == [False, False, True, False, True, False]
    assert broken["a_missing"].tolist() == [False, True, False, False, False, True]
    # a column without any text is no column of texts to pandas, and has nothing to match
    broken = judge(door, pa.table({"a": pa.nulls(2, pa.string())}), rules)
    assert not broken["a_odd"].any()
    assert broken["a_missing"].all()


def test_reasons_name_all_broken_rules_in_their_order() -> None:
    broken = {f"r{rule}": np.array([rule == 3, False, rule in (0, 69)]) for rule in range(70)}
    bad, why = validate.reasons_of(broken)
    assert bad.tolist() == [True, False, True]
    assert why.to_pylist() == ["r3", "r0;r69"]
    bad, why = validate.reasons_of({"r": np.array([False])})
    assert (bad.tolist(), why.to_pylist()) == ([False], [])


def test_a_log_in_another_unit_is_told_which(tmp_path: Path) -> None:
    rows = clean_rows()
    for row in rows:
        row["timestamp"] = row["timestamp"] // 1_000_000  # read as microseconds: January 1970
    layout = ingested(tmp_path, rows, full_card(), unit_hint="s")
    with pytest.raises(DataError, match=r"look like s: set time\.unit to s in the card$"):
        run_validate(layout)


@pytest.mark.parametrize(("true", "said"), [("s", "ms"), ("ms", "s"), ("ms", "us")])
def test_what_ingest_thinks_of_the_unit_stops_the_run(true: str, said: str, tmp_path: Path) -> None:
    at = [START // {"s": 1_000_000, "ms": 1_000}[true] + row for row in range(8)]
    log = small_log().set_column(2, "at", pa.array(at, pa.int64()))
    layout = workspace(tmp_path, log, time={"kind": "absolute", "unit": said})
    with pytest.raises(DataError, match=rf"look like {true}: set time\.unit to {true} in the card"):
        run_stages(layout, "ingest", "validate")


def test_nothing_left_is_an_error_whatever_the_card_expects(tmp_path: Path) -> None:
    rows = [{**row, "user_id": None} for row in clean_rows()]
    layout = ingested(tmp_path, rows, full_card(expected={"bad_share": 0.99}))
    with pytest.raises(DataError, match=r"40 of 40 rows .*\(broken too: rows\)"):
        run_validate(layout)


def test_a_day_that_nothing_can_be_compared_with_is_not_called_whole(tmp_path: Path) -> None:
    rows = clean_rows()[:6]  # one whole day and a half
    expected = {"bad_share": 0.0, "last_day_share": 0.1}
    layout = ingested(tmp_path, rows, full_card(expected=expected))
    with pytest.raises(DataError, match="found nothing to tell it by, the card expects at least"):
        run_validate(layout)
    held = read_json(layout.report("validate"))["log_rules"]["last_day_share"]
    assert held == {"found": None, "at_least": 0.1, "held": False}


def test_rows_after_the_cut_off_are_no_last_day(tmp_path: Path) -> None:
    # the day after the cut-off is thin, and nobody looks at it
    rows = [row for row in clean_rows() if row["source_row"] not in (33, 34, 35)]
    expected = {"bad_share": 0.0, "last_day_share": 0.9}
    cut = full_card(expected=expected, cut_off="2023-11-23T00:00:00Z")
    run_validate(ingested(tmp_path / "cut", rows, cut))
    with pytest.raises(DataError, match=r"found 0\.25, the card expects at least 0\.9"):
        run_validate(ingested(tmp_path / "whole", rows, full_card(expected=expected)))


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    layout = ingested(tmp_path, clean_rows(), full_card())
    pq.write_table(pq.read_table(layout.interactions).drop_columns("os"), layout.interactions)
    with pytest.raises(ContractError, match="the contract begins with"):
        run_validate(layout)


def test_the_same_log_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[3]["item_id"] = None
    found = []
    for name in ("a", "b c"):
        layout = ingested(tmp_path / name, rows, full_card())
        run_validate(layout)
        found.append((contents(layout.stage("validate")), contents(layout.root / "reports")))
    assert found[0] == found[1]


def test_the_command_prints_its_own_line_and_nothing_else(tmp_path: Path) -> None:
    params = params_for("small", "data")
    layout = workspace(tmp_path, small_log())
    layout.params.write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    run_stages(layout, "ingest")
    ran = subprocess.run(
        [sys.executable, "-m", "tasks.stages.validate"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("", "validate rows_in=8 quarantined=0 rules=13\n")
