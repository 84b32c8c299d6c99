"""`twotempo forget`: a person is gone from all that is kept of people, and nobody else is."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from recsys_core.artifacts import read_json, write_json
from recsys_core.data.snapshot_forget import Removed, forget_in_snapshot
from recsys_core.data.snapshot_manifest import snapshot_files
from recsys_core.errors import BusyError
from recsys_core.layout import Layout
from recsys_core.serving.tables import DuckdbTable
from tasks.edges import snapshot
from tasks.step import run_step
from tests.conftest import CHECKOUT
from tests.small_logs import START, contents, params_for, run_stages, workspace
from tests.table_world import make_run, publish

CARD: dict[str, Any] = {
    "source": {"kind": "files", "interactions": "log", "items": None, "users": "users.csv"},
    "snapshot": {"row_key": ["user", "item", "at"]},
    "user_features": {"age": "numeric"},
    "expected": {"bad_share": 0.5},
}
PARAMS = params_for("small", "snapshot", snapshot={"path": "delivered"})
PERSON = "u3"


def lines(first: int, last: int) -> str:
    """Rows of users u0 to u6 in turn; every tenth has no item, for quarantine."""
    rows = (
        f"u{row % 7},{'' if row % 10 == 3 else f'i{row % 3}'},{START + row}\n"
        for row in range(first, last)
    )
    return "user,item,at\n" + "".join(rows)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A snapshot of two deliveries, in the second of which the person has no row."""
    layout = workspace(tmp_path, **CARD)
    delivered = tmp_path / "delivered"
    (delivered / "log").mkdir(parents=True)
    (delivered / "users.csv").write_text("user,age\nu3,41\nu4,42\n", encoding="utf-8")
    (delivered / "log" / "01.csv").write_text(lines(0, 70), encoding="utf-8")
    run_step(snapshot.run, layout, PARAMS)
    second = "".join(line for line in lines(70, 140).splitlines(True) if "u3" not in line)
    (delivered / "log" / "02.csv").write_text(second, encoding="utf-8")
    run_step(snapshot.run, layout, PARAMS)
    return layout


def users_of(layout: Layout) -> tuple[list[str], list[str]]:
    """The users of the log's rows in order, and of the table of users, verified on the way."""
    _, parts, tables = snapshot_files(layout.root / "snapshot")
    log = [user for part in parts for user in pq.read_table(part)["user"].to_pylist()]
    return log, pq.read_table(tables["users"])["user"].to_pylist()


def test_a_person_is_gone_from_the_snapshot_and_counted(layout: Layout) -> None:
    folder = layout.root / "snapshot"
    log, _ = users_of(layout)
    before = read_json(folder / "manifest.json")
    untouched = (folder / "interactions" / "part-000002.parquet").read_bytes()
    assert forget_in_snapshot(folder, PERSON, user_column="user") == Removed(10, 1)
    assert users_of(layout) == ([user for user in log if user != PERSON], ["u4"])
    manifest = read_json(folder / "manifest.json")
    first, second = manifest["parts"]
    assert (first["rows"], first["forgotten"], first["rows_in"]) == (60, 10, 70)
    assert second == before["parts"][1]
    assert (folder / "interactions" / "part-000002.parquet").read_bytes() == untouched
    assert {file["part"] for file in manifest["files"].values()} == {first["name"], second["name"]}
    for name, data in contents(folder).items():
        assert PERSON.encode() not in data, name
    # nothing is left over, and a second time there is nothing to do
    files = contents(folder)
    assert sorted(Path(name).name for name in files if "part-" in name) == [
        first["name"],
        second["name"],
    ]
    assert forget_in_snapshot(folder, PERSON, user_column="user") == Removed(0, 0)
    assert contents(folder) == files


def test_the_log_goes_on_after_somebody_was_forgotten(layout: Layout) -> None:
    folder = layout.root / "snapshot"
    forget_in_snapshot(folder, PERSON, user_column="user")
    new = layout.root / "delivered" / "log" / "03.csv"
    new.write_text(f"user,item,at\nu1,i1,{START + 999}\n", encoding="utf-8")
    run_step(snapshot.run, layout, PARAMS)
    run_stages(layout, "ingest", "validate", params=PARAMS)
    table = pq.read_table(layout.interactions)
    assert PERSON not in table["user_id"].to_pylist()
    assert table["user_id"].to_pylist()[-1] == "u1"
    assert table["source_row"].to_pylist() == list(range(table.num_rows))
    assert len(read_json(folder / "manifest.json")["parts"]) == 3


