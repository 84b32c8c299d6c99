"""Tables and event columns: a writer refuses what breaks the contract, in one piece or in many."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core import tables
from recsys_core.data.events import Events
from recsys_core.errors import ContractError
from recsys_core.tables import (
    EVENT_DTYPES,
    ITEM_VOCABULARY,
    check_table,
    events_writer,
    read_batches,
    read_events,
    read_table,
    table_writer,
    write_events,
    write_table,
)
from tests.small_logs import contents


def items(*idx: int) -> pa.Table:
    return pa.table(
        {
            "item_idx": pa.array(idx, pa.int32()),
            "item_id": [f"i{number}" for number in idx],
            "first_timestamp": pa.array(idx, pa.timestamp("us", tz="UTC")),
        },
        schema=ITEM_VOCABULARY,
    )


KEY = ("item_idx",)


def test_a_table_comes_back(tmp_path: Path) -> None:
    write_table(tmp_path / "a=1" / "items.parquet", items(1, 2), ITEM_VOCABULARY, key=KEY)
    # the folder's name must not become a column
    assert read_table(tmp_path / "a=1" / "items.parquet", ITEM_VOCABULARY) == items(1, 2)
    ids = read_table(tmp_path / "a=1" / "items.parquet", ITEM_VOCABULARY, columns=["item_id"])
    assert ids.to_pydict() == {"item_id": ["i1", "i2"]}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (items(1, 2).rename_columns(["idx", "item_id", "first_timestamp"]), "begins with"),
        (items(1, 2).select([1, 0, 2]), "begins with"),
        (items(1, 2).set_column(0, "item_idx", pa.array([1, 2], pa.int64())), "item_idx is int64"),
        (items(1, 2).set_column(1, "item_id", pa.array(["a", None])), "item_id has 1 nulls"),
        (items(2, 1), "row 1 breaks the order by item_idx"),
        (items(1, 2, 2), "row 2 repeats the key item_idx"),
    ],
)
def test_a_broken_table_is_refused(table: pa.Table, says: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=says):
        write_table(tmp_path / "items.parquet", table, ITEM_VOCABULARY, key=KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_two_columns_orders_by_the_second_within_the_first() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])

    def table(*rows: tuple[str, int]) -> pa.Table:
        return pa.Table.from_pylist([{"a": a, "b": b} for a, b in rows], schema=schema)

    check_table(table(("x", 1), ("x", 2), ("y", 1)), schema, name="t", key=("a", "b"))
    with pytest.raises(ContractError, match="row 1 breaks"):
        check_table(table(("x", 2), ("x", 1)), schema, name="t", key=("a", "b"))
    with pytest.raises(ContractError, match="row 2 repeats"):
        check_table(table(("x", 1), ("x", 2), ("x", 2)), schema, name="t", key=("a", "b"))


def test_a_missing_or_broken_file_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such table"):
        read_table(tmp_path / "items.parquet", ITEM_VOCABULARY)
    with pytest.raises(ContractError, match="no such table"):
        next(read_batches(tmp_path / "items.parquet", ITEM_VOCABULARY, rows=1))
    (tmp_path / "items.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ContractError, match="not a Parquet file"):
        read_table(tmp_path / "items.parquet", ITEM_VOCABULARY)
    with pytest.raises(ContractError, match="not a Parquet file"):
        next(read_batches(tmp_path / "items.parquet", ITEM_VOCABULARY, rows=1))


def write_in_pieces(path: Path, table: pa.Table, cuts: list[int]) -> None:
    with table_writer(path, ITEM_VOCABULARY, key=KEY) as write:
        for low, high in zip([0, *cuts], [*cuts, len(table)], strict=True):
            write(table.slice(low, high - low))


@given(st.lists(st.integers(0, 20), max_size=4))
def test_bytes_do_not_depend_on_the_pieces(cuts: list[int]) -> None:
    table = items(*range(1, 21))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP", 6)
        folder = Path(name)
        write_in_pieces(folder / "whole", table, [])
        write_in_pieces(folder / "pieces", table, sorted(cuts))
        assert (folder / "whole").read_bytes() == (folder / "pieces").read_bytes()
        assert read_table(folder / "pieces", ITEM_VOCABULARY) == table
        groups = pq.ParquetFile(folder / "pieces").metadata
        assert [groups.row_group(n).num_rows for n in range(4)] == [6, 6, 6, 2]


def test_a_table_without_rows_is_written_in_pieces_too(tmp_path: Path) -> None:
    write_in_pieces(tmp_path / "items.parquet", items(), [])
    assert read_table(tmp_path / "items.parquet", ITEM_VOCABULARY) == items()
    assert list(read_batches(tmp_path / "items.parquet", ITEM_VOCABULARY, rows=5)) == []


def test_order_holds_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    with pytest.raises(ContractError, match="repeats the key"):
        write_in_pieces(
            tmp_path / "items.parquet", pa.concat_tables([items(1, 2), items(2, 3)]), [2]
        )
    assert list(tmp_path.iterdir()) == []


def test_a_piece_with_a_column_too_many_is_refused(tmp_path: Path) -> None:
    table = items(1).append_column("more", pa.array([1]))
    with pytest.raises(ContractError, match="the contract is"):
        write_in_pieces(tmp_path / "items.parquet", table, [])


def test_batches_are_whole_and_in_order(tmp_path: Path) -> None:
    write_table(tmp_path / "items.parquet", items(*range(1, 8)), ITEM_VOCABULARY)
    batches = list(read_batches(tmp_path / "items.parquet", ITEM_VOCABULARY, rows=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert pa.concat_tables(batches) == items(*range(1, 8))


# user 1 has three events, user 2 none, user 3 two; the second of user 1 ties in time with its third
ROWS = {
    "user_idx": np.array([1, 1, 1, 3, 3], dtype=np.int32),
    "item_idx": np.array([4, 1, 4, 2, 4], dtype=np.int32),
    "timestamp": np.array([10, 20, 20, 5, 9], dtype=np.int64),
    "session_idx": np.array([2, 3, 3, 1, 1], dtype=np.int64),
    "session_start": np.array([True, True, False, True, False]),
    "event_type": np.zeros(5, dtype=np.int8),
    "value": np.array([1, np.nan, 2, np.nan, 3], dtype=np.float32),
    "source_row": np.array([7, 1, 2, 0, 9], dtype=np.int64),
}


def events_with(**changes: np.ndarray) -> Events:
    columns = {name: ROWS[name] for name in EVENT_DTYPES if name != "offsets"}
    return Events(**{"offsets": np.array([0, 0, 3, 3, 5]), **columns, **changes})


def pieces(size: int) -> Iterator[dict[str, np.ndarray]]:
    for low in range(0, 5, size):
        yield {name: column[low : low + size] for name, column in ROWS.items()}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_events_in_pieces_are_the_same_files_as_events_at_once(size: int, tmp_path: Path) -> None:
    write_events(tmp_path / "whole", events_with())
    with events_writer(tmp_path / "pieces", events=5, users=3) as write:
        for piece in pieces(size):
            write(piece)
    assert contents(tmp_path / "whole") == contents(tmp_path / "pieces")
    again = read_events(tmp_path / "pieces")
    for name in EVENT_DTYPES:
        np.testing.assert_array_equal(getattr(again, name), getattr(events_with(), name))
    assert isinstance(again.item_idx, np.memmap)


def test_no_events_are_written_and_read(tmp_path: Path) -> None:
    with events_writer(tmp_path, events=0, users=0):
        pass
    assert len(read_events(tmp_path)) == 0


@pytest.mark.parametrize("checked_at_once", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"item_idx": np.array([4, 1, 0, 2, 4], dtype=np.int32)}, "1 rows have item_idx 0"),
        ({"timestamp": np.array([10, 9, 20, 5, 9])}, "row 1 breaks the order"),
        ({"timestamp": np.array([10, 20, 20, 5, 4])}, "row 4 breaks the order"),
        ({"source_row": np.array([7, 2, 2, 0, 9])}, "row 2 breaks the order"),
        ({"item_idx": np.array([4, 1, 4, 2, 4])}, "item_idx is int64"),
        ({"value": np.zeros(4, dtype=np.float32)}, "value has shape"),
        ({"offsets": np.array([0, 0, 3, 3, 4])}, "offsets"),
        ({"offsets": np.array([0, 1, 3, 3, 5])}, "offsets"),
        ({"offsets": np.array([0, 0, 3, 2, 5])}, "offsets"),
        ({"offsets": np.array([0])}, "offsets"),
    ],
)
def test_broken_events_are_refused_wherever_the_check_is_cut(
    changes: dict[str, np.ndarray],
    says: str,
    checked_at_once: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "CHECKED_AT_ONCE", checked_at_once)
    write_events(tmp_path / "good", events_with())
    with pytest.raises(ContractError, match=says):
        write_events(tmp_path / "bad", events_with(**changes))
    assert not (tmp_path / "bad").exists()


def test_a_time_before_that_of_the_user_before_is_no_mistake(tmp_path: Path) -> None:
    # user 3 begins at 5, user 1 ended at 20
    write_events(tmp_path, events_with())
    assert read_events(tmp_path).timestamp[3] < read_events(tmp_path).timestamp[2]


@pytest.mark.parametrize("events", [4, 6])
def test_a_wrong_number_of_events_leaves_no_file(events: int, tmp_path: Path) -> None:
    with pytest.raises(ContractError):
        write_all(tmp_path, events=events)
    assert list(tmp_path.iterdir()) == []


def write_all(folder: Path, *, events: int) -> None:
    with events_writer(folder, events=events, users=3) as write:
        write(ROWS)


def test_a_wrong_type_is_refused_as_it_comes(tmp_path: Path) -> None:
    with (
        pytest.raises(ContractError, match="value is float64"),
        events_writer(tmp_path, events=5, users=3) as write,
    ):
        write({**ROWS, "value": np.zeros(5)})


def test_a_missing_or_broken_column_names_the_cure(tmp_path: Path) -> None:
    write_events(tmp_path, events_with())
    whole = (tmp_path / "timestamp.npy").read_bytes()
    (tmp_path / "timestamp.npy").write_bytes(whole[:-8])
    with pytest.raises(ContractError, match=r"timestamp\.npy: broken"):
        read_events(tmp_path)
    (tmp_path / "timestamp.npy").unlink()
    with pytest.raises(ContractError, match="no such column"):
        read_events(tmp_path)
