"""Checking a card: what would stop a run is a problem, and what would not is none."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.check_card import check_card
from tasks.check_report import Report
from tests.postgres import postgres_server
from tests.small_logs import card_value, params_for

TODAY = date(2024, 2, 1)
DAY = 86_400
START = 1_700_000_000


def log(n: int = 4_000, **columns: Any) -> pa.Table:
    """Ten days of clean interactions of fifty users, in seconds."""
    row = np.arange(n)
    log = {
        "user": [f"u{k % 50}" for k in row],
        "item": [f"i{7 * k % 91}" for k in row],
        "at": START + 10 * DAY * row // n,
    }
    return pa.table(log | columns)


def check(
    root: Path, table: pa.Table | None, *, rows: int = 1_000_000, split: Any = None, **card: Any
) -> Report:
    value = card_value(**{"time": {"kind": "absolute", "unit": "s"}, **card})
    (root / "small.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    if table is not None:
        pq.write_table(table, root / "log.parquet")
    params = params_for("small", "data", **({} if split is None else {"split": split}))
    return check_card(root / "small.yaml", folder=root, params=params, today=TODAY, rows=rows)


def seen(report: Report) -> dict[str, str]:
    return {what.strip(): found for what, found in report.seen}


def test_a_clean_log_has_no_problems(tmp_path: Path) -> None:
    report = check(tmp_path, log())
    assert (report.problems, report.remarks) == ([], [])
    found = seen(report)
    assert found["rows"] == "4,000, all of them"
    assert found["quarantine"] == "0 rows (0.00%) break a rule"
    assert found["events"].startswith("4,000 of 50 users and ")
    assert found["split by days, 1"] == "train 3,200, validation 400, test 400 events"
    assert found["time"] == "2023-11-14 22:13 to 2023-11-24 22:09, 10.0 days"


def test_rows_for_the_quarantine_come_with_examples(tmp_path: Path) -> None:
    users = [None if k in (7, 9) else f"u{k % 50}" for k in range(4_000)]
    report = check(tmp_path, log(user=users))
    assert seen(report)["user_id_missing"] == "2 rows: row 7; row 9"
    (problem,) = report.problems
    assert problem.startswith("2 of 4000 rows break a rule")
    # the page that a run writes is not kept here
    assert "at most 0; mend the log or raise expected.bad_share" in problem
    # what the card expects is no problem
    assert check(tmp_path, log(user=users), expected={"bad_share": 0.01}).problems == []


def test_the_wrong_unit_is_named(tmp_path: Path) -> None:
    report = check(tmp_path, log(at=(START + np.arange(4_000)) * 1_000))
    assert report.remarks == ["the timestamps look like ms, the card says s: set time.unit to ms"]
    (problem,) = report.problems
    assert problem.startswith("4000 of 4000 rows break a rule")


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    columns = {"user_id": "who", "item_id": "item", "timestamp": "when"}
    report = check(tmp_path, log(), columns=columns, context={"device": "categorical"})
    (problem,) = report.problems
    assert "columns.user_id 'who', columns.timestamp 'when', context.device 'device'" in problem
    assert "the columns are ['user', 'item', 'at']" in problem
    assert str(tmp_path / "log.parquet") in problem


def test_a_row_key_that_is_no_column_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, log(), snapshot={"row_key": ["user", "order", "line"]}).problems
    assert "snapshot.row_key[1] 'order', snapshot.row_key[2] 'line'" in problem
    assert "the columns are ['user', 'item', 'at']" in problem
    assert check(tmp_path, log(), snapshot={"row_key": ["user", "at"]}).problems == []


def test_times_after_tomorrow_are_in_the_future(tmp_path: Path) -> None:
    at = START + np.arange(4_000) * 200
    at[17] = 1_706_745_600 + 3 * DAY  # three days after the day of the check
    report = check(tmp_path, log(at=at))
    assert seen(report)["timestamp_in_future"].startswith("1 row: row 17 has '2024-02-04")


def test_repeated_rows_are_shown(tmp_path: Path) -> None:
    table = log()
    report = check(tmp_path, pa.concat_tables([table, table.slice(5, 2)]))
    assert seen(report)["repeats_an_earlier_row"].startswith("2 rows: row 4000 has 'u5 · ")


def test_a_split_with_an_empty_part_names_another(tmp_path: Path) -> None:
    report = check(tmp_path, log(at=START + np.arange(4_000)))
    assert any("part would have no events" in problem for problem in report.problems)
    option = "-S 'split={kind: quantile, share: 0.1}'"
    assert report.remarks == [f"a split that this log allows: {option}"]
    split = {"kind": "quantile", "share": 0.1}
    assert check(tmp_path, log(at=START + np.arange(4_000)), split=split).problems == []


def test_a_thin_test_day_is_remarked(tmp_path: Path) -> None:
    report = check(tmp_path, log(1_000))
    assert report.problems == []
    (remark,) = report.remarks
    assert remark.startswith("the split leaves 100 events for validation and 100 for test")


def test_users_with_one_event_are_remarked(tmp_path: Path) -> None:
    report = check(tmp_path, log(user=[f"u{k}" for k in range(4_000)]))
    assert seen(report)["events of a user"] == "median 1, at most 1; 100% of the users have one"
    assert any("nine in ten users have one event" in remark for remark in report.remarks)


def test_features_whose_ids_are_others_are_remarked(tmp_path: Path) -> None:
    for ids, share in (
        ([f"i{k}" for k in range(91)], "100.00%"),
        ([str(k) for k in range(91)], "0.00%"),
    ):
        pq.write_table(pa.table({"item": ids, "colour": ["red"] * 91}), tmp_path / "items.parquet")
        source = {
            "kind": "files",
            "interactions": "log.parquet",
            "items": "items.parquet",
            "users": None,
        }
        features = {"colour": "categorical"}
        report = check(tmp_path, log(), source=source, item_features=features)
        assert report.problems == []
        assert seen(report)["items described"] == f"{share} of the rows are of one of 91 items"
        assert len(report.remarks) == (share == "0.00%")


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    users = [None if k >= 1_000 else f"u{k % 50}" for k in range(4_000)]
    report = check(
        tmp_path, log(user=users), rows=1_000, expected={"bad_share": 0.0, "rows": 3_000}
    )
    assert seen(report)["rows"].startswith("1,000, the first of them")
    assert seen(report)["quarantine"].startswith("0 rows")
    # a part of the log need not have all its rows
    assert not any("valid rows" in problem for problem in report.problems)


def test_a_rank_says_which_params_it_needs(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        log(at=np.arange(4_000) // 50),
        time={"kind": "rank", "unit": None},
        sessions={"kind": "none"},
    )
    assert any("split={kind: quantile, share: 0.1}" in problem for problem in report.problems)


def test_item_features_that_the_card_lacks_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(card_value()), encoding="utf-8")
    params = params_for("small", str(tmp_path), features={"items": ["genre"]})
    report = check_card(path, folder=tmp_path, params=params, today=TODAY)
    assert any("features.items names genre, but" in problem for problem in report.problems)


def test_settings_that_the_card_gives_nothing_for_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(card_value()), encoding="utf-8")
    asked = {"reads": ["value"], "rewards": {"return": 0.0}}
    params = params_for("small", str(tmp_path), train_rnn=asked)
    report = check_card(path, folder=tmp_path, params=params, today=TODAY)
    for found in ("reads names value, but", "rewards names return, but"):
        assert any(f"train_rnn.{found}" in problem for problem in report.problems)


def test_fields_that_the_card_lacks_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(card_value()), encoding="utf-8")
    params = params_for("small", str(tmp_path), train_rnn={"reads": ["user", "gap"]})
    report = check_card(path, folder=tmp_path, params=params, today=TODAY)
    assert any("names user, but the card's user_features are none" in p for p in report.problems)


def test_ratings_without_a_column_of_values_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(card_value()), encoding="utf-8")
    params = params_for("small", str(tmp_path), train_rnn={"rating": True})
    report = check_card(path, folder=tmp_path, params=params, today=TODAY)
    assert any("train_rnn.rating is true, but" in problem for problem in report.problems)


def test_a_card_that_is_wrong_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, None, cut_off="tomorrow").problems
    assert "small.yaml: cut_off: " in problem
    (problem,) = check(tmp_path, log(), name="other").problems
    assert "name is 'other', it must be 'small'" in problem


def test_files_that_are_missing_or_broken_are_problems(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, None).problems
    assert f"{tmp_path / 'log.parquet'}: no such file" in problem
    (tmp_path / "log.parquet").write_bytes(b"PAR1 and no more")
    (problem,) = check(tmp_path, None).problems
    assert "cannot be read" in problem
    assert len(problem.splitlines()) == 1


def test_a_query_is_checked_by_its_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres_server() as server:
        server.execute(
            "CREATE TABLE clicks (who text, what int, at timestamptz)",
            "INSERT INTO clicks SELECT 'u' || n % 50, 8 * n % 91, "
            "'2023-11-14 12:00+00'::timestamptz + n * interval '200 s' "
            "FROM generate_series(0, 3999) AS n",
            "INSERT INTO clicks VALUES (NULL, 1, '2023-11-14 12:00+00')",
        )
        monkeypatch.setenv("TWOTEMPO_SOURCE_DSN", server.dsn)
        card = {
            "source": {
                "kind": "postgres",
                "interactions": "SELECT * FROM clicks ORDER BY at, who NULLS LAST -- all of it",
                "items": "SELECT DISTINCT what, what % 2 AS odd FROM clicks",
                "users": None,
            },
            "snapshot": {"row_key": ["who", "what", "at"], "watermark": "at"},
            "columns": {"user_id": "who", "item_id": "what", "timestamp": "at"},
            "time": {"kind": "absolute", "unit": "iso"},
            "item_features": {"odd": "categorical"},
            "expected": {"bad_share": 0.01},
        }
        report = check(tmp_path, None, **card)
        assert report.problems == []
        found = seen(report)
        assert found["rows"] == "4,001, all of them"
        assert found["user_id_missing"] == "1 row: row 1"
        assert found["items described"] == "100.00% of the rows are of one of 91 items"
        assert seen(check(tmp_path, None, rows=100, **card))["rows"].startswith("100, the first")
        columns = {"user_id": "nobody", "item_id": "what", "timestamp": "at"}
        (problem,) = check(tmp_path, None, **{**card, "columns": columns}).problems
        assert problem.startswith("source.interactions: the card names columns.user_id 'nobody'")
        for rules, said in (
            ({"row_key": ["order"]}, "source.interactions: the card names snapshot.row_key[0] 'or"),
            ({"watermark": "then"}, "source.interactions: snapshot.watermark is 'then', but the"),
            ({"watermark": "who"}, "snapshot.watermark: 'who' is of type text, it must be a numb"),
            ({"watermark": "what", "lookback_seconds": 9}, "snapshot.lookback_seconds is 9.0, but"),
        ):
            changed = {**card, "snapshot": {**card["snapshot"], **rules}}
            (problem,) = check(tmp_path, None, **changed).problems
            assert problem.startswith(said)
