"""snapshot, the edge: files and a real PostgreSQL server, taken once and again, and cut off."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_core.artifacts import read_json
from recsys_core.config import read_yaml
from recsys_core.errors import BusyError, ConfigError, DataError
from recsys_core.layout import Layout
from tasks.edges import snapshot
from tasks.snapshot_counts import snapshot_counts
from tasks.step import run_step
from tests.postgres import Server, postgres_server
from tests.small_logs import REPOSITORY, START, contents, params_for, run_stages, workspace

COUNTS = ("rows_in", "rows", "redelivered", "redelivered_changed", "late")
DAY = timedelta(days=1)
TWO_PATHS: dict[str, Any] = {"snapshot": {"path": "delivered"}}
FILES: dict[str, Any] = {
    "source": {"kind": "files", "interactions": ".", "items": None, "users": None},
    "snapshot": {"row_key": ["user", "item", "at"]},
}


def take(layout: Layout, **sections: Any) -> dict[str, Any]:
    """Run the edge on the snapshot in `snapshot/`; returns its manifest."""
    run_step(snapshot.run, layout, params_for("small", "snapshot", **(sections or TWO_PATHS)))
    manifest: dict[str, Any] = read_json(layout.root / "snapshot" / "manifest.json")
    return manifest


def ingest(layout: Layout) -> pa.Table:
    run_stages(layout, "ingest", params=params_for("small", "snapshot"))
    return pq.read_table(layout.interactions)


def counts(manifest: dict[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(part[name] for name in COUNTS) for part in manifest["parts"]]


def taken_now(layout: Layout) -> dict[str, int]:
    """What the flow records of the edge's last run."""
    return snapshot_counts(layout)


def lines(first: int, last: int, *, user: str = "u") -> str:
    rows = (f"{user}{row},i{row % 3},{START + row}\n" for row in range(first, last))
    return "user,item,at\n" + "".join(rows)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "delivered").mkdir()
    return workspace(tmp_path, **FILES)


def put(layout: Layout, name: str, text: str) -> Path:
    path = layout.root / "delivered" / name
    path.write_text(text, encoding="utf-8")
    return path


def test_night_after_night_the_log_grows_by_what_is_new(layout: Layout) -> None:
    put(layout, "01.csv", lines(0, 100))
    take(layout)
    put(layout, "02.csv", lines(90, 150))
    manifest = take(layout)
    assert counts(manifest) == [(100, 100, 0, 0, 0), (60, 50, 10, 0, 0)]
    assert sorted(file["name"] for file in manifest["files"].values()) == ["01.csv", "02.csv"]
    table = ingest(layout)
    assert table["user_id"].to_pylist() == [f"u{row}" for row in range(150)]
    assert table["source_row"].to_pylist() == list(range(150))
    assert read_json(layout.parts) == {
        "first_rows": [0, 100],
        "taken": [part["taken"] for part in manifest["parts"]],
        "unit_hint": None,
    }
    assert abs(date.fromisoformat(manifest["parts"][0]["taken"]) - datetime.now(UTC).date()) <= DAY
    assert read_json(layout.report("ingest"))["files"] == 2


