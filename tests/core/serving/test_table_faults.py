"""While a table is published: readers, a second writer, SIGKILL, a server that stops."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psycopg
import pyarrow as pa
import pytest

from recsys_core.errors import BusyError, ConfigError, PublishError
from recsys_core.serving import postgres_table
from recsys_core.serving.parquet_table import ParquetTable
from recsys_core.serving.postgres_table import PostgresTable
from recsys_core.serving.shards import ScoreRun
from recsys_core.serving.table_contract import Table
from recsys_core.serving.tables import DuckdbTable
from tests.conftest import CHECKOUT
from tests.postgres import Server, postgres_server
from tests.table_world import KINDS, fresh_schema, make_run, open_kind, publish, run_rows, whole

A, B = "a" * 12, "b" * 12
MANY = [f"user-{number:06d}" for number in range(12_000)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def dsn(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    if not kind.startswith("postgres"):
        yield ""
        return
    with fresh_schema(request.getfixturevalue("server")) as address:
        yield address


@pytest.fixture
def table(kind: str, dsn: str, tmp_path: Path) -> Table:
    return open_kind(kind, tmp_path, dsn=dsn)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ScoreRun:
    return make_run(tmp_path_factory.mktemp("small"), version=A)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ScoreRun:
    return make_run(tmp_path_factory.mktemp("large"), version=B, users=MANY, shard_users=1_000)


PUBLISHER = """
import sys
from pathlib import Path
from recsys_core.serving.shards import read_score_run
from tests.table_world import open_kind, publish

kind, root, dsn, scores = sys.argv[1:]
table, run = open_kind(kind, Path(root), dsn=dsn), read_score_run(Path(scores))
print("ready", flush=True)
publish(table, run, night=1, keep_runs=1)
print("published", flush=True)
"""


def start_publisher(kind: str, root: Path, dsn: str, run: ScoreRun) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PUBLISHER, kind, str(root), dsn, str(run.folder.parent)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def kill_at_random(
    kind: str, root: Path, dsn: str, *, small: ScoreRun, large: ScoreRun, rounds: int
) -> None:
    """Publish a large run over a small one, killed at a random moment of each round; then the next
    call completes, and the table is that of the undisturbed run."""
    rng = Random(f"{kind} {rounds}")
    undisturbed = open_kind(kind, root / "whole", dsn=dsn, schema="undisturbed")
    publish(undisturbed, small)
    began = time.monotonic()
    publish(undisturbed, large, night=1, keep_runs=1)
    takes = time.monotonic() - began
    old, new = make_tables(kind, root, small, large)
    assert whole(undisturbed) == new
    killed = 0
    for number in range(rounds):
        if kind.startswith("postgres"):
            with psycopg.connect(dsn) as database:
                database.execute("DROP SCHEMA IF EXISTS twotempo CASCADE")
        place = root / f"round-{number}"
        table = open_kind(kind, place, dsn=dsn)
        publish(table, small)
        with start_publisher(kind, place, dsn, large) as child:
            time.sleep(rng.uniform(0, 1.2) * takes)
            child.send_signal(signal.SIGKILL)
            child.wait()
        killed += child.returncode == -signal.SIGKILL
        assert whole(table) in (old, new), f"round {number}: neither the old table nor the new one"
        publish(table, large, night=1, keep_runs=1)
        assert whole(table) == new, f"round {number}"
        assert run_rows(table) == [(A, "published", False), (B, "published", True)]
        facts = ("run_id", "sha256", "rows", "users", "published_order")
        assert table.runs().select(facts) == undisturbed.runs().select(facts)
    assert killed, "no round was killed on the way: nothing was tested"


def make_tables(
    kind: str, root: Path, small: ScoreRun, large: ScoreRun
) -> tuple[pa.Table, pa.Table]:
    """What both runs are as whole tables, whichever kind keeps them."""
    table = open_kind("parquet", root / f"reference-{kind}")
    publish(table, small)
    old = whole(table)
    publish(table, large, night=1)
    return old, whole(table)


@pytest.fixture
def two_schemas(kind: str, request: pytest.FixtureRequest) -> Iterator[None]:
    if not kind.startswith("postgres"):
        yield
        return
    with fresh_schema(request.getfixturevalue("server"), "undisturbed"):
        yield


@pytest.mark.usefixtures("two_schemas")
def test_killed_at_random_moments_the_next_call_completes(
    kind: str, dsn: str, tmp_path: Path, small: ScoreRun, large: ScoreRun
) -> None:
    kill_at_random(kind, tmp_path, dsn, small=small, large=large, rounds=2)


@pytest.mark.slow
@pytest.mark.usefixtures("two_schemas")
def test_killed_at_random_moments_twenty_times(
    kind: str, dsn: str, tmp_path: Path, small: ScoreRun, large: ScoreRun
) -> None:
    kill_at_random(kind, tmp_path, dsn, small=small, large=large, rounds=20)


READER = """
import sys, time
from pathlib import Path
from recsys_core.errors import BusyError
from tests.table_world import open_kind, whole
import duckdb

