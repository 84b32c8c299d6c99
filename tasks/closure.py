"""`make deps`: writes the code that each stage depends on into dvc.yaml."""

import sys
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from recsys_core.artifacts import atomic_path
from recsys_core.layout import STAGES
from tasks.code import LOCK, PACKAGES, code_dependencies


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
            [*data, *code_dependencies(f"stages.{stage}", root=root)]
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
