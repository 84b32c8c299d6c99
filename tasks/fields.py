"""The fields of events and users that a network reads: from a workspace's tables, and as files."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_core.artifacts import read_json, write_json
from recsys_core.columns import SOURCE_ROW, USER_ID
from recsys_core.data.cuts import Cut, known_part
from recsys_core.data.events import Events
from recsys_core.data.features import TYPES
from recsys_core.data.fields import (
    EncodedFields,
    FieldEncoding,
    FieldKinds,
    FieldTables,
    encode_fields,
    fit_fields,
)
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import FIELDS, Features
from recsys_core.tables import USER_VOCABULARY, read_table
from tasks.field_kinds import field_kinds

logger = logging.getLogger(__name__)

_SOURCE_ROW = pa.field(SOURCE_ROW, pa.int64(), nullable=False)
_USER_ID = pa.field(USER_ID, pa.string())

ENCODING = "fields.json"


def known_fields(
    layout: Layout, reads: Sequence[str], features: Features, *, events: Events, cut: Cut
) -> EncodedFields | None:
    """The fields that `train_rnn.reads` names, of all events and users, by what is known of them at
    a cut; None where no field is read.

    Raises `ConfigError` where params name a column that the card lacks.
    """
    if not reads_fields(reads):
        return None
    card = read_json(layout.declared_features)
    kinds = field_kinds(
        reads,
        context=card["context"],
        user_features={name: one["kind"] for name, one in card["user_features"].items()},
    )
    tables = _tables(layout, kinds)
    limits = {"most": features.categories, "words": features.words}
    part, cut_of_part = known_part(events, cut)
    encoding = fit_fields(tables, kinds, events=part, cut=cut_of_part, **limits)
    return _encoded(encoding, tables, events)


def reads_fields(reads: Sequence[str]) -> bool:
    """Whether `train_rnn.reads` names any."""
    return any(read.partition(".")[0] in FIELDS for read in reads)


def with_fields(events: Events, fields: EncodedFields | None) -> Events:
    """The events with the rows of their fields, where any are read."""
    return events if fields is None else replace(events, field_rows=fields.rows)


def with_fields_of(layout: Layout, encoding: FieldEncoding | None, events: Events) -> Events:
    """The events with what the model of an encoding reads, of the workspace's tables as they are
    now."""
    if encoding is None:
        return events
    return with_fields(events, _encoded(encoding, _tables(layout, encoding.kinds), events))


def field_files(layout: Layout, kinds: FieldKinds) -> list[Path]:
    """The tables that hold these fields."""
    return [
        *([layout.valid_interactions] if kinds.context else []),
        *([layout.user_features] if kinds.users else []),
    ]


def write_fields(folder: Path, fields: EncodedFields | None) -> None:
    """Write how fields became numbers beside the model that reads them; where it reads none, none
    of an earlier run is left there."""
    if fields is None:
        (folder / ENCODING).unlink(missing_ok=True)
    else:
        write_json(folder / ENCODING, fields.encoding.to_json())


def read_fields(folder: Path) -> FieldEncoding | None:
    """The encoding of `write_fields` beside a model; None where it reads no fields."""
    path = folder / ENCODING
    return FieldEncoding.from_json(read_json(path)) if path.exists() else None


def fields_report(fields: EncodedFields | None) -> dict[str, Any]:
    """What a stage's report says of the fields that it read."""
    return {} if fields is None else {"fields": fields.counts}


def _tables(layout: Layout, kinds: FieldKinds) -> FieldTables:
    """The columns of these fields alone."""
    interactions = users = None
    if kinds.context:
        types = [pa.field(name, TYPES[kind][0]) for name, kind in kinds.context.items()]
        interactions = _table(layout.valid_interactions, pa.schema([_SOURCE_ROW, *types]))
    if kinds.users:
        types = [pa.field(name, TYPES[kind][0]) for name, kind in kinds.users.items()]
        users = _table(layout.user_features, pa.schema([_USER_ID, *types]))
    ids = Vocabulary.from_table(read_table(layout.user_vocabulary, USER_VOCABULARY)).ids
    return FieldTables(interactions, users, ids)


def _table(path: Path, schema: pa.Schema) -> pa.Table:
    """A table's key and fields."""
    fields = schema.names[1:]
    there = pq.read_schema(path).names if path.exists() else []
    lacking = sorted(name for name in fields if name not in there)
    if lacking:
        raise ContractError(
            f"{path}: the networks read {', '.join(lacking)}, but its columns are "
            f"{', '.join(there) or 'none'}; restore these in the dataset card and its file, or "
            "train again without them"
        )
    return read_table(path, schema, columns=schema.names)


def _encoded(encoding: FieldEncoding, tables: FieldTables, events: Events) -> EncodedFields:
    fields = encode_fields(encoding, tables, events=events)
    for of, found in fields.counts.items():
        logger.info(
            "event=fields of=%s rows=%d without_row=%d rows_unused=%d %s",
            of,
            found["ids"],
            found["without_row"],
            found["rows_unused"],
            " ".join(
                f"{field}.{what}={number}"
                for field, numbers in found["fields"].items()
                for what, number in numbers.items()
            ),
        )
    return fields
