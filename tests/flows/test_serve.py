"""What `twotempo serve` says before, and instead of, serving; test_nightly.py really serves."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import Clone, overrides
from tests.nightly_world import is_alive

NAMES = """
import sys
from pathlib import Path
from flows.serve import deployment_name
print(*(deployment_name(Path(name)) for name in sys.argv[1:]), sep="\\n")
"""


def names(clone: Clone, *workspaces: str) -> list[str]:
    return clone.call(sys.executable, "-c", NAMES, *workspaces).stdout.splitlines()


def test_no_two_workspaces_have_one_deployment(clone: Clone) -> None:
    """`runs/a-b` and `runs/a/b` had one, and `nightly` had that of prefect.yaml."""
    found = names(clone, "runs/a-b", "runs/a/b", "runs/b", "nightly", "runs/nightly", "runs/a b/é?")
    assert len(set(found)) == len(found)
    assert "nightly" not in found
    assert found[0].startswith("serve-a-b-")
    assert found[3].startswith("serve-nightly-")
    # one workspace, however it is written
    assert names(clone, "runs/x/../nightly", str(clone.root / "runs/nightly")) == [found[4]] * 2
    for name in found:
        assert not set(name) & set("/%&<>?* ")


class Refusing(BaseHTTPRequestHandler):
    """Is alive, and lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else 401)
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def refusing() -> Iterator[str]:
    """The API of a server that lets nobody in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()
        thread.join()


def serve(clone: Clone, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.cli", "serve", "-w", "runs/served", *arguments]
    return subprocess.run(
        command,
        cwd=clone.root,
        env={**clone.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_server_that_refuses_is_one_line(clone: Clone, refusing: str) -> None:
    assert is_alive(refusing)
    done = serve(clone, PREFECT_API_URL=refusing)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: Prefect's server {refusing} refuses what it is asked (Client error '401 "
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_a_port_that_is_taken_may_be_that_of_another_serve(clone: Clone, refusing: str) -> None:
    port = refusing.split(":")[2].removesuffix("/api")
    done = serve(clone, PREFECT_SERVER_API_PORT=port)
    assert done.returncode == 1
    assert "perhaps that of another `twotempo serve`, which ends with it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("cron", ["0 3 * *", "0 0 3 * * *", "@daily", "", "0 3 31 2 *"])
def test_a_cron_has_five_fields(clone: Clone, cron: str) -> None:
    done = serve(clone, "--cron", cron)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cron {cron!r} in time zone 'UTC' is no schedule; write")
    assert len(done.stderr.splitlines()) == 1


def test_a_workspace_that_is_served_is_refused(clone: Clone) -> None:
    from flows.locks import serving

    with serving(clone.root / "runs" / "served"):
        done = serve(clone, *overrides(["seed=3"]))
    assert done.returncode == 1
    assert done.stderr.startswith("error: runs/served is served already; end that `twotempo serve`")
    assert [path.name for path in (clone.root / "runs" / "served").iterdir()] == [".serve.lock"]
