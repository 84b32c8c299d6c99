"""What checking a card and its log has seen, as lines for a person."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from recsys_core.columns import ITEM_ID, USER_ID
from recsys_core.config import Params
from recsys_core.data.cards import DatasetCard
from recsys_core.data.cuts import events_per_part
from recsys_core.data.duck import open_duckdb
from recsys_core.data.events import Events
from recsys_core.data.log_facts import DAY_MICROSECONDS, described_share
from recsys_core.data.splits import make_split
from recsys_core.data.suggestions import suggest_split
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import DaysSplit, EventsSplit, QuantileSplit, SplitParams
from tasks.sample import MEMORY_MB, Sample

FEW_FOR_A_PART = 200
"""Events of validation or test below which a remark is made: intervals would be wide."""


@dataclass
class Report:
    """What was seen, in the order in which it was looked at; `problems` would stop a run."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def see(self, what: str, found: str) -> None:
        self.seen.append((what, found))


def see_features(report: Report, layout: Layout, card: DatasetCard) -> None:
    for of, path, key, limit in (
        ("items", layout.item_features, ITEM_ID, card.expected.items_described),
        ("users", layout.user_features, USER_ID, card.expected.users_described),
    ):
        if not path.exists():
            continue
        with open_duckdb(layout.root, memory_mb=MEMORY_MB) as connection:
            share = described_share(connection, layout.interactions, features=path, key=key)
        rows = pq.read_metadata(path).num_rows
        report.see(f"{of} described", f"{share:.2%} of the rows are of one of {rows:,} {of}")
        if share < 0.5 and limit is None:
            report.remarks.append(
                f"only {share:.1%} of the rows are of {of} with features; "
                f"are the ids of the table of {of} written as in the log?"
            )


def see_quarantine(report: Report, found: dict[str, Any]) -> None:
    bad, rows = found["quarantined"], found["rows_in"]
    report.see("quarantine", f"{bad:,} rows ({bad / rows:.2%}) break a rule")
    for rule, finding in found["row_rules"].items():
        if finding["rows"]:
            shown = "; ".join(
                f"row {example['source_row']}"
                + (f" has {example['value']!r}" if example["value"] is not None else "")
                for example in finding["examples"]
            )
            report.see(
                f"  {rule}", f"{finding['rows']:,} row{'s' * (finding['rows'] != 1)}: {shown}"
            )


def see_sessions(report: Report, found: dict[str, Any]) -> None:
    report.see(
        "events",
        f"{found['events']:,} of {found['users']:,} users and {found['items']:,} items "
        f"({found['dropped_types']:,} rows of types that are not kept, "
        f"{found['cut']:,} after the cut-off)",
    )
    report.see(
        "sessions",
        f"{found['sessions']:,}: {found['events'] / found['sessions']:.1f} events each, "
        f"{found['sessions'] / found['users']:.1f} for a user",
    )


def see_events(
    report: Report, events: Events, card: DatasetCard, params: Params, sample: Sample
) -> None:
    counts = np.diff(events.offsets)
    counts = counts[counts > 0]
    single = float(np.mean(counts == 1))
    report.see(
        "events of a user",
        f"median {np.median(counts):g}, at most {counts.max():,}; "
        f"{single:.0%} of the users have one",
    )
    if single > 0.9:
        report.remarks.append(
            "nine in ten users have one event: little can be learnt from what came before it"
        )
    timestamp = np.asarray(events.timestamp)
    if card.time.kind != "rank":
        report.see("time", _span(int(timestamp.min()), int(timestamp.max()), card))
    _split(report, events, card, params.split, sample)


def _span(first: int, last: int, card: DatasetCard) -> str:
    days = (last - first) / DAY_MICROSECONDS
    if card.time.kind == "relative":
        return f"{days:.1f} days from the log's start"
    begin, end = (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).strftime(
            "%Y-%m-%d %H:%M"
        )
        for moment in (first, last)
    )
    return f"{begin} to {end}, {days:.1f} days"


def _split(
    report: Report, events: Events, card: DatasetCard, params: SplitParams, sample: Sample
) -> None:
    cut_off = card.cut_off_microseconds
    better = suggest_split(events, params, cut_off=cut_off, least=FEW_FOR_A_PART)
    option = f"-S '{split_option(better)}'"
    try:
        parts = events_per_part(events, make_split(events, params, cut_off=cut_off))
    except DataError:
        # the problem stands there already, with what sessionize said
        report.remarks.append(f"a split that this log allows: {option}")
        return
    train, valid, test = parts["train"], parts["validation"], parts["test"]
    report.see(
        f"split {split_text(params)}",
        f"train {train:,}, validation {valid:,}, test {test:,} events",
    )
    if better != params and sample.whole:
        report.remarks.append(
            f"the split leaves {valid:,} events for validation and {test:,} for test; "
            f"consider {option}"
        )


def split_text(params: SplitParams) -> str:
    """A split in words.

    >>> split_text(DaysSplit(kind="days", days=1.0))
    'by days, 1'
    """
    if isinstance(params, DaysSplit):
        return f"by days, {params.days:g}"
    if isinstance(params, QuantileSplit):
        return f"by quantile, {params.share:g}"
    if isinstance(params, EventsSplit):
        return "by events, " + ", ".join(f"{share:g}" for share in params.shares)
    return "leave one out"


def split_option(params: SplitParams) -> str:
    """A split as the value of `-S`.

    >>> split_option(DaysSplit(kind="days", days=1.0))
    'split={kind: days, days: 1}'
    """
    if isinstance(params, DaysSplit):
        return f"split={{kind: days, days: {params.days:g}}}"
    if isinstance(params, QuantileSplit):
        return f"split={{kind: quantile, share: {params.share:g}}}"
    if isinstance(params, EventsSplit):
        return f"split={{kind: events, shares: {list(params.shares)}}}"
    return "split={kind: leave_one_out}"