def test_nothing_new_changes_no_byte_and_nothing_is_left_over(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    put(layout, "01.csv", lines(0, 100))
    take(layout)
    before = contents(layout.root / "snapshot")
    assert taken_now(layout)["rows_in"] == 100
    assert sorted(before) == [".lock", "interactions/part-000001.parquet", "manifest.json"]
    with caplog.at_level(logging.INFO):
        take(layout)
    assert contents(layout.root / "snapshot") == before
    assert "taken_before=1 rows_redelivered=100" in caplog.text
    assert taken_now(layout) == {**dict.fromkeys(COUNTS, 0), "parts": 0, "rows_taken_before": 100}
    # the same content under another name is the same file
    put(layout, "01-again.csv", lines(0, 100))
    take(layout)
    assert contents(layout.root / "snapshot") == before


def test_a_file_that_grew_brings_its_new_rows(layout: Layout) -> None:
    put(layout, "log.csv", lines(0, 100))
    take(layout)
    put(layout, "log.csv", lines(0, 130))
    assert counts(take(layout)) == [(100, 100, 0, 0, 0), (130, 30, 100, 0, 0)]


def test_texts_stay_texts(layout: Layout) -> None:
    text = 'user,item,at\n007,"a ""b"", c",1\n,é,2\n"two\nlines",x,\n'
    put(layout, "01.csv", text)
    take(layout)
    table = ingest(layout)
    assert table["user_id"].to_pylist() == ["007", None, "two\nlines"]
    assert table["item_id"].to_pylist() == ['a "b", c', "é", "x"]


def test_tables_of_items_lie_beside_the_log(tmp_path: Path) -> None:
    source = {"kind": "files", "interactions": ".", "items": "items.csv", "users": None}
    features = {"item_features": {"title": "text"}}
    layout = workspace(tmp_path, snapshot=FILES["snapshot"], source=source, **features)
    (tmp_path / "delivered").mkdir()
    put(layout, "01.csv", lines(0, 10))
    put(layout, "items.csv", "item,title\ni1,One\ni0,None\n")
    take(layout)
    ingest(layout)
    assert pq.read_table(layout.item_features)["title"].to_pylist() == ["None", "One"]
    before = contents(tmp_path / "snapshot")
    put(layout, "items.csv", "item,title\ni1,Two\n")
    manifest = take(layout)
    assert len(manifest["parts"]) == 1
    changed = contents(tmp_path / "snapshot")
    assert {name for name in {*before, *changed} if before.get(name) != changed.get(name)} == {
        *(name for name in before if name.startswith("items-")),
        f"items-{manifest['tables']['items'][:16]}.parquet",
        "manifest.json",
    }
    assert len(changed) == len(before)
    ingest(layout)
    assert pq.read_table(layout.item_features)["title"].to_pylist() == ["Two"]


def test_without_a_snapshot_there_is_nothing_to_do(tmp_path: Path) -> None:
    layout = workspace(tmp_path)
    run_step(snapshot.run, layout, params_for("small", "data"))
    assert list((tmp_path / "data").iterdir()) == []
    assert taken_now(Layout(tmp_path)) == {}


def test_what_is_wrong_with_the_folders_is_told(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.path is null"):
        take(layout, snapshot={"path": None})
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        take(layout, snapshot={"path": "nowhere"})
    (layout.root / "snapshot").mkdir()
    with pytest.raises(ConfigError, match="are both"):
        take(layout, snapshot={"path": "snapshot"})
    with pytest.raises(ConfigError, match="no file in it ends in"):
        take(layout)
    with pytest.raises(ConfigError, match="no snapshot there yet"):
        ingest(layout)


def test_a_broken_delivery_leaves_the_snapshot_as_it_was(layout: Layout) -> None:
    put(layout, "01.csv", lines(0, 100))
    take(layout)
    before = contents(layout.root / "snapshot")
    bad = put(layout, "02.csv", lines(100, 200) + "u,i\n")
    with pytest.raises(DataError, match=r"02\.csv: line 102: 2 fields"):
        take(layout)
    assert contents(layout.root / "snapshot") == before
    bad.unlink()
    put(layout, "03.csv", "user,item\nu,i\n")
    with pytest.raises(DataError, match=r"03\.csv: column 'at' is not there"):
        take(layout)
    assert contents(layout.root / "snapshot") == before


def test_a_killed_run_is_made_good_by_the_next(layout: Layout) -> None:
    put(layout, "01.csv", lines(0, 200))
    take(layout)
    put(layout, "02.csv", lines(200, 400_000))
    write_params(layout)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.edges.snapshot"],
        cwd=layout.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    work = layout.root / "snapshot" / ".work"
    part = work / "part-000002.parquet"
    deadline = time.monotonic() + 60
    while not part.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(read_json(layout.root / "snapshot" / "manifest.json")["parts"]) == 1
    assert work.exists()  # what the killed run was doing
    manifest = take(layout)
    assert counts(manifest)[1] == (399_800, 399_800, 0, 0, 0)
    assert not work.exists()
    assert len(ingest(layout)) == 400_000


TABLES: dict[str, Any] = {
    "snapshot": FILES["snapshot"],
    "source": {"kind": "files", "interactions": ".", "items": "items.csv", "users": "users.csv"},
    "item_features": {"title": "text"},
    "user_features": {"age": "numeric"},
}


@pytest.fixture
def described(tmp_path: Path) -> Layout:
    """A snapshot of one night with tables of items and users, and the next night's files."""
    (tmp_path / "delivered").mkdir()
    layout = workspace(tmp_path, **TABLES)
    put(layout, "01.csv", lines(0, 10))
    put(layout, "items.csv", "item,title\ni0,a\n")
    put(layout, "users.csv", "user,age\nu0,3\n")
    take(layout)
    put(layout, "02.csv", lines(10, 20))
    put(layout, "items.csv", "item,title\ni0,a\ni1,b\n")
    put(layout, "users.csv", "user,age\nu0,4\n")
    return layout


def described_rows(layout: Layout) -> tuple[int, int, tuple[float, ...]]:
    """How many interactions and items ingest finds in the snapshot, and the users' ages."""
    rows = len(ingest(layout))
    ages = pq.read_table(layout.user_features)["age"].to_pylist()
    return rows, len(pq.read_table(layout.item_features)), tuple(ages)


def test_a_broken_table_leaves_the_snapshot_as_it_was(described: Layout) -> None:
    """The items were replaced before the users were read, and ingest refused for ever."""
    put(described, "users.csv", 'user,age\nu0,"4\n')
    before = contents(described.root / "snapshot")
    with pytest.raises(DataError, match=r"users\.csv: line 2: a quotation mark"):
        take(described)
    assert contents(described.root / "snapshot") == before
    assert described_rows(described) == (10, 1, (3,))
    put(described, "users.csv", "user,age\nu0,5\n")
    take(described)
    assert described_rows(described) == (20, 2, (5,))


KILLED_AT_A_MOVE = """
import os, signal, sys

moves = int(sys.argv.pop())

def hook(event, arguments):
    global moves
    if event in ("os.rename", "os.remove"):
        place = str(arguments[event == "os.rename"])
        moves -= "snapshot/" in place and ".work/" not in place
        if moves < 0:
            os.kill(os.getpid(), signal.SIGKILL)

from tasks.edges import snapshot
from tasks.step import main

sys.addaudithook(hook)
main(snapshot.run)
"""


def take_killed_at(layout: Layout, move: int) -> bool:
    """Run the edge in a process that is killed before it moves or removes a file of the snapshot,
    the one of this number; returns whether it was."""
    write_params(layout)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_A_MOVE, str(move)],
        cwd=layout.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def write_params(layout: Layout) -> None:
    value = read_yaml(REPOSITORY / "params.yaml")
    value["ingest"] = {"dataset": "small", "path": "snapshot"}
    value["snapshot"] = {"path": "delivered"}
    layout.params.write_text(yaml.safe_dump(value))


def test_a_run_that_is_killed_between_two_files_harms_nothing(described: Layout) -> None:
    root = described.root
    shutil.copytree(root / "snapshot", root / "first")
    kills, seen = 0, set()
    while take_killed_at(described, kills):
        kills += 1
        seen.add(described_rows(described))
        take(described)
        assert described_rows(described) == (20, 2, (4,))
        names = sorted(contents(root / "snapshot"))
        assert [name.partition("-")[0] for name in names] == [
            ".lock",
            "interactions/part",
            "interactions/part",
            "items",
            "manifest.json",
            "users",
        ]
        shutil.rmtree(root / "snapshot")
        shutil.copytree(root / "first", root / "snapshot")
    # the mark, a part, two tables, the manifest; then two old tables and the mark go
    assert kills == 8
    # at each moment the snapshot is that of one night, whole
    assert seen == {(10, 1, (3,)), (20, 2, (4,))}


def test_a_first_run_that_is_killed_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "delivered").mkdir()
    layout = workspace(tmp_path, **FILES)
    put(layout, "01.csv", lines(0, 10))
    kills = 0
    while take_killed_at(layout, kills):
        kills += 1
        assert counts(take(layout)) == [(10, 10, 0, 0, 0)]
        shutil.rmtree(tmp_path / "snapshot")
    assert kills == 4


