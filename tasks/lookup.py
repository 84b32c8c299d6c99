"""Looks up one user in a workspace: what they did, and what the table recommends to them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_core.artifacts import read_json
from recsys_core.columns import ITEM_ID
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import DataError, PublishError
from recsys_core.layout import Layout
from recsys_core.serving.shards import RESERVED
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, read_events, read_table
from tasks.clock import TimeKind

TITLE = "title"
ENOUGH_EVENTS = 5
OF_NOBODY = f"starts_with(user_id, '{RESERVED}')"
"""Of the rows of the table: those of cold lists, which are no user's."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PastEvent:
    """One event of a user's history; `title` is the item's id where the log has no texts of items.

    `time` is as `time_text` writes it.
    """

    time: str
    event_type: str
    title: str


@dataclass(frozen=True)
class Recommended:
    """One row of the published table; `title` is the item's id where the log has no texts."""

    rank: int
    title: str
    score: float


@dataclass(frozen=True)
class PublishedTable:
    """What the current run of the table holds."""

    path: Path
    rows: int
    users: int
    model_version: str
    as_of: str


def published_table(layout: Layout) -> PublishedTable:
    """The size and model of the current recommendations, and the latest event known to them."""
    rows = _query(
        layout,
        f"SELECT count(*), count(DISTINCT user_id) FILTER (WHERE NOT {OF_NOBODY}), "
        "any_value(model_version), epoch_us(any_value(as_of)) FROM recommendations",
    )
    count, users, model_version, as_of = rows[0]
    if count == 0:
        raise PublishError(f"{layout.table} has no current recommendations; run `twotempo score`")
    return PublishedTable(
        path=layout.table,
        rows=count,
        users=users,
        model_version=model_version,
        as_of=time_text(_time_kind(layout), as_of),
    )


def read_recommendations(layout: Layout, user_id: str) -> list[Recommended]:
    """A user's current recommendations, best first; `DataError` where the table has none."""
    rows = _query(
        layout,
        "SELECT rank, item_id, score FROM recommendations WHERE user_id = ? ORDER BY rank",
        user_id,
    )
    if not rows:
        of_users = f"FROM recommendations WHERE NOT {OF_NOBODY}"
        (users,) = _query(layout, f"SELECT count(DISTINCT user_id) {of_users}")[0]
        examples = _query(layout, f"SELECT DISTINCT user_id {of_users} ORDER BY user_id LIMIT 3")
        names = ", ".join(repr(name) for (name,) in examples)
        raise DataError(
            f"user {user_id!r} is not among the {users} users of {layout.table}; "
            f"users there are {names}, …"
        )
    titles = _titles(layout, [item_id for _, item_id, _ in rows])
    return [
        Recommended(rank=rank, title=titles[item_id], score=score) for rank, item_id, score in rows
    ]


def read_history(layout: Layout, user_id: str, *, last: int) -> list[PastEvent]:
    """A user's last `last` events, oldest first; none for a user that the log does not have."""
    user_idx = _vocabulary(layout.user_vocabulary).to_idx(user_id)
    if user_idx is None:
        return []
    events = read_events(layout.events)
    end = int(events.offsets[user_idx + 1])
    start = max(int(events.offsets[user_idx]), end - last)
    types, kind = _event_types(layout), _time_kind(layout)
    item_ids = _vocabulary(layout.item_vocabulary, items=True).to_ids(events.item_idx[start:end])
    names: list[str] = item_ids.to_pylist()
    titles = _titles(layout, names)
    return [
        PastEvent(
            time=time_text(kind, int(timestamp)),
            event_type=types[int(event_type)],
            title=titles[name],
        )
        for timestamp, event_type, name in zip(
            events.timestamp[start:end], events.event_type[start:end], names, strict=True
        )
    ]


def time_text(kind: TimeKind, microseconds: int) -> str:
    """A time of the log for a person to read: a date only where the log has dates.

    >>> time_text("absolute", 1_508_198_399_000_000)
    '2017-10-16 23:59 UTC'
    >>> time_text("relative", 2_592_000_000_000)
    '2,592,000 s from the start'
    >>> time_text("rank", 2037)
    'rank 2,037'
    """
    if kind == "rank":
        return f"rank {microseconds:,}"
    if kind == "relative":
        return f"{microseconds / 1e6:,.0f} s from the start"
    return f"{EPOCH + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M} UTC"


def example_user(layout: Layout) -> str:
    """The published user with the latest event among those with a few of them.

    Where the log has no published user any more, it is the first one published.
    """
    of_users = f"FROM recommendations WHERE NOT {OF_NOBODY}"
    published = [user for (user,) in _query(layout, f"SELECT DISTINCT user_id {of_users}")]
    if not published:
        raise PublishError(f"{layout.table} has no current recommendations; run `twotempo score`")
    events = read_events(layout.events)
    vocabulary = _vocabulary(layout.user_vocabulary)
    is_published = pc.is_in(vocabulary.ids, pa.array(published, pa.string())).to_numpy(
        zero_copy_only=False
    )
    user_idx = np.flatnonzero(is_published) + 1
    counts = np.diff(events.offsets)[user_idx]
    if counts.max(initial=0) == 0:
        return str(min(published))
    enough = user_idx[counts >= min(ENOUGH_EVENTS, int(counts.max()))]
    latest = enough[np.argmax(events.timestamp[events.offsets[enough + 1] - 1])]
    identifier: str = vocabulary.to_ids(np.array([latest]))[0].as_py()
    return identifier


def _vocabulary(path: Path, *, items: bool = False) -> Vocabulary:
    return Vocabulary.from_table(read_table(path, ITEM_VOCABULARY if items else USER_VOCABULARY))


def _event_types(layout: Layout) -> list[str]:
    declared = read_json(layout.resolved_card).get("event_types")
    return list(declared) if declared else ["interaction"]


def _time_kind(layout: Layout) -> TimeKind:
    kind: TimeKind = read_json(layout.resolved_card)["time"]["kind"]
    return kind


def _titles(layout: Layout, item_ids: list[str]) -> dict[str, str]:
    """The title of each item, or its id where there is none."""
    titles = {item_id: item_id for item_id in item_ids}
    column = _title_column(layout)
    if column is not None:
        table = pq.read_table(layout.item_features, columns=[ITEM_ID, column])
        known = table.filter(pc.is_in(table.column(ITEM_ID), pa.array(sorted(titles), pa.string())))
        for row in known.to_pylist():
            titles[row[ITEM_ID]] = row[column] or row[ITEM_ID]
    return titles


def _title_column(layout: Layout) -> str | None:
    """The feature that names an item: `title`, or else the first text by name."""
    if not layout.item_features.exists():
        return None
    features = read_json(layout.resolved_card)["item_features"]
    texts = [name for name in sorted(features) if features[name]["kind"] == "text"]
    return TITLE if TITLE in texts else next(iter(texts), None)


def _query(layout: Layout, sql: str, *values: str) -> list[tuple[Any, ...]]:
    # DuckDB is loaded when the table is read: a flow imports this module long before
    from recsys_core.serving.tables import open_table

    with open_table(layout.table, read_only=True) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(sql, list(values)).fetchall()
        return rows
