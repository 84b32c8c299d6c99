"""Snapshots: no row is lost and none comes twice, whatever is delivered, and however often."""

import fcntl
import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import sha256
from recsys_core.data.cards import DatasetCard
from recsys_core.data.duck import open_duckdb
from recsys_core.data.snapshot_manifest import (
    Counts,
    Manifest,
    held,
    opened_manifest,
    put_in_place,
    snapshot_files,
)
from recsys_core.data.snapshots import Delivery, append_part, replace_table
from recsys_core.data.sources import open_files, open_table
from recsys_core.errors import BusyError, ConfigError, DataError
from tests.small_logs import DAY, START, contents, small_card

KEY = ("user", "item", "at")
NOW = datetime(2023, 11, 20, tzinfo=UTC)


def deliver(
    folder: Path,
    *tables: pa.Table,
    key: tuple[str, ...] = KEY,
    card: DatasetCard | None = None,
    now: datetime = NOW,
) -> Manifest:
    """Take tables, each a file, into a snapshot; returns its manifest."""
    files = []
    for number, table in enumerate(tables):
        files.append(folder.parent / f"{folder.name}-{number}.parquet")
        pq.write_table(table, files[-1], row_group_size=1_000)
    with held(folder) as work:
        before = opened_manifest(folder, row_key=key)
        with open_duckdb(work, memory_mb=512) as connection:
            deliveries = [
                Delivery(
                    name=file.name,
                    source=open_files(connection, [file], name=str(file)),
                    sha256=sha256(file),
                )
                for file in files
            ]
            after, counted = append_part(
                connection,
                deliveries,
                folder=folder,
                manifest=before,
                card=card or small_card(),
                row_key=key,
                now=now,
            )
        put_in_place(folder, after, before=before)
    if after != before:
        assert after.parts[-1].model_dump().items() >= counted.model_dump().items()
    return after


def log(*rows: tuple[Any, Any, Any], **more: list[Any]) -> pa.Table:
    """Rows of user, item and seconds after the start."""
    users, items, seconds = zip(*rows, strict=True)
    at = pa.array(
        [None if value is None else START + 1_000_000 * value for value in seconds], pa.int64()
    )
    return pa.table({"user": users, "item": items, "at": at, **more})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    _, parts, _ = snapshot_files(folder)
    return [row for path in parts for row in pq.read_table(path).to_pylist()]


def counts(manifest: Manifest) -> list[tuple[int, ...]]:
    """Of each part: rows in, rows, re-delivered, of these changed, late."""
    return [
        (part.rows_in, part.rows, part.redelivered, part.redelivered_changed, part.late)
        for part in manifest.parts
    ]


def test_rows_keep_their_columns_and_their_order(tmp_path: Path) -> None:
    n = 300_000
    numbers = np.random.default_rng(3).permutation(n)
    table = pa.table(
        {"user": numbers, "item": numbers % 5, "at": START + numbers, "rowid": numbers}
    )
    manifest = deliver(tmp_path / "s", table)
    assert counts(manifest) == [(n, n, 0, 0, 0)]
    assert manifest.first_rows == [0]
    taken = pq.read_table(tmp_path / "s" / "interactions" / "part-000001.parquet")
    assert taken.cast(table.schema).equals(table)


def test_a_row_comes_once_however_often_it_is_delivered(tmp_path: Path) -> None:
    one, two, three = ("a", "x", 0), ("b", "x", 10), ("c", "y", 20)
    deliver(tmp_path / "s", log(one, two, one))
    manifest = deliver(tmp_path / "s", log(two, three, one, three))
    assert counts(manifest) == [(3, 2, 1, 0, 0), (4, 1, 3, 0, 0)]
    assert manifest.first_rows == [0, 2]
    assert [row["user"] for row in rows_of(tmp_path / "s")] == ["a", "b", "c"]


def test_a_part_without_a_new_row_begins_nowhere(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0), ("b", "x", 10)))
    deliver(tmp_path / "s", log(("b", "x", 10)))
    manifest = deliver(tmp_path / "s", log(("c", "x", 20)))
    assert counts(manifest) == [(2, 2, 0, 0, 0), (1, 0, 1, 0, 0), (1, 1, 0, 0, 0)]
    assert manifest.first_rows == [0, 2]
    assert len(rows_of(tmp_path / "s")) == 3


