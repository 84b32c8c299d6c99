"""Drafting a card: what is written can be read, says why, and a run takes it as it is."""

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_core.artifacts import read_json
from recsys_core.data.cards import read_card
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import DaysSplit, QuantileSplit
from tasks.init_card import Draft, draft_card
from tests.small_logs import params_for, run_stages

START = 1_700_000_000
ONE_DAY = DaysSplit(kind="days", days=1)


def rows_of(n: int = 1_200, *, first: int = 0) -> list[dict[str, Any]]:
    """Views and purchases of forty customers, one every ten minutes."""
    return [
        {
            "CustomerID": f"{row % 40:05}",
            "StockCode": f"p{7 * row % 83}",
            "when": START + 600 * row,
            "action": "purchase" if row % 10 == 0 else "view",
            "page colour": ("red", "blue", "it's #1")[row % 3],
        }
        for row in range(first, first + n)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def draft(*paths: Path, name: str | None = None, **given: str) -> Draft:
    return draft_card(paths, name=name, given=given, split=ONE_DAY)


def ran(root: Path, drafted: Draft) -> Layout:
    """A workspace in which the drafted card went through the first stages."""
    layout = Layout(root / "workspace")
    layout.card(drafted.card.name).parent.mkdir(parents=True)
    layout.card(drafted.card.name).write_text(drafted.text, encoding="utf-8")
    split = {"kind": "quantile", "share": 0.1}
    params = params_for(drafted.card.name, str(drafted.folder), split=split)
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    return layout


def test_a_card_from_a_csv_runs_as_it_is(tmp_path: Path) -> None:
    drafted = draft(write(tmp_path / "My Clicks.csv", rows_of()))
    card = drafted.card
    assert card.name == "my-clicks"
    assert card.columns.model_dump() == {
        "user_id": "CustomerID",
        "item_id": "StockCode",
        "timestamp": "when",
        "event_type": "action",
        "value": None,
        "session_id": None,
    }
    assert (card.time.kind, card.time.unit) == ("absolute", "s")
    assert card.event_types == {"view": 1.0, "purchase": 1.0}
    assert card.context == {"page colour": "categorical"}
    layout = ran(tmp_path, drafted)
    assert read_json(layout.report("sessionize"))["events"] == 1_200
    # eight days of 150 rows: too few for a test day
    assert drafted.split == QuantileSplit(kind="quantile", share=0.1)


def test_every_guess_says_why_in_the_card_and_on_the_console(tmp_path: Path) -> None:
    drafted = draft(write(tmp_path / "clicks.csv", rows_of()))
    lines = drafted.text.splitlines()
    (user,) = [line for line in lines if "user_id:" in line]
    assert user.endswith("# by its name; 40 distinct values in 1,200 rows")
    said = {what: (taken, why) for what, taken, why in drafted.said}
    assert said["item_id"] == (
        "StockCode",
        "by its name; 83 distinct values in 1,200 rows; could also be 'page colour'",
    )
    assert said["time"][0] == "{kind: absolute, unit: s}"
    assert "2023-11-15 to 2023-11-23" in said["time"][1]
    assert set(said) >= {"user_id", "timestamp", "event_type", "sessions", "bad rows"}


def test_the_written_card_is_the_drafted_one(tmp_path: Path) -> None:
    drafted = draft(write(tmp_path / "clicks.csv", rows_of()))
    path = tmp_path / "clicks.yaml"
    path.write_text(drafted.text, encoding="utf-8")
    assert read_card(path) == drafted.card


def test_columns_with_awkward_names_survive_the_yaml(tmp_path: Path) -> None:
    names = {
        "CustomerID": "user: id",
        "StockCode": "item #",
        "when": "time, UTC",
        "action": "'event'",
    }
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows_of()]
    drafted = draft(write(tmp_path / "clicks.csv", rows))
    assert drafted.card.columns.user_id == "user: id"
    assert drafted.card.columns.item_id == "item #"
    assert drafted.card.columns.timestamp == "time, UTC"
    assert drafted.card.columns.event_type == "'event'"


def test_tables_of_items_and_users_become_features(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "orders.csv.gz", rows_of())
    items = [
        {"StockCode": f"p{n}", "name": f"thing number {n}", "kinds": f"k{n % 3}|k{n % 5}", "n": n}
        for n in range(83)
    ]
    write(tmp_path / "shop" / "catalogue.csv", items)
    users = [{"CustomerID": f"{n:05}", "country": ("FR", "DE")[n % 2]} for n in range(40)]
    write(tmp_path / "shop" / "people.csv", users)
    folder = tmp_path / "shop"
    drafted = draft(folder / "catalogue.csv", folder / "orders.csv.gz", folder / "people.csv")
    source = drafted.card.source
    assert (source.interactions, source.items, source.users) == (  # type: ignore[union-attr]
        "orders.csv.gz",
        "catalogue.csv",
        "people.csv",
    )
    features = drafted.card.item_features
    assert {name: feature.kind for name, feature in features.items()} == {
        "name": "text",
        "kinds": "multi_categorical",
    }
    assert "knows the future" in drafted.left_out["n"]
    assert drafted.card.user_features["country"].kind == "categorical"
    layout = ran(tmp_path, drafted)
    assert read_json(layout.report("ingest"))["user_features"]["rows_out"] == 40


