"""Bad input through ingest, validate and sessionize: one line with the remedy, or a counted row.

Each thing that is wrong with a log has one test, and most are in this file:

    missing file                     test_ingest.py: a missing folder, file or card is named
    wrong column, empty file, header only, broken quoting, mixed encodings, truncated Parquet,
    another schema in the second file, folder for a file         what_cannot_be_read_is_one_line
    BOM, CRLF, NUL bytes             a_csv_that_is_only_odd_loses_no_row
    ms where the card says s         test_validate.py: what ingest thinks of the unit stops the run
    negative, in the future, NaN, text times              times_that_cannot_be_are_counted
    ids with spaces, quotes, unicode, 10,000 characters, leading zeros, numbers as texts
                                     odd_ids_come_through_as_they_are
    one user, one item, 100,000 events of one user        a_lopsided_log_ends_with_a_table
    one event per user               users_of_one_event_have_nothing_to_learn_from
    duplicate rows                   rows_that_come_again_are_counted
    unknown key, wrong type, missing section in params.yaml or a card; no params.yaml
                                     core/test_config.py, core/data/test_cards.py, and below
                                     what_is_wrong_with_a_card_or_params_is_one_line
    disk full                        test_full_disk.py
    killed, then run again           a_killed_stage_leaves_nothing_that_passes_for_whole; trainings:
                                     test_training_killed.py
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_core.artifacts import read_json
from recsys_core.config import Params
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import DataError, TwotempoError
from recsys_core.layout import STAGES, Layout
from recsys_core.serving.shards import RESERVED
from recsys_core.serving.tables import open_table
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, read_table
from tasks.child import child_environment
from tasks.step import run_step
from tests.small_logs import (
    DAY,
    REPOSITORY,
    START,
    contents,
    params_for,
    run_stages,
    small_log,
    workspace,
)

DOOR = ("ingest", "validate", "sessionize")
QUANTILE = {"kind": "quantile", "share": 0.2}
SECOND = START // 1_000_000
HEADER = b"user,item,at\n"
ROWS = b"".join(b"u%d,i%d,%d\n" % (row % 2, row % 3, SECOND + 10 * row) for row in range(12))


def in_file(name: str, **changes: Any) -> dict[str, Any]:
    """A card of a log in this file or folder, times in seconds."""
    source = {"kind": "files", "interactions": name, "items": None, "users": None}
    return {"source": source, "time": {"kind": "absolute", "unit": "s"}, **changes}


def through_the_door(layout: Layout) -> dict[str, Any]:
    """What validate reports of a log that comes through, every row of it accounted for."""
    before = date(2024, 1, 1)
    params = params_for("small", "data", split=QUANTILE, validate={"timestamps_before": before})
    run_stages(layout, *DOOR, params=params)
    came, door, events = (read_json(layout.report(stage)) for stage in DOOR)
    assert came["rows_in"] == came["rows_out"] == door["rows_in"]
    assert door["rows_in"] == door["rows_out"] + door["quarantined"]
    assert door["rows_out"] == events["rows_in"]
    assert events["rows_in"] == events["events"] + events["cut"] + events["dropped_types"]
    report: dict[str, Any] = door
    return report


def reasons(layout: Layout) -> dict[int, str]:
    """The quarantined rows, each with why."""
    rows = pq.read_table(layout.quarantine, columns=["source_row", "reason"])
    return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


WHOLE = parquet_bytes(small_log(12))
OTHER = parquet_bytes(small_log(12).set_column(2, "at", pa.array(["now"] * 12)))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"log.csv": b"user,thing,at\nu,i,1\n"}, "names a column 'item', there are ['user', 'thi"),
        ({"log.csv": b""}, "log.csv: it is empty; check the export"),
        ({"log.csv": HEADER}, "log.csv: it has no rows; check the export"),
        ({"log.parquet": parquet_bytes(small_log(0))}, "log.parquet: it has no rows"),
        ({"log.csv": HEADER + ROWS + b'u,"i,1\n' + ROWS}, "log.csv: line 14: a quotation mark"),
        ({"log.csv": HEADER + ROWS + b"u,caf\xe9,1\n"}, "log.csv: line 14: bytes that are not UTF"),
        ({"log.csv": b'"us\ner",item,at\r\n' + ROWS}, "line 1: a column's name has a line break"),
        ({"log.parquet": WHOLE[:-100]}, "log.parquet: cannot be read"),
        ({"log/1.parquet": WHOLE, "log/2.parquet": OTHER}, "2.parquet: column 'at' is VARCHAR"),
        ({"log.csv/note.txt": b""}, "log.csv: no file in it ends in one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_read_is_one_line(
    files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    layout = workspace(tmp_path, **in_file(next(iter(files)).partition("/")[0]))
    for path, data in files.items():
        (tmp_path / "data" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / path).write_bytes(data)
    with pytest.raises(TwotempoError) as caught:
        through_the_door(layout)
    line = str(caught.value)
    assert said in line
    assert line.isprintable()
    assert ";" in line, "it says what to do"
    assert not layout.interactions.exists()


@pytest.mark.parametrize(
    ("data", "rejected"),
    [
        (b"\xef\xbb\xbf" + HEADER + ROWS, {}),
        ((HEADER + ROWS).replace(b"\n", b"\r\n"), {}),
        (HEADER + ROWS + b"u0,i\x000,%d\n" % SECOND, {12: "item_id_has_control_characters"}),
    ],
    ids=["bom", "crlf", "nul"],
)
def test_a_csv_that_is_only_odd_loses_no_row(
    data: bytes, rejected: dict[int, str], tmp_path: Path
) -> None:
    layout = workspace(tmp_path, **in_file("log.csv", expected={"bad_share": 0.1}))
    (tmp_path / "data" / "log.csv").write_bytes(data)
    report = through_the_door(layout)
    assert reasons(layout) == rejected
    assert (report["rows_out"], report["users_out"], report["items_out"]) == (12, 2, 3)


def test_times_that_cannot_be_are_counted(tmp_path: Path) -> None:
    odd = ["-5", "1704067200", "NaN", "yesterday", "", "1e400", "99999999999999999999"]
    lines = b"".join(b"u0,i0,%s\n" % text.encode() for text in odd)
    layout = workspace(tmp_path, **in_file("log.csv", expected={"bad_share": 0.5}))
    (tmp_path / "data" / "log.csv").write_bytes(HEADER + lines + ROWS)
    report = through_the_door(layout)
    assert reasons(layout) == {
        0: "timestamp_out_of_range",
        1: "timestamp_in_future",
        2: "timestamp_missing",
        # all without a time, so the later ones are the same row again
        **dict.fromkeys(range(3, 7), "timestamp_missing;repeats_an_earlier_row"),
    }
    assert (report["rows_out"], report["quarantined"]) == (12, 7)
    # an empty field is missing, not unreadable
    assert read_json(layout.report("ingest"))["unreadable"] == {"timestamp": 4}


ODD_IDS = ["a b", " a b ", "o'hara", 'quo"te', "naïve ☃ 例", "x" * 10_000, "007", "7", "7.0", "1e3"]


def test_odd_ids_come_through_as_they_are(tmp_path: Path) -> None:
    log = pa.table(
        {
            "user": ODD_IDS,
            "item": ODD_IDS[::-1],
            "at": [START + 10_000_000 * row for row in range(len(ODD_IDS))],
        }
    )
    layout = workspace(tmp_path, log)
    assert through_the_door(layout)["quarantined"] == 0
    users = Vocabulary.from_table(read_table(layout.user_vocabulary, USER_VOCABULARY))
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    order = np.arange(1, len(ODD_IDS) + 1)
    assert users.to_ids(order).to_pylist() == ODD_IDS
    assert items.to_ids(order).to_pylist() == ODD_IDS[::-1]


def test_rows_that_come_again_are_counted(tmp_path: Path) -> None:
    log = pa.concat_tables([small_log(12), small_log(2), small_log(1)])
    layout = workspace(tmp_path, log, expected={"bad_share": 0.2})
    assert through_the_door(layout)["quarantined"] == 3
    assert reasons(layout) == dict.fromkeys((12, 13, 14), "repeats_an_earlier_row")


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        ("params.yaml", {"colour": "red"}, "params.yaml: colour: Extra inputs"),
        (
            "params.yaml",
            {"sessionize": {"ties": "first", "memory_mb": "much"}},
            "params.yaml: sessionize.memory_mb",
        ),
        ("params.yaml", {"validate": None}, "params.yaml: validate: Input should be"),
        ("params.yaml", None, "params.yaml: no such file"),
        ("datasets/small.yaml", {"colour": "red"}, "datasets/small.yaml: colour: Extra inputs"),
        ("datasets/small.yaml", {"sessions": 5}, "datasets/small.yaml: sessions: Input should be"),
        ("datasets/small.yaml", {"columns": {}}, "small.yaml: columns.user_id: Field required"),
    ],
)
def test_what_is_wrong_with_a_card_or_params_is_one_line(
    path: str, changes: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    layout = workspace(tmp_path, small_log())
    write_params(layout, params_for("small", "data"))
    file = tmp_path / path
    value = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.unlink()
    if changes is not None:
        file.write_text(yaml.safe_dump({**value, **changes}), encoding="utf-8")
    done = start(layout, "ingest")
    stdout, stderr = done.communicate(timeout=60)
    assert done.returncode == 1
    assert stdout.startswith("error: ")
    assert said in stdout
    assert (stdout.count("\n"), stderr) == (1, "")


TINY = params_for(
    "small",
    "data",
    train_embeddings={"dim": 8, "batch": 512, "negatives": 16, "max_epochs": 1},
    train_rnn={
        "t_star": 4,
        "window": 8,
        "hidden": 8,
        "reads": ["gap"],
        "time_dim": 4,
        "batch": 1_024,
        "negatives": 16,
        "max_epochs": 1,
    },
    train_memory={"targets": 2000, "steps": 50, "similar_ease": [10.0]},
    evaluate={"bootstrap_draws": 20, "recent_hours": [24.0]},
    refit={"kind": "none"},
    gate={"min_targets": 1},
    score={"k": 5},
)


def log_of(users: "list[int] | np.ndarray[Any, Any]", items: int) -> pa.Table:
    """Six days of events of these users, on so many items."""
    rng = np.random.default_rng(1)
    n = len(users)
    return pa.table(
        {
            "user": [f"u{user}" for user in users],
            "item": [f"i{item}" for item in rng.integers(items, size=n)],
            "at": rng.permutation(START + 6 * DAY * np.arange(n) // n),
        }
    )


@pytest.mark.parametrize(
    ("log", "table"),
    [
        # half a minute each, most of it the export; the other two are the odder ones
        pytest.param(log_of([0] * 400, 20), (1, 5), marks=pytest.mark.slow),
        (log_of(np.arange(400) % 50, 1), (50, 50)),
        (log_of([0] * 100_000 + [row % 40 + 1 for row in range(200)], 50), (41, 205)),
    ],
    ids=["one user", "one item", "100,000 events of a user"],
)
def test_a_lopsided_log_ends_with_a_table(
    log: pa.Table, table: tuple[int, int], tmp_path: Path
) -> None:
    layout = workspace(tmp_path, log)
    run_stages(layout, *STAGES, params=TINY)
    for edge in ("gate", "register", "score", "publish"):
        run_step(importlib.import_module(f"tasks.edges.{edge}").run, layout, TINY)
    with open_table(layout.table, read_only=True) as connection:
        found = connection.execute(
            "SELECT count(DISTINCT user_id), count(*) FROM recommendations "
            f"WHERE NOT starts_with(user_id, '{RESERVED}')"
        ).fetchall()[0]
    assert found == table


def test_users_of_one_event_have_nothing_to_learn_from(tmp_path: Path) -> None:
    layout = workspace(tmp_path, log_of(list(range(400)), 20))
    run_stages(layout, *DOOR, params=TINY)
    report = read_json(layout.report("sessionize"))
    assert (report["events"], report["users"], report["sessions"]) == (400, 400, 400)
    with pytest.raises(DataError, match=r"the validation period .* has no successive targets"):
        run_stages(layout, "train_embeddings", params=TINY)


def write_params(layout: Layout, params: Params) -> None:
    text = yaml.safe_dump(params.model_dump(mode="json", by_alias=True))
    layout.params.write_text(text, encoding="utf-8")


def start(layout: Layout, stage: str) -> "subprocess.Popen[str]":
    environment = child_environment(os.environ)
    environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", f"tasks.stages.{stage}"],
        cwd=layout.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_while_it_writes(layout: Layout, stage: str) -> None:
    """SIGKILL as soon as the stage has begun a file."""
    process = start(layout, stage)
    try:
        while not list(layout.stage(stage).glob(".*.tmp")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL, "it had ended before it was killed"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    rng = np.random.default_rng(2)
    n = 200_000
    log = pa.table(
        {
            "user": [f"{user:x}" for user in rng.integers(0, 2**60, n)],
            "item": [f"{item:x}" for item in rng.integers(0, 2**60, n)],
            "at": START + rng.integers(0, 6 * DAY, n),
        }
    )
    layout = workspace(tmp_path_factory.mktemp("undisturbed"), log)
    params = params_for("small", "data", validate={"batch_rows": 50_000})
    write_params(layout, params)
    run_stages(layout, *DOOR, params=params)
    return layout


@pytest.mark.parametrize("stage", DOOR)
def test_a_killed_stage_leaves_nothing_that_passes_for_whole(
    stage: str, undisturbed: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "copy")
    shutil.copytree(undisturbed.root, layout.root)
    shutil.rmtree(layout.stage(stage))
    layout.report(stage).unlink()
    kill_while_it_writes(layout, stage)
    whole = contents(undisturbed.stage(stage))
    left = contents(layout.stage(stage))
    assert set(left) != set(whole), "it was killed in the middle"
    for name in set(left) & set(whole):
        assert left[name] == whole[name]
    assert not layout.report(stage).exists()
    again = start(layout, stage)
    stdout, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stdout + stderr
    assert contents(layout.root / "artifacts") == contents(undisturbed.root / "artifacts")
    assert contents(layout.root / "reports") == contents(undisturbed.root / "reports")
