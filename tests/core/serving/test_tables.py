"""The published table: one transaction, the old run or the new one, whatever ids look like."""

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from recsys_core.errors import BusyError, ContractError, PublishError
from recsys_core.serving.shards import RunFacts, RunFolder, ScoreRun, time_of
from recsys_core.serving.tables import (
    content,
    publish_run,
    read_recommendations,
    read_runs,
)
from recsys_core.tables import SCORES
from tests.serving_world import HOSTILE, START

NIGHT = datetime(2026, 1, 1, 3, tzinfo=UTC)
USERS = sorted([*HOSTILE, "u1", "u2", "u3", "u4"], key=str.encode)


def make_run(
    root: Path,
    *,
    version: str = "0123456789ab",
    as_of: int = START,
    items: tuple[str, ...] = HOSTILE,
    users: list[str] = USERS,
    shard_users: int = 3,
) -> ScoreRun:
    """A scored run in which every user gets the same items."""
    facts = RunFacts(
        model_version=version,
        graph="popularity",
        as_of=as_of,
        k=len(items),
        seen_filter=False,
        shard_users=shard_users,
        users=len(users),
        log="",
        code="",
        provider="",
    )
    folder = RunFolder(root, facts)
    for number in folder.missing():
        chunk = users[number * shard_users : (number + 1) * shard_users]
        rows = [
            (user, rank, item, 1.0 / rank, 4.5 - rank if rank % 2 else None)
            for user in chunk
            for rank, item in enumerate(items, start=1)
        ]
        table = pa.table(
            [
                pa.array(column, kind)
                for column, kind in zip(zip(*rows, strict=True), SCORES.types, strict=True)
            ],
            schema=SCORES,
        )
        folder.write(number, table, users=len(chunk), shortfall=0)
    return folder.finish()


def publish(path: Path, run: ScoreRun, *, night: int = 0, keep_runs: int = 2) -> bool:
    at = NIGHT + timedelta(days=night)
    return publish_run(path, run, keep_runs=keep_runs, published_at=at).changed


def run_rows(path: Path) -> list[tuple[str, str, bool]]:
    runs = read_runs(path)
    return [(row["model_version"], row["status"], row["current"]) for row in runs.to_pylist()]


