"""Runs commands in child processes and says how long each took and how much memory it held.

Commands that are compared run in turn, round by round, so that what else the machine does falls on
all of them alike; the first round warms caches up and is not counted.

The system counts to a process's memory what its parent held when it was started: whoever measures
makes its data in a child of its own.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recsys_core.artifacts import write_json
from recsys_core.data.duck import usable_cpus
from tasks.child import child_environment

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "benchmarks" / ".cache"
RESULTS = ROOT / "benchmarks" / "results"
CODE = ("--", ":(top)", ":(top,exclude)benchmarks/results", ":(top,exclude)docs")
"""What a commit stands for: not the results and pages that one benchmark writes before the next."""


@dataclass(frozen=True)
class Command:
    """What to run, and the folder to run it in."""

    words: Sequence[str]
    folder: Path


@dataclass(frozen=True)
class Measured:
    """One run: wall time from start to exit, processor time of all threads, which other work on the
    machine changes less, and the largest resident set of the process."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def call(function: str, *arguments: str | int | float, folder: Path = ROOT) -> Command:
    """A command that calls `module:function` with these arguments."""
    module, name = function.split(":")
    return Command(
        (sys.executable, "-c", f"from {module} import {name}; {name}(*{arguments!r})"), folder
    )


def measure(command: Command) -> Measured:
    """Run a command to its end; one that fails stops the benchmark with what it wrote."""
    return measure_and_listen(command)[0]


def measure_and_listen(command: Command) -> tuple[Measured, str]:
    """The same, with what the command wrote."""
    environment = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command.words,
        cwd=command.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        began = time.perf_counter()
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    text = output.decode(errors="replace")
    if process.returncode != 0:
        sys.exit(f"{' '.join(command.words)} ended with {process.returncode}\n{text}")
    in_a_megabyte = 2**20 if sys.platform == "darwin" else 2**10
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Measured(seconds, cpu_seconds, usage.ru_maxrss / in_a_megabyte), text


def in_turn(
    commands: Mapping[str, Command], *, repeats: int, warm_up: int = 1
) -> dict[str, list[Measured]]:
    """The runs of each command, `repeats` of them, the commands in turn."""
    runs: dict[str, list[Measured]] = {name: [] for name in commands}
    for turn in range(warm_up + repeats):
        for name, command in commands.items():
            measured = measure(command)
            if turn >= warm_up:
                runs[name].append(measured)
    return runs


def median_seconds(runs: Sequence[Measured]) -> float:
    return statistics.median(run.seconds for run in runs)


def median_cpu_seconds(runs: Sequence[Measured]) -> float:
    return statistics.median(run.cpu_seconds for run in runs)


def median_ratio(runs: Sequence[Measured], others: Sequence[Measured]) -> float:
    """The median over rounds of the ratio of the two runs of a round."""
    return statistics.median(
        run.seconds / other.seconds for run, other in zip(runs, others, strict=True)
    )


def peak_mb(runs: Sequence[Measured]) -> float:
    return max(run.peak_mb for run in runs)


def circumstances(*packages: str) -> dict[str, Any]:
    """Where and with what the numbers were taken: the machine, the commit, versions."""
    return {
        "machine": {
            "cpu": _cpu(),
            "cpus": usable_cpus(),
            "memory_gib": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
            ),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "commit": _git("rev-parse", "HEAD"),
        "changed_since": bool(_git("status", "--porcelain", "--untracked-files=no", *CODE)),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def write_results(
    name: str,
    *,
    rows: Sequence[Mapping[str, Any]],
    packages: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write `benchmarks/results/<name>.json`: the rows, the circumstances, and the benchmark's own
    settings."""
    value = {**circumstances(*packages), **(settings or {}), "rows": list(rows)}
    write_json(RESULTS / f"{name}.json", value)


def as_json(runs: Mapping[str, Sequence[Measured]]) -> dict[str, list[dict[str, float]]]:
    """Every run of every command, for the results."""
    return {name: [asdict(run) for run in measured] for name, measured in runs.items()}


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns as wide as their widest, numbers to the right."""
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, ["-" * width for width in widths], *rows):
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([row[0].ljust(len(first)), *others]))


def _cpu() -> str:
    """The processor's name, where the system tells."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
