"""The published table of each kind: the old run or the new one, whatever ids look like."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ConfigError, ContractError, PublishError
from recsys_core.serving.parquet_table import ParquetTable
from recsys_core.serving.postgres_table import PostgresTable
from recsys_core.serving.shards import ScoreRun, Shard, time_of
from recsys_core.serving.table_contract import RUNS, Table, content
from recsys_core.serving.tables import DuckdbTable
from recsys_core.tables import SCORES
from tests.postgres import Server, postgres_server
from tests.serving_world import HOSTILE, START
from tests.table_world import (
    KINDS,
    NIGHT,
    USERS,
    fresh_schema,
    make_run,
    open_kind,
    publish,
    run_rows,
    whole,
)

A, B, C, D = (letter * 12 for letter in "abcd")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """An empty table of each kind."""
    if not request.param.startswith("postgres"):
        yield open_kind(request.param, tmp_path)
        return
    with fresh_schema(request.getfixturevalue("server")) as dsn:
        yield open_kind(request.param, tmp_path, dsn=dsn)


def kept_places(table: Table) -> int:
    """How many runs have rows, by what lies there."""
    if isinstance(table, DuckdbTable):
        with duckdb.connect(str(table.path), read_only=True) as connection:
            rows = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return len(rows) - 1
    if isinstance(table, ParquetTable):
        return len([path for path in table.folder.iterdir() if path.is_dir()])
    assert isinstance(table, PostgresTable)
    assert table.dsn is not None
    with psycopg.connect(table.dsn.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'twotempo' "
            "AND tablename ~ '^recommendations_[0-9a-f]{12}$'"
        ).fetchall()
    return len(found)


def test_what_is_published_is_what_was_scored(table: Table, tmp_path: Path) -> None:
    run = make_run(tmp_path / "scores")
    published = table.publish(run, keep_runs=2, published_at=NIGHT)
    assert (published.rows, published.users, published.changed) == (60, 10, True)
    for user in USERS:
        rows = table.read(user)
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
    runs = table.runs()
    assert runs.schema.equals(RUNS)
    assert runs.to_pylist() == [
        {
            "run_id": published.run_id,
            "model_version": "0123456789ab",
            "graph": "popularity",
            "as_of": time_of(START),
            "users": 10,
            "rows": 60,
            "sha256": published.sha256,
            "status": "published",
            "published_at": NIGHT,
            "schema_version": 2,
            "current": True,
            "published_order": 1,
            "forgotten": 0,
        }
    ]
    current = table.current()
    assert current is not None
    assert (current.run_id, current.rows, current.users) == (published.run_id, 60, 10)
    assert (current.model_version, current.as_of) == ("0123456789ab", START)
    assert table.user_ids().to_pylist() == USERS
    assert table.user_ids(first=3).to_pylist() == USERS[:3]


def test_every_kind_holds_the_same(tmp_path: Path, server: Server) -> None:
    run = make_run(tmp_path / "scores", shard_users=4)
    found = []
    for kind in KINDS:
        with fresh_schema(server) as dsn:
            table = open_kind(kind, tmp_path / kind, dsn=dsn)
            publish(table, run)
            found.append((whole(table), table.runs()))
    assert all(rows.equals(found[0][0]) for rows, _ in found)
    assert all(runs.equals(found[0][1]) for _, runs in found)
    assert found[0][0].num_rows == 60


def test_a_user_who_is_not_there(table: Table, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nothing is published yet"):
        table.read("u1") if not isinstance(table, ParquetTable) else table.current()
    publish(table, make_run(tmp_path / "scores"))
    assert table.read("' OR 1=1 --").num_rows == 0


def test_publishing_twice_changes_nothing(table: Table, tmp_path: Path) -> None:
    run = make_run(tmp_path / "scores")
    assert publish(table, run) is True
    before = table.runs()
    assert publish(table, run, night=1) is False
    assert table.runs() == before
    # other shards, same rows: the same run
    assert publish(table, make_run(tmp_path / "again", shard_users=7), night=2) is False
    assert table.runs() == before


def test_other_rows_model_or_date_are_another_run(table: Table, tmp_path: Path) -> None:
    assert publish(table, make_run(tmp_path / "1"))
    assert publish(table, make_run(tmp_path / "2", items=HOSTILE[::-1]), night=1)
    assert publish(table, make_run(tmp_path / "3", version="ba9876543210"), night=2)
    assert publish(table, make_run(tmp_path / "4", as_of=START + 1), night=3)
    assert [current for *_, current in run_rows(table)] == [False, False, False, True]
    assert table.runs().column("published_order").to_pylist() == [1, 2, 3, 4]
    assert table.read("u1").column("as_of")[0].as_py() == time_of(START + 1)


def test_old_runs_are_dropped_and_their_entries_stay(table: Table, tmp_path: Path) -> None:
    for night, name in enumerate((A, B, C, D)):
        publish(table, make_run(tmp_path / name, version=name), night=night, keep_runs=2)
    assert run_rows(table) == [
        (A, "dropped", False),
        (B, "published", False),
        (C, "published", False),
        (D, "published", True),
    ]
    assert kept_places(table) == 3
    # one that is kept becomes current again, one that was dropped is written again
    assert publish(table, make_run(tmp_path / "again", version=B), night=4, keep_runs=0)
    assert publish(table, make_run(tmp_path / "first", version=A), night=5, keep_runs=0)
    assert run_rows(table)[-1] == (A, "published", True)
    assert kept_places(table) == 1
    assert table.read("u1").column("model_version")[0].as_py() == A
    assert whole(table).num_rows == 60


def test_a_kept_run_becomes_current_again_and_a_dropped_one_cannot(
    table: Table, tmp_path: Path
) -> None:
    for night, name in enumerate((A, B, C)):
        publish(table, make_run(tmp_path / name, version=name), night=night, keep_runs=1)
    ids = {row["model_version"]: row["run_id"] for row in table.runs().to_pylist()}
    assert table.make_current(ids[B], published_at=NIGHT) is True
    assert table.make_current(ids[B], published_at=NIGHT) is False
    assert table.read("u1").column("model_version").unique().to_pylist() == [B]
    assert run_rows(table)[-2:] == [(C, "published", False), (B, "published", True)]
    with pytest.raises(PublishError, match="is dropped: it has no rows"):
        table.make_current(ids[A], published_at=NIGHT)
    with pytest.raises(PublishError, match="was never published there"):
        table.make_current("0" * 12, published_at=NIGHT)
    assert table.read("u1").column("model_version").unique().to_pylist() == [B]
    # C was current last but one: it is the one that is kept
    assert publish(table, make_run(tmp_path / "d", version=D), night=9, keep_runs=1)
    kept = [name for name, status, _ in run_rows(table) if status == "published"]
    assert kept == [B, D]


@pytest.mark.parametrize("name", ["x; DROP TABLE y", "../../secret", "ABCDEF012345", "", "a" * 13])
def test_hostile_names_of_runs_are_refused(table: Table, tmp_path: Path, name: str) -> None:
    publish(table, make_run(tmp_path / "scores"))
    with pytest.raises(PublishError, match="names no run"):
        table.make_current(name, published_at=NIGHT)


def test_a_person_is_forgotten_in_every_kept_run(table: Table, tmp_path: Path) -> None:
    person = HOSTILE[0]
    publish(table, make_run(tmp_path / "1", version=A))
    publish(table, make_run(tmp_path / "2", version=B, items=HOSTILE[:2]), night=1)
    others = {user: table.read(user) for user in USERS if user != person}
    assert table.forget(person) == len(HOSTILE) + 2
    assert table.read(person).num_rows == 0
    assert table.user_ids().to_pylist() == [user for user in USERS if user != person]
    assert {user: table.read(user) for user in others} == others
    runs = table.runs().to_pylist()
    assert [(row["rows"], row["forgotten"], row["users"]) for row in runs] == [
        (54, 6, 9),
        (18, 2, 9),
    ]
    # the run before does not bring them back, nor does publishing the same scores again
    table.make_current(runs[0]["run_id"], published_at=NIGHT)
    assert table.read(person).num_rows == 0
    assert table.forget(person) == 0
    assert publish(table, make_run(tmp_path / "1", version=A), night=2) is False
    assert table.read(person).num_rows == 0


def test_nobody_is_forgotten_where_nothing_is_published(tmp_path: Path) -> None:
    for kind in ("duckdb", "parquet"):
        assert open_kind(kind, tmp_path).forget("u1") == 0
    assert list(tmp_path.iterdir()) == []


def test_what_was_forgotten_is_in_no_file(tmp_path: Path) -> None:
    person = "a-name-that-nothing-compresses-Qx7"
    for kind in ("duckdb", "parquet"):
        table = open_kind(kind, tmp_path / kind)
        publish(table, make_run(tmp_path / f"{kind}-scores", users=[person, "b", "c"]))
        table.forget(person)
        files = [path for path in (tmp_path / kind).rglob("*") if path.is_file()]
        assert files
        assert all(person.encode() not in path.read_bytes() for path in files)


def test_a_person_of_dropped_runs_and_of_killed_writers_is_in_no_file_either(
    tmp_path: Path,
) -> None:
    person = "a-name-that-nothing-compresses-Qx7"
    for kind in ("duckdb", "parquet"):
        folder = tmp_path / kind
        table = open_kind(kind, folder)
        publish(table, make_run(tmp_path / f"{kind}-1", version=A, users=[person, "b"]))
        kept = make_run(tmp_path / f"{kind}-2", version=B, users=["b", "c"])
        table.publish(kept, keep_runs=0, published_at=NIGHT)
        if kind == "parquet":
            # a writer that was killed before its run was named, and one before it had tidied up
            for number, name in enumerate(("0123456789ab", ".writing-ba9876543210")):
                left = next(folder.rglob("recommendation_runs.json")).parent / name
                left.mkdir()
                stale = make_run(tmp_path / f"stale-{number}", users=[person]).parts[0]
                (left / "part-00000.parquet").write_bytes(stale.read_bytes())
        assert table.forget(person) == 0, "no kept run has them"
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert all(person.encode() not in path.read_bytes() for path in files)
        assert table.user_ids().to_pylist() == ["b", "c"]


def test_a_cold_list_is_no_user_and_forgetting_one_forgets_nobody(
    table: Table, tmp_path: Path
) -> None:
    publish(table, make_run(tmp_path / "1", users=["a", "b", "cold/", "cold/DE"]))
    assert table.user_ids().to_pylist() == ["a", "b"]
    assert [row["users"] for row in table.runs().to_pylist()] == [2]
    assert table.forget("cold/DE") > 0
    assert [row["users"] for row in table.runs().to_pylist()] == [2]
    assert table.forget("a") > 0
    assert [row["users"] for row in table.runs().to_pylist()] == [1]


def test_users_in_two_shards_are_refused(table: Table, tmp_path: Path) -> None:
    publish(table, make_run(tmp_path / "good"))
    repeated = make_run(tmp_path / "bad", users=["a", "b", "b", "c"], shard_users=2)
    with pytest.raises(ContractError, match=r"breaks the order|repeats the key"):
        publish(table, repeated)
    assert len(table.runs()) == 1


def test_nothing_to_publish_leaves_the_old_table(table: Table, tmp_path: Path) -> None:
    publish(table, make_run(tmp_path / "good"))
    facts = make_run(tmp_path / "scores").facts
    empty = ScoreRun(folder=tmp_path, facts=facts, shards=())
    with pytest.raises(PublishError, match="no rows to publish"):
        publish(table, empty)
    assert table.read("u1").num_rows == len(HOSTILE)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(table: Table, tmp_path: Path, score: float) -> None:
    publish(table, make_run(tmp_path / "good"))
    run = make_run(tmp_path / "bad", version=B, users=["u1"])
    rows = pq.read_table(run.parts[0])
    scores = pa.array([1.0, score, *[0.5] * (rows.num_rows - 2)], pa.float32())
    pq.write_table(rows.set_column(3, SCORES.field(3), scores), run.parts[0])
    with pytest.raises(ContractError, match="1 of 6 scores are NaN or infinite"):
        publish(table, run, night=1)
    assert run_rows(table) == [("0123456789ab", "published", True)]


def test_a_shard_without_rows_is_no_harm(table: Table, tmp_path: Path) -> None:
    run = make_run(tmp_path / "scores", users=USERS[:3])
    empty = run.folder / "part-00001.parquet"
    pq.write_table(SCORES.empty_table(), empty)
    shard = Shard(name=empty.name, users=2, rows=0, shortfall=12, sha256="0" * 64)
    published = ScoreRun(folder=run.folder, facts=run.facts, shards=(*run.shards, shard))
    assert publish(table, published)
    assert whole(table).num_rows == 18


def test_content_does_not_depend_on_shards_but_on_every_value(tmp_path: Path) -> None:
    digest, users = content(make_run(tmp_path / "3"))
    assert users == 10
    assert content(make_run(tmp_path / "1", shard_users=1)) == (digest, 10)
    assert content(make_run(tmp_path / "10", shard_users=10)) == (digest, 10)
    assert (
        content(make_run(tmp_path / "x", items=("ab", "c")))[0]
        != (content(make_run(tmp_path / "y", items=("a", "bc")))[0])
    )


def test_a_newer_schema_is_refused(table: Table, tmp_path: Path) -> None:
    publish(table, make_run(tmp_path / "1"))
    if isinstance(table, DuckdbTable):
        with duckdb.connect(str(table.path)) as connection:
            connection.execute("UPDATE recommendation_runs SET schema_version = 9")
    elif isinstance(table, ParquetTable):
        ledger = table.folder / "recommendation_runs.json"
        write_json(ledger, {**read_json(ledger), "schema_version": 9})
    else:
        assert isinstance(table, PostgresTable)
        assert table.dsn is not None
        with psycopg.connect(table.dsn.get_secret_value()) as database:
            database.execute("UPDATE twotempo.recommendation_runs SET schema_version = 9")
    with pytest.raises(PublishError, match=r"schema version 9.* knows . to 2; update twotempo"):
        publish(table, make_run(tmp_path / "2", version=B))
    with pytest.raises(PublishError, match="schema version 9"):
        table.runs()


def as_version_1(path: Path) -> None:
    """Make of a DuckDB file what the first schema wrote: without what came since."""
    with duckdb.connect(str(path)) as connection:
        names = [name for name in RUNS.names if name not in ("published_order", "forgotten")]
        rows = connection.execute(f"SELECT {', '.join(names)} FROM recommendation_runs").fetchall()
        connection.execute("DROP TABLE recommendation_runs")
        connection.execute(
            """
            CREATE TABLE recommendation_runs (
                run_id VARCHAR PRIMARY KEY,
                model_version VARCHAR NOT NULL,
                graph VARCHAR NOT NULL,
                as_of TIMESTAMPTZ NOT NULL,
                users BIGINT NOT NULL,
                rows BIGINT NOT NULL,
                sha256 VARCHAR NOT NULL,
                status VARCHAR NOT NULL CHECK (status IN ('published', 'dropped')),
                published_at TIMESTAMPTZ NOT NULL,
                schema_version INTEGER NOT NULL,
                current BOOLEAN NOT NULL
            )
            """
        )
        for row in rows:
            connection.execute(
                f"INSERT INTO recommendation_runs VALUES ({', '.join('?' * len(row))})", row
            )
        connection.execute("UPDATE recommendation_runs SET schema_version = 1")


def test_an_older_schema_is_read_and_migrated_in_place(tmp_path: Path) -> None:
    table = DuckdbTable(tmp_path / "table.duckdb")
    publish(table, make_run(tmp_path / "1", version=A))
    publish(table, make_run(tmp_path / "2", version=B), night=1)
    runs, rows = table.runs(), whole(table)
    as_version_1(table.path)
    before = table.runs()
    assert before.column("schema_version").unique().to_pylist() == [1]
    assert before.drop_columns(["schema_version"]) == runs.drop_columns(["schema_version"])
    assert whole(table) == rows
    # the same run again: migrated, and nothing else
    assert publish(table, make_run(tmp_path / "2", version=B), night=2) is False
    assert table.runs() == runs
    assert whole(table) == rows
    as_version_1(table.path)
    assert publish(table, make_run(tmp_path / "3", version=C), night=3)
    assert run_rows(table) == [
        (A, "published", False),
        (B, "published", False),
        (C, "published", True),
    ]


@pytest.mark.parametrize(
    "name",
    ['x"; DROP SCHEMA public; --', "Public", "pg_evil", "1a", "", "a" * 64, "a.b", "é", "a\n"],
)
def test_hostile_names_of_schemas_are_refused(name: str) -> None:
    table = PostgresTable(SecretStr("postgresql://x@127.0.0.1:1/x"), schema=name, layout="rows")
    with pytest.raises((ConfigError, ValueError), match="schema is"):
        table.runs()


def test_a_word_of_sql_is_a_schema_like_others(tmp_path: Path, server: Server) -> None:
    with fresh_schema(server, "select") as dsn:
        table = open_kind("postgres-rows", tmp_path, dsn=dsn, schema="select")
        publish(table, make_run(tmp_path / "scores"))
        assert whole(table).num_rows == 60


def test_parquet_is_read_without_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/tables.md says it."""
    table = ParquetTable(tmp_path / "recommendations")
    publish(table, make_run(tmp_path / "scores"))
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(
            "SET VARIABLE run = (SELECT current FROM "
            "read_json('recommendations/recommendation_runs.json'))"
        )
        rows = connection.execute(
            "SELECT count(*) FROM read_parquet('recommendations/' || getvariable('run') || "
            "'/*.parquet') WHERE as_of = ?",
            [datetime.fromtimestamp(START / 1e6, UTC)],
        ).fetchall()
    assert rows == [(60,)]
