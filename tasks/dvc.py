"""Asks DVC to bring a stage up to date, and says what it did: run it, restore it, or leave it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys_core.errors import StepError
from tasks.child import Usage, run_module

Outcome = Literal["ran", "restored", "unchanged"]

# what DVC prints, in the order in which a later one overrules an earlier
OUTCOMES: tuple[tuple[str, Outcome], ...] = (
    ("Stage '{stage}' didn't change, skipping", "unchanged"),
    ("Stage '{stage}' is cached - skipping run, checking out outputs", "restored"),
    ("Running stage '{stage}':", "ran"),
)

HOUSEKEEPING = (
    "> ",
    "Generating lock file",
    "Updating lock file",
    "Use `dvc push`",
    "Data and pipelines",
)
"""What DVC says besides, which nobody asked for."""


@dataclass(frozen=True)
class Reproduced:
    """What became of a stage, and what it took."""

    outcome: Outcome
    usage: Usage


def reproduce(
    stage: str,
    *,
    workspace: Path,
    timeout_seconds: float,
    on_line: Callable[[str], None],
    inherit_errors: bool,
    keep_open: Sequence[int] = (),
) -> Reproduced:
    """Bring one stage of a workspace up to date, its dependencies taken as they lie there."""
    said: set[Outcome] = set()

    def listen(line: str) -> None:
        outcomes = {
            outcome for text, outcome in OUTCOMES if line.startswith(text.format(stage=stage))
        }
        said.update(outcomes)
        if not outcomes and not line.startswith(HOUSEKEEPING):
            on_line(line)

    usage = run_module(
        ["dvc", "repro", "--single-item", stage],
        name=stage,
        cwd=workspace,
        timeout_seconds=timeout_seconds,
        on_line=listen,
        inherit_errors=inherit_errors,
        keep_open=keep_open,
    )
    for _, outcome in reversed(OUTCOMES):
        if outcome in said:
            return Reproduced(outcome=outcome, usage=usage)
    raise StepError(
        f"DVC did not say what it did with stage {stage!r}; install DVC as in requirements.lock"
    )
