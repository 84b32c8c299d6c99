"""Files as they come: folders in order, and for each kind of broken file one line that helps."""

import gzip
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.data.duck import open_duckdb
from recsys_core.data.ingestion import ingest_interactions
from recsys_core.data.sources import Source, open_file, open_log, reading
from recsys_core.errors import ConfigError, DataError, TwotempoError
from recsys_core.tables import INTERACTIONS, read_table
from tests.small_logs import START, small_card

HEADER = b"user,item,at\n"
GOOD = b"".join(b"u%d,i,%d\n" % (row, START + row) for row in range(30_000))


def taken(path: Path, *, threads: int = 2, besides: tuple[Path, ...] = ()) -> pa.Table:
    """The interactions table of a log that lies in `path`."""
    out = path.parent / "out" / f"{threads}.parquet"
    with open_duckdb(path.parent / "work", memory_mb=512) as connection:
        connection.execute(f"SET threads = {threads}")
        source = open_log(connection, path, besides=besides)
        report = ingest_interactions(connection, source, card=small_card(), path=out)
    table = read_table(out, INTERACTIONS)
    assert report["rows_in"] == report["rows_out"] == len(table)
    return table


def csv_of(folder: Path, *pieces: bytes, name: str = "log.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(pieces))
    return folder / name


def one_line(path: Path, kind: type[TwotempoError] = DataError) -> str:
    """What is said of a log that cannot be taken: one line that names the file."""
    with pytest.raises(kind) as caught:
        taken(path)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < len(str(path)) + 300
    return said


def rows_of(numbers: "np.ndarray[Any, Any]") -> pa.Table:
    return pa.table({"user": numbers, "item": numbers % 7, "at": START + numbers})


def test_a_parquet_folder_has_the_same_rows_with_any_number_of_threads(tmp_path: Path) -> None:
    numbers = np.random.default_rng(5).permutation(400_000)
    (tmp_path / "log").mkdir()
    for name, piece in zip("cab", np.split(numbers, [50_000, 250_000]), strict=True):
        pq.write_table(rows_of(piece), tmp_path / "log" / f"{name}.parquet", row_group_size=9_001)
    pieces = np.split(numbers, [50_000, 250_000])
    wanted = np.concatenate([pieces[1], pieces[2], pieces[0]])  # by name: a, b, c
    for threads in (1, 8):
        table = taken(tmp_path / "log", threads=threads)
        np.testing.assert_array_equal(table["source_row"], np.arange(len(numbers)))
        np.testing.assert_array_equal(table["timestamp"].cast(pa.int64()), START + wanted)
    assert (tmp_path / "out" / "1.parquet").read_bytes() == (
        tmp_path / "out" / "8.parquet"
    ).read_bytes()


def test_csv_files_of_many_megabytes_keep_their_order(tmp_path: Path) -> None:
    # more than DuckDB's buffer of 32 MB, which several threads share
    filler = "x" * 120
    for number, name in enumerate(("day-1.csv", "day-2.csv")):
        rows = range(number * 300_000, (number + 1) * 300_000)
        text = "".join(f"u{row},i,{START + row},{filler}\n" for row in rows)
        csv_of(tmp_path / "log", b"user,item,at,note\n", text.encode(), name=name)
    for threads in (1, 8):
        table = taken(tmp_path / "log", threads=threads)
        times = table["timestamp"].cast(pa.int64())
        np.testing.assert_array_equal(times, START + np.arange(600_000))
    assert (tmp_path / "out" / "1.parquet").read_bytes() == (
        tmp_path / "out" / "8.parquet"
    ).read_bytes()


def test_what_is_no_data_in_a_folder_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    csv_of(log, HEADER, b"a,i,1\n", name="2.csv")
    csv_of(log, HEADER, b"b,i,1\n", name="10.csv")
    csv_of(log, HEADER, b"hidden,i,1\n", name=".3.csv")
    csv_of(log, b"", name="_SUCCESS")
    items = csv_of(log, b"item,title\ni,I\n", name="items.csv")
    table = taken(log, besides=(items,))
    assert table["user_id"].to_pylist() == ["b", "a"]  # in the order of names, as texts
    (log / "note.txt").write_text("not data")
    assert len(taken(log, besides=(items,))) == 2


def test_endings_are_known_in_capitals_and_zipped(tmp_path: Path) -> None:
    csv_of(tmp_path / "log", gzip.compress(HEADER + b"a,i,1\n"), name="A.CSV.GZ")
    csv_of(tmp_path / "log", gzip.compress(HEADER + b"b,i,1\n"), name="B.csv.gz")
    assert taken(tmp_path / "log")["user_id"].to_pylist() == ["a", "b"]


def test_a_missing_or_empty_place_is_an_error(tmp_path: Path) -> None:
    assert "gone: no such file or folder" in one_line(tmp_path / "gone", ConfigError)
    (tmp_path / "log").mkdir()
    assert "no file in it ends in one of" in one_line(tmp_path / "log", ConfigError)
    (tmp_path / "log" / "log.xlsx").write_bytes(b"")
    assert "it has ['log.xlsx']" in one_line(tmp_path / "log", ConfigError)
    assert "ends in none of" in one_line(tmp_path / "log" / "log.xlsx", ConfigError)


def test_a_folder_where_a_file_is_expected_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "items.csv").mkdir()
    with open_duckdb(tmp_path / "work", memory_mb=256) as connection:
        with pytest.raises(ConfigError, match="a folder, where a file is expected"):
            open_file(connection, tmp_path / "items.csv")
        with pytest.raises(ConfigError, match=r"gone\.csv: no such file"):
            open_file(connection, tmp_path / "gone.csv")


