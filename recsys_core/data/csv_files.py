"""CSV files as they come: their header, and what is wrong with one, in a line of use to a person.

Commas, a header, `"` around texts with commas, quotes or line breaks, UTF-8, one way to end a line.
Nothing is guessed from the rows: a file that is read today is read the same way tomorrow.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recsys_core.errors import DataError

BLOCK = 1 << 20
LINE_ENDS = {b"\n": "LF", b"\r\n": "CRLF", b"\r": "CR"}
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

LONGEST_LINE = 2_000_000
"""Bytes of a row, line breaks in quotes included: two stray quotes cannot swallow more."""


def csv_header(path: Path) -> list[str]:
    """The names of a CSV file's columns; one without a name is called `column<number>`, from 0.

    Raises `DataError` where there is no line of names, a name goes on in the next line, or one
    stands there twice (DuckDB does not tell `item` from `ITEM`).
    """
    with _explained(path), _opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        names = next(csv.reader(text, strict=True), None)
    if names is None:
        raise DataError(f"{path}: it is empty; check the export that writes it")
    if not names:
        raise DataError(f"{path}: line 1 is blank; it must name the columns")
    if any(end in name for name in names for end in ("\n", "\r")):
        # DuckDB takes it for the way that all lines end, and may find no row at all
        raise DataError(f"{path}: line 1: a column's name has a line break; write it in one line")
    if len(names) == 1:
        for separator, called in OTHER_SEPARATORS.items():
            if separator in names[0]:
                raise DataError(f"{path}: {called} separate its columns; write it with commas")
    names = [name or f"column{place}" for place, name in enumerate(names)]
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise DataError(
                f"{path}: its header has the columns {other!r} and {name!r}; "
                "give each a name of its own (lower and upper case are the same)"
            )
    return names


def check_gzip(path: Path) -> None:
    """Raise `DataError` unless a gzip file is whole and has the checksum it was written with.

    It is unpacked once for this: DuckDB does not look at the checksum.
    """
    with _explained(path), gzip.open(path) as file:
        while file.read(BLOCK):
            pass


def explain_csv(path: Path, said: str) -> str:
    """What DuckDB said of a CSV file that it cannot read, as one line: file, line, what to do."""
    found = re.search(r"CSV Error on Line: (\d+)", said)
    line = "" if found is None else f"line {found[1]}: "
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said)
    if "Invalid unicode" in said or "not utf-8" in said:
        return _not_utf8(path)
    if columns is not None:
        return (
            f"{path}: {line}{columns[2]} fields where the header has {columns[1]}; "
            "correct the row, or put quotes around texts with commas"
        )
    if "unterminated quote" in said:
        return (
            f"{path}: {line}a quotation mark that is not closed, or has text after it; "
            'write a quotation mark inside quotes twice ("")'
        )
    if "Maximum line size" in said:
        return (
            f"{path}: {line}a row of more than {LONGEST_LINE:,} bytes; "
            "shorten the text, or close the quotation mark that stands open"
        )
    if "invalid state" in said:
        return _mixed_line_ends(path) or (
            f"{path}: {line}a quotation mark that is not closed, or a line break inside a line; "
            "write the file again"
        )
    return f"{path}: {line}cannot be read ({said.strip().splitlines()[0]}); write the file again"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its name ends in `.gz`."""
    with path.open("rb") as raw:
        if not path.name.lower().endswith(".gz"):
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield io.BufferedReader(unpacked)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(path)) from error
    except csv.Error as error:
        raise DataError(f"{path}: line 1: {error}; correct the names of the columns") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: not a whole gzip file ({error}); copy or write it again"
        ) from error


def _not_utf8(path: Path) -> str:
    line = _first_line_not_utf8(path)
    where = "" if line is None else f"line {line}: "
    return (
        f"{path}: {where}bytes that are not UTF-8; "
        "write the file as UTF-8, with `iconv -f latin1 -t utf-8` if it is Latin-1"
    )


def _first_line_not_utf8(path: Path) -> int | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with _opened(path) as file:
        while block := file.read(BLOCK):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
            line += block.count(b"\n")
    return None


def _mixed_line_ends(path: Path) -> str | None:
    """The first line that ends in another way than the first, where there is one."""
    first, line, rest = b"", 0, b""
    with _opened(path) as file:
        while block := rest + file.read(BLOCK):
            # a CR at the end of a block may be half of a CRLF
            rest = b"\r" if block.endswith(b"\r") and len(block) > 1 else b""
            for found in re.finditer(rb"\r\n|\n|\r", block.removesuffix(rest)):
                line += 1
                first = first or found[0]
                if found[0] != first:
                    return (
                        f"{path}: line {line} ends in {LINE_ENDS[found[0]]}, those before it in "
                        f"{LINE_ENDS[first]}; end all lines in one way, or put quotes around texts "
                        "with line breaks"
                    )
    return None
