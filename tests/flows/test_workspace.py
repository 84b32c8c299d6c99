"""A workspace is a copy: the checkout is never edited, a stranger's folder never touched."""

import multiprocessing
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flows.locks import SERVE_LOCK, held_lock, locked, serving
from flows.workspace import (
    MARK,
    chosen_overrides,
    effective_params,
    existing,
    mirror,
    prepared,
    refreshed,
)
from recsys_core.config import check_params
from recsys_core.errors import ConfigError, StepError
from tests.conftest import CHECKOUT
from tests.small_logs import card_value


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and inode of each file: a rewritten file has another inode."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout: what a workspace copies, and what it must leave alone."""
    root = tmp_path / "checkout"
    for name in ("recsys_core/data", "tasks/stages", "datasets", ".dvc/plots", "flows"):
        (root / name).mkdir(parents=True)
    (root / "recsys_core" / "rng.py").write_text("SEED = 1\n")
    (root / "recsys_core" / "data" / "events.py").write_text("N = 1\n")
    (root / "recsys_core" / "__pycache__").mkdir()
    (root / "recsys_core" / "__pycache__" / "rng.pyc").write_bytes(b"\0")
    (root / "tasks" / "step.py").write_text("")
    for name in ("dvc.yaml", "requirements.lock", ".dvcignore", "flows/cli.py"):
        (root / name).write_text(f"{name}\n")
    for name in ("params.yaml", "datasets/simulator.yaml"):
        (root / name).write_bytes((CHECKOUT / name).read_bytes())
    return root


def prepare(folder: Path, checkout: Path, *overrides: str, called_from: Path | None = None) -> None:
    with prepared(
        folder, overrides, called_from=called_from or checkout, checkout=checkout
    ) as params:
        assert params.seed > 0


def test_it_holds_a_copy_params_and_a_shared_cache(checkout: Path) -> None:
    before = snapshot(checkout)
    folder = checkout / "runs" / "default"
    prepare(folder, checkout, "train_rnn.hidden=16", "split={kind: quantile, share: 0.1}")
    assert (folder / "recsys_core" / "data" / "events.py").read_text() == "N = 1\n"
    assert not (folder / "recsys_core" / "__pycache__").exists()
    assert not (folder / "flows").exists()
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["train_rnn"]["hidden"] == 16
    assert params["split"] == {"kind": "quantile", "share": 0.1}
    config = (folder / ".dvc" / "config").read_text()
    assert "no_scm = true" in config
    assert "dir = ../../../.dvc/cache\n" in config
    after = snapshot(checkout)
    assert {name: after[name] for name in before} == before


def test_only_what_changed_is_rewritten(checkout: Path) -> None:
    folder = checkout / "runs" / "default"
    prepare(folder, checkout)
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "kept.txt").write_text("an output")
    before = snapshot(folder)
    (checkout / "recsys_core" / "rng.py").write_text("SEED = 2\n")
    (checkout / "recsys_core" / "data" / "events.py").unlink()
    (checkout / "tasks" / "new.py").write_text("")
    prepare(folder, checkout)
    after = snapshot(folder)
    assert set(before) - set(after) == {"recsys_core/data/events.py"}
    assert set(after) - set(before) == {"tasks/new.py"}
    changed = {name for name in set(before) & set(after) if before[name] != after[name]}
    assert changed == {"recsys_core/rng.py", MARK}


def test_scoring_takes_the_checkouts_code_and_the_last_runs_params(checkout: Path) -> None:
    folder = checkout / "runs" / "default"
    prepare(folder, checkout, "train_rnn.hidden=16")
    before = snapshot(folder)
    (checkout / "recsys_core" / "rng.py").write_text("SEED = 2\n")
    (checkout / "params.yaml").write_text("seed: 1\n")
    with refreshed(folder, checkout=checkout):
        after = snapshot(folder)
    assert {name for name in before if before[name] != after[name]} == {"recsys_core/rng.py"}
    with (
        pytest.raises(ConfigError, match="is no workspace"),
        refreshed(checkout / "runs" / "none", checkout=checkout),
    ):
        pass


