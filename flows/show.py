"""Shows what a run came to, from a process of its own.

DuckDB, once imported under Prefect's engine, complains of leaked references when the process ends:
dozens of lines below the result. A fresh process ends in silence.
"""

import subprocess
import sys
from pathlib import Path

from flows.workspace import CHECKOUT


def show_summary(workspace: Path, *, only_example: bool = False) -> None:
    """Print the summary of a run, or its example alone, on this process's standard output."""
    sys.stdout.flush()
    arguments = [str(workspace.resolve()), *(["example"] if only_example else [])]
    subprocess.run([sys.executable, "-m", "flows.summary", *arguments], cwd=CHECKOUT, check=True)
