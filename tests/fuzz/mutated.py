"""Rows of a real log in a damaged file: bytes flipped, cut or repeated, lines swapped, columns
renamed.

Where the public logs are not beside the repository, the rows are those of the simulator.
"""

import gzip
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys_core.config import read_yaml
from recsys_core.data.card_parts import SimulatorSource
from recsys_core.data.cards import read_card
from recsys_core.data.simulator import simulate
from tests.fuzz.generated import write_table
from tests.fuzz.outcome import file_rows
from tests.small_logs import REAL_LOGS, REPOSITORY

LOGS = ("ml-100k", "online_retail_uci", "jodie_wikipedia", "ml-1m-ordered", "yelp2020_5core")
ROWS = 120

Bytes = Callable[[bytes, np.random.Generator], bytes]


def write_case(root: Path, number: int) -> int | None:
    """Write the workspace of this number; returns the rows of its log, where they can be told."""
    rng = np.random.default_rng([number, 2])
    name = LOGS[int(rng.integers(len(LOGS)))]
    card, tables = _log(name if (REAL_LOGS / name).is_dir() else "simulator-tiny")
    ending = str(rng.choice([".csv", ".csv.gz", ".parquet"]))
    names = [f"log-{part}{ending}" for part in range(int(rng.choice([1, 1, 2])))]
    first = int(rng.integers(max(1, len(tables["interactions"]) - ROWS * len(names))))
    (root / "datasets").mkdir()
    log = root / "data" / "log"
    log.mkdir(parents=True)
    for part, file in enumerate(names):
        rows = tables["interactions"].slice(first + part * ROWS, ROWS)
        if rng.random() < 0.3 and (part == 1 or len(names) == 1):
            rows = _other_table(rows, rng)
        write_table(log / file, rows)
    source: dict[str, Any] = {"kind": "files", "interactions": "log", "items": None, "users": None}
    for which, features in (("items", "item_features"), ("users", "user_features")):
        if which in tables and rng.random() < 0.5:
            source[which] = f"{which}{ending}"
            write_table(root / "data" / source[which], tables[which].slice(0, ROWS))
        else:
            card = {key: value for key, value in card.items() if key != features}
    damaged = [log / names[-1]]
    damaged += [root / "data" / source[which] for which in ("items", "users") if source[which]]
    file = damaged[0 if rng.random() < 0.8 else int(rng.integers(len(damaged)))]
    for _ in range(int(rng.integers(0, 4))):
        _damage(file, rng)
    expected = {"bad_share": 0.9}
    card |= {"name": "small", "source": source, "expected": expected, "snapshot": None}
    params = read_yaml(REPOSITORY / "params.yaml")
    params["ingest"] = {"dataset": "small", "path": "data"}
    params["split"] = {"kind": "quantile", "share": 0.1}
    for path, value in ((root / "datasets" / "small.yaml", card), (root / "params.yaml", params)):
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
    counted = [file_rows(log / name) for name in names]
    return None if None in counted else sum(filter(None, counted))


@cache
def _log(name: str) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """A card and its tables, the log's first rows alone."""
    card = read_card(REPOSITORY / "datasets" / f"{name}.yaml")
    value = card.model_dump(mode="json")
    if isinstance(card.source, SimulatorSource):
        simulated = simulate(card.source, words=REPOSITORY / "datasets" / "simulator")
        return value, {
            "interactions": simulated.interactions,
            "items": simulated.items,
            "users": simulated.users,
        }
    tables = {}
    for which in ("interactions", "items", "users"):
        file = getattr(card.source, which)
        if file is not None:
            batches = pq.ParquetFile(REAL_LOGS / name / file).iter_batches(20_000)
            tables[which] = pa.Table.from_batches([next(batches)])
    return value, tables


