"""Drafts a dataset card from files: guesses, tried on the first rows by the real ingest."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import yaml

from recsys_core.data.card_parts import FILE_ENDINGS
from recsys_core.data.cards import DatasetCard, parse_card
from recsys_core.data.duck import identifier, open_duckdb, parquet_sql
from recsys_core.data.events import Events
from recsys_core.data.guess import Roles, guess_roles, is_a_log
from recsys_core.data.guess_features import Table, guess_table
from recsys_core.data.log_facts import find_repeats, log_facts, rows_per_day
from recsys_core.data.profiles import Profile, profile_columns
from recsys_core.data.sources import log_files, open_file
from recsys_core.data.suggestions import (
    count_incomplete,
    knows_days_alone,
    suggest_cut_off,
    suggest_gap,
    suggest_split,
)
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Ingest, SplitParams
from recsys_core.tables import INTERACTIONS
from tasks.card_text import Found, Line, card_lines, commented
from tasks.sample import (
    DATA,
    LOG,
    MEMORY_MB,
    Sample,
    sample_workspace,
    take_sample,
    write_sample_card,
)
from tasks.stages import ingest

ENOUGH = 1_000
"""Events in a part of the split from which on a day's split is left as it is."""


@dataclass(frozen=True)
class Draft:
    """A card's text, the folder of its files, and what was guessed and why, for the console.

    `split` is what suits the log where the project's own split does not.
    """

    text: str
    card: DatasetCard
    folder: Path
    said: list[tuple[str, str, str]]
    left_out: dict[str, str]
    split: SplitParams | None


def draft_card(
    paths: Sequence[Path], *, name: str | None, given: Mapping[str, str], split: SplitParams
) -> Draft:
    """A card for these files; `given` names columns of the log by role, the rest is guessed.

    Raises `DataError` where user, item or time cannot be found, or a file cannot be read.
    """
    tables = _tables(paths)
    folder = _common_folder([*tables])
    with sample_workspace() as layout, open_duckdb(layout.root, memory_mb=MEMORY_MB) as connection:
        samples = []
        for place, path in enumerate(tables):
            samples.append(take_sample(layout, path, name=f"{place}.parquet"))
            if samples[-1].rows == 0:
                raise DataError(f"{path}: it has no rows; check the export that writes it")
            connection.execute(
                f"CREATE TABLE {identifier(str(place))} AS "
                f"SELECT * FROM {parquet_sql(samples[-1].path)}"
            )
        profiles = [profile_columns(connection, str(place)) for place in range(len(tables))]
        log = _log(samples, profiles, given)
        roles = guess_roles(connection, str(log), profiles[log], given=given)
        described = _feature_tables(connection, samples, profiles, log, roles)
        one_folder = len(paths) == 1 and paths[0].is_dir()
        card_name = name or _slug(paths[0].resolve() if one_folder else samples[log].origin)
        lines = card_lines(card_name, folder, samples[log], described, roles, None)
        # the first draft is only good enough to be read with; what it shows goes into the second
        found = _look(layout, samples[log], _card(lines, card_name), split)
        lines = card_lines(card_name, folder, samples[log], described, roles, found)
    card = _card(lines, card_name)
    text = "".join(f"{commented(line.text, line.why)}\n" for line in lines)
    left_out = {**roles.left_out}
    for _, table in described.values():
        left_out |= table.left_out
    return Draft(
        text=text,
        card=card,
        folder=folder,
        said=[(line.said, _taken(line.text), line.why) for line in lines if line.said],
        left_out=left_out,
        split=None if found.split == split else found.split,
    )


def _taken(text: str) -> str:
    """What stands behind the first colon."""
    return text.partition(": ")[2]


def _tables(paths: Sequence[Path]) -> list[Path]:
    """The files, and of a folder the folder itself where its files are parts of one table."""
    tables: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.is_dir():
            files = log_files(path)
            tables += [path] if len(files) > 1 and _one_table(files) else files
        elif path.name.lower().endswith(FILE_ENDINGS):
            tables.append(path)
        else:
            raise ConfigError(
                f"{path}: its name ends in none of {', '.join(FILE_ENDINGS)}; convert it"
            )
    if len({path.resolve() for path in tables}) < len(tables):
        raise ConfigError("a file is named twice; name each once")
    return tables