kind, root, dsn = sys.argv[1:]
table = open_kind(kind, Path(root), dsn=dsn)
print("ready", flush=True)
for line in iter(lambda: Path(root, "stop").exists(), True):
    try:
        found = whole(table)
    except (duckdb.IOException, FileNotFoundError):
        continue  # DuckDB lets nobody in beside a writer; a dropped run's files are gone
    versions = found.column("model_version").unique().to_pylist()
    print(",".join(versions), found.num_rows, flush=True)
"""


def test_readers_see_whole_versions_only(
    kind: str, table: Table, dsn: str, tmp_path: Path, small: ScoreRun, large: ScoreRun
) -> None:
    publish(table, small)
    command = [sys.executable, "-c", READER, kind, str(tmp_path), dsn]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        lines: list[str] = []
        seeing = threading.Thread(target=lines.extend, args=[reader.stdout])
        seeing.start()
        both = {f"{A} {small.rows}\n", f"{B} {large.rows}\n"}
        try:
            for night in range(1, 40):
                until_free(table, large if night % 2 else small, night)
                time.sleep(0.2)
                if night >= 4 and set(lines) >= both:
                    break
        finally:
            (tmp_path / "stop").touch()
            seeing.join()
    assert reader.returncode == 0
    assert set(lines) == both


def until_free(table: Table, run: ScoreRun, night: int) -> None:
    """Publish, again where a reader of DuckDB's file is in the way."""
    for _ in range(200):
        try:
            publish(table, run, night=night, keep_runs=1)
        except BusyError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the readers never let the writer in")


def test_a_transaction_in_postgres_keeps_the_version_it_began_with(
    server: Server, tmp_path: Path, small: ScoreRun, large: ScoreRun
) -> None:
    query = "SELECT model_version, count(*) FROM twotempo.recommendations GROUP BY 1"
    with fresh_schema(server) as dsn:
        table = open_kind("postgres-rows", tmp_path, dsn=dsn)
        publish(table, small)
        with psycopg.connect(dsn) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT 1")  # the snapshot, before the view was ever read
            publish(table, large, night=1, keep_runs=1)
            assert reader.execute(query).fetchall() == [(A, small.rows)]
            reader.rollback()
            assert reader.execute(query).fetchall() == [(B, large.rows)]


def test_a_long_reader_lets_publishing_go_on_and_its_run_is_dropped_later(
    server: Server, tmp_path: Path, small: ScoreRun, large: ScoreRun
) -> None:
    with fresh_schema(server) as dsn:
        table = open_kind("postgres-rows", tmp_path, dsn=dsn)
        publish(table, small)
        with psycopg.connect(dsn) as reader:
            reader.execute("SELECT count(*) FROM twotempo.recommendations")
            assert publish(table, large, night=1, keep_runs=0)
            assert run_rows(table) == [(A, "published", False), (B, "published", True)]
        assert publish(table, large, night=2, keep_runs=0) is False
        assert run_rows(table) == [(A, "dropped", False), (B, "published", True)]


