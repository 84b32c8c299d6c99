"""Which files of code a step depends on: what dvc.yaml lists, and a digest of them for resuming.

A step depends on the import closure of its module within `recsys_core` and `tasks`, imports inside
functions among them, less `PLUMBING`: modules that hand values over and compute none. Packages add
nothing, since their `__init__.py` files are empty. Only the standard library is needed here.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from recsys_core.artifacts import sha256

RUNNING = Path(__file__).resolve().parents[1]
"""The folder of the code that runs: a workspace's copy, or the checkout."""

PACKAGES = ("recsys_core", "tasks")
PLUMBING = frozenset(
    {
        "recsys_core/artifacts.py",
        "recsys_core/columns.py",
        "recsys_core/config.py",
        "recsys_core/errors.py",
        "recsys_core/layout.py",
        "recsys_core/section_checks.py",
        "recsys_core/sections.py",
        "recsys_core/sections_of_data.py",
        "recsys_core/sections_of_scoring.py",
        "tasks/clock.py",
        "tasks/code.py",
        "tasks/progress.py",
        "tasks/step.py",
    }
)
LOCK = "requirements.lock"
BY_VERSION = frozenset(
    {"stages.train_embeddings", "stages.train_rnn", "stages.refit", "edges.score"}
)
"""The steps whose numbers depend on the versions of others' packages too."""


def imported_files(path: Path, *, root: Path) -> list[str]:
    """The files of this project that one file imports, anywhere in it, relative to `root`."""
    found = set()
    for module in _imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
        if module.partition(".")[0] not in PACKAGES:
            continue
        file = Path(*module.split(".")).with_suffix(".py")
        if (root / file).is_file():
            found.add(file.as_posix())
    return sorted(found)


def _imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every name that may be a module: `from a.b import c` gives `a.b` and `a.b.c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(start: str, *, root: Path) -> set[str]:
    """A file and all files of this project that it needs, directly or not."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting.extend(imported_files(root / file, root=root))
    return found


def code_dependencies(step: str, *, root: Path) -> list[str]:
    """The code that a step (`stages.evaluate`, `edges.score`) depends on, relative to `root`."""
    files = closure(f"tasks/{step.replace('.', '/')}.py", root=root) - PLUMBING
    return sorted(files) + ([LOCK] if step in BY_VERSION else [])


def code_digest(step: str, *, root: Path) -> str:
    """A SHA-256 of the names and contents of all the code that a step depends on."""
    lines = [f"{name} {sha256(root / name)}" for name in code_dependencies(step, root=root)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
