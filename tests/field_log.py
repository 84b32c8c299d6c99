"""Logs whose next item is known to whoever reads a field, and to nobody else.

by user      who is of group g goes g * `JUMP` items on: two events each, so that a history does
             not tell the group
by context   an event on device d goes d * `JUMP` items on, and devices change at random
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.data.features import Kind
from recsys_core.data.fields import (
    EncodedFields,
    FieldKinds,
    FieldTables,
    encode_fields,
    fit_fields,
)
from recsys_core.training.log_until import LogUntil
from tests.serving_world import MINUTE, START

N_ITEMS, GROUPS, JUMP = 100, 3, 7
CUT = START + 8_000 * MINUTE

By = Literal["user", "context"]
KINDS: dict[By, FieldKinds] = {
    "user": FieldKinds(context={}, users={"group": "categorical", "age": "numeric"}),
    "context": FieldKinds(context={"device": "categorical", "dwell": "numeric"}, users={}),
}


def field_events(by: By, *, seed: int = 1) -> tuple[Events, FieldTables]:
    """Thousands of events, and the tables of both fields; the rows of the log are not in order."""
    rng = np.random.default_rng(seed)
    users, length = (6_000, 2) if by == "user" else (1_200, 10)
    group, device = rng.integers(0, GROUPS, users), rng.integers(0, GROUPS, (users, length))
    steps = device if by == "context" else np.repeat(group[:, None], length, axis=1)
    items = np.zeros((users, length), dtype=np.int64)
    items[:, 0] = rng.integers(0, N_ITEMS, users)
    for step in range(1, length):
        items[:, step] = (items[:, step - 1] + JUMP * steps[:, step - 1] + 1) % N_ITEMS
    times = START + MINUTE * np.sort(rng.integers(0, 10_000, (users, length)), axis=1)
    n = users * length
    rows = rng.permutation(n)
    events = Events(
        offsets=np.concatenate([[0], length * np.arange(users + 1)]),
        item_idx=(items + 1).ravel().astype(np.int32),
        timestamp=times.ravel().astype(np.int64),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=rows,
    )
    by_row = np.argsort(rows)
    interactions = pa.table(
        {
            "source_row": np.arange(n),
            "device": [f"device {one}" for one in device.ravel()[by_row]],
            "dwell": rng.normal(size=n),
        }
    )
    ids = [f"u{user}" for user in range(users)]
    described = pa.table(
        {"user_id": ids, "group": [f"group {one}" for one in group], "age": rng.normal(size=users)}
    )
    return events, FieldTables(interactions, described, pa.array(ids))


def cut_of(events: Events, time: int = CUT) -> Cut:
    return Cut.at(events, time, n_items=N_ITEMS)


def encoded(events: Events, tables: FieldTables, kinds: FieldKinds) -> EncodedFields:
    """What is known at the cut, of all of the log."""
    encoding = fit_fields(tables, kinds, events=events, cut=cut_of(events), most=100, words=100)
    return encode_fields(encoding, tables, events=events)


def reading(events: Events, tables: FieldTables, kinds: FieldKinds) -> LogUntil:
    """The log up to the cut, with these fields."""
    rows = encoded(events, tables, kinds).rows
    return LogUntil(replace(events, field_rows=rows), cut_of(events))


def kinds_of(**of: dict[str, Kind]) -> FieldKinds:
    """Kinds of `context`, `users` or both."""
    return FieldKinds(context=of.get("context", {}), users=of.get("users", {}))