def test_a_night_without_a_delivery_is_no_error(described: Layout) -> None:
    """Files that were taken may go: the next night failed where nothing had come."""
    delivered = described.root / "delivered"
    take(described)
    before = contents(described.root / "snapshot")
    for file in delivered.iterdir():
        file.unlink()
    (delivered / ".gitkeep").touch()
    take(described)
    assert contents(described.root / "snapshot") == before
    assert taken_now(described)["rows_in"] == 0
    put(described, "03.csv", lines(20, 30))
    take(described)
    assert described_rows(described) == (30, 2, (4,))
    # what is there and cannot be read was delivered
    (delivered / "03.csv").unlink()
    put(described, "04.tsv", "user\n")
    with pytest.raises(ConfigError, match=r"no file in it ends in .*04\.tsv"):
        take(described)
    shutil.rmtree(delivered)
    with pytest.raises(ConfigError, match="delivered: no such folder"):
        take(described)


def test_a_log_in_one_file_may_go_once_it_was_taken(tmp_path: Path) -> None:
    (tmp_path / "delivered").mkdir()
    source = {**FILES["source"], "interactions": "log.csv"}
    layout = workspace(tmp_path, **{**FILES, "source": source})
    with pytest.raises(ConfigError, match=r"log\.csv: no such file"):
        take(layout)
    put(layout, "log.csv", lines(0, 10))
    take(layout)
    (tmp_path / "delivered" / "log.csv").unlink()
    assert counts(take(layout)) == [(10, 10, 0, 0, 0)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with postgres_server() as server:
        yield server


QUERY = "SELECT who, what, at, note, loaded FROM log -- all of it"
SQL_CARD: dict[str, Any] = {
    "source": {"kind": "postgres", "interactions": QUERY, "items": None, "users": None},
    "columns": {"user_id": "who", "item_id": "what", "timestamp": "at"},
    "time": {"kind": "absolute", "unit": "iso"},
    "snapshot": {
        "row_key": ["who", "what", "at"],
        "watermark": "loaded",
        "lookback_seconds": 60,
    },
}
NO_FILES = {"parts": 0, "rows_taken_before": 0}
NOON = "2023-11-14 12:00:00+00"


@pytest.fixture
def table(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with an empty table `log`, and its address in the environment."""
    postgres.execute(
        "DROP TABLE IF EXISTS log",
        "CREATE TABLE log (who text, what text, at timestamptz, note text, loaded timestamptz)",
    )
    monkeypatch.setenv("TWOTEMPO_SOURCE_DSN", postgres.dsn)
    return postgres


def add(server: Server, *rows: tuple[str | None, str | None, int, str | None, int]) -> None:
    """Insert rows: user, item, seconds after noon, note, seconds after noon that it was loaded."""
    with psycopg.connect(server.dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO log VALUES (%s, %s, timestamptz '2023-11-14 12:00:00+00' "
            "+ make_interval(secs => %s), %s, timestamptz '2023-11-14 12:00:00+00' "
            "+ make_interval(secs => %s))",
            rows,
        )


def database(tmp_path: Path, **changes: Any) -> Layout:
    return workspace(tmp_path, **{**SQL_CARD, **changes})


def test_a_query_is_taken_and_then_only_what_is_new(table: Server, tmp_path: Path) -> None:
    layout = database(tmp_path)
    add(table, ("a", "x", 0, "", 0), ("b", "y", 10, None, 1000))
    first = take(layout)
    assert counts(first) == [(2, 2, 0, 0, 0)]
    assert first["watermark"] == "2023-11-14 12:16:40+00"
    before = contents(tmp_path / "snapshot")
    take(layout)
    assert contents(tmp_path / "snapshot") == before
    # the look-back brought a row again, which no part tells of
    again = {"rows_in": 1, "redelivered": 1}
    assert taken_now(layout) == {**dict.fromkeys(COUNTS, 0), **again, **NO_FILES}
    table.execute("UPDATE log SET note = 'another' WHERE who = 'b'")
    take(layout)
    assert taken_now(layout)["redelivered_changed"] == 1
    table.execute("UPDATE log SET note = NULL WHERE who = 'b'")
    assert contents(tmp_path / "snapshot") == before
    add(
        table,
        ("c", "x", 20, None, 2000),  # new
        ("d", "x", 20, None, 1000),  # committed later with an equal watermark
        ("e", "x", 5, None, 950),  # within the look-back, and late
        ("f", "x", 30, None, 100),  # before the look-back: never asked for
        ("b", "y", 10, "now with a note", 1500),  # re-delivered with another content
    )
    second = take(layout)
    assert counts(second)[1] == (5, 3, 2, 1, 1)
    assert second["watermark"] == "2023-11-14 12:33:20+00"
    part = pq.read_table(tmp_path / "snapshot" / "interactions" / "part-000001.parquet")
    assert part["note"].to_pylist() == ["", None]  # an empty text and none at all
    taken = ingest(layout)
    assert sorted(taken["user_id"].to_pylist()) == ["a", "b", "c", "d", "e"]
    assert str(taken["timestamp"][1]) == "2023-11-14 12:00:10+00:00"
    days = [part["taken"] for part in second["parts"]]
    assert read_json(layout.parts) == {"first_rows": [0, 2], "taken": days, "unit_hint": None}


def test_ids_of_any_text_come_as_they_are(table: Server, tmp_path: Path) -> None:
    layout = database(tmp_path)
    ids = [
        'say "hi"',
        "two\nlines",
        "a,b",
        "é 東 🎈",
        " ",
        "\\N",
        "\\.",
        "NULL",
        "cr\rlf\r\n",
        "'",
        "",
    ]
    rows = [(text, text, number, None, number) for number, text in enumerate(ids)]
    add(table, *rows, (None, None, 50, None, 50))
    assert counts(take(layout)) == [(12, 12, 0, 0, 0)]
    taken = ingest(layout)
    assert taken["user_id"].to_pylist() == [*ids, None]
    assert taken["item_id"].to_pylist() == [*ids, None]
    add(table, ("new", "x", 60, None, 60))
    # the look-back brings all of them again: each is known, the empty text and the null apart
    assert counts(take(layout))[1] == (13, 1, 12, 0, 0)


def test_a_null_or_future_watermark_loses_no_row(table: Server, tmp_path: Path) -> None:
    layout = database(tmp_path)
    add(table, ("a", "x", 0, None, 0), ("b", "x", 10, None, 10))
    table.execute("UPDATE log SET loaded = '2199-01-01' WHERE who = 'b'")
    assert take(layout)["watermark"] == NOON
    add(table, ("c", "x", 20, None, 100), ("d", "x", 30, None, 0))
    table.execute("UPDATE log SET loaded = NULL WHERE who = 'd'")
    manifest = take(layout)
    assert counts(manifest)[1] == (4, 2, 2, 0, 0)
    assert manifest["watermark"] == "2023-11-14 12:01:40+00"


def test_a_number_is_a_watermark_without_a_look_back(table: Server, tmp_path: Path) -> None:
    table.execute("ALTER TABLE log ALTER loaded TYPE float8 USING NULL")
    query = "SELECT * FROM log"
    source = {**SQL_CARD["source"], "interactions": query}
    rules = {"row_key": ["who", "at"], "watermark": "loaded"}
    layout = database(tmp_path, source=source, snapshot=rules)
    insert = "INSERT INTO log VALUES ('{}', 'x', '2023-11-14', NULL, '{}')"
    table.execute(insert.format("a", 7), insert.format("b", "NaN"))
    assert take(layout)["watermark"] == "7"
    table.execute(insert.format("c", 7), insert.format("d", 6), insert.format("e", 11))
    manifest = take(layout)  # a, b, c and e: at least 7, and NaN is greater than any number
    assert counts(manifest)[1] == (4, 2, 2, 0, 0)
    assert manifest["watermark"] == "11"
    with pytest.raises(ConfigError, match="neither a date nor a timestamp"):
        take(database(tmp_path, source=source, snapshot={**rules, "lookback_seconds": 60}))


@pytest.mark.parametrize("kind", ["text", "varchar(9)", "char(9)", "uuid", "interval", "jsonb"])
def test_a_watermark_that_may_not_grow_as_it_is_compared_is_an_error(
    kind: str, table: Server, tmp_path: Path
) -> None:
    """Of the texts '99' and '100' the former is greater: rows after it were never asked for."""
    table.execute(f"ALTER TABLE log ALTER loaded TYPE {kind} USING NULL")
    layout = database(tmp_path)
    with pytest.raises(ConfigError, match="it must be a number, a date or a timestamp; cast it"):
        take(layout)


@pytest.mark.parametrize(
    ("kind", "latest"),
    [
        ("smallint", "100"),
        ("integer", "100"),
        ("bigint", "100"),
        ("numeric", "100"),
        ("real", "100"),
        ("date", "2000-04-10"),
        ("timestamp", "2000-04-10 00:00:00"),
        ("timestamptz", "2000-04-10 00:00:00+00"),
    ],
)
def test_what_grows_as_it_is_compared_is_a_watermark(
    kind: str, latest: str, table: Server, tmp_path: Path
) -> None:
    value = "n" if latest == "100" else "'2000-01-01'::timestamp + n * interval '1 day'"
    source = {**SQL_CARD["source"], "interactions": f"SELECT *, nr::{kind} AS mark FROM log"}
    table.execute("ALTER TABLE log ADD nr " + ("int" if value == "n" else "timestamp"))
    rules = {"row_key": ["who"], "watermark": "mark"}
    layout = database(tmp_path, source=source, snapshot=rules)
    insert = (
        "INSERT INTO log SELECT 'u' || n, 'x', '2023-11-14', NULL, NULL, {} "
        "FROM generate_series({}, {}) AS n"
    )
    table.execute(insert.format(value, 90, 99))
    take(layout)
    table.execute(insert.format(value, 100, 100))
    manifest = take(layout)
    assert counts(manifest)[1] == (2, 1, 1, 0, 0)
    assert manifest["watermark"] == latest


def test_without_a_watermark_the_whole_answer_comes_each_time(
    table: Server, tmp_path: Path
) -> None:
    layout = database(tmp_path, snapshot={"row_key": ["who", "what", "at"]})
    add(table, ("a", "x", 0, None, 0))
    take(layout)
    add(table, ("b", "x", 0, None, -10_000))
    manifest = take(layout)
    assert counts(manifest)[1] == (2, 1, 1, 0, 0)
    assert manifest["watermark"] is None


def test_tables_come_by_query_in_any_order(table: Server, tmp_path: Path) -> None:
    ordered = "SELECT n AS what, 'title ' || n AS title FROM generate_series(1, 3000) AS n"
    source = {**SQL_CARD["source"], "items": ordered + " ORDER BY random()"}
    layout = database(tmp_path, source=source, item_features={"title": "text"})
    add(table, ("a", "1", 0, None, 0))
    take(layout)
    before = contents(tmp_path / "snapshot")
    take(layout)
    assert contents(tmp_path / "snapshot") == before
    ingest(layout)
    assert len(pq.read_table(layout.item_features)) == 3000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interactions": "SELECT * FROM gone"}, 'relation "gone" does not exist'),
        ({"interactions": "SELEC 1"}, "syntax error"),
        (
            {"interactions": "SELECT 1 AS one FROM log"},
            r"snapshot\.watermark is 'loaded', but the query selects \['one'\]",
        ),
        (
            {"interactions": "SELECT *, what AS who FROM log"},
            "source.interactions: two columns of the query are called 'who' .* an alias",
        ),
        (
            {"interactions": 'SELECT *, what AS "Who" FROM log'},
            "two columns of the query are called 'who' and 'Who'",
        ),
        ({"interactions": 'SELECT *, what AS "a\nb" FROM log'}, "a line break in its name"),
        ({"items": "SELECT what, what FROM log"}, "source.items: two columns"),
        ({"items": "SELECT nothing FROM log"}, 'source.items: .* "nothing" does not exist'),
        ({"interactions": "SELECT loaded, 1/0 AS who FROM log"}, "division by zero"),
        ({"interactions": "SELECT loaded FROM log"}, "names a column 'who'"),
        ({"interactions": "DELETE FROM log RETURNING *"}, "refuses the query"),
    ],
)
def test_a_query_that_fails_is_one_line(
    changes: dict[str, str], said: str, table: Server, tmp_path: Path
) -> None:
    add(table, ("a", "x", 0, None, 0))
    source = {**SQL_CARD["source"], **changes}
    features = {"item_features": {"nothing": "text"}} if "items" in changes else {}
    with pytest.raises(ConfigError, match=said) as caught:
        take(database(tmp_path, source=source, **features))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "snapshot" / "manifest.json").exists()


def test_the_address_is_told_to_nobody(
    table: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layout = database(tmp_path)
    add(table, ("a", "x", 0, None, 0))
    said = []
    place = f"127.0.0.1:{table.port}"
    wrong = (
        (table.dsn.replace("/postgres", "/secretdb"), ConfigError, "no such database"),
        (table.dsn.replace(str(table.port), "1"), BusyError, "connection was refused"),
        (table.dsn.replace("tester", "secretuser"), ConfigError, "login was refused"),
        ("postgresql://tester:hunter2@secret.invalid/db", BusyError, "host is not found"),
        ("postgresql://tester:secr@et@secret/db", BusyError, "host is not found"),
        ("host='/secret tester/x' user=tester", BusyError, "cannot be reached"),
        ("host=127.0.0.1,127.0.0.1 port=1,2 user=tester", BusyError, "was refused"),
        (f"{table.dsn}?connect_timeout=secret", ConfigError, "no address of PostgreSQL"),
        (f"{table.dsn}?connect_timeout=1e999", ConfigError, "no address of PostgreSQL"),
        (f"{table.dsn}?sslmode=secret", ConfigError, "address is not valid"),
        (f"{table.dsn}?options=-csecret%3D1", BusyError, "the connection failed"),
        (f"postgresql://tester:hunter2@{place}9999/x", ConfigError, "address is not valid"),
        ("service=secret", ConfigError, "address is not valid"),
        (f"{table.dsn}?secretoption=1", ConfigError, "no address of PostgreSQL"),
        ("mysql://tester:hunter2@secret/db", ConfigError, "no address of PostgreSQL"),
        ("postgresql://tester:hunter2%00secret@h/db", ConfigError, "no address of PostgreSQL"),
        ("postgresql://tester:hunter2\udce9@secret/db", ConfigError, "no address of PostgreSQL"),
        ("hunter2 secretdb", ConfigError, "no address of PostgreSQL"),
        (" ", ConfigError, "TWOTEMPO_SOURCE_DSN is not set"),
    )
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="psycopg")
    for dsn, kind, why in wrong:
        monkeypatch.setenv("TWOTEMPO_SOURCE_DSN", dsn)
        with pytest.raises(kind, match=why) as caught:
            take(layout)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        said.append(str(caught.value))
    monkeypatch.delenv("TWOTEMPO_SOURCE_DSN")
    with pytest.raises(ConfigError, match="TWOTEMPO_SOURCE_DSN is not set"):
        take(layout)
    monkeypatch.setenv("TWOTEMPO_SOURCE_DSN", table.dsn)
    take(layout)
    for told in (
        "current_user::int",
        "current_database()::int",
        f"inet_server_port()::text::int + 'a {table.port}'::int",
    ):
        source = {**SQL_CARD["source"], "interactions": f"SELECT *, {told} AS told FROM log"}
        with pytest.raises(ConfigError, match=r"invalid input syntax .*…") as caught:
            take(database(tmp_path, source=source))
        said.append(str(caught.value))
    heard = caplog.text + "\n".join(said) + str(contents(tmp_path / "snapshot"))
    for secret in ("hunter2", "secr", "tester", "127.0.0.1", str(table.port), "PQ"):
        assert secret not in heard
    assert all("\n" not in line for line in said)


def test_a_connection_that_is_cut_off_may_pass_and_takes_nothing(
    table: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # the query ends its own connection, after many rows were already sent
    cut = (
        "SELECT n::text AS who, 'x' AS what, now() AS at, NULL AS note, now() AS loaded "
        "FROM generate_series(1, 300000) AS n "
        "WHERE n < 299999 OR pg_terminate_backend(pg_backend_pid())"
    )
    add(table, ("a", "x", 0, None, 0))
    rules = {"row_key": ["who", "what", "at"]}
    take(database(tmp_path, snapshot=rules))
    before = contents(tmp_path / "snapshot")
    layout = database(tmp_path, source={**SQL_CARD["source"], "interactions": cut}, snapshot=rules)
    with pytest.raises(BusyError, match="connection was lost") as caught:
        take(layout)
    assert "\n" not in str(caught.value)
    # the client library warns of such a connection, and names it
    assert [record for record in caplog.records if record.name == "psycopg"] == []
    assert contents(tmp_path / "snapshot") == before
    assert counts(take(database(tmp_path, snapshot=rules))) == [(1, 1, 0, 0, 0)]
