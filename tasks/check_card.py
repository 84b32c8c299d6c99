"""Looks at a dataset card and the first rows of its log as a run would, in seconds.

The rows go through ingest, validate and sessionize themselves, in a temporary workspace: a problem
here is what would stop a run, a remark is what a person may want to know before it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from recsys_core.artifacts import read_json
from recsys_core.config import Params
from recsys_core.data.card_parts import FilesSource, PostgresSource, Snapshot
from recsys_core.data.cards import DatasetCard, read_card
from recsys_core.data.duck import open_duckdb
from recsys_core.data.sources import open_file
from recsys_core.errors import ConfigError, TwotempoError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Ingest
from recsys_core.tables import read_events
from tasks.card_settings import settings_without_use
from tasks.check_fields import check_fields
from tasks.check_report import Report, see_events, see_features, see_quarantine, see_sessions
from tasks.clock import Clock, check_clock
from tasks.feature_kinds import kinds_read
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
            kinds_read(
                params.features, {name: one.kind for name, one in card.item_features.items()}
            )
        report.problems += settings_without_use(card, params.train_rnn)
        with _as_problem(report):
            check_fields(params.train_rnn, card)
        with _as_problem(report):
            check_clock(
                Clock(card.time.kind, one_time=params.split.kind != "leave_one_out"),
                split=params.split,
                train_embeddings=params.train_embeddings,
                train_rnn=params.train_rnn,
                train_memory=params.train_memory,
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
        see_features(report, layout, card)
        before = today + timedelta(days=2)
        with _as_problem(report, names):
            validate.run(
                layout=layout, validate=replace(params.validate_, timestamps_before=before)
            )
        found = read_json(layout.report("validate"))
        see_quarantine(report, found)
        if found["rows_out"] == 0:
            return
        with _as_problem(report, names):
            sessionize.run(layout=layout, split=params.split, sessionize=params.sessionize)
        if layout.report("sessionize").exists():
            see_sessions(report, read_json(layout.report("sessionize")))
        if layout.events.exists():
            see_events(report, read_events(layout.events), card, params, sample)


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
        assert card.snapshot is not None, "a card's postgres source has a snapshot"
        return _asked(layout, source, card.snapshot, rows)
    assert isinstance(source, FilesSource), "a simulated log has no sample"
    besides = [folder / name for name in (source.items, source.users) if name is not None]
    sample = take_sample(layout, folder / source.interactions, name=LOG, rows=rows, besides=besides)
    return sample, _feature_files(layout, card, folder)


def _asked(
    layout: Layout, source: PostgresSource, rules: Snapshot, rows: int
) -> tuple[Sample, dict[str, Path]]:
    """What the card's queries select; of the log the first rows, as the server gives them."""
    first = f"SELECT * FROM (\n{source.interactions}\n) AS log LIMIT {rows + 1}"
    limited = replace(source, interactions=first)
    answer = copy_out(
        read_settings().source_dsn,
        limited,
        rules=rules,
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
    if card.snapshot is not None:
        keys = enumerate(card.snapshot.row_key)
        named |= {f"snapshot.row_key[{place}]": name for place, name in keys}
        named["snapshot.watermark"] = card.snapshot.watermark
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
