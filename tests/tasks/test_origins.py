"""The origins that a memory is fitted from: moments before validation, networks of each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_core.artifacts import read_json
from recsys_core.config import check_params, read_yaml
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.models.memory_tables import count_tables
from recsys_core.sections import TrainMemory
from recsys_core.tables import read_events, write_events
from recsys_core.training.fit_memory import EpochOfMemory, Origin, fit_memory
from tasks.cuts import read_cuts
from tasks.embedding_files import read_embeddings
from tasks.memory_files import read_memory
from tasks.model_files import read_model, write_model
from tasks.origins import earlier_periods, origin_folder
from tasks.stages import train_embeddings, train_memory, train_rnn
from tests.event_rows import HOUR
from tests.serving_world import N_ITEMS, make_model
from tests.small_logs import contents
from tests.tasks.test_train_memory import (
    LEAVE_ONE_OUT,
    PARAMS,
    TEST,
    USERS,
    VALID,
    fit,
    staying,
    workspace,
)
from tests.tasks.test_training_killed import CUT, MINUTE, make_workspace

LENGTH = (TEST - VALID) // HOUR
"""Hours of validation, and of each period before it."""


def with_networks(root: Path, events: Events, *, origins: int) -> Layout:
    """What the stage reads, for so many origins."""
    layout = workspace(root, events=events)
    for number in range(1, origins):
        write_model(origin_folder(layout.stage("train_rnn"), number), make_model())
    return layout


def only_own(origins: int) -> TrainMemory:
    return replace(PARAMS, terms=("own",), origins=origins)


def odd_validation() -> Events:
    """Users who stay with an item, but not in the validation period: then they take anything."""
    events, rng = staying(), np.random.default_rng(2)
    odd = (events.timestamp >= VALID) & (events.timestamp < TEST)
    anything = rng.integers(1, N_ITEMS + 1, len(events)).astype(np.int32)
    return replace(events, item_idx=np.where(odd, anything, events.item_idx).astype(np.int32))


def test_each_period_is_as_long_as_validation_and_ends_where_the_next_begins(
    tmp_path: Path,
) -> None:
    events = staying()
    layout = workspace(tmp_path, events=events)
    cuts = read_cuts(layout, events)
    first, second = earlier_periods(layout, events, cuts, origins=3)
    assert (first.before.time, first.until.time) == (VALID - LENGTH * HOUR, VALID)
    assert (second.before.time, second.until.time) == (VALID - 2 * LENGTH * HOUR, first.before.time)
    assert first.until is cuts.valid
    for period in (first, second):
        assert int(period.before.counts.sum()) == np.sum(events.timestamp < period.before.time)
    assert earlier_periods(layout, events, cuts, origins=1) == []


def test_what_lies_before_the_log_is_refused_and_how_far_it_reaches_is_said(
    tmp_path: Path,
) -> None:
    events = staying()
    layout = workspace(tmp_path, events=events)
    cuts = read_cuts(layout, events)
    with pytest.raises(DataError, match=r"origins is 4, but 3 periods before .* set it to 3"):
        earlier_periods(layout, events, cuts, origins=4)
    earlier_periods(layout, events, cuts, origins=3)


def test_who_is_cut_at_a_time_of_their_own_has_one_origin(tmp_path: Path) -> None:
    layout = workspace(tmp_path, events=staying(), split=LEAVE_ONE_OUT)
    with pytest.raises(ConfigError, match=r"train_memory\.origins is 2 \(no period is as long"):
        fit(layout, replace(PARAMS, windows=(None,), origins=2))


def test_an_odd_period_alone_teaches_what_is_wrong_for_others(tmp_path: Path) -> None:
    events = odd_validation()
    alone = fit(with_networks(tmp_path / "1", events, origins=1), only_own(1))
    several = fit(with_networks(tmp_path / "3", events, origins=3), only_own(3))
    report = read_json(several.report("train_memory"))
    earlier = [one["networks_and_memory_fitted_on_it"] for one in report["earlier origins mrr@20"]]
    assert len(earlier) == 2
    assert min(earlier) > 0.7
    asked = USERS * 3 * LENGTH
    assert report["rows"] == {"in": asked, "out": asked, "not_fitted_on": 0}
    assert read_json(alone.report("train_memory"))["rows"]["in"] == USERS * LENGTH
    # what the user had last says more to who has seen more than the odd days
    said = {}
    for name, layout in (("alone", alone), ("several", several)):
        memory = read_memory(layout.stage("train_memory"))
        assert memory.own is not None
        said[name] = sum(float(w.detach().square().sum()) for w in memory.own.parameters())
    assert said["several"] > 1.5 * said["alone"]


def test_the_targets_are_of_all_origins_together(tmp_path: Path) -> None:
    layout = with_networks(tmp_path, staying(), origins=2)
    fit(layout, replace(PARAMS, terms=("own",), origins=2, targets=100, steps=1))
    assert read_json(layout.report("train_memory"))["rows"]["out"] == 100


def test_the_tables_of_an_origin_are_counted_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, found = staying(), []

    def listening(origins: Sequence[Origin], **settings: Any) -> Iterator[EpochOfMemory]:
        found.extend(origins)
        return fit_memory(origins, **settings)

    monkeypatch.setattr(train_memory, "fit_memory", listening)
    layout = with_networks(tmp_path, events, origins=2)
    fit(layout, replace(PARAMS, terms=("recent", "next"), origins=2, steps=1))
    cuts = read_cuts(layout, events)
    (period,) = earlier_periods(layout, events, cuts, origins=2)
    for origin, cut in zip(found, (cuts.valid, period.before), strict=True):
        expected = Memory(origin.memory.config)
        count_tables(expected, events, cut)
        for name in ("log_recent", "next_items", "next_share"):
            assert torch.equal(getattr(origin.memory, name), getattr(expected, name)), name
        assert cut.time is not None
        asked = events.timestamp[np.isin(events.source_row, origin.targets.source_row)]
        assert cut.time <= asked.min() <= asked.max() < cut.time + LENGTH * HOUR


def trained(root: Path, *, origins: int, odd: bool = False) -> Layout:
    """Both stages of training, an epoch each; `odd` turns everything around that is not before the
    first origin before validation."""
    layout = make_workspace(root)
    value = read_yaml(layout.params)
    for stage in ("train_embeddings", "train_rnn"):
        value[stage] |= {"max_epochs": 1, "patience": 1}
    value["train_rnn"] |= {"max_epochs_apart": 0, "t_star": 10}
    value["train_memory"] |= {"origins": origins, "steps": 10, "terms": ["own", "recent"]}
    if odd:
        events = read_events(layout.events)
        later = events.timestamp >= CUT - 2_000 * MINUTE
        turned = 1 + events.item_idx.max() - events.item_idx
        items = np.where(later, turned, events.item_idx).astype(np.int32)
        write_events(layout.events, replace(events, item_idx=items))
    params = check_params(value, where="params")
    asked = {"evaluate": params.evaluate, "first_metric": params.first_metric, "seed": params.seed}
    both = {"layout": layout, "train_rnn": params.train_rnn, "train_memory": params.train_memory}
    train_embeddings.run(**both, train_embeddings=params.train_embeddings, **asked)
    train_rnn.run(**both, features=params.features, **asked)
    train_memory.run(**both, **asked)
    return layout


def test_networks_of_an_origin_know_nothing_of_what_came_after_it(tmp_path: Path) -> None:
    layout = trained(tmp_path / "a", origins=2)
    odd = trained(tmp_path / "odd", origins=2, odd=True)
    cuts = read_cuts(layout, read_events(layout.events))
    folders = [origin_folder(one.stage("train_rnn"), 1) for one in (layout, odd)]
    of_origin = [read_model(folder).inactive.state_dict() for folder in folders]
    for name, value in of_origin[0].items():
        assert torch.equal(value, of_origin[1][name]), name
    items = [read_model(folder).item_vectors.detach() for folder in folders]
    assert torch.equal(*items)
    valid = [read_model(one.stage("train_rnn")).item_vectors.detach() for one in (layout, odd)]
    assert not torch.equal(*valid)
    one, none = (trained(tmp_path / str(n), origins=n) for n in (3, 1))
    folder = one.stage("train_rnn")
    models = [read_model(origin_folder(folder, number)) for number in (1, 2)]
    assert not np.array_equal(*(model.item_vectors.detach() for model in models))
    assert models[0].config.n_items <= cuts.valid.n_items
    # the models that are asked later are what they are without
    for stage in ("train_embeddings", "train_rnn"):
        without = contents(none.stage(stage))
        with_origins = contents(one.stage(stage))
        assert without.items() <= with_origins.items()
    assert len(read_embeddings(origin_folder(one.stage("train_embeddings"), 2)).items) == 1 + len(
        models[1].item_vectors[1:]
    )
