"""The tables that pass between steps: their schemas, and the only reader and writer of them.

`write_table` refuses a wrong name, type, null or order, so that a reader never has to ask.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.artifacts import atomic_path
from recsys_core.columns import (
    COHORT,
    END,
    EVENT_TYPE,
    FIRST_TIMESTAMP,
    FRAME,
    HIGH,
    HISTORY,
    ITEM_ID,
    ITEM_IDX,
    KNOWN,
    LOW,
    METRIC,
    MODEL,
    NLL,
    POSITION,
    RANK,
    RATING,
    SCORE,
    SESSION_ID,
    SOURCE_ROW,
    START,
    TARGET,
    TARGETS,
    TIES,
    TIMESTAMP,
    TRAINED_BEFORE,
    USER_ID,
    USER_IDX,
    USERS,
    VALUE,
)
from recsys_core.data.events import Events, column_names
from recsys_core.errors import ContractError

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
ROW_GROUP = 262_144
"""Rows of a Parquet row group where a table is written in pieces."""


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


INTERACTIONS = pa.schema(
    [
        _required(SOURCE_ROW, pa.int64()),
        pa.field(USER_ID, pa.string()),
        pa.field(ITEM_ID, pa.string()),
        pa.field(TIMESTAMP, UTC_MICROSECONDS),
        pa.field(EVENT_TYPE, pa.string()),
        pa.field(VALUE, pa.float32()),
        pa.field(SESSION_ID, pa.string()),
    ]
)
"""As they came: anything but the row number may be missing. Declared context columns follow."""

VALID_INTERACTIONS = pa.schema(
    [
        field if field.name in (VALUE, SESSION_ID) else field.with_nullable(False)
        for field in INTERACTIONS
    ]
)

ITEM_VOCABULARY = pa.schema(
    [
        _required(ITEM_IDX, pa.int32()),
        _required(ITEM_ID, pa.string()),
        _required(FIRST_TIMESTAMP, UTC_MICROSECONDS),
    ]
)
USER_VOCABULARY = pa.schema(
    [
        _required(USER_IDX, pa.int32()),
        _required(USER_ID, pa.string()),
        _required(FIRST_TIMESTAMP, UTC_MICROSECONDS),
    ]
)

RANKS = pa.schema(
    [
        _required(MODEL, pa.string()),
        _required(USER_IDX, pa.int32()),
        _required(POSITION, pa.int32()),
        _required(TARGET, pa.int32()),
        _required(RANK, pa.int32()),
        _required(TIES, pa.int32()),
        pa.field(NLL, pa.float32()),
        _required("active", pa.bool_()),
        _required("new_user", pa.bool_()),
        _required("known", pa.bool_()),
        _required(HISTORY, pa.int32()),
    ]
)
"""One row per model and target. `rank` 0: target unknown, a miss. `ties`: others of equal score."""

METRICS = pa.schema(
    [
        _required(MODEL, pa.string()),
        _required(COHORT, pa.string()),
        _required(METRIC, pa.string()),
        _required(VALUE, pa.float64()),
        _required(LOW, pa.float64()),
        _required(HIGH, pa.float64()),
        _required(TARGETS, pa.int64()),
        _required(USERS, pa.int64()),
    ]
)

CURVE = pa.schema(
    [
        _required(FRAME, pa.int32()),
        _required(MODEL, pa.string()),
        _required(START, UTC_MICROSECONDS),
        _required(END, UTC_MICROSECONDS),
        _required(TRAINED_BEFORE, UTC_MICROSECONDS),
        _required(METRIC, pa.string()),
        _required(VALUE, pa.float64()),
        _required(LOW, pa.float64()),
        _required(HIGH, pa.float64()),
        _required(TARGETS, pa.int64()),
        _required(USERS, pa.int64()),
        _required(KNOWN, pa.int64()),
    ]
)
"""One row for each frame of a backtest that has targets, and each model. `known`: targets that were
a candidate of the model."""

SCORES = pa.schema(
    [
        _required(USER_ID, pa.string()),
        _required(RANK, pa.int32()),
        _required(ITEM_ID, pa.string()),
        _required(SCORE, pa.float32()),
        pa.field(RATING, pa.float32()),
    ]
)
"""One shard of a scoring run; publishing adds `model_version` and `as_of`. `rating` is the value
that the user is expected to give, null where the model predicts none."""

CHECKED_AT_ONCE = 1_048_576
"""Rows of event columns that a check holds in memory."""

EVENT_DTYPES: dict[str, str] = {
    "offsets": "int64",
    "item_idx": "int32",
    "timestamp": "int64",
    "session_idx": "int64",
    "session_start": "bool",
    "event_type": "int8",
    "value": "float32",
    "source_row": "int64",
}


def check_table(
    table: pa.Table, schema: pa.Schema, *, name: str, key: tuple[str, ...] = ()
) -> None:
    """Raise `ContractError` unless `table` begins with the columns of `schema`, ordered by `key`.

    The order is strict: no key occurs twice. Without a `key`, rows may be in any order.
    """
    found = table.schema.names[: len(schema.names)]
    if found != schema.names:
        raise ContractError(
            f"{name}: columns {table.schema.names}, but the contract begins with {schema.names}; "
            "rebuild it with the stage that writes it"
        )
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type:
            raise ContractError(
                f"{name}: column {field.name} is {column.type}, the contract says {field.type}"
            )
        if not field.nullable and column.null_count:
            raise ContractError(
                f"{name}: column {field.name} has {column.null_count} nulls, "
                "the contract allows none"
            )
    if key and table.num_rows > 1:
        _check_order(table, key, name)


def _check_order(table: pa.Table, key: tuple[str, ...], name: str) -> None:
    """Rows must be strictly increasing by `key`: sorted, and no key twice."""
    tied = np.ones(table.num_rows - 1, dtype=bool)
    for column in key:
        values = table.column(column).combine_chunks()
        before, after = values.slice(0, len(values) - 1), values.slice(1)
        falls = pc.greater(before, after).to_numpy(zero_copy_only=False)
        if np.any(tied & falls):
            row = int(np.argmax(tied & falls)) + 1
            raise ContractError(f"{name}: row {row} breaks the order by {', '.join(key)}")
        tied &= pc.equal(before, after).to_numpy(zero_copy_only=False)
    if np.any(tied):
        row = int(np.argmax(tied)) + 1
        raise ContractError(f"{name}: row {row} repeats the key {', '.join(key)} of the row before")


def write_table(
    path: Path, table: pa.Table, schema: pa.Schema, *, key: tuple[str, ...] = ()
) -> None:
    """Write a table as zstd Parquet after checking it against its contract."""
    check_table(table, schema, name=path.name, key=key)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


@contextmanager
def table_writer(
    path: Path, schema: pa.Schema, *, key: tuple[str, ...] = ()
) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes the next rows of a table with exactly the columns of `schema`.

    The file appears when the block ends without an error. Its bytes depend on the rows and not on
    the pieces that they came in; the contract holds across pieces.
    """
    waiting: list[pa.Table] = []
    last = schema.empty_table()

    def flush(writer: pq.ParquetWriter, rows: int) -> None:
        nonlocal last
        table = pa.concat_tables(waiting)
        ready, rest = table.slice(0, rows).combine_chunks(), table.slice(rows)
        check_table(pa.concat_tables([last, ready]), schema, name=path.name, key=key)
        writer.write_table(ready, row_group_size=ROW_GROUP)
        last = ready.slice(len(ready) - 1)
        waiting[:] = [rest]

    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):

        def write(rows: pa.Table) -> None:
            if rows.schema.names != schema.names:
                raise ContractError(
                    f"{path.name}: columns {rows.schema.names}, the contract is {schema.names}"
                )
            check_table(rows, schema, name=path.name)
            waiting.append(rows.cast(schema))
            while sum(map(len, waiting)) >= ROW_GROUP:
                flush(writer, ROW_GROUP)

        yield write
        if sum(map(len, waiting)):
            flush(writer, ROW_GROUP)


