"""Which published table a workspace has: the one that params name, or the one published last.

`published/table.json` says the latter, so that whoever looks needs no params, and names every
schema of PostgreSQL that was published to, so that whoever forgets somebody finds them all.
"""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from recsys_core.artifacts import read_json, write_json
from recsys_core.layout import Layout
from recsys_core.sections import Publish
from recsys_core.serving.table_contract import Table
from tasks.settings import read_settings

# each kind is imported where it is opened: a flow imports this module long before, and DuckDB must
# not be loaded there


def table_of(layout: Layout, publish: Publish) -> Table:
    """The table that these params name; PostgreSQL's address is `TWOTEMPO_TABLE_DSN`."""
    if publish.kind == "postgres":
        from recsys_core.serving.postgres_table import PostgresTable

        return PostgresTable(_dsn(), schema=publish.schema, layout=publish.layout)
    return _local(layout, publish.kind)


def published_table(layout: Layout) -> Table:
    """The table that was published last, whatever params say by now."""
    note = _note(layout)
    if note["kind"] == "postgres":
        return _postgres(note["schema"])
    return _local(layout, note["kind"])


def every_table(layout: Layout) -> list[Table]:
    """All tables that were published from this workspace, of whatever kind."""
    local = {"duckdb": layout.table, "parquet": layout.parquet_table}
    found = [_local(layout, kind) for kind, place in local.items() if place.exists()]
    return [*found, *(_postgres(schema) for schema in _note(layout)["schemas"])]


def note_table(layout: Layout, publish: Publish, *, published: bool) -> None:
    """Remember that a table is `published`; before it is, only where rows of it may be already."""
    before = _note(layout)
    schema = publish.schema if publish.kind == "postgres" else None
    schemas = sorted({*before["schemas"], *([] if schema is None else [schema])})
    last = {"kind": publish.kind, "schema": schema} if published else {}
    note = {**before, **last, "schemas": schemas}
    if note != before or (published and not layout.table_note.exists()):
        write_json(layout.table_note, note)


def _note(layout: Layout) -> dict[str, Any]:
    if not layout.table_note.exists():  # published before there were other kinds, or never
        return {"kind": "duckdb", "schema": None, "schemas": []}
    note: dict[str, Any] = read_json(layout.table_note)
    return note


def _local(layout: Layout, kind: str) -> Table:
    if kind == "parquet":
        from recsys_core.serving.parquet_table import ParquetTable

        return ParquetTable(layout.parquet_table)
    from recsys_core.serving.tables import DuckdbTable

    return DuckdbTable(layout.table)


def _postgres(schema: str) -> Table:
    """The table in a schema, to read and to forget in: its layout is that of each run."""
    from recsys_core.serving.postgres_table import PostgresTable

    return PostgresTable(_dsn(), schema=schema, layout="rows")


def _dsn() -> SecretStr | None:
    return read_settings().table_dsn


def table_at(path: Path) -> Table | None:
    """The published table that a path of a workspace is; None where it is none."""
    layout = Layout(path.resolve().parent.parent)
    place = path.resolve()
    if place == layout.table_note:
        return published_table(layout)
    if place == layout.parquet_table and place.is_dir():
        return _local(layout, "parquet")
    return None
