"""Publish, look up, describe, go back and forget in a workspace, with each kind of table."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from recsys_core.artifacts import read_json, write_json
from recsys_core.config import read_yaml
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections import Publish
from tasks.describe import describe_artifact
from tasks.edges import publish, score
from tasks.lookup import example_user, published_table, read_recommendations
from tests.conftest import CHECKOUT
from tests.postgres import Server, postgres_server
from tests.serving_world import HOSTILE, random_histories, score_params, scoring_workspace
from tests.small_logs import contents
from tests.table_world import fresh_schema

HISTORIES = random_histories([3, 7, 1, 1, 12, 2, 2, 6])
Kind = Literal["duckdb", "postgres", "parquet"]
KINDS: tuple[Kind, ...] = ("duckdb", "postgres", "parquet")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=KINDS)
def section(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """The params of each kind; where it is PostgreSQL its address is in the environment."""
    found = Publish(kind=request.param, keep_runs=1, layout="arrays", schema="shop")
    if found.kind != "postgres":
        yield found
        return
    with fresh_schema(request.getfixturevalue("server"), "shop") as dsn:
        monkeypatch.setenv("TWOTEMPO_TABLE_DSN", dsn)
        yield found


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = scoring_workspace(
        tmp_path / "runs", bundles=tmp_path_factory.getbasetemp(), histories=HISTORIES
    )
    write_json(layout.resolved_card, {"time": {"kind": "absolute"}, "item_features": {}})
    write_json(layout.root / "workspace.json", {"overrides": [], "called_from": ""})
    return layout


def write_params(layout: Layout, section: Publish) -> None:
    value = read_yaml(CHECKOUT / "params.yaml")
    value["publish"] = dict(section.__dict__)
    layout.params.write_text(yaml.safe_dump(value), encoding="utf-8")


def night(layout: Layout, section: Publish, *, k: int = 5) -> None:
    score.run(layout=layout, score=score_params(k=k, shard_users=3))
    publish.run(layout=layout, publish=section)


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_a_table_is_published_and_looked_up(layout: Layout, section: Publish) -> None:
    night(layout, section)
    table = published_table(layout)
    assert (table.rows, table.users) == (40, 8)
    assert table.as_of.endswith("UTC")
    assert table.place.endswith("schema shop") is (section.kind == "postgres")
    recommended = read_recommendations(layout, HOSTILE[0])
    assert [row.rank for row in recommended] == [1, 2, 3, 4, 5]
    assert example_user(layout) == "user-1"
    with pytest.raises(DataError, match=r"'nobody' is not among the 8 users of .*there are"):
        read_recommendations(layout, "nobody")


def test_what_was_published_last_is_looked_up_whatever_params_say(
    layout: Layout, section: Publish
) -> None:
    night(layout, section)
    place = published_table(layout).place
    other = replace(section, kind="postgres", schema="elsewhere")
    os.environ.pop("TWOTEMPO_TABLE_DSN", None)
    with pytest.raises(ConfigError, match=r"TWOTEMPO_TABLE_DSN is not set, but publish\.kind is"):
        publish.run(layout=layout, publish=other)
    if section.kind != "postgres":
        assert published_table(layout).place == place


def test_describe_says_which_runs_there_are(layout: Layout, section: Publish) -> None:
    night(layout, section)
    night(layout, section, k=3)
    (layout.root / "dvc.yaml").write_text("stages: {}\n")
    path = layout.parquet_table if section.kind == "parquet" else layout.table_note
    text = "\n".join(describe_artifact(path))
    assert "current, 24 rows for 8 users" in text
    assert "published, 40 rows for 8 users" in text
    assert "written by: publish" in text


def test_one_goes_back_to_a_kept_run_by_the_command(layout: Layout, section: Publish) -> None:
    night(layout, section)
    night(layout, section, k=3)
    write_params(layout, section)
    workspace = str(layout.root)
    listed = call("publish", "--workspace", workspace, "--list").splitlines()
    rows = [line.split() for line in listed if "current" in line or "published" in line[:30]]
    assert [row[1] for row in rows[-2:]] == ["current", "published"]
    before = rows[-1][0]
    assert "is current\n" in call("publish", "--workspace", workspace, "--run", before)
    assert len(read_recommendations(layout, HOSTILE[0])) == 5
    assert "is current already" in call("publish", "-w", workspace, "--run", before)
    # what was scored last is published again by the plain command
    call("publish", "--workspace", workspace)
    assert len(read_recommendations(layout, HOSTILE[0])) == 3


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_no_room_is_one_line_and_the_old_table_stands(
    layout: Layout, tmp_path: Path, kind: Kind
) -> None:
    section = Publish(kind=kind, keep_runs=1, layout="rows", schema="shop")
    night(layout, section)
    write_params(layout, section)
    before = published_table(layout)
    score.run(layout=layout, score=score_params(k=40, shard_users=3))
    done = publish_with_room(layout, 900 if kind == "parquet" else 4_096)
    assert done.returncode == 1, done
    assert "the disk is full, or a limit on files is reached" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert published_table(layout) == before
    assert publish_with_room(layout, None).returncode == 0
    assert published_table(layout).rows == 320
    assert not [name for name in contents(layout.published) if ".tmp" in name or "writing" in name]


def publish_with_room(layout: Layout, limit: int | None) -> "subprocess.CompletedProcess[str]":
    """Run the edge in the workspace, where a file may have `limit` bytes."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "tasks.edges.publish"],
        cwd=layout.root,
        # no bytecode: Python would leave half a file, and find it the next time
        env={"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_a_file_system_that_fills_up_is_one_line(
    layout: Layout, tmp_path: Path, kind: Kind
) -> None:
    section = Publish(kind=kind, keep_runs=1, layout="rows", schema="shop")
    night(layout, section)
    write_params(layout, section)
    score.run(layout=layout, score=score_params(k=40, shard_users=3))
    small = ["unshare", "--map-root-user", "--mount"]
    place = tmp_path / "small"
    place.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
        able = subprocess.run([*small, *mount], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `unshare`: a small file system cannot be mounted here")
    if able.returncode != 0:
        pytest.skip("a small file system may not be mounted here")
    # the table alone lies on the small one; of its room 8 KiB are left
    script = (
        'mount -t tmpfs -o size=2m tmpfs "$2" && cp -r "$1"/published/. "$2" && '
        'mount --bind "$2" "$1"/published && cd "$1" && '
        "dd if=/dev/zero of=published/ballast bs=4k 2>/dev/null; "
        "truncate -s -8192 published/ballast; "
        '"$3" -m tasks.edges.publish; code=$?; rm published/ballast; '
        '"$3" -m tasks.edges.publish && exit $code'
    )
    done = subprocess.run(
        [*small, "sh", "-c", script, "sh", layout.root, place, sys.executable],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert "the disk is full" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # with room again it went through
    assert "users=8 rows=320" in done.stderr
    assert read_json(layout.table_note)["kind"] == kind
    shutil.rmtree(place)
