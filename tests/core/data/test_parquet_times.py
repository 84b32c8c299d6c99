"""A time that only seconds or milliseconds can say costs its own row, and no other."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json
from recsys_core.data.parquet_times import INFINITY, readable_parquet
from tests.small_logs import START, run_stages, small_log, workspace

MOST = INFINITY // 1_000
NOW = START // 1_000


def log(times: list[int | None], *, unit: str, tz: str | None = None) -> pa.Table:
    """A small log with these times in its column `at`."""
    return small_log(len(times)).set_column(2, "at", pa.array(times, pa.timestamp(unit, tz=tz)))


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("tz", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("sign", [1, -1])
def test_only_the_row_with_the_impossible_time_goes_to_quarantine(
    unit: str, tz: str | None, sign: int, tmp_path: Path
) -> None:
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000}[unit]
    times: list[int | None] = [START // 1_000_000 * per_second] * 8
    times[3] = sign * {"s": 9 * 10**15, "ms": 10**18, "us": 2**63 - 10}[unit]
    times[5] = None
    layout = workspace(
        tmp_path, log(times, unit=unit, tz=tz), expected={"bad_share": 0.9}, duplicates="keep"
    )
    run_stages(layout, "ingest", "validate")
    assert read_json(layout.report("ingest"))["unreadable"]["timestamp"] == 1
    rejected = pq.read_table(layout.quarantine)
    assert rejected["source_row"].to_pylist() == [3, 5]
    assert set(rejected["reason"].to_pylist()) == {"timestamp_missing"}
    (moment,) = set(pq.read_table(layout.valid_interactions)["timestamp"].to_pylist())
    assert moment == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=START // 1_000_000)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("times", "copied"),
    [
        ([NOW, None, MOST], False),
        ([NOW, None, -MOST], False),
        ([NOW, None, MOST + 1], True),
        ([NOW, None, -MOST - 1], True),
        ([None], False),
        ([], False),
    ],
)
def test_a_file_is_copied_only_where_it_must_be(
    times: list[int | None], copied: bool, statistics: bool, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(log(times, unit="ms"), path, write_statistics=statistics, row_group_size=2)
    readable = readable_parquet(path, work=tmp_path)
    assert (readable != path) == copied
    if copied:
        found = pq.read_table(readable)
        assert found["at"].cast(pa.int64()).to_pylist()[:2] == [NOW * 1_000, None]
        assert abs(found["at"].cast(pa.int64()).to_pylist()[2]) == INFINITY
        assert found.drop_columns("at") == pq.read_table(path).drop_columns("at")


def test_a_log_in_several_files_keeps_its_order(tmp_path: Path) -> None:
    layout = workspace(
        tmp_path,
        source={"kind": "files", "interactions": "log", "items": None, "users": None},
        expected={"bad_share": 0.9},
    )
    (tmp_path / "data" / "log").mkdir()
    for number in range(3):
        times: list[int | None] = [NOW + 10 * number + row for row in range(4)]
        times[number] = MOST + 1
        pq.write_table(log(times, unit="ms"), tmp_path / "data" / "log" / f"{number}.parquet")
    run_stages(layout, "ingest", "validate")
    assert pq.read_table(layout.quarantine)["source_row"].to_pylist() == [0, 5, 10]
    times = pq.read_table(layout.valid_interactions)["timestamp"].cast(pa.int64()).to_pylist()
    assert times == sorted(times)


def test_what_is_no_parquet_is_left_to_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1 is how it begins")
    assert readable_parquet(path, work=tmp_path) == path