def test_a_folder_of_parts_is_one_log(tmp_path: Path) -> None:
    for part in range(3):
        write(tmp_path / "night log" / f"{part}.csv", rows_of(400, first=400 * part))
    drafted = draft(tmp_path / "night log")
    assert drafted.card.name == "night-log"
    assert drafted.folder == (tmp_path / "night log").parent
    assert drafted.card.source.interactions == "night log"  # type: ignore[union-attr]
    assert "all 1,200 rows" in drafted.text
    assert read_json(ran(tmp_path, drafted).report("sessionize"))["events"] == 1_200


def test_missing_and_repeated_rows_are_expected(tmp_path: Path) -> None:
    rows = rows_of(1_000)
    for row in rows[:100]:
        row["CustomerID"] = ""
    rows += rows[-50:]
    drafted = draft(write(tmp_path / "clicks.csv", rows))
    # 150 of 1,050 rows are 14.3 %, and a tenth of that for luck
    assert drafted.card.expected.bad_share == 0.16
    assert "9.52% without a user, 4.76% repeated" in drafted.text
    ran(tmp_path, drafted)


def test_a_days_repeats_are_kept(tmp_path: Path) -> None:
    rows = rows_of(1_000)
    for row in rows:
        row["when"] = "2024-03-01" if int(row["CustomerID"]) % 2 else "2024-03-02"
        row["StockCode"] = f"p{int(row['CustomerID']) % 7}"
    drafted = draft(write(tmp_path / "plays.csv", rows))
    assert drafted.card.duplicates == "keep"
    assert drafted.card.sessions.gap_seconds == 86_400  # type: ignore[union-attr]
    assert drafted.card.expected.bad_share == 0.01


def test_a_thin_tail_is_suggested_and_not_set(tmp_path: Path) -> None:
    late = [
        {**row, "when": row["when"] + 86_400 * 4 * n}
        for n, row in enumerate(rows_of(3, first=1_200))
    ]
    drafted = draft(write(tmp_path / "clicks.csv", rows_of() + late))
    assert drafted.card.cut_off is None
    assert "consider 2023-11-2" in drafted.text
    assert "a thin tail" in drafted.text


def test_what_is_given_overrules(tmp_path: Path) -> None:
    path = write(tmp_path / "clicks.csv", rows_of())
    drafted = draft(path, name="other", item_id="page colour")
    assert drafted.card.name == "other"
    assert drafted.card.columns.item_id == "page colour"
    assert ("item_id", "page colour", "given by --item") in drafted.said


def test_yaml_and_console_agree_for_all_roles(tmp_path: Path) -> None:
    drafted = draft(write(tmp_path / "clicks.csv", rows_of()))
    columns = yaml.safe_load(drafted.text)["columns"]
    said = {what: taken for what, taken, _ in drafted.said}
    for role, column in columns.items():
        assert said.get(role) == column


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        ("user_id,item_id,timestamp\n", "it has no rows"),
        ("user_id;item_id;timestamp\n1;2;3\n", "semicolons separate its columns"),
        ("user_id,item_id\na,b\na,c\nb,b\n", "no time found; name the column with --time"),
    ],
)
def test_a_file_that_cannot_be_a_log_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said) as error:
        draft(path)
    assert len(str(error.value).splitlines()) == 1


def test_files_that_are_not_there_or_not_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        draft(tmp_path / "clicks.csv")
    (tmp_path / "clicks.xlsx").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="ends in none of"):
        draft(tmp_path / "clicks.xlsx")
    path = write(tmp_path / "clicks.csv", rows_of())
    with pytest.raises(ConfigError, match="named twice"):
        draft(path, path)


def test_two_tables_of_items_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "clicks.csv", rows_of())
    for name in ("a", "b"):
        rows = [{"StockCode": f"p{n}", f"{name} colour": n % 3} for n in range(83)]
        write(tmp_path / f"{name}.csv", rows)
    with pytest.raises(ConfigError, match="both describe items; join them"):
        draft(*(tmp_path / name for name in ("a.csv", "b.csv", "clicks.csv")))