def test_a_null_in_the_key_is_a_value(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0), (None, "x", 0), (None, "x", None)))
    manifest = deliver(
        tmp_path / "s", log((None, "x", 0), (None, "x", None), ("a", "x", None), (None, "x", None))
    )
    assert counts(manifest)[1] == (4, 1, 3, 0, 0)


def test_another_content_under_a_known_key_is_counted_and_the_first_stays(tmp_path: Path) -> None:
    first = log(("a", "x", 0), ("b", "x", 10), ("a", "x", 0), stars=[1.0, None, 2.0])
    deliver(tmp_path / "s", first)
    again = log(
        ("a", "x", 0), ("b", "x", 10), ("b", "x", 10), ("c", "x", 30), stars=[1, None, 3, 4]
    )
    manifest = deliver(tmp_path / "s", again.set_column(3, "stars", again["stars"].cast("double")))
    assert counts(manifest) == [(3, 2, 1, 1, 0), (4, 1, 3, 1, 0)]
    assert [row["stars"] for row in rows_of(tmp_path / "s")] == [1.0, None, 4.0]


def test_a_row_before_the_latest_of_earlier_parts_is_late(tmp_path: Path) -> None:
    # not late: of the first delivery, at the latest time itself, without a time, re-delivered
    deliver(tmp_path / "s", log(("a", "x", 100), ("a", "x", 50)))
    manifest = deliver(
        tmp_path / "s",
        log(("b", "x", 99), ("b", "x", 100), ("b", "x", 101), ("b", "x", None), ("a", "x", 50)),
    )
    assert counts(manifest) == [(2, 2, 0, 0, 0), (5, 4, 1, 0, 1)]
    assert len(rows_of(tmp_path / "s")) == 6


