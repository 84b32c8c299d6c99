"""Each card with its real log, where that lies beside the repository: its known numbers of rows."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json
from recsys_core.layout import Layout
from recsys_core.tables import read_events
from tests.small_logs import REAL_LOGS, REPOSITORY, params_for, run_stages

QUANTILE = {"kind": "quantile", "share": 0.1}


def ran(root: Path, name: str) -> Layout:
    """A workspace in which the log of a card went through the first stages."""
    if not (REAL_LOGS / name).is_dir():
        pytest.skip(f"the log {name} is not there: looked in ../shared/data beside the repository")
    (root / "datasets").symlink_to(REPOSITORY / "datasets")
    layout = Layout(root)
    params = params_for(name, str(REAL_LOGS / name), split=QUANTILE)
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    return layout


def sizes(layout: Layout) -> dict[str, int]:
    door, events = (read_json(layout.report(name)) for name in ("validate", "sessionize"))
    assert door["rows_in"] == door["rows_out"] + door["quarantined"]
    assert events["rows_in"] == door["rows_out"]
    return {
        "rows": door["rows_in"],
        "quarantined": door["quarantined"],
        "events": events["events"],
        "users": events["users"],
        "items": events["items"],
    }


@pytest.mark.parametrize(
    ("name", "rows", "users", "items"),
    [
        ("yelp2020_5core", 316_354, 30_431, 20_033),
        ("jodie_wikipedia", 157_474, 8_227, 1_000),
        ("ml-latest-small-2018", 100_836, 610, 9_724),
        ("amazon_beauty_5core", 198_502, 22_363, 12_101),
    ],
)
def test_a_clean_log_comes_through_whole(
    tmp_path: Path, name: str, rows: int, users: int, items: int
) -> None:
    assert sizes(ran(tmp_path, name)) == {
        "rows": rows,
        "quarantined": 0,
        "events": rows,
        "users": users,
        "items": items,
    }


def test_retail_loses_what_has_no_user_is_no_product_or_comes_twice(tmp_path: Path) -> None:
    layout = ran(tmp_path, "online_retail_uci")
    found = sizes(layout)
    # 399,687 rows are left, 391,181 of them purchases
    assert found == {
        "rows": 541_909,
        "quarantined": 541_909 - 399_687,
        "events": 391_181,
        "users": found["users"],
        "items": found["items"],
    }
    rules = read_json(layout.report("validate"))["row_rules"]
    assert rules["user_id_missing"]["rows"] == 135_080
    assert rules["repeats_an_earlier_row"]["rows"] == 5_270
    assert rules["item_id_does_not_match"]["rows"] == 2_995
    # returns are counted
    assert read_json(layout.report("sessionize"))["dropped_types"] == 399_687 - 391_181
    items = pq.read_schema(layout.item_features).names
    assert items == ["item_id", "description"]


def test_ml_1m_keeps_what_has_a_place_in_its_users_order(tmp_path: Path) -> None:
    layout = ran(tmp_path, "ml-1m-ordered")
    assert sizes(layout) == {
        "rows": 1_000_209,
        "quarantined": 598,
        "events": 999_611,
        "users": 6_040,
        "items": 3_416,
    }
    events = read_events(layout.events)
    # one session for each, in the user's own order
    assert len(np.unique(events.session_idx)) == 6_040
    own = np.diff(np.asarray(events.timestamp))[np.diff(np.asarray(events.session_idx)) == 0]
    assert own.min() == 1
    assert own.max() == 1


def test_jodie_is_counted_from_its_start(tmp_path: Path) -> None:
    layout = ran(tmp_path, "jodie_wikipedia")
    events = read_events(layout.events)
    assert (int(events.timestamp.min()), int(events.timestamp.max())) == (0, 2_678_373_000_000)


def test_a_days_reviews_are_one_session(tmp_path: Path) -> None:
    layout = ran(tmp_path, "amazon_beauty_5core")
    events = read_events(layout.events)
    log = pq.read_table(REAL_LOGS / "amazon_beauty_5core" / "events.parquet").to_pandas()
    assert len(np.unique(events.session_idx)) == len(log.groupby(["user_id", "timestamp"]))