def _one_table(files: Sequence[Path]) -> bool:
    connection = duckdb.connect()
    try:
        columns = [set(open_file(connection, file).types) for file in files]
    finally:
        connection.close()
    return all(names == columns[0] for names in columns)


def _common_folder(tables: Sequence[Path]) -> Path:
    parents = [path.resolve().parent for path in tables]
    return Path(os.path.commonpath(parents))


def _slug(path: Path) -> str:
    name = path.name
    for ending in sorted(FILE_ENDINGS, key=len, reverse=True):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "log"


def _log(
    samples: Sequence[Sample], profiles: Sequence[Sequence[Profile]], given: Mapping[str, str]
) -> int:
    """Which of the tables is the log: with a time and two ids that repeat, the one of most rows."""
    places = list(range(len(samples)))
    having = [place for place in places if set(given.values()) <= set(samples[place].types)]
    fitting = [place for place in having or places if is_a_log(profiles[place])]
    return max(fitting or having or places, key=lambda place: samples[place].rows)


def _feature_tables(
    connection: duckdb.DuckDBPyConnection,
    samples: Sequence[Sample],
    profiles: Sequence[Sequence[Profile]],
    log: int,
    roles: Roles,
) -> dict[str, tuple[Path, Table]]:
    found: dict[str, tuple[Path, Table]] = {}
    for place, sample in enumerate(samples):
        if place == log:
            continue
        if sample.origin.is_dir():
            raise ConfigError(
                f"{sample.origin}: items and users come as one file each; write it as one"
            )
        table = guess_table(
            connection,
            str(place),
            profiles[place],
            name=str(sample.origin),
            log=str(log),
            user=roles.user_id.column,
            item=roles.item_id.column,
            timestamp_unit=roles.clock.unit,
        )
        if table.of in found:
            raise ConfigError(
                f"{found[table.of][0]} and {sample.origin} both describe {table.of}; "
                "join them into one file"
            )
        found[table.of] = (sample.origin, table)
    return found


def _card(lines: Sequence[Line], name: str) -> DatasetCard:
    return parse_card(yaml.safe_load("\n".join(line.text for line in lines)), where=name)


def _look(layout: Layout, sample: Sample, card: DatasetCard, split: SplitParams) -> Found:
    """Read the sample with the card as ingest does, and count what stands in it."""
    sample.path.rename(layout.root / DATA / LOG)
    write_sample_card(layout, card)
    ingest.run(layout=layout, ingest=Ingest(dataset=card.name, path=DATA))
    path = layout.interactions
    given = card.sessions.kind == "given"
    clock = card.time.kind != "rank"
    with open_duckdb(layout.root, memory_mb=MEMORY_MB) as connection:
        equal = [*(set(INTERACTIONS.names) - {"source_row"}), *card.context]
        find_repeats(connection, path, columns=sorted(equal))
        repeats = connection.execute("SELECT count(*) FROM repeats").fetchall()[0][0]
        absolute = card.time.kind == "absolute"
        return Found(
            rows=log_facts(connection, path).rows,
            whole=sample.whole,
            incomplete=count_incomplete(connection, path, given_sessions=given),
            repeats=repeats,
            days_alone=clock and knows_days_alone(connection, path),
            gap=suggest_gap(connection, path) if clock and not given else None,
            tail=suggest_cut_off(rows_per_day(connection, path)) if absolute else None,
            split=suggest_split(
                _users_and_times(connection, path), split, cut_off=None, least=ENOUGH
            ),
        )


def _users_and_times(connection: duckdb.DuckDBPyConnection, path: Path) -> Events:
    """What of a table of interactions is needed to split it; a row without a time is left out, and
    all who are unnamed are one user."""
    found = connection.execute(
        "SELECT dense_rank() OVER (ORDER BY coalesce(user_id, '')) AS user_idx, "
        "epoch_us(timestamp) AS timestamp, source_row "
        f"FROM {parquet_sql(path)} WHERE timestamp IS NOT NULL ORDER BY ALL"
    ).fetchnumpy()
    user_idx, timestamp, source_row = (
        np.asarray(found[name], dtype=np.int64) for name in ("user_idx", "timestamp", "source_row")
    )
    n, users = len(user_idx), int(user_idx.max(initial=0))
    return Events(
        offsets=np.searchsorted(user_idx, np.arange(users + 2)),
        item_idx=np.ones(n, dtype=np.int32),
        timestamp=timestamp,
        session_idx=np.ones(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=np.bool_),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=source_row,
    )