def test_overrides_are_kept_until_others_are_given(checkout: Path, tmp_path: Path) -> None:
    folder, elsewhere = checkout / "runs" / "default", tmp_path / "elsewhere"
    (tmp_path / "logs").mkdir()
    elsewhere.mkdir()
    assert chosen_overrides(folder, [], called_from=tmp_path).note is None
    prepare(folder, checkout, "seed=9", "ingest.path=logs", called_from=tmp_path)
    before = (folder / "params.yaml").read_text()
    chosen = chosen_overrides(folder, [], called_from=elsewhere)
    assert chosen.values == ["seed=9", "ingest.path=logs"]
    assert chosen.note is not None
    assert "-S seed=9 -S ingest.path=logs; any -S replaces these" in chosen.note
    for _ in range(2):  # it stays so
        prepare(folder, checkout, *chosen.values, called_from=chosen.called_from)
        assert (folder / "params.yaml").read_text() == before
        chosen = chosen_overrides(folder, [], called_from=elsewhere)
    others = chosen_overrides(folder, ["seed=8"], called_from=elsewhere)
    assert (others.values, others.called_from) == (["seed=8"], elsewhere)
    assert others.note == "-S replaces that of the last run: seed=9 ingest.path=logs"
    same = chosen_overrides(folder, ["seed=9", "ingest.path=logs"], called_from=tmp_path)
    assert same.note is None


