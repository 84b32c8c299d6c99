"""What may be recommended to whom: the filters of params over the tables of the workspace."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_core.artifacts import read_json
from recsys_core.columns import ITEM_ID
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.sections import Score
from recsys_core.sections_of_scoring import Available, Candidates
from recsys_core.serving.filters import (
    Eligible,
    Filter,
    available_at,
    filter_counts,
    kept_by_all,
    listed,
    rows_of,
)
from recsys_core.serving.rules import apply_rules
from recsys_core.tables import UTC_MICROSECONDS, read_table
from tasks.id_lists import read_ids
from tasks.segments import UserTable, of_vocabulary

logger = logging.getLogger(__name__)

Int64 = npt.NDArray[np.int64]

ITEM_TABLE = pa.schema([pa.field(ITEM_ID, pa.string())])
"""What every table of item features begins with; scoring needs no torch, and so not its twin."""


@dataclass(frozen=True, eq=False)
class Tonight:
    """What may be recommended, and what is to be said of it."""

    eligible: Eligible
    group_of_row: Int64
    """The group of each row of the table of users. (R,)"""
    group_of_value: dict[str, int]
    """The group of each value that has candidates of its own; of all others it is 0."""
    report: dict[str, Any]


def eligible_tonight(
    layout: Layout,
    score: Score,
    *,
    items: pa.StringArray,
    as_of: int,
    users: UserTable,
    user_ids: pa.StringArray,
) -> Tonight:
    """The filters of `score` at `as_of` for the items that the model knows and all users.

    Group 0 is that of the default, or of everybody. Raises `ConfigError` where params name what is
    not there, or leave nothing to recommend to anybody.
    """
    filters, segments = score.filters, score.filters.segments
    source = _Source(layout, items)
    common = source.filters(Candidates(filters.rules, filters.allow, filters.deny))
    if filters.available is not None:
        common.append(source.within(filters.available, as_of))
    names = [] if segments is None else sorted(segments.sets)
    own = [source.filters(Candidates() if segments is None else segments.default)]
    own += [source.filters(segments.sets[name]) for name in names] if segments else []
    rows = np.stack([kept_by_all([*common, *one], n_items=len(items)) for one in own])
    codes = (
        np.full(users.table.num_rows, -1, dtype=np.int64)
        if segments is None
        else users.codes(segments.by, names)
    )
    group_of_row = codes + 1  # whoever has no value of a set has the default
    eligible = Eligible(rows, of_vocabulary(users, codes, user_ids) + 1)
    if not eligible.items.any():
        raise ConfigError(
            f"score.filters leave none of {len(items)} items to recommend "
            f"({_said(filter_counts(common))}); correct the filters, or the table of items"
        )
    described = [
        {
            "eligible": int(count),
            "users": int(np.count_nonzero(eligible.group[1:] == group)),
            "filters": filter_counts(one),
        }
        for group, (one, count) in enumerate(zip(own, eligible.counts, strict=True))
    ]
    report = {
        "filters": filter_counts(common),
        **source.counts,
        "candidates": {
            "default": described[0],
            "sets": dict(zip(names, described[1:], strict=True)),
        },
    }
    for of, found in zip(("default", *map(repr, names)), described, strict=True):
        logger.info("event=eligible of=%s items=%d users=%d", of, found["eligible"], found["users"])
    for of, filters_of in zip(("all", "default", *map(repr, names)), (common, *own), strict=True):
        for one, counts in filter_counts(filters_of).items():
            logger.info("event=filter of=%s filter=%r %s", of, one, _said_of(counts))
    group_of_value = {name: group for group, name in enumerate(names, start=1)}
    return Tonight(eligible, group_of_row, group_of_value, report)


def seen_types(layout: Layout, score: Score) -> tuple[int, ...] | None:
    """The codes of the event types whose items are left out; None: of any type."""
    if isinstance(score.seen, str):
        return None
    names = read_json(layout.event_types)["names"]
    check_types(score, names)
    return tuple(names.index(name) for name in score.seen)


def check_types(score: Score, names: Sequence[str]) -> None:
    """Raise `ConfigError` where `seen` names an event type that is none of the log's."""
    strange = [] if isinstance(score.seen, str) else sorted(set(score.seen) - set(names))
    if strange:
        raise ConfigError(
            f"score.seen names {', '.join(strange)}, but the log keeps the event types "
            f"{', '.join(names)}; name some of these, all or none"
        )


def check_times(available: Available, times: Sequence[str]) -> None:
    """Raise `ConfigError` where `available` names a column that is none of the timestamps."""
    for key, column in (("since", available.since), ("until", available.until)):
        if column is not None and column not in times:
            raise ConfigError(
                f"score.filters.available.{key} is {column!r}, but the table of items has the "
                f"timestamps {', '.join(times) or 'none'}; name one of them, or declare it as "
                "`timestamp` among item_features of the dataset card"
            )


class _Source:
    """The table of items in the order of the model's, read when a filter first asks for it."""

    def __init__(self, layout: Layout, items: pa.StringArray) -> None:
        self._layout = layout
        self._items = items
        self._table: pa.Table | None = None
        self.counts: dict[str, int] = {}
        """What is to be said of the table, where a filter has read it."""

    @property
    def table(self) -> pa.Table:
        if self._table is None:
            path = self._layout.item_features
            if path.exists():
                schema = pa.schema([*ITEM_TABLE, *list(pq.read_schema(path))[1:]])
                table = read_table(path, schema)
            else:
                table = ITEM_TABLE.empty_table()
            self._table, without_row = rows_of(self._items, table)
            self.counts["items_without_row"] = without_row
        return self._table

    def filters(self, candidates: Candidates) -> list[Filter]:
        """The lists, then the rules."""
        found = []
        if candidates.allow:
            read = [self._listed(name) for name in candidates.allow]
            keeps = np.logical_or.reduce([keeps for keeps, _ in read])
            counts = {what: sum(one[what] for _, one in read) for what in read[0][1]}
            found.append(Filter(f"allow {', '.join(candidates.allow)}", keeps, counts))
        for name in candidates.deny:
            keeps, counts = self._listed(name)
            found.append(Filter(f"deny {name}", ~keeps, counts))
        ruled = apply_rules(candidates.rules, self.table) if candidates.rules else []
        for rule, one in zip(candidates.rules, ruled, strict=True):
            found.append(Filter(f"rule {rule}", one.keeps, {"null": one.null}))
        return found

    def within(self, available: Available, as_of: int) -> Filter:
        """The items that are within their time."""
        check_times(
            available, [one.name for one in self.table.schema if one.type == UTC_MICROSECONDS]
        )
        keeps, unbounded = available_at(
            as_of,
            since=None if available.since is None else self.table.column(available.since),
            until=None if available.until is None else self.table.column(available.until),
        )
        return Filter("available", keeps, {"unbounded": unbounded})

    def _listed(self, name: str) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
        ids, without = read_ids(self._layout.root, name)
        keeps, unknown = listed(self._items, ids)
        return keeps, {"ids": len(ids), "unknown": unknown, "without_id": without}


def _said(filters: dict[str, dict[str, int]]) -> str:
    parts = [f"{name}: {counts['left_out']} left out" for name, counts in filters.items()]
    return "; ".join(parts) or "each segment leaves out all"


def _said_of(counts: dict[str, int]) -> str:
    return " ".join(f"{what}={number}" for what, number in counts.items())
