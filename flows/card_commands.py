"""`twotempo init` and `twotempo check`, as a person sees them."""

import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from flows.workspace import CHECKOUT, effective_params
from recsys_core.artifacts import atomic_path
from recsys_core.config import Params, check_params
from recsys_core.errors import ConfigError
from tasks.check_card import check_card
from tasks.check_report import Report, split_option
from tasks.init_card import Draft, draft_card


def write_card(
    files: Sequence[Path],
    *,
    name: str | None,
    out: Path | None,
    given: Mapping[str, str],
    force: bool,
) -> None:
    """Draft a card from files, write it, and say what was guessed and how to go on."""
    if out is not None:
        if out.suffix != ".yaml":
            raise ConfigError(f"--out {out}: a card's file is called <name>.yaml")
        if name is not None and name != out.stem:
            raise ConfigError(f"--name {name} and --out {out} differ; a card is called as its file")
        name = out.stem
    if name is not None:
        _refuse_overwriting(_place(name, out), force=force)
    draft = draft_card(files, name=name, given=given, split=_params(()).split)
    place = _place(draft.card.name, out)
    _refuse_overwriting(place, force=force)
    with atomic_path(place) as temporary:
        temporary.write_text(draft.text, encoding="utf-8")
    _print_draft(draft, place)


def print_check(card: Path, *, folder: Path, overrides: Sequence[str]) -> int:
    """Check a card and its log, print what was seen; returns the number of problems."""
    report = check_card(
        card, folder=folder, params=_params(overrides), today=datetime.now(UTC).date()
    )
    _print_report(report)
    return len(report.problems)


def _params(overrides: Sequence[str]) -> Params:
    value = effective_params(overrides, folder=Path(), called_from=Path())
    return check_params(value, where="params.yaml with -S" if overrides else "params.yaml")


def _place(name: str, out: Path | None) -> Path:
    return CHECKOUT / "datasets" / f"{name}.yaml" if out is None else out


def _refuse_overwriting(place: Path, *, force: bool) -> None:
    if place.exists() and not force:
        raise ConfigError(
            f"{_shown(place)} is there already; name another with --name, or replace it with "
            "--force"
        )


def _print_draft(draft: Draft, place: Path) -> None:
    console = _console()
    grid = Table.grid(padding=(0, 2))
    for row in draft.said:
        grid.add_row(*row)
    console.print(grid)
    for name, why in draft.left_out.items():
        console.print(f"left out: {name} ({why})")
    name, folder = draft.card.name, shlex.quote(_shown(draft.folder))
    console.print(f"\nWrote {_shown(place)}, with these reasons. Correct what is wrong, then:")
    console.print(f"  twotempo check {shlex.quote(_shown(place))} --path {folder}", soft_wrap=True)
    settings = [f"ingest.dataset={name}", f"ingest.path={_as_yaml(_shown(draft.folder))}"]
    settings += [] if draft.split is None else [split_option(draft.split)]
    wanted = " ".join(f"-S {shlex.quote(setting)}" for setting in settings)
    console.print(
        f"  twotempo run --workspace {shlex.quote(f'runs/{name}')} {wanted}", soft_wrap=True
    )
    if place.resolve().parent != CHECKOUT / "datasets":
        datasets = shlex.quote(_shown(CHECKOUT / "datasets"))
        console.print(f"(a run takes cards from {datasets}: copy it there first)", soft_wrap=True)


def _print_report(report: Report) -> None:
    console = _console()
    grid = Table.grid(padding=(0, 2))
    for row in report.seen:
        grid.add_row(*row)
    console.print(grid)
    for remark in report.remarks:
        console.print(f"remark: {remark}", soft_wrap=True)
    for problem in report.problems:
        console.print(f"problem: {problem}", soft_wrap=True)
    n = len(report.problems)
    console.print(f"{'no' if n == 0 else n} problem{'' if n == 1 else 's'}")


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)


def _shown(path: Path) -> str:
    """A path as a person would type it here."""
    relative = os.path.relpath(path)
    return relative if len(relative) <= len(str(path.resolve())) else str(path.resolve())


def _as_yaml(text: str) -> str:
    """A text as the value of `-S`, which is YAML."""
    try:
        same = yaml.safe_load(text) == text
    except yaml.YAMLError:
        same = False
    return (
        text if same else yaml.safe_dump(text, width=10**9).removesuffix("\n").removesuffix("\n...")
    )
