"""A log's columns may be called like anything in our own SQL: init, check and the stages run."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json
from recsys_core.columns import CONTEXT, DAYS_AHEAD, FINITE_VALUE, REPEATS
from recsys_core.data.cards import parse_card
from recsys_core.errors import ConfigError
from recsys_core.tables import INTERACTIONS
from tasks.check_card import check_card
from tasks.edges import snapshot
from tasks.init_card import draft_card
from tasks.step import run_step
from tests.door_logs import BEFORE
from tests.small_logs import (
    REPOSITORY,
    card_value,
    contents,
    params_for,
    run_stages,
    small_log,
    workspace,
)

ALIAS = re.compile(r"\b(?:AS|TABLE|VIEW|WITH|JOIN|FROM)\s+(?:\(?\s*)([A-Za-z_]\w*)")
TAKEN = {*INTERACTIONS.names, "reason", "user", "item", "at"}
"""Our tables' own names, which a card may not give to others, and those of the small log."""

PARAMS = params_for(
    "small",
    "data",
    validate={"timestamps_before": BEFORE},
    split={"kind": "quantile", "share": 0.2},
)


def our_names() -> list[str]:
    """Every name that our SQL gives to something, and some that it makes."""
    found = {"day", "c0", "c1", "c2", "c10", "rowid", "file_row_number", "filename"}
    found |= {FINITE_VALUE, REPEATS, DAYS_AHEAD, f"{CONTEXT}os", "os", "it's", 'a "b"', "x;--"}
    for folder in ("recsys_core/data", "tasks"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            found |= set(ALIAS.findall(path.read_text(encoding="utf-8")))
    unlike = {name.lower(): name for name in sorted(found)}  # capitals tell no columns apart
    return sorted(name for lower, name in unlike.items() if lower not in TAKEN)


def named_log(names: list[str]) -> pa.Table:
    log = small_log(40)
    for place, name in enumerate(names):
        values = (
            [float(row) for row in range(40)] if place % 2 else [f"t{n % 3}" for n in range(40)]
        )
        log = log.append_column(name, pa.array(values))
    return log


def context(names: list[str]) -> dict[str, str]:
    return {name: "numeric" if place % 2 else "categorical" for place, name in enumerate(names)}


def test_the_names_are_those_of_our_sql() -> None:
    assert {"number", "repeats", "place", "arrival", "log", "shared"} <= set(our_names())


@pytest.mark.parametrize("kept", [True, False], ids=["snapshot", "files"])
def test_a_context_column_may_be_called_like_anything_of_ours(kept: bool, tmp_path: Path) -> None:
    names = our_names()
    rules: dict[str, Any] = {
        name: {"required": True, "min": 1.0} if kind == "numeric" else {"matches": "^t[01]$"}
        for name, kind in context(names).items()
    }
    card: dict[str, Any] = {
        "context": context(names),
        "rules": rules,
        "expected": {"bad_share": 0.9},
    }
    log = named_log(names)
    if kept:
        card["snapshot"] = {"row_key": ["user", "item", "at"]}
        layout = workspace(tmp_path, None, **card)
        (tmp_path / "in").mkdir()
        params = params_for(
            "small",
            "kept",
            snapshot={"path": "in"},
            split={"kind": "quantile", "share": 0.2},
            validate={"timestamps_before": BEFORE},
        )
        for part, rows in enumerate((log.slice(0, 25), log.slice(20))):
            pq.write_table(rows, tmp_path / "in" / "log.parquet")
            run_step(snapshot.run, layout, params)
            assert len(read_json(tmp_path / "kept" / "manifest.json")["parts"]) == part + 1
    else:
        layout, params = workspace(tmp_path, log, **card), PARAMS
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    bad = {row for row in range(40) if row % 3 == 2 or row < 1}
    assert pq.read_table(layout.quarantine)["source_row"].to_pylist() == sorted(bad)
    report = read_json(layout.report("validate"))
    assert "repeats_an_earlier_row" not in str(report["quarantined_by_reason"])
    for name in (FINITE_VALUE, REPEATS, DAYS_AHEAD):
        numeric = context(names)[name] == "numeric"
        found = report["row_rules"][f"{name}_below_min" if numeric else f"{name}_does_not_match"]
        assert found["examples"][0]["value"] == ("0.0" if numeric else "t2")
    # the log's other columns change nothing of its events
    plain = workspace(tmp_path / "plain", log, expected={"bad_share": 0.9})
    run_stages(plain, "ingest", "validate", params=PARAMS)
    table = pq.read_table(plain.valid_interactions)
    pq.write_table(
        table.filter(pa.array([row not in bad for row in range(40)])), plain.valid_interactions
    )
    run_stages(plain, "sessionize", params=PARAMS)
    assert contents(layout.events) == contents(plain.events)


def test_init_and_check_take_such_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "small.parquet"
    pq.write_table(named_log(our_names()), path)
    given = {"user_id": "user", "item_id": "item", "timestamp": "at"}
    draft = draft_card([path], name="small", given=given, split=PARAMS.split)
    card = tmp_path / "small.yaml"
    card.write_text(draft.text, encoding="utf-8")
    report = check_card(card, folder=tmp_path, params=PARAMS, today=BEFORE)
    assert report.problems == []


def test_a_card_says_what_to_rename() -> None:
    for name in ("Value", "USER_ID", "reason"):
        with pytest.raises(ConfigError, match="rename them in the export"):
            parse_card(card_value(context={name: "categorical"}), where="small.yaml")
