"""validate: each rule catches what only it can, and every row goes one way."""

import math
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
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.tables import VALID_INTERACTIONS, read_table
from tasks.stages import validate
from tests.small_logs import (
    DAY,
    REPOSITORY,
    contents,
    params_for,
    run_stages,
    small_card,
    small_log,
    workspace,
)

RULES = {
    "user_id_missing",
    "user_id_blank",
    "item_id_missing",
    "item_id_blank",
    "timestamp_missing",
    "timestamp_out_of_range",
    "event_type_missing",
    "value_not_finite",
    "session_id_missing",
}
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
    "expected_bad_share": 0.5,
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


def quarantine(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(layout.quarantine).to_pylist()
    return rows


def test_a_clean_log_passes_whole(tmp_path: Path) -> None:
    layout = workspace(tmp_path, rich_log(), **RICH)
    run_stages(layout, "ingest", "validate")
    report = read_json(layout.report("validate"))
    assert report == {
        "rows_in": 8,
        "rows_out": 8,
        "quarantined": 0,
        "quarantined_by_reason": {},
        "expectations": sorted(RULES),
    }
    schema = pa.schema([*VALID_INTERACTIONS, pa.field("os", pa.string())])
    valid = read_table(layout.valid_interactions, schema)
    assert valid.to_pylist() == pq.read_table(layout.interactions).to_pylist()
    assert quarantine(layout) == []


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"user": None}, "user_id_missing"),
        ({"user": ""}, "user_id_blank"),
        ({"user": " \t"}, "user_id_blank"),
        ({"item": None}, "item_id_missing"),
        ({"item": "  "}, "item_id_blank"),
        ({"at": None}, "timestamp_missing"),
        ({"at": "yesterday"}, "timestamp_missing"),
        ({"at": DAY - 1}, "timestamp_out_of_range"),
        ({"at": -DAY}, "timestamp_out_of_range"),
        ({"at": 4_102_444_800_000_000}, "timestamp_out_of_range"),
        ({"type": None}, "event_type_missing"),
        ({"value": math.inf}, "value_not_finite"),
        ({"value": math.nan}, "value_not_finite"),
        ({"value": "many"}, "value_not_finite"),
        ({"visit": None}, "session_id_missing"),
    ],
)
def test_each_rule_catches_what_only_it_can(
    changed: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    layout = workspace(tmp_path, rich_log(**changed), **RICH)
    run_stages(layout, "ingest", "validate")
    (row,) = quarantine(layout)
    assert (row["source_row"], row["reason"]) == (3, rule)
    valid = pq.read_table(layout.valid_interactions)
    assert valid["source_row"].to_pylist() == [0, 1, 2, 4, 5, 6, 7]
    report = read_json(layout.report("validate"))
    assert report["quarantined_by_reason"] == {rule: 1}
    assert report["rows_in"] == report["rows_out"] + report["quarantined"] == 8
    # as it came: apart from the reason, the row is the one that ingest wrote
    before = pq.read_table(layout.interactions).slice(3, 1)
    after = pq.read_table(layout.quarantine).drop_columns("reason")
    assert str(after.to_pylist()) == str(before.to_pylist())


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
    run_stages(workspace(tmp_path / "a", log, **{**RICH, "expected_bad_share": 0.125}), "ingest")
    run_stages(Layout(tmp_path / "a"), "validate")
    layout = workspace(tmp_path / "b", log, **{**RICH, "expected_bad_share": 0.124})
    with pytest.raises(DataError, match=r"1 of 8 rows .*at most 0\.124.*quarantine\.parquet"):
        run_stages(layout, "ingest", "validate")


def test_verdicts_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    n = 997
    log = pa.table(
        {
            "user": rng.choice(np.array(["u", "", None], dtype=object), n, p=[0.8, 0.1, 0.1]),
            "item": [f"i{row}" for row in range(n)],
            "at": rng.choice([0, 10 * DAY], n, p=[0.1, 0.9]),
        }
    )
    found = {}
    for rows in (100, 997, 5_000):
        layout = workspace(tmp_path / str(rows), log, expected_bad_share=0.9)
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


def test_an_empty_suite_calls_nothing_valid() -> None:
    with pytest.raises(DataError, match="0 of 0 expectations"):
        validate.broken_rules({}, names=[], n=5)


def test_a_rule_that_was_not_evaluated_calls_nothing_valid() -> None:
    with pytest.raises(DataError, match=r"1 of 2 expectations were evaluated, without \['b'\]"):
        validate.broken_rules({"a": []}, names=["a", "b"], n=5)


def test_a_rule_that_fails_to_run_calls_nothing_valid() -> None:
    # a rule on a column that the frame lacks raises inside, and its suite still returns
    judged = validate.rules(small_card())
    judged["item_id_missing"].column = "no such column"
    frame = small_log(3).rename_columns(["user_id", "item_id", "timestamp"])
    nulls = pa.nulls(3, pa.float32())
    full = frame.append_column("event_type", pa.array(["x"] * 3)).append_column("value", nulls)
    full = full.append_column("session_id", pa.nulls(3, pa.string()))
    full = full.set_column(2, "timestamp", full["timestamp"].cast(pa.timestamp("us", tz="UTC")))
    with pytest.raises(DataError, match=r"without \['item_id_missing'\]"):
        validate.judge(validate.open_door(), validate.frame_of(full), judged)
    judged["item_id_missing"].column = "item_id"
    bad, why = validate.judge(validate.open_door(), validate.frame_of(full), judged)
    assert not bad.any()
    assert len(why) == 0


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
    assert (ran.stdout, ran.stderr) == ("", "validate rows_in=8 quarantined=0 rules=7\n")
