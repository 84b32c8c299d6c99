"""Prepares the folder that a run works in, so that a run never touches the checkout.

A workspace is a copy of what the stages need, with params, lock file and outputs of its own; it
shares the checkout's DVC cache, so that a result computed in one workspace is restored in another.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from flows.locks import LOCKS, locked
from recsys_core.artifacts import atomic_path, write_json
from recsys_core.config import Params, check_params, read_yaml
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from tasks.clock import Clock, check_clock

CHECKOUT = Path(__file__).resolve().parents[1]
MARK = "workspace.json"
COPIED = (
    "recsys_core",
    "tasks",
    "datasets",
    "dvc.yaml",
    "requirements.lock",
    ".dvcignore",
    ".dvc/plots",
)
WITH_PATH = ("ingest", "snapshot")
"""Sections with a `path` that may be typed, and then is relative to where it was."""
LEFT_OUT = ("__pycache__", "*.pyc", ".DS_Store")


@contextmanager
def ready(
    folder: Path, given: Sequence[str], *, called_from: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """A workspace held for one run with the overrides `given` now, or else with its last run's.

    What there is to say about them goes to `say`, as one line.
    """
    chosen = chosen_overrides(folder, given, called_from=called_from)
    if chosen.note is not None:
        say(chosen.note)
    with prepared(folder, chosen.values, called_from=chosen.called_from):
        yield


@contextmanager
def prepared(
    folder: Path, overrides: Sequence[str], *, called_from: Path, checkout: Path = CHECKOUT
) -> Iterator[Params]:
    """A workspace held for one run: up to date with the checkout, its params with `overrides`.

    An override is `section.key=value` with a value in YAML; a typed path is relative to
    `called_from`. Nothing is written where the params or the folder are refused.
    """
    value, params = checked(overrides, folder=folder, called_from=called_from, checkout=checkout)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        typed_in = os.path.relpath(called_from.resolve(), folder.resolve())
        write_json(folder / MARK, {"overrides": list(overrides), "called_from": typed_in})
        _mirror_code(folder, checkout)
        _write_if_changed(folder / "params.yaml", yaml.safe_dump(value, sort_keys=False).encode())
        _write_if_changed(folder / ".dvc" / "config", _dvc_config(folder, checkout).encode())
        yield params


def checked(
    overrides: Sequence[str], *, folder: Path, called_from: Path, checkout: Path = CHECKOUT
) -> tuple[Any, Params]:
    """The params that a run would have, as YAML values and as sections; nothing is written.

    Raises `ConfigError` where the run would be refused.
    """
    _check_checkout(checkout)
    value = effective_params(overrides, folder=folder, called_from=called_from, checkout=checkout)
    params = check_params(value, where="params.yaml with -S" if overrides else "params.yaml")
    _check_card(params, checkout)
    _refuse_strangers(folder, checkout)
    return value, params


@dataclass(frozen=True)
class Overrides:
    """The overrides of a run, the folder that they were typed in, and what to say about them."""

    values: list[str]
    called_from: Path
    note: str | None


def chosen_overrides(folder: Path, given: Sequence[str], *, called_from: Path) -> Overrides:
    """The overrides given now, or where none are those that the workspace was last run with."""
    stored, typed_in = _last_run(folder)
    if given:
        replaced = f"-S replaces that of the last run: {' '.join(stored)}"
        note = replaced if stored and stored != list(given) else None
        return Overrides(values=list(given), called_from=called_from, note=note)
    if not stored:
        return Overrides(values=[], called_from=called_from, note=None)
    return Overrides(
        values=stored,
        called_from=folder.resolve() / typed_in,
        note=f"as in the last run of {folder}: -S {' -S '.join(stored)}; any -S replaces these",
    )


def _last_run(folder: Path) -> tuple[list[str], str]:
    """The overrides of a workspace's last run, and where they were typed, from the workspace."""
    mark = folder / MARK
    if not mark.is_file():
        return [], ""
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
        overrides, typed_in = found.get("overrides", []), found.get("called_from", "")
    except (ValueError, AttributeError) as error:
        raise _broken_mark(mark) from error
    texts = [*overrides, typed_in] if isinstance(overrides, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise _broken_mark(mark)
    return overrides, typed_in


def _broken_mark(mark: Path) -> ConfigError:
    return ConfigError(
        f"{mark} does not hold the overrides of the last run; write {{}} into it and give them "
        "again with -S (do not delete it: without it the folder is no workspace)"
    )


@contextmanager
def refreshed(folder: Path, *, checkout: Path = CHECKOUT) -> Iterator[None]:
    """A workspace held for scoring: the checkout's code, with the params of the last run."""
    _check_checkout(checkout)
    with locked(existing(folder)):
        _mirror_code(folder, checkout)
        yield


def effective_params(
    overrides: Sequence[str],
    *,
    folder: Path,
    called_from: Path,
    checkout: Path = CHECKOUT,
    today: date | None = None,
) -> Any:
    """The checkout's params with the overrides of one run, not yet checked.

    What they leave to the run is filled in: the day from which no row can be (the day after
    tomorrow, so that no clock and no time zone is wronged; `today` is the day in UTC unless
    given; a null that was typed stays), and the folder of a snapshot.
    """
    value = read_yaml(checkout / "params.yaml")
    before = {section: _path_of(value, section) for section in WITH_PATH}
    for override in overrides:
        _override(value, override)
    for section in WITH_PATH:
        path = _path_of(value, section)
        typed = any(_names(text, section, "path") for text in overrides)
        if path is not None and (path != before[section] or typed):
            # what was typed is relative to where it was typed; DVC wants it so to the workspace
            value[section]["path"] = os.path.relpath(called_from / path, folder.resolve())
    _fill_in_snapshot(value, checkout)
    if not any(_names(text, "validate", "timestamps_before") for text in overrides):
        _fill_in_day(value, datetime.now(UTC).date() if today is None else today)
    return value


def existing(folder: Path) -> Path:
    """The folder, if it is a workspace that a run has prepared."""
    if not (folder / MARK).is_file():
        raise ConfigError(
            f"{folder} is no workspace (it has no {MARK}); run `twotempo run --workspace {folder}`"
        )
    return folder


def _check_checkout(checkout: Path) -> None:
    for name in ("params.yaml", *COPIED):
        if not (checkout / name).exists():
            raise ConfigError(
                f"{checkout} has no {name}; install twotempo from its checkout (pip install -e .)"
            )


def _fill_in_snapshot(value: Any, checkout: Path) -> None:
    """Give a log that comes as a snapshot a folder of its own in the workspace, where the params
    name one that is copied from the checkout: whatever is added there is lost at the next run."""
    path = _path_of(value, "ingest")
    if path is None or Path(path).parts[:1] not in {(), *((name,) for name in COPIED)}:
        return
    dataset = value["ingest"].get("dataset")
    card = Layout(checkout).card(str(dataset))
    described = read_yaml(card) if card.is_file() else None
    if isinstance(described, dict) and described.get("snapshot") is not None:
        value["ingest"]["path"] = f"snapshots/{dataset}"


def _fill_in_day(value: Any, today: date) -> None:
    section = value.get("validate") if isinstance(value, dict) else None
    if isinstance(section, dict) and section.get("timestamps_before", "") is None:
        section["timestamps_before"] = (today + timedelta(days=2)).isoformat()


def _check_card(params: Params, checkout: Path) -> None:
    """Raise where there is no card of the dataset, or a wrong one, or it cannot give what the
    params ask for, of times, fields, item features and filters: in seconds, and not after an hour
    of training."""
    from recsys_core.data.cards import read_card  # slow to import, and only a run needs it
    from tasks.card_settings import check_settings
    from tasks.check_fields import check_fields
    from tasks.check_scoring import check_scoring
    from tasks.feature_kinds import kinds_read

    path = Layout(checkout).card(params.ingest.dataset)
    if not path.is_file():
        cards = ", ".join(sorted(card.stem for card in path.parent.glob("*.yaml")))
        raise ConfigError(
            f"ingest.dataset is {params.ingest.dataset!r}, but there is no {path}, only cards of "
            f"{cards}; name one of these, or write a card with `twotempo init`"
        )
    card = read_card(path)
    kinds_read(params.features, {name: one.kind for name, one in card.item_features.items()})
    check_settings(card, params.train_rnn)
    check_fields(params.train_rnn, card)
    check_scoring(params.score, card)
    check_clock(
        Clock(card.time.kind, one_time=params.split.kind != "leave_one_out"),
        split=params.split,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        evaluate=params.evaluate,
        gate=params.gate,
        score=params.score,
    )


def _mirror_code(folder: Path, checkout: Path) -> None:
    for name in COPIED:
        mirror(checkout / name, folder / name)


def mirror(source: Path, target: Path) -> None:
    """Make `target` equal to `source`: equal files are left untouched, surplus ones removed."""
    if source.is_dir() != target.is_dir():
        _remove(target)
    if source.is_file():
        _write_if_changed(target, source.read_bytes())
        return
    entries = [path for path in source.iterdir() if not any(map(path.match, LEFT_OUT))]
    names = sorted(path.name for path in entries)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in names:
            _remove(path)
    for name in names:
        mirror(source / name, target / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _override(value: Any, override: str) -> None:
    """Set one key of nested mappings; the key must be there already."""
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise ConfigError(f"-S {override}: write it as section.key=value")
    try:
        new = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"-S {override}: {text!r} is not YAML; quote it as YAML does") from error
    *path, last = keys.split(".")
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict) or last not in value:
        known = (
            f"{'.'.join(path)} has {sorted(value)}"
            if isinstance(value, dict)
            else "no such section"
        )
        raise ConfigError(f"-S {override}: there is no {keys} in params.yaml ({known})")
    value[last] = new


