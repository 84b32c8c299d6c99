"""Any log, any card: whole with every row counted, or one line. No traceback, no lost row.

`make fuzz` runs FUZZ_CASES cases (1,000 unless said) from number FUZZ_SEED on. A case is known by
its number alone: `FUZZ_SEED=<number> FUZZ_CASES=1 make fuzz` runs just that one again.
"""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import generated, junk, mutated
from tests.fuzz.outcome import Failure, Outcome, outcome

KINDS = {"generated": generated, "mutated": mutated, "junk": junk}
TURNS = ("generated", "mutated", "generated", "junk", "mutated")
SHOWN_EVERY = 100


def kind_of(number: int) -> str:
    return TURNS[number % len(TURNS)]


def run_case(root: Path, number: int) -> Outcome:
    """Write and run a case; a failure says which it was and how to run it again."""
    root.mkdir()
    rows = KINDS[kind_of(number)].write_case(root, number)
    try:
        return outcome(root, rows=rows)
    except Failure as error:
        raise Failure(
            f"case {number} ({kind_of(number)}; again: FUZZ_SEED={number} FUZZ_CASES=1 make fuzz; "
            f"its workspace: {root}): {error}"
        ) from error


@pytest.mark.parametrize("number", range(25))
def test_a_case_is_whole_or_one_line(number: int, tmp_path: Path) -> None:
    run_case(tmp_path / "case", number)


def test_the_same_number_is_the_same_case(tmp_path: Path) -> None:
    for number in range(5):
        for name in ("a", "b"):
            (tmp_path / name / str(number)).mkdir(parents=True)
            KINDS[kind_of(number)].write_case(tmp_path / name / str(number), number)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            # a gzip file has the time in its header
            if path.is_file() and path.suffix != ".gz"
        }
        for name in ("a", "b")
    )
    assert one == two
    assert len(one) > 10


@pytest.mark.fuzz
def test_many_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = int(os.environ.get("FUZZ_SEED", "1000"))
    cases = int(os.environ.get("FUZZ_CASES", "1000"))
    ended = Counter[str]()
    failures: list[Failure] = []
    begun = time.monotonic()
    for done, number in enumerate(range(first, first + cases), start=1):
        try:
            ended[f"{kind_of(number)}: {run_case(tmp_path / str(number), number)}"] += 1
        except Failure as error:
            failures.append(error)
        if done % SHOWN_EVERY == 0 or done == cases:
            rate = done / (time.monotonic() - begun)
            with capsys.disabled():
                print(f"\ncases={done} cases/s={rate:.1f} failures={len(failures)}")  # noqa: T201 (progress)
                for name, count in sorted(ended.items()):
                    print(f"  {count:5d}  {name}")  # noqa: T201 (progress)
    assert not failures, "\n\n".join(map(str, failures))