def test_ids_that_are_numbers_are_compared_as_the_pipeline_has_them(tmp_path: Path) -> None:
    log = pa.table(
        {
            "user": pa.array([7.0, 70.0, None, 7.0]),
            "item": ["a", "b", "c", "d"],
            "at": [START, START + 1, START + 2, START + 3],
        }
    )
    source = {**CARD["source"], "users": None}
    layout = workspace(tmp_path, source=source, snapshot=CARD["snapshot"])
    (tmp_path / "delivered" / "log").mkdir(parents=True)
    pq.write_table(log, tmp_path / "delivered" / "log" / "01.parquet")
    run_step(snapshot.run, layout, PARAMS)
    assert forget_in_snapshot(tmp_path / "snapshot", "7", user_column="user") == Removed(2, 0)
    _, parts, _ = snapshot_files(tmp_path / "snapshot")
    assert pq.read_table(parts[0])["user"].to_pylist() == [70.0, None]


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys_core.data import snapshot_forget, snapshot_manifest

moves, limit = 0, int(sys.argv[2])
real = Path.replace

def replace(self, target):
    global moves
    moves += 1
    if moves == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)

Path.replace = replace
unlink = Path.unlink

def unlinked(self, missing_ok=False):
    global moves
    moves += 1
    if moves == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return unlink(self, missing_ok=missing_ok)

Path.unlink = unlinked
snapshot_forget.forget_in_snapshot(Path(sys.argv[1]), "u3", user_column="user")
"""


def test_killed_at_every_step_the_snapshot_is_whole_and_the_next_call_completes(
    layout: Layout,
) -> None:
    folder = layout.root / "snapshot"
    before = users_of(layout)
    after = ([user for user in before[0] if user != PERSON], ["u4"])
    seen = []
    for limit in range(1, 40):
        command = [sys.executable, "-c", KILLED, str(folder), str(limit)]
        environment = {"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"]}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        found = users_of(layout)
        assert found in (before, after), limit
        seen.append(found == after)
        if done.returncode == 0:
            break
    assert seen[0] is False
    assert seen[-1] is True
    assert seen == sorted(seen)
    assert forget_in_snapshot(folder, PERSON, user_column="user") == Removed(0, 0)
    run_step(snapshot.run, layout, PARAMS)
    assert users_of(layout)[0] == after[0]


def test_the_command_removes_everywhere_and_says_where_it_cannot(layout: Layout) -> None:
    text = yaml.safe_dump(PARAMS.model_dump(mode="json", by_alias=True))
    layout.params.write_text(text, encoding="utf-8")
    write_json(layout.root / "workspace.json", {"overrides": [], "called_from": ""})
    run_stages(layout, "ingest", "validate", params=PARAMS)
    quarantine = pq.read_table(layout.quarantine)
    theirs = pc.sum(pc.equal(quarantine["user_id"], PERSON)).as_py()
    assert theirs
    run = make_run(layout.scores, users=["u1", PERSON, "u5"])
    publish(DuckdbTable(layout.table), run)
    layout.states.mkdir()
    (layout.states / "states.npy").write_bytes(b"of u3")
    done = CliRunner().invoke(
        app, ["forget", PERSON, "-w", str(layout.root)], catch_exceptions=False
    )
    assert done.exit_code == 0
    said = done.output
    assert "10 rows of the log removed, 1 of the table of users" in said
    assert f"quarantine: {theirs} rows removed" in said
    assert "recommendations.duckdb: 6 rows of kept runs removed" in said
    assert "scores: 6 rows, removed with all scored shards" in said
    assert "states: removed for everybody" in said
    place = (layout.root / "delivered").resolve()
    assert f"the log's own files in {place}" in said
    assert "DVC's cache" in said
    left = pq.read_table(layout.quarantine)
    assert left.schema.equals(quarantine.schema)
    assert left.num_rows == quarantine.num_rows - theirs
    assert PERSON not in left["user_id"].to_pylist()
    assert DuckdbTable(layout.table).user_ids().to_pylist() == ["u1", "u5"]
    assert not layout.scores.exists()
    assert not layout.states.exists()
    again = CliRunner().invoke(
        app, ["forget", PERSON, "-w", str(layout.root)], catch_exceptions=False
    )
    assert "snapshot" in again.output
    assert " 0 rows of the log removed" in again.output


def test_a_snapshot_that_is_being_written_is_left_alone(layout: Layout) -> None:
    from recsys_core.data.snapshot_manifest import held

    folder = layout.root / "snapshot"
    with held(folder), pytest.raises(BusyError, match="another run is writing this snapshot"):
        forget_in_snapshot(folder, PERSON, user_column="user")
    assert PERSON in users_of(layout)[0]