def read_batches(path: Path, schema: pa.Schema, *, rows: int) -> Iterator[pa.Table]:
    """A table in order, at most `rows` rows at a time, each piece checked against its contract."""
    if not path.exists():
        raise ContractError(f"{path}: no such table; run the stage that writes it")
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=rows):
                table = pa.Table.from_batches([batch])
                check_table(table, schema, name=path.name)
                yield table
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path}: not a Parquet file ({error}); run its stage again") from error


def read_table(path: Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """A table, checked against its contract; `columns` limits what is read."""
    if not path.exists():
        raise ContractError(f"{path}: no such table; run the stage that writes it")
    try:
        # without partitioning: a folder named like `a=b` above the file must not become a column
        table = pq.read_table(path, columns=columns, partitioning=None)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path}: not a Parquet file ({error}); run its stage again") from error
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    check_table(table, wanted, name=path.name)
    return table


def write_events(folder: Path, events: Events) -> None:
    """Write event columns, one npy file each, after checking them against their contract."""
    check_events(events, name=str(folder))
    for name in EVENT_DTYPES:
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, getattr(events, name), allow_pickle=False)


@contextmanager
def events_writer(
    folder: Path, *, events: int, users: int
) -> Iterator[Callable[[Mapping[str, np.ndarray[Any, Any]]], None]]:
    """A function that writes the next rows of the event columns, named as in `Events`.

    `user_idx` comes beside them and becomes the offsets. `events` and `users` say how many there
    will be; one number per user is held in memory. The files appear when the block ends without an
    error, after the whole is checked against its contract.
    """
    columns = [name for name in EVENT_DTYPES if name != "offsets"]
    counts = np.zeros(users + 2, dtype=np.int64)
    with ExitStack() as stack:
        paths = {
            name: stack.enter_context(atomic_path(folder / f"{name}.npy")) for name in EVENT_DTYPES
        }
        files = {name: stack.enter_context(paths[name].open("wb")) for name in columns}
        for name in columns:
            _write_npy_header(files[name], np.dtype(EVENT_DTYPES[name]), events)

        def write(rows: Mapping[str, np.ndarray[Any, Any]]) -> None:
            for name in columns:
                if rows[name].dtype != np.dtype(EVENT_DTYPES[name]):
                    raise ContractError(
                        f"{folder}: {name} is {rows[name].dtype}, "
                        f"the contract says {EVENT_DTYPES[name]}"
                    )
                # not tofile: on a full disk it does not say why
                files[name].write(np.ascontiguousarray(rows[name]).data)
            # over the users of these rows alone: over all of them, each piece would cost as much
            first = int(rows["user_idx"].min(initial=users))
            met = np.bincount(rows["user_idx"] - first)
            counts[first + 1 : first + 1 + len(met)] += met

        yield write
        for file in files.values():
            file.close()
        with paths["offsets"].open("wb") as file:
            np.save(file, np.cumsum(counts), allow_pickle=False)
        check_events(Events(**_open_columns(paths)), name=str(folder))


