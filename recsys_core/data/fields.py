"""Context of events and features of users: learned at a cut, encoded alike whenever they are read.

What is learned is which values have a code, and the place and spread of numbers
(`data/features.py`): of the context from the events before the cut, of users from those who have
one. The same encoding then reads the tables of any later night. A value that it does not know is
"unknown", and counted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.columns import SOURCE_ROW
from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.data.feature_bags import WIDEST
from recsys_core.data.features import (
    Encoded,
    EncodedCounts,
    FeatureEncoding,
    Kind,
    encode,
    encode_rows,
    fit_encoding,
    fit_rows,
)
from recsys_core.data.field_rows import FieldRows, FieldSizes, FieldTable
from recsys_core.errors import ContractError

Int64 = npt.NDArray[np.int64]

NOTHING = FeatureEncoding((), ())


@dataclass(frozen=True)
class FieldKinds:
    """The columns that are read, by name: of the log, and of the table of users."""

    context: Mapping[str, Kind]
    users: Mapping[str, Kind]


@dataclass(frozen=True)
class FieldEncoding:
    """How both become numbers: what lies beside a model, and in a bundle."""

    context: FeatureEncoding
    users: FeatureEncoding

    def to_json(self) -> dict[str, Any]:
        """The encoding as JSON; `from_json` gives back the very same."""
        return {"context": self.context.to_json(), "users": self.users.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FieldEncoding":
        """The encoding of `to_json`."""
        return cls(
            FeatureEncoding.from_json(value["context"]), FeatureEncoding.from_json(value["users"])
        )

    @property
    def kinds(self) -> FieldKinds:
        """The columns that are read."""
        return FieldKinds(self.context.kinds, self.users.kinds)

    @property
    def sizes(self) -> tuple[FieldSizes, FieldSizes]:
        """Those of an event's row, and of a user's."""
        return sizes_of(self.context), sizes_of(self.users)


@dataclass(frozen=True, eq=False)
class FieldTables:
    """What is encoded; None where nothing of it is read.

    `interactions` have a `source_row`, in ascending order; the first column of `users` holds their
    ids, and `user_ids` are those of user_idx 1 and on.
    """

    interactions: pa.Table | None
    users: pa.Table | None
    user_ids: pa.Array


@dataclass(frozen=True, eq=False)
class EncodedFields:
    """The rows of a log by one encoding, and what had no number of its own."""

    encoding: FieldEncoding
    rows: FieldRows
    context: EncodedCounts
    users: EncodedCounts

    @property
    def counts(self) -> dict[str, Any]:
        """What is counted of what is read, as JSON."""
        kinds = self.encoding.kinds
        read = {"context": (kinds.context, self.context), "users": (kinds.users, self.users)}
        return {name: asdict(counts) for name, (of, counts) in read.items() if of}


def fit_fields(
    tables: FieldTables, kinds: FieldKinds, *, events: Events, cut: Cut, most: int, words: int
) -> FieldEncoding:
    """What is known of the fields at a cut: later events, and who comes with them, change nothing.

    `most` and `words` are the most values of a field, words of a text, that have a code.
    """
    context = users = NOTHING
    if kinds.context:
        known, _ = _context_of(tables, events.source_row[cut.known(events)])
        context = fit_rows(known, kinds.context, most=most, words=words)
    if kinds.users:
        assert tables.users is not None, "users are read"
        there = np.flatnonzero(cut.counts[1 : len(tables.user_ids) + 1])
        ids = tables.user_ids.take(pa.array(there))
        users = fit_encoding(tables.users, kinds.users, ids=ids, most=most, words=words)
    return FieldEncoding(context, users)


def encode_fields(encoding: FieldEncoding, tables: FieldTables, *, events: Events) -> EncodedFields:
    """The fields of all events and users of a log.

    Raises `ContractError` where an event has no row of the log, or a column of the encoding is
    missing or of another type.
    """
    users, context = _nothing(len(tables.user_ids)), _nothing(0)
    context_row = np.zeros(len(events), dtype=np.int64)
    if encoding.kinds.context:
        table, context_row = _context_of(tables, events.source_row)
        context = encode_rows(encoding.context, table)
    if encoding.kinds.users:
        assert tables.users is not None, "users are read"
        users = encode(encoding.users, tables.users, tables.user_ids)
    of_events, of_users = encoding.sizes
    rows = FieldRows(_table(context, of_events), context_row, _table(users, of_users))
    return EncodedFields(encoding, rows, context.counts, users.counts)


def sizes_of(encoding: FeatureEncoding) -> FieldSizes:
    """The shape of a row by an encoding."""
    return FieldSizes(
        n_codes=encoding.n_codes,
        widths=tuple(1 if bag.kind == "categorical" else WIDEST for bag in encoding.bags),
        tells_unknown=tuple(bag.kind != "text" for bag in encoding.bags),
        n_numbers=encoding.n_numbers,
    )


def _context_of(tables: FieldTables, source_row: Int64) -> tuple[pa.Table, Int64]:
    """The rows of the log that some events (N,) are of, and which of these each is, from 1. (N,)"""
    assert tables.interactions is not None, "the context is read"
    there = tables.interactions[SOURCE_ROW].to_numpy()
    place = np.searchsorted(there, source_row)
    strange = np.count_nonzero(~np.isin(source_row, there))
    if strange:
        raise ContractError(
            f"{strange} of {len(source_row)} events are of no valid interaction; run sessionize "
            "again"
        )
    of_events = np.zeros(len(there), dtype=bool)
    of_events[place] = True
    # a filter, unlike `take`, leaves texts in their chunks: more than 2 GiB of them fit in no one
    table = tables.interactions.filter(pa.array(of_events))
    return table, np.cumsum(of_events, dtype=np.int64)[place]


def _nothing(rows: int) -> Encoded:
    """So many rows of no field."""
    counts = EncodedCounts(rows, without_row=0, rows_unused=0, fields={})
    return Encoded((), (), np.zeros((rows + 1, 0), dtype=np.float32), counts)


def _table(encoded: Encoded, sizes: FieldSizes) -> FieldTable:
    return FieldTable(sizes, encoded.codes, encoded.weights, encoded.numbers)
