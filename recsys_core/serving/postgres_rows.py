"""Rows of SCORES in PostgreSQL's binary COPY format, a row for each item or one for each user.

A row of the format is its number of fields (int16) and then each field: its length (int32, -1 for a
null) and its bytes, numbers in network order. Rows are put together column by column, since one
Python value for each of a hundred million fields would cost more than the server needs.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

START = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
END = struct.pack("!h", -1)

ROWS_AT_ONCE = 65_536

TEXT, FLOAT4 = 25, 700
"""PostgreSQL's numbers of the types that arrays hold."""

ROW_COLUMNS = ("run_number", "rank", "score", "rating", "user_id", "item_id")
LIST_COLUMNS = ("run_number", "user_id", "item_ids", "scores", "ratings")


@dataclass(frozen=True)
class Fields:
    """Fields of N rows one after the other; that of row i lies between two of the N + 1 `ends`."""

    data: Bytes
    ends: Places


def rows_of(table: pa.Table, run_number: int) -> Iterator[bytes]:
    """Blocks of the format with a row of `ROW_COLUMNS` for each row of SCORES."""
    yield START
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        batch = table.slice(start, ROWS_AT_ONCE).combine_chunks()
        n = batch.num_rows
        head = np.zeros(n, dtype=[("fields", ">i2"), ("length", ">i4"), ("number", ">i4")])
        head["fields"], head["length"], head["number"] = len(ROW_COLUMNS), 4, run_number
        yield _interleaved(
            [
                _plain(head),
                _numbers(batch["rank"], ">i4"),
                _numbers(batch["score"], ">f4"),
                _numbers(batch["rating"], ">f4"),
                _texts(batch["user_id"]),
                _texts(batch["item_id"]),
            ]
        ).tobytes()
    yield END


def lists_of(table: pa.Table, run_number: int) -> Iterator[bytes]:
    """Blocks of the format with a row of `LIST_COLUMNS` for each user; a user's rows follow each
    other, best first."""
    yield START
    whole = table.combine_chunks()
    user_id = whole["user_id"].combine_chunks()
    n = len(user_id)
    changes = pc.not_equal(user_id.slice(1), user_id.slice(0, max(n - 1, 0)))
    starts = np.flatnonzero(np.r_[True, changes.to_numpy(zero_copy_only=False)])[:n]  # (U,)
    ends = np.r_[starts, n][1:]
    users = _texts(whole["user_id"])
    items = _texts(whole["item_id"])
    scores, ratings = _numbers(whole["score"], ">f4"), _numbers(whole["rating"], ">f4")
    head = struct.pack("!hii", len(LIST_COLUMNS), 4, run_number)
    pieces: list[bytes | memoryview] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        pieces += [head, _slice(users, start, start + 1)]
        pieces += _array(items, start, end, kind=TEXT)
        pieces += _array(scores, start, end, kind=FLOAT4)
        pieces += _array(ratings, start, end, kind=FLOAT4)
        if len(pieces) > ROWS_AT_ONCE:
            yield b"".join(pieces)
            pieces.clear()
    yield b"".join(pieces)
    yield END


def _array(fields: Fields, start: int, end: int, *, kind: int) -> list[bytes | memoryview]:
    """A field that is an array of one dimension, whose elements are `fields[start:end]`."""
    elements = _slice(fields, start, end)
    # its length; dimensions, whether nulls may be there, the type, the size, the first index
    head = struct.pack("!iiiiii", 20 + len(elements), 1, 1, kind, end - start, 1)
    return [head, elements]


def _slice(fields: Fields, start: int, end: int) -> memoryview:
    return fields.data.data[int(fields.ends[start]) : int(fields.ends[end])]


def _plain(values: np.ndarray) -> Fields:
    """Fields of equal size that are written already."""
    return Fields(
        data=values.view(np.uint8).reshape(-1),
        ends=np.arange(len(values) + 1, dtype=np.int64) * values.dtype.itemsize,
    )


def _numbers(column: pa.ChunkedArray, kind: str) -> Fields:
    """Numbers of four bytes; a null has no bytes beside its length of -1."""
    values = np.zeros(len(column), dtype=[("length", ">i4"), ("value", kind)])
    values["length"] = 4
    values["value"] = column.fill_null(0).to_numpy()
    if not column.null_count:
        return _plain(values)
    null = column.is_null().to_numpy()
    values["length"][null] = -1
    keep = np.ones((len(values), 8), dtype=bool)
    keep[null, 4:] = False
    return Fields(data=values.view(np.uint8).reshape(-1, 8)[keep], ends=_ends(np.where(null, 4, 8)))


def _texts(column: pa.ChunkedArray) -> Fields:
    """Texts in UTF-8."""
    array = column.combine_chunks()
    _, offsets_buffer, texts = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[array.offset :][: len(array) + 1]
    lengths = np.diff(offsets)
    size = np.zeros(len(array), dtype=[("length", ">i4")])
    size["length"] = lengths
    source = np.frombuffer(texts, dtype=np.uint8) if texts is not None else np.zeros(0, np.uint8)
    text = Fields(data=source[offsets[0] : offsets[-1]], ends=_ends(lengths))
    parts = [_plain(size), text]
    return Fields(data=_interleaved(parts), ends=_ends(4 + lengths))


def _interleaved(columns: list[Fields]) -> Bytes:
    """The fields of each row side by side, row after row."""
    sizes = np.stack([np.diff(column.ends) for column in columns])  # (C, N)
    place = _ends(sizes.T.reshape(-1))  # of each field, row by row
    out = np.empty(int(place[-1]), dtype=np.uint8)
    starts = place[:-1].reshape(-1, len(columns)).T  # (C, N)
    for column, size, start in zip(columns, sizes, starts, strict=True):
        if len(size) and (size == size[0]).all():
            width = int(size[0])
            out[start[:, None] + np.arange(width)] = column.data.reshape(-1, width)
            continue
        # the byte b of row i goes from its place among the data to that from start[i] on
        moved = np.repeat(start - column.ends[:-1], size)
        moved += np.arange(len(column.data))
        out[moved] = column.data
    return out


def _ends(sizes: np.ndarray) -> Places:
    ends = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends
