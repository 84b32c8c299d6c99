"""Features as numbers: what an encoding learned from the rows of a cut, and tables by it.

    item_id  genres        launch      price     codes, weights of genres  numbers
                                                 0 0         0   0          0 0   0 0    (PAD)
    a        [Drama]       2024-01-01  10.0      1 0         1   0         -1 1  -1 1
    b        [War, Drama]  null        null      1 2        .71 .71         0 0   0 0
    c        []            2024-01-03  20.0      0 0         1   0          1 1   1 1

Row k of the arrays is that of ids[k - 1], so that an idx reads its own row. Bags are told in
`feature_bags.py`. A number comes as two columns: how many standard deviations it lies from the
mean, at most `FARTHEST`, and whether it is there at all. Fields are in the order of their names,
bags and numbers each.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_core.data.feature_bags import BagField, BagKind, encode_bag, fit_bag
from recsys_core.errors import ContractError
from recsys_core.tables import UTC_MICROSECONDS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

NumberKind = Literal["numeric", "timestamp"]
Kind = BagKind | NumberKind

FARTHEST = 5.0
"""Standard deviations: one wild price must not outweigh all other fields."""

MICROSECONDS_PER_SECOND = 1e6

TYPES: dict[Kind, tuple[pa.DataType, pa.DataType]] = {
    "categorical": (pa.string(), pa.large_string()),
    "multi_categorical": (pa.list_(pa.string()), pa.large_list(pa.large_string())),
    "text": (pa.string(), pa.large_string()),
    "numeric": (pa.float64(), pa.float64()),
    "timestamp": (UTC_MICROSECONDS, UTC_MICROSECONDS),
}
"""What each kind is in our tables, and here: 2 GiB of texts overflow the narrow offsets."""


@dataclass(frozen=True)
class NumberField:
    """A number's place and spread among the rows of the fit; of a timestamp in seconds."""

    name: str
    kind: NumberKind
    mean: float
    deviation: float


@dataclass(frozen=True)
class FeatureEncoding:
    """What is known of each field: enough to encode the tables of any later night."""

    bags: tuple[BagField, ...]
    numbers: tuple[NumberField, ...]

    @property
    def n_codes(self) -> tuple[int, ...]:
        """The number of codes of each bag field, 0 with them."""
        return tuple(field.n_codes for field in self.bags)

    @property
    def n_numbers(self) -> int:
        """The columns of `Encoded.numbers`."""
        return 2 * len(self.numbers)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each field that is read, by name."""
        bags: dict[str, Kind] = {field.name: field.kind for field in self.bags}
        return {**bags, **{field.name: field.kind for field in self.numbers}}

    def to_json(self) -> dict[str, Any]:
        """The encoding as JSON; `from_json` gives back the very same."""
        return {
            "bags": [{**asdict(field), "values": list(field.values)} for field in self.bags],
            "numbers": [asdict(field) for field in self.numbers],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FeatureEncoding":
        """The encoding of `to_json`; `ContractError` where it is none."""
        try:
            return cls(
                bags=tuple(
                    BagField(**{**bag, "values": tuple(bag["values"])}) for bag in value["bags"]
                ),
                numbers=tuple(NumberField(**number) for number in value["numbers"]),
            )
        except (KeyError, TypeError) as error:
            raise ContractError(
                f"feature encoding: not what to_json writes ({error!r}); make the model again "
                "with this version of twotempo"
            ) from error


@dataclass(frozen=True)
class EncodedCounts:
    """What has no number of its own.

    Of `ids`, `without_row` have no row in the table, whose `rows_unused` rows are of no id. Of the
    other rows, by field: `missing` ones; of bags values `unseen` by the fit and `cut` beyond the
    widest row, of numbers those `clipped`.
    """

    ids: int
    without_row: int
    rows_unused: int
    fields: dict[str, dict[str, int]]


@dataclass(frozen=True, eq=False)
class Encoded:
    """N rows of features; row 0 is PAD, all zeros, and means nothing."""

    codes: tuple[Int32, ...]  # (N + 1, L) for each bag field, padded with 0
    weights: tuple[Float32, ...]  # (N + 1, L) likewise
    numbers: Float32  # (N + 1, 2 F) for each number its value and whether it is there
    counts: EncodedCounts


def fit_encoding(
    table: pa.Table,
    kinds: Mapping[str, Kind],
    *,
    ids: pa.Array,
    most: int,
    words: int,
) -> FeatureEncoding:
    """What the rows of `ids` say of the fields in `kinds`; other rows change nothing.

    The first column of `table` holds its ids. At most `most` values of a categorical field, and
    `words` words of a text, have a code. Raises `ContractError` for a table without a column of
    `kinds`, or with one of another type.
    """
    known = pc.is_in(_keys(table, kinds), value_set=ids, skip_nulls=True)
    return fit_rows(table.filter(known), kinds, most=most, words=words)


def fit_rows(
    table: pa.Table,
    kinds: Mapping[str, Kind],
    *,
    most: int,
    words: int,
) -> FeatureEncoding:
    """What all rows say, whatever their order: of events, whose context has no ids of its own."""
    columns = _columns(table, kinds)
    bags: list[BagField] = []
    numbers: list[NumberField] = []
    for name in sorted(kinds):
        kind = kinds[name]
        if kind == "numeric" or kind == "timestamp":
            mean, deviation = mean_and_deviation(_numbers(columns[name]))
            numbers.append(NumberField(name, kind, mean, deviation))
        else:
            limit = words if kind == "text" else most
            bags.append(fit_bag(name, kind, columns[name], most=limit))
    return FeatureEncoding(tuple(bags), tuple(numbers))


def encode(encoding: FeatureEncoding, table: pa.Table, ids: pa.Array) -> Encoded:
    """The features of `ids` in their order: row k is that of ids[k - 1].

    The first column of `table` holds its ids. An id without a row is missing in every field.
    Raises `ContractError` for a table without a column of the encoding, or with one of another
    type, or with two rows of one id.
    """
    columns = _columns(table, encoding.kinds)
    row = pc.index_in(ids, value_set=_keys(table, encoding.kinds), skip_nulls=True)
    return _encoded(
        encoding,
        {name: column.take(row) for name, column in columns.items()},
        ids=len(ids),
        without_row=row.null_count,
        rows_unused=len(table) - len(pc.unique(row.drop_null())),
    )


def encode_rows(encoding: FeatureEncoding, table: pa.Table) -> Encoded:
    """The features of a table's rows in their order: row k is that of its row k - 1."""
    columns = _columns(table, encoding.kinds)
    return _encoded(encoding, columns, ids=len(table), without_row=0, rows_unused=0)