def read_events(folder: Path) -> Events:
    """Event columns as memory maps."""
    return Events(**_open_columns({name: folder / f"{name}.npy" for name in EVENT_DTYPES}))


def _write_npy_header(file: BinaryIO, dtype: np.dtype[Any], rows: int) -> None:
    """What `np.save` would write before the rows of a column."""
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        file, {"descr": description, "fortran_order": False, "shape": (rows,)}
    )


def _open_columns(paths: Mapping[str, Path]) -> dict[str, Any]:
    return {name: _open_npy(path) for name, path in paths.items()}


def _open_npy(path: Path) -> np.ndarray[Any, Any]:
    """A column as a memory map."""
    if not path.exists():
        raise ContractError(f"{path}: no such column; run `sessionize` again")
    try:
        # numpy refuses to map an empty file, and there is nothing to map in one
        mode: Literal["r"] | None = None if path.stat().st_size <= 128 else "r"
        column: np.ndarray[Any, Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ContractError(f"{path}: broken ({error}); run `sessionize` again") from error
    return column


def check_events(events: Events, *, name: str) -> None:
    """Raise `ContractError` unless types, lengths, offsets and order are as `Events` says."""
    assert column_names() == list(EVENT_DTYPES)
    n = len(events.item_idx)
    for column, dtype in EVENT_DTYPES.items():
        values = getattr(events, column)
        if values.dtype != np.dtype(dtype):
            raise ContractError(f"{name}: {column} is {values.dtype}, the contract says {dtype}")
        if column != "offsets" and values.shape != (n,):
            raise ContractError(
                f"{name}: {column} has shape {values.shape}, the others have {n} rows"
            )
    offsets = events.offsets
    if (
        len(offsets) < 2
        or offsets[0] != 0
        or offsets[1] != 0
        or offsets[-1] != n
        or np.any(np.diff(offsets) < 0)
    ):
        raise ContractError(
            f"{name}: offsets do not run from 0, 0 up to {n} events; run `sessionize` again"
        )
    for low in range(0, n, CHECKED_AT_ONCE):
        _check_rows(events, low, min(low + CHECKED_AT_ONCE, n), name)


def _check_rows(events: Events, low: int, high: int, name: str) -> None:
    """PAD never occurs, and rows low to high (and the one before) are in order."""
    pad = int(np.count_nonzero(events.item_idx[low:high] < 1))
    if pad:
        raise ContractError(
            f"{name}: {pad} rows have item_idx 0 (PAD is reserved); run `sessionize` again"
        )
    low = max(low - 1, 0)
    time, row = events.timestamp[low:high], events.source_row[low:high]
    falls = (time[1:] < time[:-1]) | ((time[1:] == time[:-1]) & (row[1:] <= row[:-1]))
    begin, end = np.searchsorted(events.offsets, [low + 1, high], side="left")
    falls[events.offsets[begin:end] - low - 1] = False  # a user's first row follows another user
    if np.any(falls):
        where = low + int(np.argmax(falls)) + 1
        raise ContractError(f"{name}: row {where} breaks the order by user, timestamp, source_row")