def _names(override: str, section: str, key: str) -> bool:
    """Whether an override gives a key, alone or with its section."""
    return override.startswith(f"{section}.{key}=") or (
        override.startswith(f"{section}=") and key in override
    )


def _path_of(value: Any, section: str) -> str | None:
    """The path that a section names, or None where it names none or is too wrong to have one."""
    keys = value.get(section) if isinstance(value, dict) else None
    path = keys.get("path") if isinstance(keys, dict) else None
    return path if isinstance(path, str) else None


def _refuse_strangers(folder: Path, checkout: Path) -> None:
    """Raise where a folder holds somebody's files: a workspace would replace them."""
    if folder.resolve() == checkout.resolve():
        raise ConfigError(f"{folder} is the checkout itself; name a folder such as runs/default")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a workspace is a folder")
    if folder.is_dir() and not (folder / MARK).exists():
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in LOCKS)
        if strangers:
            raise ConfigError(
                f"{folder} is no workspace and has files in it ({', '.join(strangers[:3])}); "
                "name a new folder"
            )


def _dvc_config(folder: Path, checkout: Path) -> str:
    """DVC's configuration of a workspace: no git of its own, the checkout's cache."""
    cache = os.path.relpath(checkout.resolve() / ".dvc" / "cache", folder.resolve() / ".dvc")
    return (
        "[core]\n    analytics = false\n    no_scm = true\n"
        f"[cache]\n    dir = {cache}\n    type = reflink,hardlink,copy\n"
    )


def _write_if_changed(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
