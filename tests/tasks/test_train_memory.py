"""The stage `train_memory`, alone in a workspace: a random model, users who stay with an item."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.errors import ConfigError
from recsys_core.layout import Layout
from recsys_core.models.linear_items import LARGEST_CATALOGUE
from recsys_core.models.memory import TERMS, Memory
from recsys_core.models.memory_tables import count_tables
from recsys_core.sections import TrainMemory
from recsys_core.tables import ITEM_VOCABULARY, write_events, write_table
from tasks.cuts import read_cuts
from tasks.memory import similar_models
from tasks.memory_files import read_memory
from tasks.model_files import write_model
from tasks.stages.train_memory import run
from tests.event_rows import HOUR, events_of
from tests.serving_world import N_ITEMS, make_model
from tests.small_logs import contents, params_for

USERS, LENGTH = 50, 30
VALID, TEST, END = 15 * HOUR, 22 * HOUR, LENGTH * HOUR
BY_TIME = Split(valid_start=VALID, test_start=TEST, end=END, as_of=END - HOUR)
LEAVE_ONE_OUT = Split(valid_start=None, test_start=None, end=END, as_of=END - HOUR)

SHARED = params_for("small", "data", gate={"floor": "popularity"})
PARAMS = replace(
    SHARED.train_memory,
    terms=TERMS,
    windows=(6.0, None),
    length=8,
    neighbours=4,
    next_length=2,
    similar_ease=(1.0, 10.0),
    similar_item_knn=(10.0,),
    factor_dim=4,
    factors=((0.01, 0.03), (0.1, 0.1)),
    steps=400,
)


def staying(*, seed: int = 1) -> Events:
    """An event of each user every hour; nine of ten are of the item that they began with."""
    rng = np.random.default_rng(seed)
    rows = [(USERS + 1, item, item) for item in range(1, N_ITEMS + 1)]
    for user in range(1, USERS + 1):
        items = rng.integers(1, N_ITEMS + 1, LENGTH)
        stays = rng.random(LENGTH - 1) < 0.9
        items[1:] = np.where(stays, items[0], items[1:])
        rows += [(user, int(item), time * HOUR) for time, item in enumerate(items)]
    return events_of(rows)


def workspace(
    root: Path, *, events: Events, split: Split = BY_TIME, time: str = "absolute"
) -> Layout:
    """What the stage reads, and nothing else."""
    layout = Layout(root)
    write_events(layout.events, events)
    write_json(layout.split, split.to_json())
    write_json(layout.time_kind, {"kind": time})
    write_json(layout.event_types, {"names": ["keep", "return"], "weights": [1.0, 1.0]})
    first = pa.array(np.arange(1, N_ITEMS + 1), pa.int64()).cast(ITEM_VOCABULARY.field(2).type)
    ids = [f"i{item}" for item in range(1, N_ITEMS + 1)]
    columns = [pa.array(range(1, N_ITEMS + 1), pa.int32()), pa.array(ids), first]
    write_table(layout.item_vocabulary, pa.table(columns, schema=ITEM_VOCABULARY), ITEM_VOCABULARY)
    write_model(layout.stage("train_rnn") / "until_valid", make_model())
    return layout


def fit(
    layout: Layout, params: TrainMemory = PARAMS, *, rewards: dict[str, float] | None = None
) -> Layout:
    run(
        layout=layout,
        train_memory=params,
        train_rnn=replace(SHARED.train_rnn, rewards=rewards or {}),
        evaluate=SHARED.evaluate,
        first_metric="mrr@20",
        seed=7,
    )
    return layout


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return fit(workspace(tmp_path_factory.mktemp("memory"), events=staying()))


def memories(layout: Layout) -> dict[str, Memory]:
    """That of before the test period, and that of before validation."""
    folder = layout.stage("train_memory")
    return {"test": read_memory(folder), "valid": read_memory(folder / "until_valid")}


def test_what_is_remembered_is_worth_much_more_than_a_random_network(fitted: Layout) -> None:
    report = read_json(fitted.report("train_memory"))
    metrics = report["validation mrr@20"]
    assert metrics["networks"] < 0.3
    assert metrics["networks_and_memory_fitted_on_it"] > 0.8
    assert report["loss"][-1] < report["loss"][0]
    assert len(report["loss"]) == -(-400 // 35), "350 targets, ten at a time"
    assert set(report["coefficients"]) == {
        *("networks", "similar", "factors"),
        *("next 6h", "next whole log", "recent 6h", "recent whole log"),
    }


def test_the_numbers_are_the_same_and_the_tables_those_of_each_cut(fitted: Layout) -> None:
    events, both = staying(), memories(fitted)
    cuts = read_cuts(fitted, events)
    for name, memory in both.items():
        expected = Memory(memory.config)
        cut = getattr(cuts, name)
        count_tables(expected, events, cut)
        for buffer, value in expected.named_buffers():
            found = dict(memory.named_buffers())[buffer]
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7, err_msg=buffer)
    assert not np.array_equal(both["test"].log_recent, both["valid"].log_recent)
    numbers = dict(both["valid"].named_parameters())
    for name, value in both["test"].named_parameters():
        np.testing.assert_array_equal(value.detach(), numbers[name].detach(), err_msg=name)


def test_the_item_item_model_that_fits_best_is_chosen_once(fitted: Layout) -> None:
    similar = read_json(fitted.report("train_memory"))["similar"]
    assert list(similar["loss"]) == ["ease 1", "ease 10", "item_knn 10"]
    assert similar["chosen"] == min(similar["loss"], key=similar["loss"].get)
    for memory in memories(fitted).values():
        found = f"{memory.config.similar} {memory.config.similar_l2:g}"
        assert found == similar["chosen"], "that of before the test period too"


def test_a_catalogue_that_is_too_large_for_ease_has_neighbours() -> None:
    names = [str(one) for one in similar_models(PARAMS, catalogue=LARGEST_CATALOGUE + 1)]
    assert names == ["item_knn 10"]
    names = [str(one) for one in similar_models(PARAMS, catalogue=LARGEST_CATALOGUE)]
    assert names == ["ease 1", "ease 10", "item_knn 10"]


def test_each_target_is_fitted_on_or_counted(fitted: Layout, tmp_path: Path) -> None:
    rows = read_json(fitted.report("train_memory"))["rows"]
    assert rows == {"in": USERS * 7, "out": USERS * 7, "not_fitted_on": 0}
    few = fit(workspace(tmp_path, events=staying()), replace(PARAMS, targets=100, steps=1))
    rows = read_json(few.report("train_memory"))["rows"]
    assert rows == {"in": USERS * 7, "out": 100, "not_fitted_on": USERS * 7 - 100}


def test_what_was_sent_back_is_neither_counted_nor_fitted_on(tmp_path: Path) -> None:
    """With items of which every event is a return there is the memory of a log without them."""
    events = staying()
    types = np.where(events.item_idx > N_ITEMS // 2, 1, 0).astype(np.int8)
    with_returns = workspace(tmp_path, events=replace(events, event_type=types))
    popularity = replace(PARAMS, terms=("recent", "next"), windows=(None,))
    both = fit(with_returns, popularity)
    before = read_json(both.report("train_memory"))["validation_targets"]
    assert before["in"] == before["out"]
    bought = memories(fit(with_returns, popularity, rewards={"return": 0.0}))["test"]
    asked = read_json(with_returns.report("train_memory"))["validation_targets"]
    assert asked["in"] == before["in"] == asked["out"] + asked["unwanted"] + asked["not_drawn"]
    wanted = (events.timestamp >= VALID) & (events.timestamp < TEST) & (types == 0)
    assert asked["out"] == np.count_nonzero(wanted & (events.position > 0))
    known = (events.timestamp < TEST) & (types == 0)
    counts = np.bincount(events.item_idx[known], minlength=N_ITEMS + 1)
    share = bought.log_recent[0].exp().numpy()
    np.testing.assert_array_equal(share[1:] > share[1:].min(), counts[1:] > counts[1:].min())
    assert not (bought.next_items > N_ITEMS // 2).any(), "nothing leads to what is sent back"


def test_the_test_period_changes_nothing(fitted: Layout, tmp_path: Path) -> None:
    events = staying()
    later = events.timestamp >= TEST
    assert later.sum() == USERS * 8
    other = np.where(later, 1 + events.item_idx % N_ITEMS, events.item_idx).astype(np.int32)
    again = fit(workspace(tmp_path, events=replace(events, item_idx=other)))
    assert contents(again.stage("train_memory")) == contents(fitted.stage("train_memory"))
    assert contents(again.root / "reports") == contents(fitted.root / "reports")


def test_validation_changes_the_numbers_and_no_table_of_before_it(tmp_path: Path) -> None:
    events, only = staying(), replace(PARAMS, similar_ease=(), factors=((0.1, 0.1),), steps=50)
    later = events.timestamp >= VALID
    other = np.where(later, 1 + events.item_idx % N_ITEMS, events.item_idx).astype(np.int32)
    before, changed = (
        memories(fit(workspace(tmp_path / name, events=log), only))
        for name, log in (("before", events), ("changed", replace(events, item_idx=other)))
    )
    for name, value in changed["valid"].named_buffers():
        np.testing.assert_array_equal(value, dict(before["valid"].named_buffers())[name])
    assert not np.array_equal(changed["test"].log_recent, before["test"].log_recent)
    coefficients = (memory["valid"].coefficients.detach() for memory in (changed, before))
    assert not np.array_equal(*coefficients)


def test_without_terms_the_networks_stand_alone(tmp_path: Path) -> None:
    layout = fit(workspace(tmp_path, events=staying()), replace(PARAMS, terms=()))
    report = read_json(layout.report("train_memory"))
    assert report["loss"] == []
    metrics = report["validation mrr@20"]
    assert metrics["networks"] == metrics["networks_and_memory_fitted_on_it"]
    assert list(report["coefficients"]) == ["networks"]
    assert memories(layout)["test"].network.tolist() == [1, 0, 0]


def test_ranks_have_no_window_of_hours(tmp_path: Path) -> None:
    layout = workspace(tmp_path, events=staying(), time="rank")
    with pytest.raises(ConfigError, match=r"train_memory\.windows is \[6, null\]"):
        fit(layout)
    assert not layout.stage("train_memory").exists()
    fit(layout, replace(PARAMS, windows=(None,)))
    assert memories(layout)["test"].config.windows == (None,)


def test_who_is_cut_at_a_time_of_their_own_has_none_either(tmp_path: Path) -> None:
    layout = workspace(tmp_path, events=staying(), split=LEAVE_ONE_OUT)
    with pytest.raises(ConfigError, match=r"leave_one_out.*train_memory\.windows is \[6, null\]"):
        fit(layout)
    fit(layout, replace(PARAMS, windows=(None,)))
    # one target of each user, the one who had every item once among them
    rows = read_json(layout.report("train_memory"))["rows"]
    assert rows["in"] == USERS + 1
    assert rows["in"] == rows["out"] + rows["not_fitted_on"]
