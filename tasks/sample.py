"""The first rows of a log, set apart in a temporary workspace in which the real stages run.

`twotempo init` and `twotempo check` look at a log this way: what they say is what a run would find.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys_core.data.cards import DatasetCard
from recsys_core.data.duck import literal, open_duckdb, parquet_sql
from recsys_core.data.sources import log_files, open_files, reading
from recsys_core.layout import Layout

SAMPLE_ROWS = 1_000_000
MEMORY_MB = 1024
LOG = "log.parquet"
DATA = "data"


@dataclass(frozen=True)
class Sample:
    """A table's first rows as a Parquet file, its columns with their SQL types as they came."""

    path: Path
    origin: Path
    rows: int
    whole: bool
    types: Mapping[str, str]


@contextmanager
def sample_workspace() -> Iterator[Layout]:
    """An empty workspace for samples, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="twotempo-") as folder:
        layout = Layout(Path(folder))
        (layout.root / DATA).mkdir()
        (layout.root / "datasets").mkdir()
        yield layout


def take_sample(
    layout: Layout,
    origin: Path,
    *,
    name: str,
    rows: int = SAMPLE_ROWS,
    besides: Sequence[Path] = (),
    empty_texts: bool = False,
) -> Sample:
    """Copy the first rows of a file, or of a folder of files, into the workspace's data.

    In CSV, `""` is a missing value unless `empty_texts`. Raises `ConfigError` and `DataError` as
    ingest would.
    """
    target = layout.root / DATA / name
    with open_duckdb(layout.root, memory_mb=MEMORY_MB) as connection:
        files = log_files(origin, besides=besides)
        source = open_files(connection, files, name=str(origin), empty_texts=empty_texts)
        with reading(source):
            # one more than asked for tells whether these were all
            connection.execute(
                f"COPY (SELECT * FROM {source.sql} LIMIT {rows + 1}) "
                f"TO {literal(str(target))} (FORMAT parquet)"
            )
        query = f"SELECT count(*) FROM {parquet_sql(target)}"
        found = connection.execute(query).fetchall()[0][0]
        if found > rows:
            cut = target.with_suffix(".cut")
            connection.execute(
                f"COPY (SELECT * FROM {parquet_sql(target)} LIMIT {rows}) "
                f"TO {literal(str(cut))} (FORMAT parquet)"
            )
            cut.replace(target)
    return Sample(
        path=target,
        origin=origin,
        rows=min(found, rows),
        whole=found <= rows,
        types=dict(source.types),
    )


def write_sample_card(layout: Layout, card: DatasetCard, **source: Any) -> None:
    """Write a card whose log is the sample; `source` names what else there is, as files."""
    value = card.model_dump(mode="json")
    value["snapshot"] = None
    value["source"] = {"kind": "files", "interactions": LOG, "items": None, "users": None, **source}
    for table, features in (("items", "item_features"), ("users", "user_features")):
        if value["source"][table] is None:
            value[features] = {}
            value["expected"][f"{table}_described"] = None
    layout.card(card.name).write_text(yaml.safe_dump(value), encoding="utf-8")
