"""Writes requirements.lock from what pip resolves for this project: `make lock`.

    python -m pip install --dry-run --ignore-installed --quiet --report report.json '.[dev]'
    python -m tasks.lock report.json

One version each and nothing else: no hash, no index, no local suffix (`+cpu` exists on one index
only), and not what torch's builds bring themselves (the CUDA libraries differ from index to index).
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recsys_core.artifacts import atomic_path

HEADER = "# Every version that twotempo is tested with; `make lock` writes this file.\n"
BROUGHT_BY_TORCH = re.compile(r"^(nvidia-.*|cuda-.*|triton)$")


def lock_lines(report: dict[str, Any], direct: list[str], *, own_name: str) -> list[str]:
    """One line for each package of pip's installation report, by name.

    A direct requirement with a marker keeps it, and where its marker excludes this machine the
    line comes from the project itself, which therefore has to pin it.
    """
    marked = {
        canonicalize_name(requirement.name): requirement
        for requirement in map(Requirement, direct)
        if requirement.marker is not None
    }
    lines = {}
    for entry in report["install"]:
        name = canonicalize_name(entry["metadata"]["name"])
        if name == own_name or BROUGHT_BY_TORCH.match(name):
            continue
        version = entry["metadata"]["version"].partition("+")[0]
        marker = f" ; {marked[name].marker}" if name in marked else ""
        lines[name] = f"{name}=={version}{marker}"
    for name, requirement in marked.items():
        lines.setdefault(name, f"{name}{requirement.specifier} ; {requirement.marker}")
    return [lines[name] for name in sorted(lines)]


def direct_requirements(pyproject: Path) -> tuple[str, list[str]]:
    """The project's name and all its direct requirements, those for development among them."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project["name"], [*project["dependencies"], *project["optional-dependencies"]["dev"]]


def main() -> None:
    """Write requirements.lock in the current folder from the report named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tasks.lock REPORT.json (see `make lock`)")
    own_name, direct = direct_requirements(Path("pyproject.toml"))
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lines = lock_lines(report, direct, own_name=own_name)
    with atomic_path(Path("requirements.lock")) as temporary:
        temporary.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"requirements.lock: {len(lines)} packages\n")


if __name__ == "__main__":
    main()
