"""The clock, with a real Prefect server, worker and schedule: a new day reaches the table."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows import manifest
from flows.locks import locked
from recsys_core.artifacts import read_json
from recsys_core.errors import StepError
from tests.conftest import overrides
from tests.nightly_world import (
    PARAMS,
    SESSION,
    USERS,
    World,
    deliver,
    end,
    free_port,
    is_alive,
    nightly_world,
    processes_in,
    processes_of,
    started,
    wait_for,
)

DAYS = 8
POOL = "twotempo"
BERLIN = "timezone: Europe/Berlin"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Worker:
    """A worker of the pool, and its log."""

    process: "subprocess.Popen[bytes]"
    log: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with nightly_world(tmp_path_factory.mktemp("nightly")) as world:
        yield world


@pytest.fixture(scope="module")
def first_night(world: World) -> int:
    """A run by hand on the first days, given as files; its `as_of` in seconds."""
    last = [deliver(world.delivered, day) for day in range(DAYS)][-1]
    world.clone.twotempo("run", "-w", "runs/nightly", *overrides(PARAMS))
    return last


@pytest.fixture(scope="module")
def deployed(world: World, first_night: int) -> dict[str, Any]:
    """The deployment of prefect.yaml, as it stands there."""
    world.prefect("work-pool", "create", POOL, "--type", "process")
    world.prefect("deploy", "--all")
    return world.deployment("nightly")


@pytest.fixture(scope="module")
def working(world: World, deployed: dict[str, Any]) -> Iterator[Worker]:
    """A worker of the pool."""
    log = world.root.parent / "worker.log"
    command = ("prefect", "worker", "start", "--pool", POOL, "--type", "process")
    # not from the checkout: nothing may hang on the folder that a worker is started in
    with started(*command, cwd=log.parent, environment=world.clone.environment, log=log) as process:
        yield Worker(process, log)


@pytest.fixture
def worker(working: Worker) -> Path:
    """The log of the worker."""
    return working.log


def published_as_of(world: World, workspace: str) -> int:
    """The `as_of` of the published table, in seconds."""
    with duckdb.connect(str(world.layout(workspace).table), read_only=True) as connection:
        rows = connection.execute("SELECT DISTINCT epoch(as_of) FROM recommendations").fetchall()
    assert len(rows) == 1
    return int(rows[0][0])


def run_record(world: World, workspace: str) -> dict[str, Any]:
    return manifest.read(world.layout(workspace).root)


def over(world: World, run: str) -> dict[str, Any] | None:
    """A flow run by its id, once it has ended."""
    found: dict[str, Any] = world.ask("flow_runs/filter", flow_runs={"id": {"any_": [run]}})[0]
    return found if found["state_type"] in ENDED else None


def begun_by_schedule(world: World) -> dict[str, Any] | None:
    """The scheduled run that has begun, if one has."""
    runs = [run for run in world.runs_of("nightly") if run["auto_scheduled"]]
    begun = [run for run in runs if run["state_type"] in ("RUNNING", *ENDED)]
    return min(begun, key=lambda run: str(run["expected_start_time"])) if begun else None


def test_the_deployment_is_one_at_a_time_in_a_stated_zone(deployed: dict[str, Any]) -> None:
    (schedule,) = deployed["schedules"]
    assert schedule["schedule"] == {"cron": "0 3 * * *", "timezone": "UTC", "day_or": True}
    assert schedule["active"]
    assert deployed["global_concurrency_limit"]["limit"] == 1
    assert deployed["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deployed["work_pool_name"] == POOL
    assert deployed["pull_steps"] in ([], None)
    assert "/" not in deployed["entrypoint"]


def test_a_scheduled_run_brings_the_new_day_into_the_table(
    world: World, first_night: int, worker: Path
) -> None:
    assert published_as_of(world, "nightly") == first_night
    assert run_record(world, "nightly")["steps"][0]["step"] == "snapshot"
    tonight = deliver(world.delivered, DAYS)
    # as docs/schedule.md has it: a clock that is given to `deploy` would come beside the first one
    settings = world.root / "prefect.yaml"
    text = settings.read_text(encoding="utf-8")
    for before, after in (('"0 3 * * *"', '"* * * * *"'), ("timezone: UTC", BERLIN)):
        assert text.count(before) == 1
        text = text.replace(before, after)
    settings.write_text(text, encoding="utf-8")
    world.prefect("deploy", "--all")
    (schedule,) = world.deployment("nightly")["schedules"]
    assert schedule["schedule"]["cron"] == "* * * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"

    begun = wait_for(lambda: begun_by_schedule(world), what="scheduled run", log=worker)
    # the minute's run will do
    world.ask(f"deployments/{begun['deployment_id']}/pause_deployment")
    run = wait_for(lambda: over(world, begun["id"]), what="end of the run", log=worker)
    assert run["state_type"] == "COMPLETED", worker.read_text()
    assert run["created_by"]["type"] == "SCHEDULE"
    assert run["work_pool_name"] == POOL
    assert run["infrastructure_pid"]
    assert run["id"] in worker.read_text()
    assert run["name"] in worker.read_text()
    assert published_as_of(world, "nightly") == tonight
    record = run_record(world, "nightly")
    assert (record["flow"], record["state"]) == ("nightly", "completed")
    assert [step["step"] for step in record["steps"]][:2] == ["snapshot", "ingest"]
    delivered = (DAYS + 1) * USERS * SESSION
    assert record["steps"][0]["counts"] == {
        "parts": 1,
        "rows_in": USERS * SESSION,
        "rows": USERS * SESSION,
        "redelivered": 0,
        "redelivered_changed": 0,
        "late": 0,
        "rows_taken_before": DAYS * USERS * SESSION,
    }
    ingested = read_json(world.layout("nightly").report("ingest"))
    assert ingested["rows_out"] == delivered
    snapshot = world.layout("nightly").root / "snapshots" / "nights"
    parts = read_json(snapshot / "manifest.json")["parts"]
    assert [part["rows"] for part in parts] == [DAYS * USERS * SESSION, USERS * SESSION]


def test_a_run_that_cannot_begin_has_failed_and_says_so(
    world: World, deployed: dict[str, Any], worker: Path
) -> None:
    """In Prefect and in our own record: nobody sits in front of it."""
    wrong = {"workspace": "runs/nightly", "overrides": ["train_rnn.width=3"]}
    created = world.ask(f"deployments/{deployed['id']}/create_flow_run", parameters=wrong)
    run = wait_for(lambda: over(world, created["id"]), what="end of the run", log=worker)
    assert run["state_type"] == "FAILED"
    assert "there is no train_rnn.width in params.yaml" in run["state"]["message"]
    record = run_record(world, "nightly")
    assert (record["flow"], record["state"]) == ("nightly", "failed")
    assert "there is no train_rnn.width in params.yaml" in record["error"]


def test_a_step_ends_with_the_worker(
    world: World, deployed: dict[str, Any], working: Worker
) -> None:
    """Asked to end, it kills its flow outright at times, and at others leaves it alone, as here:
    either way DVC trained on for hours."""
    # otherwise everything would come from DVC's cache, and be done before the worker has ended
    long = ("train_embeddings.max_epochs=100000", "train_embeddings.patience=100000")
    parameters = {"workspace": "runs/left", "overrides": [*PARAMS, *long]}
    world.ask(f"deployments/{deployed['id']}/create_flow_run", parameters=parameters)
    layout = world.layout("left")
    record = layout.root / manifest.NAME
    wait_for(
        lambda: (record.exists() and read_json(record)["steps"]) or None,
        what="step",
        log=working.log,
    )
    with pytest.raises(StepError, match="is in use by another run"), locked(layout.root):
        pass
    working.process.kill()
    wait_for(lambda: is_free(layout.root) or None, what="end of the step", log=working.log)
    assert processes_in(layout.root) == []
    left = read_json(record)
    if left["state"] == "failed":  # it was left to itself, and could still say so
        assert left["error"].startswith("ended (")
    else:
        assert left["state"] == "running"
        manifest.begin(layout.root, flow="nightly", checkout=world.root)
        assert read_json(record)["previous"]["state"] == "interrupted"


def is_free(workspace: Path) -> bool:
    """Whether no run and no step holds a workspace."""
    try:
        with locked(workspace):
            return True
    except StepError:
        return False


def test_serve_has_a_server_and_ends_with_all_that_it_started(world: World) -> None:
    deliver(world.delivered, 0)
    home, log, port = world.root.parent / "served", world.root.parent / "serve.log", free_port()
    environment = {**world.clone.environment, "PREFECT_HOME": str(home)}
    del environment["PREFECT_API_URL"]
    environment["PREFECT_SERVER_API_PORT"] = str(port)
    served = World(clone=world.clone, api=f"http://127.0.0.1:{port}/api")
    command = ("flows.cli", "serve", "-w", "runs/served", *overrides(PARAMS))
    with started(
        *command,
        "--timezone",
        "Europe/Berlin",
        cwd=world.root,
        environment=environment,
        log=log,
    ) as process:
        wait_for(lambda: "Ctrl-C ends it" in log.read_text() or None, what="server", log=log)
        deployment = wait_for(
            lambda: next(iter(served.ask("deployments/filter")), None), what="deployment", log=log
        )
        assert deployment["name"].startswith("serve-served-")
        assert deployment["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
        assert deployment["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        served.ask(f"deployments/{deployment['id']}/create_flow_run")
        record = world.layout("served").root / manifest.NAME
        wait_for(
            lambda: (record.exists() and read_json(record)["steps"]) or None, what="step", log=log
        )
        assert end(process) == 0, log.read_text()
    wait_for(lambda: processes_of(home) == [] or None, what="end of what it started", log=log)
    assert not is_alive(served.api)
    assert "ended; nothing runs until it is served again" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert "Warning" not in log.read_text()
    assert run_record(world, "served")["state"] == "failed"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the server among processes")
def test_serve_ends_when_its_own_server_has(world: World) -> None:
    """It asked a dead server for ever, and did not end at SIGTERM either."""
    deliver(world.delivered, 0)
    home, log, port = world.root.parent / "bereft", world.root.parent / "bereft.log", free_port()
    environment = {**world.clone.environment, "PREFECT_HOME": str(home)}
    del environment["PREFECT_API_URL"]
    environment["PREFECT_SERVER_API_PORT"] = str(port)
    served = World(clone=world.clone, api=f"http://127.0.0.1:{port}/api")
    command = ("flows.cli", "serve", "-w", "runs/bereft", *overrides(PARAMS))
    with started(*command, cwd=world.root, environment=environment, log=log) as process:
        wait_for(lambda: "Ctrl-C ends it" in log.read_text() or None, what="server", log=log)
        deployment = wait_for(
            lambda: next(iter(served.ask("deployments/filter")), None), what="deployment", log=log
        )
        served.ask(f"deployments/{deployment['id']}/create_flow_run")
        record = world.layout("bereft").root / manifest.NAME
        wait_for(
            lambda: (record.exists() and read_json(record)["steps"]) or None, what="step", log=log
        )
        for server in processes_of(home):
            if b"server\0start" in Path(f"/proc/{server}/cmdline").read_bytes():
                os.kill(server, signal.SIGKILL)
        assert process.wait(60) == 1, log.read_text()
    wait_for(lambda: processes_of(home) == [] or None, what="end of the step", log=log)
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: Prefect's own server ended by itself (code -9); its log ")


def test_serve_pauses_its_schedule_on_a_server_that_stays(world: World) -> None:
    deliver(world.delivered, 0)
    log = world.root.parent / "again.log"
    command = ("flows.cli", "serve", "-w", "runs/again", *overrides(PARAMS))

    def paused() -> bool | None:
        found = world.ask("deployments/filter", deployments={"name": {"like_": "serve-again-"}})
        return found[0]["paused"] if found else None

    for _ in range(2):  # the second time it has to be resumed
        with started(
            *command, cwd=world.root, environment=world.clone.environment, log=log
        ) as process:
            wait_for(lambda: paused() is False or None, what="schedule", log=log)
            assert end(process) == 0, log.read_text()
        assert paused()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "0 3 * *"], "error: cron '0 3 * *' in time zone 'UTC' is no schedule; write"),
        (["--cron", "0 3 31 2 *"], "error: cron '0 3 31 2 *' in time zone 'UTC' is no schedule"),
        (["--timezone", "Mars"], "error: cron '0 3 * * *' in time zone 'Mars' is no schedule"),
        (["--timezone", ""], "error: the time zone is empty"),
        (["-S", "train_rnn.width=3"], "error: -S train_rnn.width=3: there is no train_rnn.width"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    world: World, arguments: list[str], said: str
) -> None:
    done = world.clone.twotempo("serve", "-w", "runs/refused", *arguments, code=1)
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not (world.root / "runs" / "refused").exists()