def test_a_second_writer_is_told_in_one_line(
    table: Table, dsn: str, tmp_path: Path, small: ScoreRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(table, small)
    other = make_run(tmp_path / "other", version=B)
    with held(table, monkeypatch), pytest.raises(BusyError) as caught:
        publish(table, other, night=1)
    said = str(caught.value)
    assert "another" in said
    assert "\n" not in said
    assert run_rows(table) == [(A, "published", True)]
    assert publish(table, other, night=1)


HOLDER = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def held(table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold a table as another writer would."""
    if isinstance(table, DuckdbTable):
        command = [sys.executable, "-c", HOLDER, str(table.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            try:
                yield
            finally:
                holder.kill()
    elif isinstance(table, ParquetTable):
        with (table.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    else:
        assert isinstance(table, PostgresTable)
        assert table.dsn is not None
        monkeypatch.setattr(postgres_table, "WAIT_FOR_WRITER", "200ms")
        digest = hashlib.sha256(f"twotempo/{table.schema}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with psycopg.connect(table.dsn.get_secret_value()) as other:
            other.execute("SELECT pg_advisory_lock(%s)", [key])
            yield


def test_postgres_stopped_amid_a_copy_and_started_again(
    server: Server,
    tmp_path: Path,
    small: ScoreRun,
    large: ScoreRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = postgres_table.rows_of
    shards: list[int] = []

    def cut_off(table: pa.Table, number: int) -> Iterator[bytes]:
        shards.append(number)
        for place, block in enumerate(encoded(table, number)):
            yield block
            if len(shards) == 5 and place == 1:
                server.stop()

    with fresh_schema(server) as dsn:
        table = open_kind("postgres-rows", tmp_path, dsn=dsn)
        publish(table, small)
        old = whole(table)
        monkeypatch.setattr(postgres_table, "rows_of", cut_off)
        try:
            with pytest.raises(BusyError, match="the old table stands, publish again") as caught:
                publish(table, large, night=1)
            with pytest.raises(BusyError, match="cannot be reached"):
                publish(table, large, night=1)
        finally:
            server.start()
        said = str(caught.value)
        assert "hunter2" not in said
        assert "tester" not in said
        assert str(server.port) not in said
        assert whole(table) == old
        # four of twelve shards are there: the next call writes the other eight
        shards.clear()
        shards.extend([0] * 10)
        assert publish(table, large, night=1)
        assert len(shards) == 10 + 8
        assert whole(table).num_rows == large.rows


def test_nothing_of_the_address_is_told(tmp_path: Path, small: ScoreRun) -> None:
    for address in (
        "postgresql://tester:hunter2@127.0.0.1:1/secretbase",
        "postgresql://tester:hunter2@",
        "hunter2",
        "",
    ):
        table = open_kind("postgres-rows", tmp_path, dsn=address)
        with pytest.raises((BusyError, ConfigError)) as caught:
            publish(table, small)
        assert "TWOTEMPO_TABLE_DSN" in str(caught.value)
        for word in ("hunter2", "tester", "secretbase", "127.0.0.1"):
            assert word not in str(caught.value)
            assert word not in table.place
            assert word not in repr(table)


def test_rights_that_are_missing_are_named(server: Server, tmp_path: Path, small: ScoreRun) -> None:
    server.execute("DROP ROLE IF EXISTS weak", "CREATE ROLE weak LOGIN")
    with fresh_schema(server) as dsn:
        table = open_kind("postgres-rows", tmp_path, dsn=dsn.replace("tester", "weak"))
        with pytest.raises(PublishError, match="grant the role of TWOTEMPO_TABLE_DSN CREATE"):
            publish(table, small)
        # with the schema given to it, it needs no more; readers need the view alone
        server.execute(
            "CREATE SCHEMA twotempo AUTHORIZATION weak",
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader LOGIN",
        )
        publish(table, small)
        server.execute(
            "GRANT USAGE ON SCHEMA twotempo TO reader",
            "GRANT SELECT ON twotempo.recommendations TO reader",
        )
        publish(table, make_run(tmp_path / "other", version=B), night=1)
        with psycopg.connect(dsn.replace("tester", "reader")) as reader:
            rows = reader.execute("SELECT DISTINCT model_version FROM twotempo.recommendations")
            assert rows.fetchall() == [(B,)]
    server.execute("DROP ROLE weak", "DROP ROLE reader")
