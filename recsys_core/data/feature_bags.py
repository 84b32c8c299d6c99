"""Fields that hold a bag of values in each row: a category, a list of them, the words of a text.

    field        rows                         values by code        codes     weights
    genres       [Drama], [War, Drama], []    1 Drama, 2 War        1 0       1   0
                                                                    1 2       .71 .71
                                                                    0 0       1   0
    title        "War, war", "A war", null    1 war                 1         1
                                                                    1         1
                                                                    0         0

Code 0 is for what has no code of its own. In categories it counts where a row has nothing else,
missing or never seen: "unknown" is learned like a category. In a text it is padding alone. The
weights of a row have length 1: 1 / sqrt(n) for n categories, for words the square roots of their
numbers, divided by the length of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

BagKind = Literal["categorical", "multi_categorical", "text"]

WIDEST = 64
"""Codes of one row: of more, a text keeps its most frequent words, a list its commonest values."""

FEWEST_ROWS = 2
"""A word of fewer rows says nothing of any other row."""

ROWS_AT_ONCE = 131_072
"""Rows whose words lie in memory together."""

NO_WORD = r"[^\p{L}\p{M}\p{N}]+"


@dataclass(frozen=True)
class BagField:
    """A field and its values: `values[0]` has code 1; `left_out` others of the fit have none."""

    name: str
    kind: BagKind
    values: tuple[str, ...]
    left_out: int

    @property
    def n_codes(self) -> int:
        """How many codes there are, 0 with them."""
        return len(self.values) + 1


@dataclass(frozen=True, eq=False)
class Bag:
    """The codes of some rows, below a row of zeros for PAD, and what has none.

    `missing` rows hold no value at all, `unseen` values are not the field's, `cut` are codes that
    a row has beyond the `WIDEST` it may have.
    """

    codes: Int32  # (N + 1, L) padded with 0
    weights: Float32  # (N + 1, L) 0 where codes are padded
    missing: int
    unseen: int
    cut: int


def fit_bag(name: str, kind: BagKind, column: pa.ChunkedArray, *, most: int) -> BagField:
    """The `most` frequent values of a column: by falling number, equal ones by their text.

    A word counts where at least `FEWEST_ROWS` rows have it.
    """
    counted = [_counted(values, rows) for _, values, rows in _pieces(column, kind)]
    sums = pa.concat_tables([_COUNTS.empty_table(), *counted]).group_by("value")
    table = sums.aggregate([("times", "sum"), ("rows", "sum")])
    fewest = FEWEST_ROWS if kind == "text" else 1
    often = table.filter(pc.greater_equal(table["rows_sum"], fewest))
    order = [("times_sum", "descending"), ("value", "ascending")]
    kept = often.take(pc.sort_indices(often, order)[:most])
    values = tuple(kept["value"].to_pylist())
    return BagField(name, kind, values, left_out=len(table) - len(values))


def encode_bag(field: BagField, column: pa.ChunkedArray) -> Bag:
    """The codes and weights of a column's rows, in their order."""
    value_set = pa.array(field.values, pa.large_string())
    pieces = [
        _encoded_piece(field.kind, pc.index_in(values, value_set=value_set), rows, n_rows=n_rows)
        for n_rows, values, rows in _pieces(column, field.kind)
    ]
    width = max((piece.codes.shape[1] for piece in pieces), default=1)
    codes = np.zeros((len(column) + 1, width), dtype=np.int32)
    weights = np.zeros((len(column) + 1, width), dtype=np.float32)
    low = 1
    for piece in pieces:
        high, own = low + len(piece.codes) - 1, piece.codes.shape[1]
        codes[low:high, :own], weights[low:high, :own] = piece.codes[1:], piece.weights[1:]
        low = high
    return Bag(
        codes=codes,
        weights=weights,
        missing=sum(piece.missing for piece in pieces),
        unseen=sum(piece.unseen for piece in pieces),
        cut=sum(piece.cut for piece in pieces),
    )


def words_of(texts: pa.Array) -> pa.Array:
    """The words of each text: runs of letters, marks and digits in lower case, and empty ones.

    Equal letters of different code points are one (NFKC). A script that writes no spaces gives one
    word for each run.
    """
    lower = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    return pc.split_pattern(pc.replace_substring_regex(lower, NO_WORD, " "), " ")


_COUNTS = pa.schema([("value", pa.large_string()), ("times", pa.int64()), ("rows", pa.int64())])


def _pieces(column: pa.ChunkedArray, kind: BagKind) -> Iterator[tuple[int, pa.Array, Int64]]:
    """Some rows at a time: how many, their values one after the other, and the row of each."""
    for low in range(0, len(column), ROWS_AT_ONCE):
        piece = column.slice(low, ROWS_AT_ONCE).combine_chunks()
        if kind == "categorical":
            values, rows = piece, np.arange(len(piece))
        else:
            lists = words_of(piece) if kind == "text" else piece
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
            values, rows = lists.flatten(), np.repeat(np.arange(len(piece)), lengths)
        there = pc.is_valid(values)
        if kind == "text":
            there = pc.and_(there, pc.not_equal(values, ""))
        yield len(piece), values.filter(there), rows[there.to_numpy(zero_copy_only=False)]


def _counted(values: pa.Array, rows: Int64) -> pa.Table:
    """How often each value occurs, and in how many rows."""
    encoded = values.dictionary_encode()
    n = len(encoded.dictionary)
    local = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # with the counts NumPy sorts; without them it hashes, which takes fifty times as long here
    pairs, _ = np.unique(rows * max(n, 1) + local, return_counts=True)
    return pa.table(
        {
            "value": encoded.dictionary,
            "times": np.bincount(local, minlength=n),
            "rows": np.bincount(pairs % max(n, 1), minlength=n),
        }
    )


def _encoded_piece(kind: BagKind, place: pa.Array, rows: Int64, *, n_rows: int) -> Bag:
    """The bags of `n_rows` rows: entry e stands in rows[e] and is values[place[e]], null: none."""
    code = pc.fill_null(place, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    known = code > 0
    span = int(code.max(initial=0)) + 1
    pairs, times = np.unique(rows[known] * span + code[known], return_counts=True)
    row, code = pairs // span, pairs % span
    share = np.sqrt(times) if kind == "text" else np.ones(len(pairs))

    position = _positions(row)
    if kind == "text":
        long = np.bincount(row, minlength=n_rows)[row] > WIDEST
        order = np.lexsort((code[long], -times[long], row[long]))  # rows stay where they are
        code[long], share[long] = code[long][order], share[long][order]
    kept = position < WIDEST
    row, code, share, position = row[kept], code[kept], share[kept], position[kept]

    width = int(position.max(initial=0)) + 1
    codes = np.zeros((n_rows + 1, width), dtype=np.int32)
    weights = np.zeros((n_rows + 1, width), dtype=np.float32)
    squared = np.bincount(row, weights=share**2, minlength=n_rows)
    codes[row + 1, position] = code
    weights[row + 1, position] = share / np.sqrt(squared[row])
    if kind != "text":
        weights[np.flatnonzero(squared == 0) + 1, 0] = 1.0  # unknown
    return Bag(
        codes=codes,
        weights=weights,
        missing=int(np.count_nonzero(np.bincount(rows, minlength=n_rows) == 0)),
        unseen=int(np.count_nonzero(~known)),
        cut=int(np.count_nonzero(~kept)),
    )


def _positions(row: Int64) -> Int64:
    """The place of each entry among those of its row; rows ascend."""
    lengths = np.bincount(row)
    return np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
