"""An error is one line that a terminal can show, whatever stands in it."""

from recsys_core.errors import LONGEST_LINE, DataError


def test_what_cannot_be_printed_is_escaped() -> None:
    said = str(DataError("a\nb.csv: \x1b[31m \ud800 ☃; rename it"))
    assert said == "a\\nb.csv: \\x1b[31m \\ud800 ☃; rename it"


def test_a_line_without_end_keeps_its_file_and_its_remedy() -> None:
    said = str(DataError(f"log.csv: {'x' * 10_000}; rename it"))
    assert len(said) == LONGEST_LINE
    assert said.startswith("log.csv: x")
    assert said.endswith("x; rename it")
