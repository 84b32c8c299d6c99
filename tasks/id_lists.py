"""Lists of item ids that a person keeps beside the pipeline: files in the workspace."""

from pathlib import Path

import pyarrow as pa

from recsys_core.columns import ITEM_ID
from recsys_core.data.card_parts import FILE_ENDINGS
from recsys_core.data.duck import identifier, open_duckdb
from recsys_core.data.ingestion import id_column
from recsys_core.data.sources import open_file, reading
from recsys_core.errors import ConfigError

MEMORY_MB = 512


def read_ids(root: Path, name: str) -> tuple[pa.StringArray, int]:
    """The different ids of a file in the workspace `root`, in their order, and how many rows have
    none.

    They stand in the column `item_id`, and are read as ingest reads them: whole numbers without
    decimals. Raises `ConfigError` where the file lies elsewhere or has no such column.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"score.filters names {name!r}, which lies outside of the workspace; copy it into "
            f"{root.resolve().name}, and name it from there"
        )
    if not name.endswith(FILE_ENDINGS):
        raise ConfigError(
            f"score.filters names {name!r}; a list is a file whose name ends in one of "
            f"{', '.join(FILE_ENDINGS)}"
        )
    if not path.is_file():
        raise ConfigError(
            f"score.filters names {name!r}, but {path} is no file; put the list there, or take it "
            "out of params.yaml"
        )
    with open_duckdb(root, memory_mb=MEMORY_MB) as connection:
        source = open_file(connection, path)
        if ITEM_ID not in source.types:
            raise ConfigError(
                f"{name}: columns {', '.join(source.types)}, but a list has its ids in a column "
                f"{ITEM_ID}; rename it"
            )
        column = id_column(source, ITEM_ID, name=ITEM_ID)
        with reading(source):
            query = (
                f"SELECT {column.sql} AS {identifier(ITEM_ID)}, count(*) AS rows "
                f"FROM {source.sql} GROUP BY 1 ORDER BY 1"
            )
            table = connection.sql(query).to_arrow_table()
    ids = table.column(ITEM_ID).combine_chunks().cast(pa.string())
    without = sum(table.filter(ids.is_null()).column("rows").to_pylist())
    return ids.drop_null(), int(without)
