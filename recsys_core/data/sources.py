"""Where a log lies: a file, a folder of files, or a table in memory, as what DuckDB selects from.

    log.parquet · log.csv · log.csv.gz · a folder of one of them, in the order of their names

Rows are never held as a whole, and come in the same order with any number of threads. What is wrong
with a file is one line that names it, and the line of a CSV file.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from recsys_core.data.card_parts import FILE_ENDINGS
from recsys_core.data.csv_files import LONGEST_LINE, check_gzip, csv_header, explain_csv
from recsys_core.data.duck import (
    file_literal,
    identifier,
    literal,
    one_line,
    parquet_sql,
    raise_if_full,
    work_folder,
)
from recsys_core.data.parquet_times import readable_parquet
from recsys_core.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

PARQUET = ".parquet"


@dataclass(frozen=True)
class Source:
    """What DuckDB can select from, its name in errors, its columns' SQL types, and its files.

    `csv` tells that its texts come from CSV files, where two stray quotes may swallow lines.
    """

    sql: str
    name: str
    types: dict[str, str]
    files: tuple[Path, ...] = ()
    csv: bool = False


def log_files(
    path: Path, *, besides: Sequence[Path] = (), may_be_empty: bool = False
) -> list[Path]:
    """The files of a log: the file itself, or those of a folder by name, but for `besides`.

    In a folder, names that begin with `.` or `_` are left out, as writers of many files mark what
    is not data; so are files with other endings, which a line tells. A folder with nothing else in
    it is an error unless it `may_be_empty`; one with files of other endings alone always is.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; check the card's `source` and its path")
    there = [
        file
        for file in sorted(path.iterdir(), key=lambda file: file.name)
        if not file.name.startswith((".", "_")) and file not in besides
    ]
    files = [file for file in there if file.is_file() and _ending(file) is not None]
    others = [file.name for file in there if file not in files]
    if not files and not others and may_be_empty:
        return []
    if not files:
        raise ConfigError(
            f"{path}: no file in it ends in one of {', '.join(FILE_ENDINGS)}"
            f"{f' (it has {_some(others)})' if others else ''}; check the card's `source`"
        )
    if others:
        logger.warning("log folder=%s left_out=%s", path, _some(others))
    return files


def open_log(
    connection: duckdb.DuckDBPyConnection, path: Path, *, besides: Sequence[Path] = ()
) -> Source:
    """A file or a folder of files as one source; `besides` are files in it that are not the log."""
    return open_files(connection, log_files(path, besides=besides), name=str(path))


def open_file(connection: duckdb.DuckDBPyConnection, path: Path) -> Source:
    """One Parquet or CSV file as a source."""
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, where a file is expected; check the card's `source`")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; check ingest.path and the card's `source`")
    return open_files(connection, [path], name=str(path))


def open_files(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    name: str,
    empty_texts: bool = False,
) -> Source:
    """Files of one ending as one source, in this order.

    CSV: every column is a text. An empty field is null, and so is `""` unless `empty_texts`.
    Raises `ConfigError` where endings differ or none is known, and `DataError` where a file cannot
    be read, or has other columns than the first.
    """
    endings = {file: _ending(file) for file in files}
    first, ending = files[0], endings[files[0]]
    for file in files:
        if endings[file] is None:
            raise ConfigError(
                f"{file}: its name ends in none of {', '.join(FILE_ENDINGS)}; rename or convert it"
            )
        if endings[file] != ending:
            raise ConfigError(
                f"{name}: {first.name} ends in {ending} and {file.name} in {endings[file]}; "
                "keep files of one ending in a folder"
            )
    if ending != PARQUET:
        return _csv(files, name=name, empty_texts=empty_texts)
    types: dict[str, str] = {}
    for file in files:
        found = _parquet_types(connection, file)
        _check_same(types or found, found, first=first, file=file)
        types = types or found
    work = work_folder(connection)
    readable = files if work is None else [readable_parquet(file, work=work) for file in files]
    listed = ", ".join(map(file_literal, readable))
    sql = f"read_parquet([{listed}], hive_partitioning = false)"
    return Source(sql=sql, name=name, types=types, files=tuple(files))


def open_table(connection: duckdb.DuckDBPyConnection, table: pa.Table, *, name: str) -> Source:
    """An Arrow table as a source."""
    connection.register(name, table)
    described = connection.execute(f"DESCRIBE SELECT * FROM {identifier(name)}").fetchall()
    return Source(sql=identifier(name), name=name, types={row[0]: row[1] for row in described})


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """What DuckDB finds wrong with a source while it is read, as one line.

    Raises `DataError`, and `OSError` where the disk is full.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise_if_full(error)
        raise DataError(_explain(source, error)) from error


def _explain(source: Source, error: duckdb.Error) -> str:
    said = str(error)
    named = re.search(r"^\s*file = (.+)$", said, re.MULTILINE)
    file = next(
        (path for path in source.files if (named and named[1] == str(path)) or str(path) in said),
        source.files[0] if len(source.files) == 1 else None,
    )
    if source.csv and file is not None and "GZIP" not in said:
        return explain_csv(file, said)
    return f"{file or source.name}: cannot be read ({one_line(error)}); write the file again"


def _csv(files: Sequence[Path], *, name: str, empty_texts: bool) -> Source:
    header: list[str] = []
    for file in files:
        if file.name.lower().endswith(".gz"):
            check_gzip(file)
        found = csv_header(file)
        if header and found != header:
            raise DataError(
                f"{file}: its header is {_some(found)}, that of {files[0].name} is "
                f"{_some(header)}; write all files with the same columns"
            )
        header = found
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
    zipped = files[0].name.lower().endswith(".gz")
    sql = (
        f"read_csv([{', '.join(map(file_literal, files))}], auto_detect = false, "
        f"columns = {{{columns}}}, header = true, skip = 0, delim = ',', quote = '\"', "
        f"escape = '\"', comment = '', max_line_size = {LONGEST_LINE}, "
        f"compression = '{'gzip' if zipped else 'none'}', "
        f"allow_quoted_nulls = {'false' if empty_texts else 'true'}, hive_partitioning = false)"
    )
    types = dict.fromkeys(header, "VARCHAR")
    return Source(sql=sql, name=name, types=types, files=tuple(files), csv=True)


def _parquet_types(connection: duckdb.DuckDBPyConnection, file: Path) -> dict[str, str]:
    sql = parquet_sql(file)
    with reading(Source(sql=sql, name=str(file), types={}, files=(file,))):
        described = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
    return {row[0]: row[1] for row in described}


def _check_same(wanted: dict[str, str], found: dict[str, str], *, first: Path, file: Path) -> None:
    """Raise `DataError` unless a file has the columns and types of the first; their order may
    differ."""
    for column in (*wanted, *found):
        here, there = found.get(column), wanted.get(column)
        if here != there:
            raise DataError(
                f"{file}: column {column!r} is {here or 'not there'}, in {first.name} it is "
                f"{there or 'not there'}; write all files with the same columns and types"
            )


def _ending(file: Path) -> str | None:
    name = file.name.lower()
    return next((ending for ending in reversed(FILE_ENDINGS) if name.endswith(ending)), None)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{list(names[:8])}{more}"
