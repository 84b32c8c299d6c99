"""sessionize: its report adds up, known items are a prefix, real logs come through whole."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.config import Params
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ConfigError, ContractError, DataError
from recsys_core.layout import Layout
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, read_events, read_table
from tests.small_logs import (
    DAY,
    REAL_LOGS,
    REPOSITORY,
    START,
    contents,
    params_for,
    run_stages,
    small_log,
    workspace,
)

TYPED = {
    "columns": {"user_id": "user", "item_id": "item", "timestamp": "at", "event_type": "type"},
    "event_types": {"view": 1.0, "buy": 3.0},
    "cut_off": "2023-11-24T00:00:00Z",
    "expected": {"bad_share": 0.1},
}
CUT_OFF = 1_700_784_000_000_000


def ten_days(n: int = 2_000) -> pa.Table:
    """Interactions of ten days and more, some of a type that is not kept, one of nobody."""
    rng = np.random.default_rng(11)
    users = [f"u{user}" for user in rng.integers(0, 50, n)]
    return pa.table(
        {
            "user": [None, *users[1:]],
            "item": [f"i{item}" for item in rng.zipf(1.4, n) % 300],
            "at": START + rng.integers(0, 10 * DAY, n),
            "type": rng.choice(["view", "buy", "other"], n, p=[0.8, 0.1, 0.1]),
        }
    )


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = workspace(tmp_path_factory.mktemp("placed"), ten_days(), **TYPED)
    run_stages(layout, "ingest", "validate", "sessionize")
    return layout


def test_every_row_is_somewhere(placed: Layout) -> None:
    ingest, validate, report = (
        read_json(placed.report(name)) for name in ("ingest", "validate", "sessionize")
    )
    assert ingest["rows_out"] == validate["rows_in"] == 2_000
    assert validate["rows_out"] == report["rows_in"] == 1_999
    assert report["rows_in"] == report["events"] + report["cut"] + report["dropped_types"]
    assert min(report["events"], report["cut"], report["dropped_types"]) > 0
    assert sum(report["events_per_part"].values()) == report["events"]
    events = read_events(placed.events)
    assert len(events) == report["events"]
    assert events.session_start.sum() == report["sessions"] == len(np.unique(events.session_idx))
    assert events.n_users == report["users"]
    # each event is the row that it says it is
    log = pq.read_table(placed.interactions).take(pa.array(events.source_row))
    items = Vocabulary.from_table(read_table(placed.item_vocabulary, ITEM_VOCABULARY))
    users = Vocabulary.from_table(read_table(placed.user_vocabulary, USER_VOCABULARY))
    assert items.to_ids(events.item_idx).to_pylist() == log["item_id"].to_pylist()
    assert users.to_ids(events.user_idx).to_pylist() == log["user_id"].to_pylist()
    assert len(set(events.source_row.tolist())) == len(events)


def test_the_split_is_made_of_days_before_the_cut_off(placed: Layout) -> None:
    split, report = read_json(placed.split), read_json(placed.report("sessionize"))
    assert split == report["split"]
    assert (split["valid_start"], split["test_start"], split["end"]) == (
        CUT_OFF - 2 * DAY,
        CUT_OFF - DAY,
        CUT_OFF,
    )
    events = read_events(placed.events)
    assert split["as_of"] == events.timestamp.max() < CUT_OFF
    for time in ("valid_start", "test_start", "end"):
        known = np.unique(events.item_idx[events.timestamp < split[time]])
        # known items are exactly a prefix
        assert known.tolist() == list(range(1, report["items_known"][time] + 1))
    assert report["items_known"]["end"] == report["items"]


def test_nothing_but_its_own_files_is_left(placed: Layout) -> None:
    names = sorted(path.name for path in (placed.root / "artifacts").iterdir())
    assert names == ["ingest", "sessionize", "validate"]
    assert sorted(path.name for path in placed.stage("sessionize").iterdir()) == [
        "event_types.json",
        "events",
        "items.parquet",
        "session_gap.json",
        "split.json",
        "time.json",
        "users.parquet",
    ]


def test_two_runs_give_the_same_bytes(placed: Layout, tmp_path: Path) -> None:
    again = workspace(tmp_path, ten_days(), **TYPED)
    run_stages(again, "ingest", "validate", "sessionize")
    for folder in ("artifacts", "reports"):
        assert contents(again.root / folder) == contents(placed.root / folder)


def test_a_log_that_cannot_be_split_says_so(tmp_path: Path) -> None:
    layout = workspace(tmp_path, ten_days(), **TYPED)
    params = params_for("small", "data", split={"kind": "days", "days": 30.0})
    with pytest.raises(DataError, match="the train part would have no events"):
        run_stages(layout, "ingest", "validate", "sessionize", params=params)


RANKED = {"time": {"kind": "rank", "unit": None}, "sessions": {"kind": "none"}}


def test_a_rank_has_no_days_but_an_order(tmp_path: Path) -> None:
    log = small_log(200).set_column(2, "at", pa.array(range(200), pa.int64()))
    layout = workspace(tmp_path, log, **RANKED)
    run_stages(layout, "ingest", "validate")
    with pytest.raises(ConfigError, match=r"time is a rank.*but split\.kind is days"):
        run_stages(layout, "sessionize")
    params = params_for("small", "data", split={"kind": "quantile", "share": 0.1})
    run_stages(layout, "sessionize", params=params)
    assert read_json(layout.time_kind) == {"kind": "rank"}
    report = read_json(layout.report("sessionize"))
    assert (report["events"], report["sessions"]) == (200, 2)
    # test begins with the rank at floor(0.9 * 199), validation with that at floor(0.9 * 178)
    parts = {"train": 160, "validation": 179 - 160, "test": 200 - 179}
    assert report["events_per_part"] == parts


def test_what_a_later_part_brings_late_was_not_known_before(placed: Layout, tmp_path: Path) -> None:
    """The same log in two parts: the second has rows of all ten days, and old ones are late."""
    layout = workspace(tmp_path, ten_days(), **TYPED)
    run_stages(layout, "ingest", "validate")
    write_json(layout.parts, {"first_rows": [0, 1_000]})
    run_stages(layout, "sessionize")
    whole, late = (read_json(where.report("sessionize")) for where in (placed, layout))
    for same in ("events", "users", "items", "sessions", "split", "events_per_part"):
        assert late[same] == whole[same]
    assert late["items_known"]["valid_start"] < whole["items_known"]["valid_start"]
    assert late["items_known"]["end"] == late["items"]
    one, two = read_events(placed.events), read_events(layout.events)
    by_row = [np.argsort(events.source_row) for events in (one, two)]
    assert (one.session_idx[by_row[0]] == two.session_idx[by_row[1]]).all()


def test_without_the_stage_before_it_names_what_is_missing(tmp_path: Path) -> None:
    layout = workspace(tmp_path, ten_days(), **TYPED)
    with pytest.raises(ContractError, match=r"card\.json: no such file"):
        run_stages(layout, "sessionize")
    run_stages(layout, "ingest")
    with pytest.raises(ContractError, match=r"interactions\.parquet: no such table"):
        run_stages(layout, "sessionize")


def real_log(root: Path, name: str, params: Params) -> Layout:
    if not (REAL_LOGS / name).is_dir():
        pytest.skip(f"the log {name} is not there: looked in ../shared/data beside the repository")
    (root / "datasets").symlink_to(REPOSITORY / "datasets")
    layout = Layout(root)
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    return layout


def test_ml_100k_comes_through_whole(tmp_path: Path) -> None:
    quantile = {"kind": "quantile", "share": 0.1}
    params = params_for("ml-100k", str(REAL_LOGS / "ml-100k"), split=quantile)
    layout = real_log(tmp_path, "ml-100k", params)
    report = read_json(layout.report("sessionize"))
    assert {name: report[name] for name in ("rows_in", "cut", "dropped_types", "events")} == {
        "rows_in": 100_000,
        "cut": 0,
        "dropped_types": 0,
        "events": 100_000,
    }
    assert (report["users"], report["items"]) == (943, 1_682)
    events = read_events(layout.events)
    assert set(np.unique(events.value)) == {1.0, 2.0, 3.0, 4.0, 5.0}
    items = pq.read_table(layout.item_features).to_pylist()
    assert {row["item_id"]: row["genres"] for row in items}["1"] == [
        "Animation",
        "Children's",
        "Comedy",
    ]
    ages = pq.read_table(layout.user_features, columns=["user_id", "age"]).to_pylist()
    assert {row["user_id"]: row["age"] for row in ages}["1"] == 24.0


@pytest.mark.slow
def test_globo_news_has_its_known_sizes(tmp_path: Path) -> None:
    params = params_for("globo_news", str(REAL_LOGS / "globo_news"))
    layout = real_log(tmp_path, "globo_news", params)
    report = read_json(layout.report("sessionize"))
    assert (report["rows_in"], report["cut"], report["events"]) == (2_988_181, 20_376, 2_967_805)
    assert (report["users"], report["items"]) == (321_872, 45_286)
    day = read_json(layout.split)
    assert (day["test_start"], day["end"]) == (1_508_112_000_000_000, 1_508_198_400_000_000)


def test_what_lies_behind_a_frame_is_cut_off(placed: Layout, tmp_path: Path) -> None:
    """The frame's end counts where it comes before the card's cut-off, and all rows are counted."""
    whole = read_events(placed.events)
    end = CUT_OFF - 3 * DAY
    split = {"kind": "frame", "hours": 6, "valid_hours": 12}
    params = params_for("small", "data", split={**split, "end": end})
    layout = workspace(tmp_path, ten_days(), **TYPED)
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    events = read_events(layout.events)
    assert 0 < events.timestamp.max() < end
    assert len(events) == np.count_nonzero(whole.timestamp < end)
    before, report = (read_json(one.report("sessionize")) for one in (placed, layout))
    assert report["rows_in"] == report["events"] + report["cut"] + report["dropped_types"]
    assert report["rows_in"] == before["rows_in"]
    assert report["split"]["test_start"] == end - DAY // 4
    assert report["split"]["valid_start"] == end - DAY * 3 // 4
    later = params_for("small", "data", split={**split, "end": CUT_OFF + DAY})
    run_stages(layout, "sessionize", params=later)
    assert read_json(layout.report("sessionize"))["split"]["end"] == CUT_OFF