def test_mixed_endings_are_an_error_that_names_both(tmp_path: Path) -> None:
    csv_of(tmp_path / "log", HEADER, b"a,i,1\n", name="a.csv")
    pq.write_table(rows_of(np.arange(3)), tmp_path / "log" / "b.parquet")
    said = one_line(tmp_path / "log", ConfigError)
    assert "a.csv ends in .csv and b.parquet in .parquet" in said


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            {"user": ["1"], "item": [1], "at": [1]},
            "column 'user' is VARCHAR, in a.parquet it is BIGINT",
        ),
        ({"user": [1], "at": [1]}, "column 'item' is not there, in a.parquet it is BIGINT"),
        (
            {"user": [1], "item": [1], "at": [1], "more": [True]},
            "column 'more' is BOOLEAN, in a.parquet it is not there",
        ),
    ],
)
def test_parquet_of_another_schema_is_an_error(
    second: dict[str, list[Any]], said: str, tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(rows_of(np.arange(3)), tmp_path / "log" / "a.parquet")
    pq.write_table(pa.table(second), tmp_path / "log" / "b.parquet")
    assert f"b.parquet: {said}" in one_line(tmp_path / "log")


def test_parquet_columns_may_be_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    first = rows_of(np.arange(3))
    pq.write_table(first, tmp_path / "log" / "a.parquet")
    pq.write_table(first.select(["at", "item", "user"]), tmp_path / "log" / "b.parquet")
    assert taken(tmp_path / "log")["user_id"].to_pylist() == ["0", "1", "2"] * 2


def test_csv_of_another_header_is_an_error(tmp_path: Path) -> None:
    csv_of(tmp_path / "log", HEADER, b"a,i,1\n", name="a.csv")
    csv_of(tmp_path / "log", b"user,at,item\n", b"a,1,i\n", name="b.csv")
    said = one_line(tmp_path / "log")
    assert "b.csv: its header is ['user', 'at', 'item'], that of a.csv is" in said


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b""], "it is empty"),
        ([b"\n\n", HEADER, b"a,i,1\n"], "line 1 is blank"),
        ([HEADER], "it has no rows"),
        ([b"user,item,at"], "it has no rows"),
        ([b"user;item;at\na;i;1\n"], "semicolons separate its columns"),
        ([b"user,item,item\na,i,1\n"], "its header has the columns 'item' and 'item'"),
        ([b"user,item,ITEM\na,i,1\n"], "its header has the columns 'item' and 'ITEM'"),
        ([b'"user,item,at\na,i,1\n'], "line 1: unexpected end of data"),
        ([HEADER, GOOD, b'u,"i,1\n', GOOD], "line 30002: a quotation mark"),
        ([HEADER, GOOD, b'u,"i,1\n'], "line 30002: a quotation mark"),
        ([HEADER, GOOD, b'u,"i"x,1\n', GOOD], "line 30002: a quotation mark"),
        ([HEADER, GOOD, b"u,i\n", GOOD], "line 30002: 2 fields where the header has 3"),
        ([HEADER, b"u,i\n"], "line 2: 2 fields where the header has 3"),
        ([HEADER, GOOD, b"u,i,1,2\n", GOOD], "line 30002: 4 fields where the header has 3"),
        ([HEADER, b"u,i,1,2\n", GOOD], "line 2: 4 fields where the header has 3"),
        ([HEADER, b"\0\0\0\0"], "line 2: 1 fields where the header has 3"),
        ([HEADER, GOOD, b"u,caf\xe9,1\n", GOOD], "line 30002: bytes that are not UTF-8"),
        ([b"user,it\xe9m,at\n", GOOD], "line 1: bytes that are not UTF-8"),
        (["user,item,at\nu,i,1\n".encode("utf-16")], "line 1: bytes that are not UTF-8"),
        ([HEADER, GOOD, b"u,i,1\r\n", GOOD], "line 30002 ends in CRLF, those before it in LF"),
        ([HEADER, GOOD, b"u,i\rj,1\n", GOOD], "line 30002 ends in CR, those before it in LF"),
        (
            [HEADER, b"u," + b"x" * 2_100_000 + b",1\n"],
            "line 2: a row of more than 2,000,000 bytes",
        ),
    ],
)
def test_a_broken_csv_is_an_error_that_names_the_line(
    pieces: list[bytes], said: str, tmp_path: Path
) -> None:
    path = csv_of(tmp_path, *pieces)
    found = one_line(path)
    assert found.startswith(str(path))
    assert said in found
    csv_of(tmp_path / "zip", gzip.compress(b"".join(pieces), 1), name="log.csv.gz")
    assert said in one_line(tmp_path / "zip" / "log.csv.gz")


