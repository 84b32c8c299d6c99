"""A copy of the checkout, a log that is delivered day by day, and a Prefect server beside it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import yaml

from recsys_core.layout import Layout
from recsys_core.rng import generator
from tasks.child import child_environment
from tests.conftest import TINY, Clone, copy_checkout
from tests.small_logs import card_value

DAY_SECONDS = 86_400
FIRST_DAY = 1_700_006_400
"""Seconds; 2023-11-15, midnight UTC."""
USERS, ITEMS, SESSION = 80, 40, 4
PATIENCE = 1200.0
"""Seconds that a busy machine may take for anything."""

PARAMS = (*TINY, "ingest.dataset=nights", "snapshot.path=delivered")

Found = TypeVar("Found")


@dataclass(frozen=True)
class World:
    """The copy, and the address of its server's API."""

    clone: Clone
    api: str

    @property
    def root(self) -> Path:
        return self.clone.root

    @property
    def delivered(self) -> Path:
        return self.root / "delivered"

    def layout(self, workspace: str) -> Layout:
        return Layout(self.root / "runs" / workspace)

    def prefect(self, *arguments: str) -> str:
        return self.clone.call(sys.executable, "-m", "prefect", "--no-prompt", *arguments).stdout

    def ask(self, path: str, **body: Any) -> Any:
        """What the API answers to a POST."""
        answer = wait_for(lambda: self._post(path, body), what=f"answer to {path}")
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response | None:
        """None where the server says that it is busy: SQLite has one writer."""
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=60.0)
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.api}/deployments/name/nightly/{name}").json()
        return found

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(
            "flow_runs/filter", deployments={"name": {"any_": [deployment]}}
        )
        return found


def processes_of(home: Path) -> list[int]:
    """The living processes whose PREFECT_HOME is `home`: all that such a server, worker or
    `twotempo serve` has started. On Linux alone; elsewhere there are none to be seen."""
    mark = f"PREFECT_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def processes_in(folder: Path) -> list[int]:
    """The living processes that work in a folder. On Linux alone, as above."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    return found


def deliver(folder: Path, day: int) -> int:
    """Deliver one day of the log as a file of its own; returns its last timestamp in seconds.

    Each user has one session, a walk to the next item from where they stand.
    """
    rng = generator(day, "nights")
    at = FIRST_DAY + day * DAY_SECONDS + np.sort(rng.integers(0, DAY_SECONDS // 2, USERS))
    first = rng.integers(0, ITEMS, USERS)
    rows = [
        f"u{user},i{(first[user] + step) % ITEMS},{at[user] + 60 * step}"
        for user in range(USERS)
        for step in range(SESSION)
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"day-{day:02}.csv").write_text("\n".join(["user,item,at", *rows]) + "\n")
    return int(at.max()) + 60 * (SESSION - 1)


def wait_for(found: Callable[[], Found | None], *, what: str, log: Path | None = None) -> Found:
    """The first answer that is one, asked for again and again."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = found()
        if answer is not None:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"no {what} in {PATIENCE:g} s\n{log.read_text() if log else ''}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def is_alive(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextmanager
def started(
    *command: str, cwd: Path, environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A Python module that runs in a process group of its own, and is ended at the end."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]", patience: float = 60.0) -> int:
    """Ask a process to end as a service manager would; returns its code."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@contextmanager
def nightly_world(folder: Path) -> Iterator[World]:
    """A world with a running server; at its end no process of it is left."""
    root = folder / "twotempo"
    copy_checkout(root)
    card = card_value(
        name="nights",
        title="A log that is delivered day by day",
        source={"kind": "files", "interactions": ".", "items": None, "users": None},
        snapshot={"row_key": ["user", "item", "at"]},
        time={"kind": "absolute", "unit": "s"},
        sessions={"kind": "gap", "gap_seconds": 1800},
    )
    (root / "datasets" / "nights.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    port = free_port()
    environment = {
        **child_environment(os.environ),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        # the flow is found by its name, and is to be the copy's
        "PYTHONPATH": str(root),
        # as often as it may, so that the test need not wait
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    for name in ("PREFECT_PROFILE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    world = World(
        clone=Clone(root=root, environment=environment), api=environment["PREFECT_API_URL"]
    )
    log = folder / "server.log"
    server = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    try:
        with started(*server, cwd=root, environment=environment, log=log):
            wait_for(lambda: is_alive(world.api) or None, what="server", log=log)
            yield world
    finally:
        for process in processes_of(folder / "prefect"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
