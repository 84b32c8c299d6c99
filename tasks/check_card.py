"""Looks at a dataset card and the first rows of its log as a run would, in seconds.

The rows go through ingest, validate and sessionize themselves, in a temporary workspace: a problem
here is what would stop a run, a remark is what a person may want to know before it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from recsys_core.artifacts import read_json
from recsys_core.columns import ITEM_ID, USER_ID
from recsys_core.config import Params
from recsys_core.data.card_parts import FilesSource, PostgresSource, Snapshot
from recsys_core.data.cards import DatasetCard, read_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.events import Events
from recsys_core.data.log_facts import DAY_MICROSECONDS, described_share
from recsys_core.data.sources import open_file
from recsys_core.data.splits import split_by_time
from recsys_core.data.suggestions import suggest_split
from recsys_core.errors import ConfigError, DataError, TwotempoError
from recsys_core.layout import Layout
from recsys_core.sections import DaysSplit, Ingest, SplitParams
from recsys_core.tables import read_events
from tasks.clock import check_clock
from tasks.postgres import copy_out
from tasks.sample import (
    DATA,
    LOG,
    MEMORY_MB,
    SAMPLE_ROWS,
    Sample,
    sample_workspace,
    take_sample,
    write_sample_card,
)
from tasks.settings import read_settings
from tasks.stages import ingest, sessionize, validate

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


def check_card(
    path: Path, *, folder: Path, params: Params, today: date, rows: int = SAMPLE_ROWS
) -> Report:
    """Everything that a run of this card, with the log in `folder`, would stumble over.

    `today` is what timestamps must not lie behind, by more than a day.
    """
    report = Report()
    with _as_problem(report):
        card = read_card(path)
        if card.name != path.stem:
            report.problems.append(
                f"{path}: name is {card.name!r}, it must be {path.stem!r}, as the file is called"
            )
        report.see("card", f"{card.name}: {card.title}")
        with _as_problem(report):
            check_clock(
                card.time.kind,
                split=params.split,
                train_embeddings=params.train_embeddings,
                train_rnn=params.train_rnn,
                evaluate=params.evaluate,
                gate=params.gate,
            )
        if not isinstance(card.source, FilesSource | PostgresSource):
            report.remarks.append("the log is simulated by the run; only the card was looked at")
            return report
        with sample_workspace() as layout:
            _check_log(report, layout, card, folder=folder, params=params, today=today, rows=rows)
    return report


def _check_log(
    report: Report,
    layout: Layout,
    card: DatasetCard,
    *,
    folder: Path,
    params: Params,
    today: date,
    rows: int,
) -> None:
    sample, tables = _sample(layout, card, folder, rows)
    part = "all of them" if sample.whole else "the first of them; the rest was not looked at"
    report.see("rows", f"{sample.rows:,}, {part}")
    missing = _missing_columns(card, sample, tables)
    report.problems += missing
    if missing:
        return
    files = {of: path.name for of, path in tables.items()}
    write_sample_card(layout, _of_sample(card, sample), **files)
    names = _true_names(layout, sample, tables)
    with _as_problem(report, names), _quiet():
        ingest.run(layout=layout, ingest=Ingest(dataset=card.name, path=DATA))
        hint = read_json(layout.report("ingest")).get("unit_hint")
        if hint is not None:
            report.remarks.append(
                f"the timestamps look like {hint}, the card says {card.time.unit}: "
                f"set time.unit to {hint}"
            )
        _features(report, layout, card)
        before = today + timedelta(days=2)
        with _as_problem(report, names):
            validate.run(
                layout=layout, validate=replace(params.validate_, timestamps_before=before)
            )
        found = read_json(layout.report("validate"))
        _quarantine(report, found)
        if found["rows_out"] == 0:
            return
        with _as_problem(report, names):
            sessionize.run(layout=layout, split=params.split, sessionize=params.sessionize)
        if layout.report("sessionize").exists():
            _sessions(report, read_json(layout.report("sessionize")))
        if layout.events.exists():
            _events(report, read_events(layout.events), card, params, sample)


def _true_names(layout: Layout, sample: Sample, tables: dict[str, Path]) -> dict[str, str]:
    """What errors should say in place of the sample's files, which are gone when they are read."""
    page = layout.validation_page.relative_to(layout.root).as_posix()
    return {
        str(sample.path): str(sample.origin),
        **{str(path): str(path.resolve()) for path in tables.values()},
        f"{layout.root}/": "",
        f"look at {page}, then ": "",
        f"; see {page}": "",
    }


def _sample(
    layout: Layout, card: DatasetCard, folder: Path, rows: int
) -> tuple[Sample, dict[str, Path]]:
    """The first rows of the log, and the card's tables of items and users, whole."""
    source = card.source
    if isinstance(source, PostgresSource):
        return _asked(layout, source, rows)
    assert isinstance(source, FilesSource), "a simulated log has no sample"
    besides = [folder / name for name in (source.items, source.users) if name is not None]
    sample = take_sample(layout, folder / source.interactions, name=LOG, rows=rows, besides=besides)
    return sample, _feature_files(layout, card, folder)