def test_the_broken_file_of_a_folder_is_named(tmp_path: Path) -> None:
    csv_of(tmp_path / "log", HEADER, GOOD, name="1.csv")
    csv_of(tmp_path / "log", HEADER, GOOD, b"u,i\n", name="2.csv")
    assert "2.csv: line 30002: 2 fields" in one_line(tmp_path / "log")


@pytest.mark.parametrize(
    ("pieces", "items"),
    [
        ([b"\xef\xbb\xbf", HEADER, b"u,i,1\n"], ["i"]),
        ([b'\xef\xbb\xbf"user",item,at\r\n', b"u,i,1\r\n"], ["i"]),
        ([b"user,item,at\ru,i,1\rv,j,2\r"], ["i", "j"]),
        ([b"user,item,at\r\nu,i,1\r\nv,j,2"], ["i", "j"]),
        ([HEADER, b"u,i\0j,1\n"], ["i\0j"]),
        ([HEADER, b'u,"i ""x"", y",1\nu,a"b,2\n'], ['i "x", y', 'a"b']),
        ([HEADER, b"u,i,1\n\nu,j,2\n\n"], ["i", "j"]),
        ([b",user,item,at\n0,u,i,1\n"], ["i"]),
        ([HEADER, b"u,i,1,\n"], ["i"]),
    ],
    ids=["bom", "bom and quotes", "cr", "crlf", "nul", "quotes", "blank", "index", "comma at end"],
)
def test_odd_but_whole_csv_is_taken(pieces: list[bytes], items: list[str], tmp_path: Path) -> None:
    table = taken(csv_of(tmp_path, *pieces))
    assert table["item_id"].to_pylist() == items


def test_a_gzip_file_must_be_whole(tmp_path: Path) -> None:
    zipped = gzip.compress(HEADER + GOOD * 20, 1)
    for pieces in (b"user,item,at\n", zipped[: len(zipped) // 2], zipped[:-4]):
        path = csv_of(tmp_path, pieces, name="log.csv.gz")
        assert "not a whole gzip file" in one_line(path)
    # DuckDB would not see that the content is not what was packed
    path = csv_of(tmp_path, zipped[:-8], b"\0\0\0\0", zipped[-4:], name="log.csv.gz")
    assert "CRC check failed" in one_line(path)


def test_parquet_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(rows_of(np.arange(50_000)), whole, row_group_size=5_000)
    bytes_ = bytearray(whole.read_bytes())
    for name, content in (
        ("cut", bytes_[: len(bytes_) // 2]),
        ("empty", b""),
        ("text", b"PAR1 nothing of the kind"),
        ("hole", bytes_[:1000] + b"\0" * 2000 + bytes_[3000:]),
    ):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        said = one_line(path)
        assert said.startswith(f"{path}: cannot be read"), said


def test_a_full_disk_is_not_a_broken_file() -> None:
    source = Source(sql="", name="log", types={})
    with pytest.raises(OSError, match="No space left") as caught, reading(source):
        raise duckdb.IOException('Could not write file "spill": No space left on device')
    assert caught.value.errno == 28