def test_a_timestamp_in_the_future_makes_no_row_late(tmp_path: Path) -> None:
    ahead = int((NOW + timedelta(days=2) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    future = ahead - START // 1_000_000
    deliver(tmp_path / "s", log(("a", "x", 100), ("a", "y", future)))
    assert counts(deliver(tmp_path / "s", log(("b", "x", 101))))[1] == (1, 1, 0, 0, 0)
    # the same rows, looked at two days later: then it was true
    deliver(tmp_path / "t", log(("a", "x", 100), ("a", "y", future)))
    later = deliver(tmp_path / "t", log(("b", "x", 101)), now=NOW + timedelta(days=2))
    assert counts(later)[1] == (1, 1, 0, 0, 1)


def test_a_clock_that_counts_from_the_start_knows_no_future(tmp_path: Path) -> None:
    card = small_card(time={"kind": "relative", "unit": "us"})
    deliver(tmp_path / "s", log(("a", "x", 10_000 * DAY // 1_000_000)), card=card)
    assert counts(deliver(tmp_path / "s", log(("b", "x", 5)), card=card))[1] == (1, 1, 0, 0, 1)


def test_files_of_one_delivery_become_one_part(tmp_path: Path) -> None:
    one, two = log(("a", "x", 100), ("b", "x", 90)), log(("c", "x", 10), ("a", "x", 100))
    manifest = deliver(tmp_path / "s", one, two, one)
    # the third is the first again: read once, counted twice
    assert counts(manifest) == [(6, 3, 3, 0, 0)]
    assert sorted(file.rows for file in manifest.files.values()) == [2, 2]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"user": ["a"], "item": ["x"]}, "'at' is not there, in the snapshot it is BIGINT"),
        (
            {"user": ["a"], "item": ["x"], "at": ["1"]},
            "'at' is VARCHAR, in the snapshot it is BIGINT",
        ),
        (
            {"user": ["a"], "item": ["x"], "at": [1], "os": ["b"]},
            "'os' is VARCHAR, in the snapshot it is not there",
        ),
    ],
)
def test_other_columns_than_the_first_time_are_an_error(
    second: dict[str, list[Any]], said: str, tmp_path: Path
) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    before = contents(tmp_path / "s")
    with pytest.raises(DataError, match=f"column {said}"):
        deliver(tmp_path / "s", pa.table(second))
    assert contents(tmp_path / "s") == before


def test_columns_in_another_order_are_the_same(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    again = log(("a", "x", 0), ("b", "y", 1)).select(["at", "user", "item"])
    assert counts(deliver(tmp_path / "s", again))[1] == (2, 1, 1, 0, 0)
    assert list(rows_of(tmp_path / "s")[1].items()) == [
        ("user", "b"),
        ("item", "y"),
        ("at", START + 1_000_000),
    ]


def test_a_column_that_the_card_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names a column 'visit'"):
        deliver(tmp_path / "s", log(("a", "x", 0)), key=("user", "visit"))


def test_another_row_key_is_an_error(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    with pytest.raises(ConfigError, match=r"has the row key \['at', 'item', 'user'\]"):
        deliver(tmp_path / "s", log(("a", "x", 0)), key=("user", "at"))


def left_by_a_killed_run(folder: Path, table: pa.Table) -> None:
    """Take a table and lose what came last: the manifest that names it."""
    manifest = folder / "manifest.json"
    before = manifest.read_bytes() if manifest.exists() else None
    part = deliver(folder, table).parts[-1]
    manifest.unlink() if before is None else manifest.write_bytes(before)
    (folder / ".taking.json").write_text(json.dumps({part.name: part.sha256}))


def test_a_part_that_a_killed_run_left_is_written_again(tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path / "s", log(("lost", "x", 0)))
    deliver(tmp_path / "s", log(("a", "x", 0)))
    left_by_a_killed_run(tmp_path / "s", log(("lost", "x", 5)))
    assert len(rows_of(tmp_path / "s")) == 1
    manifest = deliver(tmp_path / "s", log(("b", "x", 10)))
    assert counts(manifest)[1] == (1, 1, 0, 0, 0)
    assert [row["user"] for row in rows_of(tmp_path / "s")] == ["a", "b"]
    assert not (tmp_path / "s" / ".taking.json").exists()


@pytest.mark.parametrize("restored", [None, 1])
def test_a_part_of_a_lost_manifest_is_never_overwritten(
    tmp_path: Path, restored: int | None
) -> None:
    """The manifest is deleted, or an old copy is put in its place: its rows were taken for nobody's
    and overwritten."""
    folder = tmp_path / "s"
    deliver(folder, log(("a", "x", 0)))
    old = (folder / "manifest.json").read_bytes()
    deliver(folder, log(("b", "x", 10)))
    last = (folder / "manifest.json").read_bytes()
    if restored is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_bytes(old)
    before = contents(folder)
    with pytest.raises(DataError, match="the manifest does not name part-00000") as caught:
        deliver(folder, log(("c", "x", 20)))
    assert "restore the manifest.json that does" in str(caught.value)
    assert contents(folder) == before
    (folder / "manifest.json").write_bytes(last)
    assert counts(deliver(folder, log(("c", "x", 20))))[2] == (1, 1, 0, 0, 0)
    assert [row["user"] for row in rows_of(folder)] == ["a", "b", "c"]


def test_a_part_that_is_not_what_the_killed_run_wrote_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    left_by_a_killed_run(folder, log(("a", "x", 0)))
    (folder / "interactions" / "part-000001.parquet").write_bytes(b"somebody's")
    with pytest.raises(DataError, match=r"does not name part-000001\.parquet"):
        deliver(folder, log(("b", "x", 10)))
    (folder / "interactions" / "part-000001.parquet").unlink()
    (folder / ".taking.json").write_text("{")
    with pytest.raises(DataError, match=r"\.taking\.json.*Invalid JSON"):
        deliver(folder, log(("b", "x", 10)))
    (folder / ".taking.json").unlink()
    (folder / "interactions" / "notes").mkdir()
    with pytest.raises(DataError, match="does not name notes"):
        deliver(folder, log(("b", "x", 10)))


def test_the_day_of_a_part_is_that_of_its_delivery_in_utc(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    ahead = datetime(2023, 11, 22, 1, tzinfo=timezone(timedelta(hours=2)))
    manifest = deliver(tmp_path / "s", log(("b", "x", 1)), now=ahead)
    assert [part.taken for part in manifest.parts] == [date(2023, 11, 20), date(2023, 11, 21)]
    assert '"taken": "2023-11-21"' in (tmp_path / "s" / "manifest.json").read_text()


def test_rows_are_counted_also_where_none_is_new(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0), ("b", "x", 1), stars=[1, 2]))
    before = contents(tmp_path / "s")
    with held(tmp_path / "s") as work:
        manifest = opened_manifest(tmp_path / "s", row_key=KEY)
        with open_duckdb(work, memory_mb=256) as connection:
            again = log(("a", "x", 0), ("b", "x", 1), ("b", "x", 1), stars=[1, 2, 3])
            after, counted = append_part(
                connection,
                [Delivery("query", open_table(connection, again, name="query"), None)],
                folder=tmp_path / "s",
                manifest=manifest,
                card=small_card(),
                row_key=KEY,
                now=NOW,
            )
        assert not put_in_place(tmp_path / "s", after, before=manifest)
    assert after == manifest
    assert counted == Counts(rows_in=3, rows=0, redelivered=3, redelivered_changed=1, late=0)
    assert contents(tmp_path / "s") == before


def test_a_damaged_or_missing_part_is_an_error(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    part = tmp_path / "s" / "interactions" / "part-000001.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"x")
    for look in (lambda: rows_of(tmp_path / "s"), lambda: deliver(tmp_path / "s", log((1, 2, 3)))):
        with pytest.raises(DataError, match="its SHA-256 is not the manifest's"):
            look()
    part.unlink()
    with pytest.raises(DataError, match=r"part-000001\.parquet: missing"):
        rows_of(tmp_path / "s")


def test_a_damaged_manifest_is_an_error_in_one_line(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    for broken in (b'{"version": 1, "parts": 3}', b"{", b"", b"\xff\x00", b"[]"):
        (tmp_path / "s" / "manifest.json").write_bytes(broken)
        for look in (
            lambda: rows_of(tmp_path / "s"),
            lambda: deliver(tmp_path / "s", log((1, 2, 3))),
        ):
            with pytest.raises(
                DataError, match=r"manifest\.json: .*restore it from a copy"
            ) as caught:
                look()
            assert "\n" not in str(caught.value)
        assert (tmp_path / "s" / "manifest.json").read_bytes() == broken


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    with (tmp_path / "s" / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another run is writing this snapshot"):
            deliver(tmp_path / "s", log(("b", "x", 0)))
    deliver(tmp_path / "s", log(("b", "x", 0)))


def test_a_folder_with_other_files_does_not_become_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "words.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"it has files in it \(words\.txt\)"):
        deliver(tmp_path / "s", log(("a", "x", 0)))
    assert sorted(contents(tmp_path / "s")) == ["words.txt"]
    (tmp_path / "t").write_text("")
    with pytest.raises(ConfigError, match=r"a file; ingest\.path names the folder"):
        deliver(tmp_path / "t", log(("a", "x", 0)))


def test_a_folder_without_a_snapshot_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no snapshot there yet; run `python -m"):
        snapshot_files(tmp_path)


def replaced(folder: Path, table: pa.Table) -> str:
    pq.write_table(table, folder.parent / "items.parquet")
    with held(folder) as work:
        before = opened_manifest(folder, row_key=KEY)
        with open_duckdb(work, memory_mb=256) as connection:
            source = open_files(connection, [folder.parent / "items.parquet"], name="items")
            after = replace_table(connection, source, name="items", folder=folder, manifest=before)
        put_in_place(folder, after, before=before)
    return after.tables["items"]


def test_a_table_is_replaced_where_its_content_changed(tmp_path: Path) -> None:
    deliver(tmp_path / "s", log(("a", "x", 0)))
    ids = [f"i{number}" for number in range(5_000)]
    table = pa.table({"item": ids, "title": ids})
    first = replaced(tmp_path / "s", table)
    (place,) = (tmp_path / "s").glob("items-*.parquet")
    assert place.name == f"items-{first[:16]}.parquet"
    touched = place.stat().st_mtime_ns
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(5_000)))
    assert replaced(tmp_path / "s", shuffled) == first
    assert place.stat().st_mtime_ns == touched
    assert replaced(tmp_path / "s", table.slice(1)) != first
    _, _, tables = snapshot_files(tmp_path / "s")
    assert len(pq.read_table(tables["items"])) == 4_999
    assert list((tmp_path / "s").glob("items-*.parquet")) == [tables["items"]]
    tables["items"].write_bytes(b"")
    with pytest.raises(DataError, match="its SHA-256 is not the manifest's"):
        snapshot_files(tmp_path / "s")
    # the same content, delivered again, makes it good
    replaced(tmp_path / "s", table.slice(1))
    assert len(pq.read_table(snapshot_files(tmp_path / "s")[2]["items"])) == 4_999