def tables_in(path: Path) -> list[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    return [name for (name,) in rows]


def test_what_is_published_is_what_was_scored(tmp_path: Path) -> None:
    path = tmp_path / "published" / "table.duckdb"
    run = make_run(tmp_path / "scores")
    published = publish_run(path, run, keep_runs=2, published_at=NIGHT)
    assert (published.rows, published.users, published.changed) == (60, 10, True)
    for user in USERS:
        rows = read_recommendations(path, user)
        assert rows.column_names == [
            "user_id",
            "rank",
            "item_id",
            "score",
            "model_version",
            "as_of",
            "rating",
        ]
        assert rows.column("rating").to_pylist() == [3.5, None, 1.5, None, -0.5, None]
        assert rows.column("user_id").to_pylist() == [user] * 6
        assert rows.column("rank").to_pylist() == [1, 2, 3, 4, 5, 6]
        assert rows.column("item_id").to_pylist() == list(HOSTILE)
        assert rows.column("model_version").unique().to_pylist() == ["0123456789ab"]
        assert rows.column("as_of")[0].as_py() == time_of(START)
    (entry,) = read_runs(path).to_pylist()
    assert entry == {
        "run_id": published.run_id,
        "model_version": "0123456789ab",
        "graph": "popularity",
        "as_of": time_of(START),
        "users": 10,
        "rows": 60,
        "sha256": published.sha256,
        "status": "published",
        "published_at": NIGHT,
        "schema_version": 1,
        "current": True,
    }


def test_a_user_who_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    with pytest.raises(PublishError, match="nothing is published yet"):
        read_recommendations(path, "u1")
    publish(path, make_run(tmp_path / "scores"))
    assert read_recommendations(path, "' OR 1=1 --").num_rows == 0


def test_publishing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    run = make_run(tmp_path / "scores")
    assert publish(path, run) is True
    before = read_runs(path)
    assert publish(path, run, night=1) is False
    assert read_runs(path) == before
    # other shards, same rows: the same run
    assert publish(path, make_run(tmp_path / "again", shard_users=7), night=2) is False
    assert read_runs(path) == before


def test_other_rows_model_or_date_are_another_run(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    assert publish(path, make_run(tmp_path / "1"))
    assert publish(path, make_run(tmp_path / "2", items=HOSTILE[::-1]), night=1)
    assert publish(path, make_run(tmp_path / "3", version="ba9876543210"), night=2)
    assert publish(path, make_run(tmp_path / "4", as_of=START + 1), night=3)
    assert len(read_runs(path)) == 4
    assert [current for *_, current in run_rows(path)] == [False, False, False, True]
    assert read_recommendations(path, "u1").column("as_of")[0].as_py() == time_of(START + 1)


def test_old_runs_are_dropped_and_their_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    names = ["a" * 12, "b" * 12, "c" * 12, "d" * 12]
    for night, name in enumerate(names):
        publish(path, make_run(tmp_path / name, version=name), night=night, keep_runs=2)
    assert run_rows(path) == [
        (names[0], "dropped", False),
        (names[1], "published", False),
        (names[2], "published", False),
        (names[3], "published", True),
    ]
    assert len(tables_in(path)) == 3 + 1
    # one that is kept becomes current again, one that was dropped is written again
    assert publish(path, make_run(tmp_path / "again", version=names[1]), night=4, keep_runs=0)
    assert publish(path, make_run(tmp_path / "first", version=names[0]), night=5, keep_runs=0)
    assert run_rows(path)[-1] == (names[0], "published", True)
    assert len(tables_in(path)) == 1 + 1
    assert read_recommendations(path, "u1").column("model_version")[0].as_py() == names[0]


def test_content_does_not_depend_on_shards_but_on_every_value(tmp_path: Path) -> None:
    digest, users = content(make_run(tmp_path / "3"))
    assert users == 10
    assert content(make_run(tmp_path / "1", shard_users=1)) == (digest, 10)
    assert content(make_run(tmp_path / "10", shard_users=10)) == (digest, 10)
    assert (
        content(make_run(tmp_path / "x", items=("ab", "c")))[0]
        != (content(make_run(tmp_path / "y", items=("a", "bc")))[0])
    )


def test_users_in_two_shards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    publish(path, make_run(tmp_path / "good"))
    repeated = make_run(tmp_path / "bad", users=["a", "b", "b", "c"], shard_users=2)
    with pytest.raises(ContractError, match=r"breaks the order|repeats the key"):
        publish(path, repeated)
    assert len(read_runs(path)) == 1


def test_nothing_to_publish_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    publish(path, make_run(tmp_path / "good"))
    facts = make_run(tmp_path / "scores").facts
    empty = ScoreRun(folder=tmp_path, facts=facts, shards=())
    with pytest.raises(PublishError, match="no rows to publish"):
        publish(path, empty)
    assert read_recommendations(path, "u1").num_rows == len(HOSTILE)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    publish(path, make_run(tmp_path / "1"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE recommendation_runs SET schema_version = 9")
    with pytest.raises(PublishError, match="schema version 9"):
        publish(path, make_run(tmp_path / "2", version="b" * 12))


CHILD = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
import duckdb
from recsys_core.serving import tables
from recsys_core.serving.shards import read_score_run

real = duckdb.connect

class KilledAtCommit:
    def __init__(self, *args, **kwargs): self.connection = real(*args, **kwargs)
    def __enter__(self): return self
    def __exit__(self, *_): self.connection.close()
    def execute(self, sql, *args):
        if sql == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.connection.execute(sql, *args)

tables.duckdb.connect = KilledAtCommit
run = read_score_run(Path(sys.argv[2]))
tables.publish_run(Path(sys.argv[1]), run, keep_runs=0, published_at=datetime.now(UTC))
"""


def test_killed_before_commit_the_old_table_stands(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    publish(path, make_run(tmp_path / "old", version="a" * 12))
    before = read_runs(path)
    many = [f"user-{number:06d}" for number in range(20_000)]
    new = make_run(tmp_path / "new", version="b" * 12, users=many, shard_users=20_000)
    command = [sys.executable, "-c", CHILD, str(path), str(tmp_path / "new")]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_runs(path) == before
    assert read_recommendations(path, "u1").column("model_version")[0].as_py() == "a" * 12
    assert read_recommendations(path, many[0]).num_rows == 0
    # and the next try goes through
    assert publish(path, new, night=1)
    assert read_recommendations(path, many[0]).num_rows == len(HOSTILE)


HOLDER = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_file_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.duckdb"
    run = make_run(tmp_path / "scores")
    publish(path, run)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(BusyError, match="another process has the file open") as caught:
                publish(path, run)
            assert "\n" not in str(caught.value)
        finally:
            holder.kill()
    assert publish(path, run) is False
