"""Shows what a run came to, from a process of its own.

DuckDB, once imported under Prefect's engine, complains of leaked references when the process ends:
dozens of lines below the result. A fresh process ends in silence.
"""

import os
import subprocess
import sys
from pathlib import Path

from flows.workspace import CHECKOUT


def show_summary(workspace: Path, *, only_example: bool = False) -> None:
    """Print the summary of a run, or its example alone, on this process's standard output."""
    sys.stdout.flush()
    # as a person would write it: paths are shown
    folder = os.path.relpath(workspace, CHECKOUT)
    arguments = [folder, *(["example"] if only_example else [])]
    subprocess.run([sys.executable, "-m", "flows.summary", *arguments], cwd=CHECKOUT, check=True)