def _asked(layout: Layout, source: PostgresSource, rows: int) -> tuple[Sample, dict[str, Path]]:
    """What the card's queries select; of the log the first rows, as the server gives them."""
    first = f"SELECT * FROM (\n{source.interactions}\n) AS log LIMIT {rows + 1}"
    limited = replace(source, interactions=first)
    answer = copy_out(
        read_settings().source_dsn,
        limited,
        rules=Snapshot(row_key=["unused"]),
        since=None,
        folder=layout.root / DATA,
    )
    sample = take_sample(layout, answer.interactions, name=LOG, rows=rows, empty_texts=True)
    found = {"items": answer.items, "users": answer.users}
    sample = replace(sample, origin=Path("source.interactions"))
    return sample, {of: path for of, path in found.items() if path is not None}


def _of_sample(card: DatasetCard, sample: Sample) -> DatasetCard:
    """The card less what a part of the log cannot show."""
    if sample.whole:
        return card
    expected = card.expected.model_copy(update={"rows": 1, "last_day_share": None})
    return card.model_copy(update={"expected": expected})


def _feature_files(layout: Layout, card: DatasetCard, folder: Path) -> dict[str, Path]:
    """The card's tables of items and users, linked into the sample's folder."""
    linked = {}
    for of in ("items", "users"):
        name = getattr(card.source, of)
        if name is None:
            continue
        origin = (folder / name).resolve()
        if not origin.is_file():
            raise ConfigError(f"{folder / name}: no such file; correct source.{of} in the card")
        ending = ".parquet" if name.endswith(".parquet") else "".join(origin.suffixes)
        linked[of] = layout.root / DATA / f"{of}{ending}"
        linked[of].symlink_to(origin)
    return linked


def _missing_columns(card: DatasetCard, sample: Sample, tables: dict[str, Path]) -> list[str]:
    """The columns that the card names and the files do not have, all of them."""
    found = []
    named = {f"columns.{role}": name for role, name in card.columns.model_dump().items()}
    named |= {f"context.{name}": name for name in card.context}
    lacking = {key: name for key, name in named.items() if name not in (None, *sample.types)}
    if lacking:
        found.append(_lacking(str(sample.origin), lacking, list(sample.types)))
    for of, key, features in (
        ("items", card.columns.item_id, card.item_features),
        ("users", card.columns.user_id, card.user_features),
    ):
        if of not in tables:
            continue
        with open_duckdb(tables[of].parent, memory_mb=MEMORY_MB) as connection:
            types = open_file(connection, tables[of]).types
        lacking = {f"{of[:-1]}_features.{name}": name for name in features if name not in types}
        if key not in types:
            lacking[f"the {of[:-1]}s' key"] = key
        if lacking:
            found.append(_lacking(str(tables[of].resolve()), lacking, list(types)))
    return found


def _lacking(file: str, lacking: dict[str, str], there: list[str]) -> str:
    named = ", ".join(f"{key} {name!r}" for key, name in lacking.items())
    return f"{file}: the card names {named}, but the columns are {there}; correct the card"


def _features(report: Report, layout: Layout, card: DatasetCard) -> None:
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


def _quarantine(report: Report, found: dict[str, Any]) -> None:
    bad, rows = found["quarantined"], found["rows_in"]
    report.see("quarantine", f"{bad:,} rows ({bad / rows:.2%}) break a rule")
    for rule, finding in found["row_rules"].items():
        if finding["rows"]:
            shown = "; ".join(
                f"row {example['source_row']}"
                + (f" has {example['value']!r}" if example["value"] is not None else "")
                for example in finding["examples"]
            )
            report.see(f"  {rule}", f"{finding['rows']:,} rows: {shown}")


def _sessions(report: Report, found: dict[str, Any]) -> None:
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


def _events(
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
    _split(report, timestamp, card, params.split, sample)


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
    report: Report, timestamp: Any, card: DatasetCard, params: SplitParams, sample: Sample
) -> None:
    cut_off = card.cut_off_microseconds
    better = suggest_split(timestamp, params, cut_off=cut_off, least=FEW_FOR_A_PART)
    option = f"-S '{split_option(better)}'"
    try:
        cuts = split_by_time(timestamp, params, cut_off=cut_off)
    except DataError:
        # the problem stands there already, with what sessionize said
        report.remarks.append(f"a split that this log allows: {option}")
        return
    train = int(np.count_nonzero(timestamp < cuts.valid_start))
    test = int(np.count_nonzero(timestamp >= cuts.test_start))
    valid = len(timestamp) - train - test
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
    return f"by quantile, {params.share:g}"


def split_option(params: SplitParams) -> str:
    """A split as the value of `-S`.

    >>> split_option(DaysSplit(kind="days", days=1.0))
    'split={kind: days, days: 1}'
    """
    if isinstance(params, DaysSplit):
        return f"split={{kind: days, days: {params.days:g}}}"
    return f"split={{kind: quantile, share: {params.share:g}}}"


@contextmanager
def _as_problem(report: Report, names: dict[str, str] | None = None) -> Iterator[None]:
    """Take an error for a problem; `names` says what files of the sample are called in truth."""
    try:
        yield
    except TwotempoError as error:
        line = str(error)
        for ours, theirs in (names or {}).items():
            line = line.replace(ours, theirs)
        report.problems.append(line)


@contextmanager
def _quiet() -> Iterator[None]:
    """The stages' own lines are for a run."""
    loggers = [logging.getLogger(name) for name in ("recsys_core", "tasks")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