def test_a_folder_that_became_a_file_is_replaced(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a").mkdir(parents=True)
    (source / "b").write_text("file")
    (target / "a").mkdir(parents=True)
    (target / "b" / "deep").mkdir(parents=True)
    (target / "a" / "gone").write_text("")
    (source / "a" / "kept").write_text("1")
    mirror(source, target)
    assert {name for name in snapshot(target)} == {"a/kept", "b"}
    (source / "b").unlink()
    (source / "b").mkdir()
    (source / "b" / "now").write_text("2")
    mirror(source, target)
    assert {name for name in snapshot(target)} == {"a/kept", "b/now"}


def test_each_run_starts_from_the_checkouts_params(checkout: Path) -> None:
    folder = checkout / "runs" / "default"
    prepare(folder, checkout, "train_rnn.hidden=16")
    prepare(folder, checkout, "seed=9")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["seed"] == 9
    assert params["train_rnn"]["hidden"] != 16


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("train_rnn.width=3", "there is no train_rnn.width in params.yaml"),
        ("nothing.at.all=3", "there is no nothing.at.all in params.yaml"),
        ("seed.deep=3", "there is no seed.deep in params.yaml"),
        ("seed=[1", "is not YAML"),
        ("train_rnn.hidden=wide", "train_rnn.hidden: "),
        ("train_rnn.hidden=-1", "hidden is -1, it must be greater than 0"),
        ("split={kind: quantile}", "share"),
    ],
)
def test_a_wrong_override_is_refused_before_anything_is_written(
    checkout: Path, override: str, said: str
) -> None:
    folder = checkout / "runs" / "default"
    with pytest.raises(ConfigError) as caught:
        prepare(folder, checkout, override)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_what_a_logs_times_cannot_give_is_refused_before_anything_is_written(
    checkout: Path,
) -> None:
    folder = checkout / "runs" / "default"
    text = yaml.safe_dump(
        card_value(time={"kind": "rank", "unit": None}, sessions={"kind": "none"})
    )
    (checkout / "datasets" / "small.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        prepare(folder, checkout, "ingest.dataset=small")
    assert not folder.exists()
    _, _, remedy = str(caught.value).partition("; run with ")
    settings = shlex.split(remedy.partition(", or")[0])
    prepare(folder, checkout, "ingest.dataset=small", *(one for one in settings if one != "-S"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["split"]["kind"] == "quantile"
    assert params["train_rnn"]["reads"] == []
    assert params["evaluate"]["recent_hours"] == []
    assert params["gate"]["floor"] == "popularity"


def test_item_features_that_the_card_lacks_are_refused_before_anything_is_written(
    checkout: Path,
) -> None:
    folder = checkout / "runs" / "default"
    with pytest.raises(ConfigError, match=r"features\.items names colour, but the card's"):
        prepare(folder, checkout, "features.items=[colour]")
    assert not folder.exists()


def test_an_event_type_that_the_card_lacks_is_refused_before_anything_is_written(
    checkout: Path,
) -> None:
    folder = checkout / "runs" / "default"
    with pytest.raises(ConfigError, match=r"rewards names refund, but the event types that"):
        prepare(folder, checkout, "train_rnn.rewards={refund: 0.0}")
    assert not folder.exists()


def test_fields_that_the_card_lacks_are_refused_before_anything_is_written(
    checkout: Path,
) -> None:
    folder = checkout / "runs" / "default"
    with pytest.raises(ConfigError, match=r"train_rnn\.reads names user\.shoe, but the card's"):
        prepare(folder, checkout, "train_rnn.reads=[gap, user.shoe]")
    assert not folder.exists()


def test_ratings_of_a_log_without_values_are_refused_before_anything_is_written(
    checkout: Path,
) -> None:
    folder = checkout / "runs" / "default"
    text = yaml.safe_dump(card_value())
    (checkout / "datasets" / "small.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train_rnn\.rating is true, but the card") as caught:
        prepare(folder, checkout, "ingest.dataset=small", "train_rnn.rating=true")
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_a_dataset_without_a_card_is_refused_before_anything_is_written(checkout: Path) -> None:
    folder = checkout / "runs" / "default"
    with pytest.raises(ConfigError, match=r"nowhere\.yaml, only cards of simulator;"):
        prepare(folder, checkout, "ingest.dataset=nowhere")
    assert not folder.exists()


@pytest.mark.parametrize("form", ["ingest.path={}", "ingest={{dataset: simulator, path: {}}}"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_typed_path_is_relative_to_where_it_was_typed(
    checkout: Path, tmp_path: Path, form: str, absolute: bool
) -> None:
    folder = checkout / "runs" / "default"
    (tmp_path / "logs").mkdir()
    typed = str(tmp_path / "logs") if absolute else "logs"
    value = effective_params(
        [form.format(typed)], folder=folder, called_from=tmp_path, checkout=checkout
    )
    assert value["ingest"]["path"] == "../../../logs"
    assert os.path.normpath(folder / value["ingest"]["path"]) == str(tmp_path / "logs")


def test_the_embedded_path_stays_inside_the_workspace(checkout: Path) -> None:
    value = effective_params(
        ["seed=3"], folder=checkout / "runs" / "x", called_from=checkout.parent, checkout=checkout
    )
    assert value["ingest"]["path"] == "datasets/simulator"


def test_the_checkout_is_no_workspace(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="is the checkout itself"):
        prepare(checkout, checkout)


def test_a_folder_with_other_files_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ConfigError, match=r"has files in it \(cat.jpg\)"):
        prepare(folder, checkout)
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_a_file_is_no_workspace(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        prepare(tmp_path / "file", checkout)


def test_reading_wants_a_prepared_workspace(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twotempo run --workspace"):
        existing(tmp_path / "nowhere")
    prepare(checkout / "runs" / "default", checkout)
    assert existing(checkout / "runs" / "default") == checkout / "runs" / "default"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"a"', '{"overrides": "seed=9"}', '{"overrides": [9]}', "\xff"]
)
def test_a_broken_mark_is_no_artifact_of_a_stage(checkout: Path, text: str) -> None:
    """It was told to be deleted, after which the folder was refused as a stranger's."""
    folder = checkout / "runs" / "default"
    prepare(folder, checkout, "seed=9")
    (folder / MARK).write_text(text, encoding="latin-1")
    for given in ([], ["seed=9"]):
        with pytest.raises(ConfigError, match=r"write \{\} into it and give them again with -S"):
            chosen_overrides(folder, given, called_from=checkout)
    (folder / MARK).write_text("{}")
    chosen = chosen_overrides(folder, ["seed=9"], called_from=checkout)
    prepare(folder, checkout, *chosen.values)


def test_a_workspace_is_served_once_while_its_runs_come_and_go(
    checkout: Path, tmp_path: Path
) -> None:
    folder = checkout / "runs" / "default"
    with serving(folder):
        with pytest.raises(StepError, match="is served already; end that"), serving(folder):
            pass
        assert [path.name for path in folder.iterdir()] == [SERVE_LOCK]
        prepare(folder, checkout)
        with serving(tmp_path / "other"):
            pass
    with serving(folder):
        pass


def _hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        held.set()
        multiprocessing.Event().wait(60)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, multiprocessing.Process]]:
    """A folder that another process holds."""
    context = multiprocessing.get_context("spawn")
    event = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, event))
    process.start()
    assert event.wait(30)
    yield tmp_path, process  # type: ignore[misc]
    process.kill()
    process.join()


def test_a_step_that_outlives_its_run_keeps_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        step = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held_lock(tmp_path)
        )
    assert held_lock(tmp_path) == ()
    with pytest.raises(StepError, match="is in use by another run"), locked(tmp_path):
        pass
    step.communicate(b"\n")
    with locked(tmp_path):
        assert held_lock(tmp_path) != ()


