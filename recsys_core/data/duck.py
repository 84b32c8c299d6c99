"""DuckDB opened in one way: bounded in memory, spilling to disk, in UTC, never on the network."""

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from recsys_core.errors import DataError

WORK = ".duckdb-"
"""How the name of a temporary folder begins that a process works in, and holds locked."""


@contextmanager
def open_duckdb(
    folder: Path, *, memory_mb: int, threads: int | None = None, insertion_order: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to an empty database in a temporary folder under `folder`, removed at the end.

    Its tables lie on disk, so that only `memory_mb` of them are held in memory. `threads` None is
    one for each CPU that this process may use. Without `insertion_order` a query is faster, and its
    rows have no order but that of its ORDER BY.
    Raises `DataError` where even that memory is not enough.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    with _work_folder(folder) as work:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": str(work / "spill"),
            "preserve_insertion_order": insertion_order,
            "threads": usable_cpus() if threads is None else threads,
            "autoinstall_known_extensions": "false",  # an extension would come from the network
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # a table's name must find no Python variable
        }
        connection = duckdb.connect(str(work / "work.duckdb"), config=config)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            # it moves a TRY_CAST into the reader of CSV files, which fails where it cannot cast
            connection.execute("SET disabled_optimizers = 'type_pushdown'")
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise DataError(
                f"DuckDB needs more than {memory_mb} MB for this log ({one_line(error)}); "
                "allow it more memory"
            ) from error
        finally:
            connection.close()


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, locked while it is in use and removed at the end."""
    made = Path(tempfile.mkdtemp(dir=folder, prefix=f".new{WORK}"))
    handle = os.open(made, os.O_RDONLY)
    try:
        # under the name by which others look for it only once it is locked
        fcntl.flock(handle, fcntl.LOCK_EX)
        work = made.rename(folder / made.name.removeprefix(".new"))
        try:
            yield work
        finally:
            shutil.rmtree(work)
    finally:
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left: it may be as large as the log.

    The system unlocks what a process held when it ends, however it ends. The number of a process
    would not tell: in a container each run may have the same.
    """
    for work in folder.glob(f"{WORK}*"):
        try:
            handle = os.open(work, os.O_RDONLY)
        except (FileNotFoundError, PermissionError):
            continue  # another process was quicker, or it is another person's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)
        except BlockingIOError:
            continue  # somebody works in it
        finally:
            os.close(handle)


def work_folder(connection: duckdb.DuckDBPyConnection) -> Path | None:
    """The temporary folder of a connection; None where its database is in memory alone."""
    found = connection.execute("SELECT path FROM duckdb_databases() WHERE path IS NOT NULL")
    paths = found.fetchall()
    return Path(paths[0][0]).parent if paths else None


def usable_cpus() -> int:
    """How many CPUs this process may use, where the system says so; else how many there are."""
    # DuckDB counts the machine's, also where the process is bound to fewer
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def arrow_batches(
    connection: duckdb.DuckDBPyConnection, query: str, *, rows: int
) -> Iterator[pa.RecordBatch]:
    """What `query` selects, in its order, about `rows` rows at a time."""
    try:
        yield from connection.sql(query).to_arrow_reader(rows)
    except OSError as error:
        # what goes wrong in the middle of a stream comes through Arrow, which knows no better type
        kind = duckdb.OutOfMemoryException if "Out of Memory" in str(error) else duckdb.Error
        raise kind(str(error)) from error


def identifier(name: str) -> str:
    """A column's or table's name as SQL, whatever characters it has.

    >>> print(identifier('the "first" item'))
    "the ""first"" item"
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL.

    >>> print(literal("it's"))
    'it''s'
    """
    return "'" + text.replace("'", "''") + "'"


def file_literal(path: Path) -> str:
    """A file's path as SQL, for functions that would read `*` and `[` in it as a pattern."""
    return literal(glob.escape(str(path)))


def parquet_sql(path: Path) -> str:
    """One of our tables as SQL that can be selected from.

    >>> print(parquet_sql(Path("a=b/log.parquet")))
    read_parquet('a=b/log.parquet', hive_partitioning = false)
    """
    # without partitioning: a folder named like `a=b` above the file must not become a column
    return f"read_parquet({file_literal(path)}, hive_partitioning = false)"


def raise_if_full(error: duckdb.Error) -> None:
    """Raise `OSError` where what DuckDB says is that there is no more room to write."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(code).lower() in str(error).lower():
            raise OSError(code, os.strerror(code)) from error


def one_line(error: Exception) -> str:
    """The first line of what a library says."""
    return str(error).strip().splitlines()[0].rstrip(".")
