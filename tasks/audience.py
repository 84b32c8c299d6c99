"""Who gets which rows of a scoring run, before anything is scored: people, filters, cold lists."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.artifacts import read_json
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ModelError
from recsys_core.layout import Layout
from recsys_core.models.requests import known_events
from recsys_core.sections import Score
from recsys_core.serving.bundle import Bundle
from recsys_core.serving.cold import ColdShares, cold_lists
from recsys_core.serving.engine import ScoringEngine, TopItems, no_pairs, nothing, seen_pairs
from recsys_core.serving.filters import Eligible, listed
from recsys_core.serving.shortfall import Shortfall, expected_shortfall
from tasks.eligible import Tonight, eligible_tonight, seen_types
from tasks.recipients import Recipients, active_users, recipients
from tasks.segments import UserTable, of_vocabulary, read_users

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Audience:
    """Everybody who gets rows, what they have had, and what they may get."""

    as_of: int
    k: int
    known: Events
    """The events of items that the model knows."""
    seen_filter: bool
    seen_types: tuple[int, ...] | None
    recipients: Recipients
    eligible: Eligible
    cold: TopItems
    """A row for each of the recipients' lists."""
    report: dict[str, Any]

    def scored(self, engine: ScoringEngine, rows: slice) -> TopItems:
        """What some recipients (N,) get: by the model, or of a cold list. (N, k)

        Raises `ModelError` where an item that may be recommended has no score.
        """
        user_idx, cold_list = self.recipients.user_idx[rows], self.recipients.cold_list[rows]
        by_model = user_idx > 0
        top = engine.top_items(
            self.known,
            user_idx[by_model],
            k=self.k,
            seen_filter=self.seen_filter,
            as_of=self.as_of,
            seen_types=self.seen_types,
            eligible=self.eligible,
        )
        whole = TopItems(
            *(
                _merged(by_model, ours, theirs[cold_list[~by_model]])
                for ours, theirs in (
                    (top.items, self.cold.items),
                    (top.scores, self.cold.scores),
                    (top.ratings, self.cold.ratings),
                )
            )
        )
        missing = int(np.count_nonzero(np.isneginf(whole.scores)))
        if missing != self.shortfall(rows).total:
            raise ModelError(
                f"{missing} recommendations of {len(user_idx)} users are missing, but only "
                f"{self.shortfall(rows).total} have nothing left to recommend: the model gives "
                "items no score; roll back to an earlier version, or train it again"
            )
        return whole

    def shortfall(self, rows: slice) -> Shortfall:
        """The rows that some recipients cannot have, by what costs them."""
        user_idx, cold_list = self.recipients.user_idx[rows], self.recipients.cold_list[rows]
        by_model = user_idx > 0
        group = np.zeros(len(user_idx), dtype=np.int64)
        group[by_model] = self.eligible.group[user_idx[by_model]]
        of_lists = np.array([of for _, of in self.recipients.lists], dtype=np.int64)
        group[~by_model] = of_lists[cold_list[~by_model]]
        pairs = no_pairs()
        if self.seen_filter:  # user_idx 0 has no events
            pairs = seen_pairs(self.known, user_idx, self.seen_types)
        return expected_shortfall(
            self.eligible, group=group, rows=pairs["seen_rows"], items=pairs["seen_items"], k=self.k
        )

    def digest(self) -> str:
        """A SHA-256 of all this but the events and their users, which have one of their own."""
        found = hashlib.sha256(repr((self.seen_filter, self.seen_types)).encode())
        of_lists = self.recipients.user_idx == 0
        group = self.eligible.group[self.recipients.user_idx]
        for array in (
            np.packbits(self.eligible.items, axis=1),
            np.where(of_lists, 0, group),
            self.recipients.user_idx,
            self.recipients.cold_list,
            self.cold.items,
            self.cold.scores,
        ):
            found.update(repr((array.shape, array.dtype.str)).encode())
            found.update(np.ascontiguousarray(array).tobytes())
        for name in self.recipients.ids.filter(pa.array(of_lists)).to_pylist():
            found.update(hashlib.sha256(name.encode()).digest())
        return found.hexdigest()


def audience_of(
    layout: Layout,
    score: Score,
    bundle: Bundle,
    *,
    log: Events,
    events: Events,
    users: Vocabulary,
    item_ids: pa.StringArray,
) -> Audience:
    """Everybody who gets rows tonight.

    `log` are the events as they lie there, with the items `item_ids`; `events` the same with items
    numbered as in the bundle.
    """
    as_of = Split(**read_json(layout.split)).as_of
    known = known_events(events, bundle.n_items)
    active, inactive = active_users(log, as_of=as_of, within_days=score.active_within)
    table = read_users(layout, score)
    tonight = eligible_tonight(
        layout, score, items=bundle.items.ids, as_of=as_of, users=table, user_ids=users.ids
    )
    people = recipients(
        log,
        users,
        active=active,
        cold=score.cold,
        users=table,
        group_of_row=tonight.group_of_row,
        group_of_value=tonight.group_of_value if _same_column(score) else {},
    )
    return Audience(
        as_of=as_of,
        k=score.k,
        known=known,
        seen_filter=score.seen != "none",
        seen_types=seen_types(layout, score),
        recipients=people,
        eligible=tonight.eligible,
        cold=_cold(score, bundle, people, known, users, table, tonight, as_of=as_of),
        report={
            "users": {
                **people.counts,
                "inactive_left_out": inactive,
                "new_to_the_model": len(users) - users.known_before(bundle.as_of + 1),
                "without_known_events": int(np.count_nonzero(np.diff(known.offsets)[active] == 0)),
            },
            "items": {
                "of_the_model": bundle.n_items,
                "unknown_to_the_model": listed(bundle.items.ids, item_ids)[1],
                "events_left_out": len(log) - len(known),
            },
            **tonight.report,
        },
    )


def _cold(
    score: Score,
    bundle: Bundle,
    people: Recipients,
    known: Events,
    users: Vocabulary,
    table: UserTable,
    tonight: Tonight,
    *,
    as_of: int,
) -> TopItems:
    """A row for each cold list; none where there are no such lists."""
    if score.cold is None:
        return nothing(0, k=score.k)
    segment = np.full(len(users) + 1, -1, dtype=np.int64)
    if score.cold.segment is not None:
        codes = table.codes(score.cold.segment, table.values(score.cold.segment))
        segment = of_vocabulary(table, codes, users.ids)
    shares = ColdShares(
        known,
        segment,
        n_items=bundle.n_items,
        as_of=as_of,
        hours=bundle.popularity_hours if score.cold.hours is None else score.cold.hours,
    )
    return cold_lists(shares, people.lists, items=tonight.eligible.items, k=score.k)


def _same_column(score: Score) -> bool:
    """Whether the values of the cold lists are those that the filters tell apart."""
    segments, cold = score.filters.segments, score.cold
    return segments is not None and cold is not None and segments.by == cold.segment


def _merged(first: Bool, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of two tables in one: ours where `first` (N,) says so. (N, k)"""
    whole = np.empty((len(first), ours.shape[1]), dtype=ours.dtype)
    whole[first], whole[~first] = ours, theirs
    return whole