def _other_table(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The rows with one column renamed, left out, of another type, emptied or doubled."""
    place = int(rng.integers(rows.num_columns))
    name, column = rows.column_names[place], rows.column(place)
    change = int(rng.integers(6))
    if change == 0:
        return rows.rename_columns([f"{n} " if n == name else n for n in rows.column_names])
    if change == 1:
        return rows.drop_columns([name])
    if change == 2:
        return rows.set_column(place, name, pa.array([str(v) for v in column.to_pylist()]))
    if change == 3:
        return rows.set_column(place, name, pa.nulls(len(rows), column.type))
    if change == 4:
        return rows.append_column(name.upper(), column)
    return rows.slice(0, 0)


def _damage(file: Path, rng: np.random.Generator) -> None:
    """Damage the bytes of a file, or its lines where it has such."""
    data = file.read_bytes()
    if file.name.endswith(".parquet"):
        file.write_bytes(_pick(ON_BYTES, rng)(data, rng))
        return
    zipped = file.name.endswith(".gz")
    if zipped and rng.random() < 0.3:
        file.write_bytes(_pick(ON_BYTES, rng)(data, rng))
        return
    try:
        text = gzip.decompress(data) if zipped else data
    except (OSError, EOFError, zlib.error):
        return  # damaged before
    text = _pick((*ON_BYTES, *ON_LINES, *ON_LINES), rng)(text, rng)
    file.write_bytes(gzip.compress(text, 1) if zipped else text)


def _pick(choices: tuple[Bytes, ...], rng: np.random.Generator) -> Bytes:
    return choices[int(rng.integers(len(choices)))]


def _span(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    low = int(rng.integers(len(data) + 1))
    return low, min(len(data), low + int(rng.choice([1, 3, 40, 4_000])))


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 10])) if changed else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut_end(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    low, high = _span(data, rng)
    return data[:low] + data[high:]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    low, _ = _span(data, rng)
    pieces = (
        b"\0",
        b'"',
        b"'",
        b",",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xff\xfe",
        "é".encode(),
        b"\x1a",
        b"\\",
    )
    return data[:low] + pieces[int(rng.integers(len(pieces)))] + data[low:]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    low, high = _span(data, rng)
    return data[:high] + data[low:high] * int(rng.choice([1, 5])) + data[high:]


def _swap_lines(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        a, b = (int(place) for place in rng.integers(len(lines), size=2))
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _drop_header(data: bytes, rng: np.random.Generator) -> bytes:
    return data.partition(b"\n")[2]


def _rename_header(data: bytes, rng: np.random.Generator) -> bytes:
    header, end, rest = data.partition(b"\n")
    return header[::-1] + end + rest


def _bom(data: bytes, rng: np.random.Generator) -> bytes:
    marks = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
    return marks[int(rng.integers(len(marks)))] + data


def _mixed_encodings(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    place = int(rng.integers(len(lines)))
    kind = str(rng.choice(["latin-1", "utf-16", "cp1252", "utf-8"]))
    text = lines[place].decode("utf-8", errors="replace").replace(",", ",é", 1)
    lines[place] = text.encode(kind, errors="replace")
    return b"".join(lines)


def _mixed_line_ends(data: bytes, rng: np.random.Generator) -> bytes:
    end = (b"\n", b"\r", b"\r\n", b"\n\n")[int(rng.integers(4))]
    lines = data.splitlines()
    share = float(rng.choice([0.1, 1.0]))
    ends = [end if rng.random() < share else b"\n" for _ in lines]
    return b"".join(line + own for line, own in zip(lines, ends, strict=True))


def _other_separator(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b",", (b";", b"\t", b"|", b", ")[int(rng.integers(4))])


ON_BYTES: tuple[Bytes, ...] = (_flip, _cut_end, _cut_out, _insert, _repeat)
ON_LINES: tuple[Bytes, ...] = (
    _swap_lines,
    _drop_header,
    _rename_header,
    _bom,
    _mixed_encodings,
    _mixed_line_ends,
    _other_separator,
)