def _encoded(
    encoding: FeatureEncoding,
    columns: Mapping[str, pa.ChunkedArray],
    *,
    ids: int,
    without_row: int,
    rows_unused: int,
) -> Encoded:
    fields: dict[str, dict[str, int]] = {}
    bags = [encode_bag(field, columns[field.name]) for field in encoding.bags]
    for field, bag in zip(encoding.bags, bags, strict=True):
        missing = bag.missing - without_row
        fields[field.name] = {"missing": missing, "unseen": bag.unseen, "cut": bag.cut}
    numbers = np.zeros((ids + 1, encoding.n_numbers), dtype=np.float32)
    for place, number in enumerate(encoding.numbers):
        distance = _distance(number, _numbers(columns[number.name]))
        there, clipped = ~np.isnan(distance), np.abs(distance) > FARTHEST
        numbers[1:, 2 * place] = np.where(there, np.clip(distance, -FARTHEST, FARTHEST), 0.0)
        numbers[1:, 2 * place + 1] = there
        fields[number.name] = {
            "missing": int(np.count_nonzero(~there)) - without_row,
            "clipped": int(np.count_nonzero(clipped)),
        }
    return Encoded(
        codes=tuple(bag.codes for bag in bags),
        weights=tuple(bag.weights for bag in bags),
        numbers=numbers,
        counts=EncodedCounts(ids, without_row, rows_unused, fields),
    )


def _keys(table: pa.Table, kinds: Iterable[str]) -> pa.ChunkedArray:
    """The column of ids: the first one, texts, each of them once."""
    if not table.schema.names or not _is_key(table.schema[0], kinds):
        raise ContractError(
            f"features: columns {table.schema.names}, but the first one must hold the ids as "
            "texts and be no feature; run ingest again"
        )
    keys = table.column(0)
    different = len(pc.unique(keys.drop_null()))
    if different < len(keys):
        raise ContractError(
            f"features: {len(keys) - different} rows have no {table.schema.names[0]} or repeat "
            "one, one row for each is allowed; run ingest again"
        )
    return keys


def _is_key(field: pa.Field, kinds: Iterable[str]) -> bool:
    return field.type == pa.string() and field.name not in kinds


def _columns(table: pa.Table, kinds: Mapping[str, Kind]) -> dict[str, pa.ChunkedArray]:
    """The columns of the fields, each of the type of its kind, texts with wide offsets."""
    lacking = sorted(set(kinds) - set(table.schema.names))
    if lacking:
        raise ContractError(
            f"features: no columns {lacking} among {table.schema.names}, and these fields are "
            "read; restore them in the dataset card and its file, or train again without them"
        )
    columns = {}
    for name, kind in kinds.items():
        stored, wide = TYPES[kind]
        column = table.column(name)
        if column.type != stored:
            raise ContractError(
                f"features: column {name} is {column.type}, but {kind} is {stored}; "
                "restore its kind in the dataset card, or train again"
            )
        columns[name] = column.cast(wide)
    return columns


def _numbers(column: pa.ChunkedArray) -> Float64:
    """The numbers of a column, of timestamps seconds; NaN where there is none, or no finite one."""
    if pa.types.is_timestamp(column.type):
        micros = pc.cast(column.cast(pa.int64()), pa.float64(), safe=False)
        return np.asarray(micros.to_numpy()) / MICROSECONDS_PER_SECOND
    numbers = np.asarray(column.to_numpy())
    return np.where(np.isfinite(numbers), numbers, np.nan)


def mean_and_deviation(numbers: Float64) -> tuple[float, float]:
    """Mean and standard deviation of what is there; a constant, or nothing, deviates by 1.

    In ascending order, so that no other order of rows rounds otherwise.
    """
    there = np.sort(numbers[~np.isnan(numbers)])
    if len(there) == 0:
        return 0.0, 1.0
    if there[0] == there[-1]:
        return float(there[0]), 1.0
    # by a power of two, which rounds nothing: the squares of 1e200 are out of range
    power = int(np.frexp(np.abs(there[[0, -1]]).max())[1])
    near = np.ldexp(there, -power)
    mean, deviation = np.ldexp([near.mean(), near.std()], power)
    return float(mean), float(deviation) if deviation > 0 else 1.0


def _distance(field: NumberField, numbers: Float64) -> Float64:
    """How many standard deviations numbers lie from the mean."""
    with np.errstate(over="ignore"):  # infinitely far is far
        return np.asarray((numbers - field.mean) / field.deviation)
