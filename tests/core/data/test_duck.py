"""The temporary folders of DuckDB: gone when a process ends, and of one that was killed, later."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from recsys_core.data.duck import open_duckdb, work_folder
from tests.small_logs import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from recsys_core.data.duck import open_duckdb
with open_duckdb(Path(sys.argv[1]), memory_mb=64) as connection:
    connection.execute("CREATE TABLE rows AS SELECT * FROM range(100000)")
    print("open", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        (held,) = tmp_path.iterdir()
        with open_duckdb(tmp_path, memory_mb=64):
            assert held.exists()
            assert len(list(tmp_path.iterdir())) == 2
        assert list(tmp_path.iterdir()) == [held]
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert held.exists()
    with open_duckdb(tmp_path, memory_mb=64) as connection:
        assert not held.exists()
        assert list(tmp_path.iterdir()) == [work_folder(connection)]
    assert list(tmp_path.iterdir()) == []


def test_two_connections_of_one_process_do_not_take_from_each_other(tmp_path: Path) -> None:
    with open_duckdb(tmp_path, memory_mb=64) as one:
        one.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        with open_duckdb(tmp_path, memory_mb=64) as other:
            assert work_folder(one) != work_folder(other)
        assert one.execute("SELECT seven FROM kept").fetchall() == [(7,)]
        folder = work_folder(one)
        assert folder is not None
        assert folder.is_dir()