def test_a_second_run_is_refused_until_the_first_has_ended(
    held: tuple[Path, multiprocessing.Process],
) -> None:
    folder, process = held
    with pytest.raises(StepError, match="is in use by another run"), locked(folder):
        pass
    process.kill()
    process.join()
    with locked(folder):
        assert (folder / ".lock").exists()


def test_no_row_can_be_of_the_day_after_tomorrow(checkout: Path) -> None:
    """Two runs of one day have the same params; a day that was given stays."""
    folder, today = checkout / "runs" / "default", date(2024, 2, 28)

    def day(*overrides: str) -> object:
        value = effective_params(
            overrides, folder=folder, called_from=checkout, checkout=checkout, today=today
        )
        return check_params(value, where="params.yaml").section("validate").timestamps_before

    assert day() == date(2024, 3, 1)
    assert day("validate.timestamps_before=2030-01-01") == date(2030, 1, 1)
    # what was typed stays, a null too
    assert day("validate.timestamps_before=null") is None
    assert day("validate={timestamps_before: null, batch_rows: 9, memory_mb: 9}") is None
    assert day("validate.memory_mb=512") == date(2024, 3, 1)
    prepare(folder, checkout)
    before = datetime.now(UTC).date()
    written = yaml.safe_load((folder / "params.yaml").read_text())["validate"]["timestamps_before"]
    days = {str(at + timedelta(days=2)) for at in (before, datetime.now(UTC).date())}
    assert written in days


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "snapshots/small"),
        # what lies there is copied from the checkout, and anything else removed
        (["ingest.path={folder}/datasets"], "snapshots/small"),
        (["ingest.path={folder}"], "snapshots/small"),
        (["ingest.path=elsewhere"], "../../elsewhere"),
    ],
)
def test_a_snapshot_has_a_folder_that_no_run_removes(
    checkout: Path, overrides: list[str], expected: str
) -> None:
    folder = checkout / "runs" / "default"
    card = card_value(snapshot={"row_key": ["user", "at"]})
    (checkout / "datasets" / "small.yaml").write_text(yaml.safe_dump(card))
    value = effective_params(
        ["ingest.dataset=small", *(text.format(folder=folder) for text in overrides)],
        folder=folder,
        called_from=checkout,
        checkout=checkout,
    )
    assert value["ingest"]["path"] == expected
    card.pop("snapshot")
    (checkout / "datasets" / "small.yaml").write_text(yaml.safe_dump(card))
    value = effective_params(
        ["ingest.dataset=small"], folder=folder, called_from=checkout, checkout=checkout
    )
    assert value["ingest"]["path"] == "datasets/simulator"
