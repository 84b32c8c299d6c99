"""A real PostgreSQL server for tests: its own folder and port, loopback alone, never as root."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

NOBODY = ("postgres", "nobody")
"""Users to run the server as where the tests run as root, which PostgreSQL refuses."""


@dataclass(frozen=True)
class Server:
    """A running server; `dsn` names an empty database that every test may drop tables in."""

    folder: Path
    port: int
    dsn: str
    control: Callable[..., None]

    def stop(self) -> None:
        """Stop it as a crash would: whoever is connected loses the connection."""
        self.control("-m", "immediate", "stop")

    def start(self) -> None:
        self.control("-l", self.folder / "log", "-o", self.options, "start")

    @property
    def options(self) -> str:
        return f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -k {self.folder}"

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, or None where there is no server installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Start a server and stop it; the test is skipped where there is none."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("no PostgreSQL server; install it with `apt-get install postgresql`")
    user = _other_user()
    # not in pytest's folder: nobody else may enter that, and a socket's path has to be short
    with tempfile.TemporaryDirectory(prefix="tt-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user=user)
        data, port = folder / "data", _free_port()
        _call(user, bin_folder / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
        control = partial(_call, user, bin_folder / "pg_ctl", "-D", data, "-w", "-t", "60")
        dsn = f"postgresql://tester:hunter2@127.0.0.1:{port}/postgres"
        server = Server(folder=folder, port=port, dsn=dsn, control=control)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _other_user() -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in NOBODY if name in names), None)
    if found is None or shutil.which("setpriv") is None:
        pytest.skip("as root a PostgreSQL server needs `setpriv` and a user postgres or nobody")
    return found


def _call(user: str | None, *command: str | Path) -> None:
    """Run a program as a user; what it said is in the error where it fails."""
    words: Sequence[str] = [str(word) for word in command]
    if user is not None:
        words = ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups", *words]
    # to a file and not to a pipe: the server would keep the pipe open
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(words, cwd="/", stdout=said, stderr=said, check=False)
        said.seek(0)
        assert done.returncode == 0, f"{words} gave {done.returncode}\n{said.read()}"


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
