"""Which files of code each stage depends on, and `make deps`, which writes them into dvc.yaml.

A stage depends on the import closure of its module within `recsys_core` and `tasks`, imports inside
functions among them, less `PLUMBING`: modules that hand values over and compute none. Packages add
nothing, since their `__init__.py` files are empty.
"""

import ast
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from recsys_core.artifacts import atomic_path
from recsys_core.layout import STAGES

PACKAGES = ("recsys_core", "tasks")
PLUMBING = frozenset(
    {
        "recsys_core/artifacts.py",
        "recsys_core/columns.py",
        "recsys_core/config.py",
        "recsys_core/errors.py",
        "recsys_core/layout.py",
        "recsys_core/sections.py",
        "tasks/progress.py",
        "tasks/step.py",
    }
)
TRAINING = ("train_embeddings", "train_rnn", "refit")
LOCK = "requirements.lock"


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


def code_dependencies(stage: str, *, root: Path) -> list[str]:
    """The code that a stage depends on, as dvc.yaml lists it."""
    files = closure(f"tasks/stages/{stage}.py", root=root) - PLUMBING
    return sorted(files) + ([LOCK] if stage in TRAINING else [])


def is_code(dependency: str) -> bool:
    """Whether an entry of `deps` is code (`make deps` writes it) and not data (a person does)."""
    return dependency == LOCK or (
        dependency.endswith(".py") and dependency.partition("/")[0] in PACKAGES
    )


def with_code_dependencies(text: str, *, root: Path) -> str:
    """The text of a dvc.yaml with each stage's code computed anew; all else stays as written."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for stage in STAGES:
        dependencies = document["stages"][stage]["deps"]
        data = [entry for entry in dependencies if not is_code(entry)]
        document["stages"][stage]["deps"] = CommentedSeq(
            [*data, *code_dependencies(stage, root=root)]
        )
    written = StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def main() -> None:
    """Write the code dependencies of every stage into the dvc.yaml of the current folder."""
    path = Path("dvc.yaml")
    before = path.read_text(encoding="utf-8")
    after = with_code_dependencies(before, root=Path())
    if after != before:
        with atomic_path(path) as temporary:
            temporary.write_text(after, encoding="utf-8")
    sys.stdout.write(f"dvc.yaml: {'unchanged' if after == before else 'written'}\n")


if __name__ == "__main__":
    main()
