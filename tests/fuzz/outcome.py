"""A fuzz case is a workspace; its outcome is either whole, with every row counted, or one line."""

import contextlib
import csv
import gzip
import importlib
import io
import json
import signal
import traceback
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys_core.artifacts import read_json
from recsys_core.config import read_params
from recsys_core.errors import TwotempoError
from recsys_core.layout import Layout
from recsys_core.tables import read_events
from tasks.step import run_step

SECONDS = 60
LONGEST_LINE = 600


class Failure(AssertionError):
    """What a person must never see."""


@dataclass(frozen=True)
class Outcome:
    """How far a case came (`whole`, or the stage that refused it), and by which error."""

    stage: str
    error: str
    line: str

    def __str__(self) -> str:
        return "whole" if self.stage == "whole" else f"{self.stage} {self.error}"


def outcome(root: Path, *, rows: int | None) -> Outcome:
    """Run ingest, validate and sessionize in a workspace; `rows` is what its log has, where that is
    known.

    Raises `Failure` for a lost row, an error that is no `TwotempoError`, one that is not one line
    of use, and where it takes longer than `SECONDS`.
    """
    layout = Layout(root)
    stage = "params"
    try:
        with _limited():
            params = read_params(layout.params)
            for stage in ("ingest", "validate", "sessionize"):
                module = importlib.import_module(f"tasks.stages.{stage}")
                run_step(module.run, layout, params)
                _check(layout, stage, rows)
    except TwotempoError as error:
        line = str(error)
        if not line or len(line) > LONGEST_LINE or not line.isprintable():
            raise Failure(
                f"{stage}: not one printable line of at most {LONGEST_LINE} characters "
                f"({len(line)}): {line[:2_000]!r}"
            ) from error
        if stage == "validate" and layout.report("validate").exists():
            _check(layout, stage, rows)
        return Outcome(stage, type(error).__name__, line)
    except Failure:
        raise
    except Exception as error:
        raise Failure(f"{stage}: {traceback.format_exc()}") from error
    return Outcome("whole", "", "")


def csv_rows(path: Path) -> int | None:
    """The rows of a CSV file, counted by Python's reader; None where it is not well-formed."""
    try:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
        csv.field_size_limit(10_000_000)
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (csv.Error, OSError, EOFError, ValueError, zlib.error):
        return None
    alike = bool(lines) and all(len(line) == len(lines[0]) for line in lines)
    return len(lines) - 1 if alike else None


def parquet_rows(path: Path) -> int | None:
    """The rows that a Parquet file says it has; None where it says nothing."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except Exception:  # whatever a broken file makes of it
        return None


def file_rows(path: Path) -> int | None:
    """The rows of a file of either kind."""
    return parquet_rows(path) if path.name.endswith(".parquet") else csv_rows(path)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes too long."""

    def end(number: int, frame: object) -> None:
        raise Failure(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _check(layout: Layout, stage: str, rows: int | None) -> None:
    """Raise `Failure` unless a finished stage accounts for every row, in its report and its
    tables."""
    report = read_json(layout.report(stage))
    counts = json.dumps({name: value for name, value in report.items() if isinstance(value, int)})
    came = pq.read_metadata(layout.interactions).num_rows
    if stage == "ingest":
        wanted = came if rows is None else rows
        kept = report["rows_in"] == report["rows_out"] == came == wanted
        numbers = pq.read_table(layout.interactions, columns=["source_row"])["source_row"]
        kept &= bool((numbers.to_numpy() == np.arange(came)).all())
    elif stage == "validate":
        found = [
            pq.read_table(path, columns=["source_row"])["source_row"].to_numpy()
            for path in (layout.valid_interactions, layout.quarantine)
        ]
        kept = report["rows_in"] == came == report["rows_out"] + report["quarantined"]
        kept &= [len(part) for part in found] == [report["rows_out"], report["quarantined"]]
        kept &= bool((np.sort(np.concatenate(found)) == np.arange(came)).all())
        kept &= sum(report["quarantined_by_reason"].values()) == report["quarantined"]
    else:
        valid = pq.read_table(layout.valid_interactions, columns=["source_row"])["source_row"]
        events = read_events(layout.events)
        kept = report["rows_in"] == len(valid)
        kept &= len(valid) == report["events"] + report["cut"] + report["dropped_types"]
        kept &= len(events) == report["events"] == len(set(events.source_row.tolist()))
        kept &= set(events.source_row.tolist()) <= set(valid.to_pylist())
        kept &= sum(report["events_per_part"].values()) == report["events"]
    if not kept:
        raise Failure(f"{stage}: rows are lost or counted twice (the log has {rows}): {counts}")
