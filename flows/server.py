"""The Prefect server of `twotempo serve`: the configured one, or one that lives as long as it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from recsys_core.errors import ConfigError, StepError

START_SECONDS = 180.0
END_SECONDS = 20.0
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""Kept in memory, as Prefect does unless told, the place of a run that dies with its server would
stay taken, and every later run be cancelled."""


@dataclass(frozen=True)
class OwnServer:
    """A server that was started here, and its log."""

    process: "subprocess.Popen[bytes]"
    log: Path


@contextmanager
def server(say: Callable[[str], None]) -> Iterator[tuple[str, OwnServer | None]]:
    """The API's address of the configured server, or of one's own as long as this context lasts."""
    configured = PREFECT_API_URL.value()
    if configured is not None:
        if not _is_alive(configured):
            raise StepError(
                f"Prefect's server {configured} does not answer; start it with `prefect server "
                "start`, or unset PREFECT_API_URL and one is started here"
            )
        yield configured, None
        return
    settings = get_current_settings()
    host, port = settings.server.api.host, settings.server.api.port
    api = f"http://{host}:{port}/api"
    _refuse_taken(api)
    log = settings.home / "twotempo-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["prefect", "server", "start", "--host", host, "--port", str(port)]
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES, **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for this process: it still has to tell the server that it ends
            process_group=0,
        )
    try:
        _wait_until_alive(process, api, log)
        say(f"Prefect's server: http://{host}:{port}, its log {log}")
        # the flow's processes read the environment, this one has read it already
        with temporary_settings({PREFECT_API_URL: api}):
            yield api, OwnServer(process=process, log=log)
    finally:
        _end(process)


def _refuse_taken(api: str) -> None:
    if _is_alive(api):
        raise ConfigError(
            f"a Prefect server answers at {api} already, perhaps that of another `twotempo serve`, "
            f"which ends with it; set PREFECT_API_URL={api} to use it, or another "
            "PREFECT_SERVER_API_PORT"
        )


def _wait_until_alive(process: "subprocess.Popen[bytes]", api: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_alive(api):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StepError(
                f"Prefect's server did not start at {api}; its log {log} says why, and "
                "PREFECT_SERVER_API_PORT names another port"
            )
        time.sleep(0.2)


def _is_alive(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a child and its process group, however it takes it."""
    for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
