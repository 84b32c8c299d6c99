"""The memory adds what its formulas say, term by term, against a walk over each user's items."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.errors import ConfigError
from recsys_core.models.memory import (
    EVENTS_SCALE,
    INITIAL_SCALE,
    TERMS,
    WINDOWED,
    Memory,
    MemoryConfig,
)
from recsys_core.models.memory_tables import count_tables
from recsys_core.models.requests import InputSpec, remember
from tests.event_rows import HOUR, events_of, random_rows
from tests.serving_world import N_ITEMS, make_events, make_memory

ITEMS = 6
SPEC = InputSpec(n_items=ITEMS, dim=2, t_star=3, window=4, remembered=0, ablation="none")


def one_term(term: str, *, window: int = 0) -> Memory:
    """A memory of random tables in which `term` alone counts, once."""
    memory = make_memory(n_items=ITEMS)
    with torch.no_grad():
        memory.network.copy_(torch.tensor([1.0, 0.0, 0.0]))
        memory.coefficients.zero_()
        memory.coefficients[memory.config.numbered_terms.index((term, window)), 0] = 1.0
    return memory


def scored(memory: Memory, histories: list[list[int]], *, active: bool = False) -> np.ndarray:
    """What is added to logits of 0 for users whose items these are, the last one first. (B, V)"""
    rows, width = len(histories), max(2, *(len(history) for history in histories))
    latest = torch.zeros(rows, width, dtype=torch.int64)
    for row, history in enumerate(histories):
        latest[row, : len(history)] = torch.tensor(history, dtype=torch.int64)
    history = torch.tensor([len(history) for history in histories])
    with torch.inference_mode():
        logits = torch.zeros(rows, memory.config.n_items + 1)
        return memory(logits, latest, torch.full((rows,), active), history)[:, 1:].numpy()


def walked(memory: Memory, term: str, window: int, history: list[int]) -> list[float]:
    """One term for items 1, 2, ..., by the formula at the head of `memory.py`."""
    place = memory.config.numbered_terms.index((term, window))
    r = math.log1p(math.exp(memory.power[place].item()))
    e = math.exp(memory.log_scale[place].item())
    votes = [0.0] * (memory.config.n_items + 1)
    for k, item in enumerate(history):
        if term == "own":
            votes[item] += (k + 1) ** -r / e
        if term == "latest_own" and item not in history[:k]:
            votes[item] += (len(set(history[:k])) + 1) ** -r / e
        if term == "last" and k == 0:
            votes[item] = 1.0
        if term == "again" and k > 0 and item == history[0]:
            votes[history[k - 1]] += k**-r / e
        if term == "next" and k < memory.config.next_length:
            table = memory.next_items[window, item], memory.next_share[window, item]
            for following, share in zip(*table, strict=True):
                votes[int(following)] += (k + 1) ** -r * float(share) / e
        if term == "similar":
            table = memory.similar_items[item], memory.similar_weight[item]
            for like, weight in zip(*table, strict=True):
                votes[int(like)] += (k + 1) ** -r * float(weight) / e
    if term == "recent":
        return memory.log_recent[window, 1:].tolist()
    linear = term in ("last", "similar")
    return [vote if linear else math.log1p(vote) for vote in votes[1:]]


TERM_AND_WINDOW = [
    (term, window) for term in TERMS for window in range(2 if term in WINDOWED else 1)
]


@pytest.mark.parametrize(("term", "window"), TERM_AND_WINDOW)
@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(1, ITEMS), max_size=12), min_size=1, max_size=4),
)
def test_each_term_is_its_formula(term: str, window: int, histories: list[list[int]]) -> None:
    """Users with few items and with none beside those with many: PAD adds nothing to an item."""
    memory = one_term(term, window=window)
    expected = [walked(memory, term, window, history) for history in histories]
    np.testing.assert_allclose(scored(memory, histories), expected, rtol=2e-5, atol=1e-6)


def test_the_terms_by_hand() -> None:
    """Of items 2 1 2 3 2, the last one first, with r = 1 and e = 1."""

    def found(term: str) -> list[float]:
        memory = one_term(term)
        with torch.no_grad():
            memory.power.fill_(math.log(math.e - 1.0))  # softplus of it is 1
            memory.log_scale.zero_()
        return scored(memory, [[2, 1, 2, 3, 2]])[0].tolist()

    near = {"rel": 1e-5, "abs": 1e-6}
    own = [1 / 2, 1 + 1 / 3 + 1 / 5, 1 / 4, 0, 0, 0]
    assert found("own") == pytest.approx([math.log1p(vote) for vote in own], **near)
    latest_own = [1 / 2, 1, 1 / 3, 0, 0, 0]
    assert found("latest_own") == pytest.approx([math.log1p(vote) for vote in latest_own], **near)
    assert found("last") == [0, 1, 0, 0, 0, 0]
    # item 2 came two events before the last, and 1 after it; then four before, and 3 after it
    again = [1 / 2, 0, 1 / 4, 0, 0, 0]
    assert found("again") == pytest.approx([math.log1p(vote) for vote in again], **near)


def test_a_user_who_has_nothing_is_told_what_is_recent_and_nothing_else() -> None:
    memory = make_memory()
    seen = scored(memory, [[], [1, 2]])
    c = memory.coefficients[:, 0].detach()
    places = [memory.config.numbered_terms.index(("recent", window)) for window in (0, 1)]
    expected = sum(c[place] * memory.log_recent[i] for i, place in enumerate(places))
    np.testing.assert_allclose(seen[0], expected[1:].numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(seen[1] - seen[0]).max() > 0.01


def test_room_for_more_items_than_a_user_has_changes_nothing() -> None:
    memory, few = make_memory(), [3, 1]
    alone = scored(memory, [few])
    beside = scored(memory, [few, list(range(1, 13))])
    np.testing.assert_allclose(beside[0], alone[0], rtol=1e-6, atol=1e-6)


def test_coefficients_depend_on_who_asks() -> None:
    """c_1 + c_2 [active] + c_3 log(1 + n) / 5, of the networks' logits too."""
    memory = make_memory(terms=("last",))
    with torch.no_grad():
        memory.network.copy_(torch.tensor([0.5, 0.25, 2.0]))
        memory.coefficients.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
    logits = torch.arange(N_ITEMS + 1, dtype=torch.float32).repeat(3, 1)
    latest = torch.tensor([[4, 1], [4, 1], [0, 0]])
    active, history = torch.tensor([False, True, False]), torch.tensor([2, 9, 0])
    with torch.inference_mode():
        scores = memory(logits, latest, active, history).numpy()
    known = np.log1p([2.0, 9.0, 0.0]) / EVENTS_SCALE
    network = 0.5 + 0.25 * active.numpy() + 2.0 * known
    expected = network[:, None] * logits.numpy()
    expected[[0, 1], 4] += (1.0 + 10.0 * active.numpy() + 100.0 * known)[:2]
    np.testing.assert_allclose(scores[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)


def test_a_new_memory_leaves_the_networks_as_they_are() -> None:
    """Nothing is fitted yet; and without terms there is nothing to fit."""
    logits = torch.randn(2, N_ITEMS + 1, generator=torch.Generator().manual_seed(0))
    latest = torch.tensor([[1, 2, 3], [0, 0, 0]])
    known = latest, torch.tensor([True, False]), torch.tensor([3, 0])
    for terms in (TERMS, ()):
        memory = Memory(
            MemoryConfig(terms, (None,), N_ITEMS, length=8, next_length=2, neighbours=3)
        )
        with torch.inference_mode():
            np.testing.assert_array_equal(memory(logits, *known).numpy(), logits.numpy())


def test_each_window_is_a_term_of_its_own() -> None:
    memory = make_memory(terms=("next", "own", "recent"), windows=(1.0, 24.0, None))
    assert memory.config.numbered_terms == [
        *(("next", window) for window in range(3)),
        ("own", 0),
        *(("recent", window) for window in range(3)),
    ]
    assert list(memory.described()) == [
        "networks",
        *("next 1h", "next 24h", "next whole log"),
        "own",
        *("recent 1h", "recent 24h", "recent whole log"),
    ]
    described = memory.described()
    assert set(described["own"]) == {"one", "active", "events", "r", "e"}
    assert set(described["recent 1h"]) == {"one", "active", "events"}
    assert described["own"]["e"] == pytest.approx(INITIAL_SCALE["own"], rel=1e-3)


def test_round_trip() -> None:
    for terms in (TERMS, (), ("similar",)):
        memory = make_memory(terms=terms)
        again = Memory.from_arrays(memory.to_json(), memory.to_arrays())
        assert again.config == memory.config
        np.testing.assert_array_equal(scored(again, [[1, 2, 1]]), scored(memory, [[1, 2, 1]]))


def test_the_fitted_numbers_are_taken_and_the_tables_stay() -> None:
    mine, other = make_memory(seed=1), make_memory(seed=2)
    tables = {name: value.clone() for name, value in mine.named_buffers()}
    mine.take_numbers(other)
    for name, value in mine.named_parameters():
        assert torch.equal(value, dict(other.named_parameters())[name])
    for name, value in mine.named_buffers():
        assert torch.equal(value, tables[name])
        assert not torch.equal(value, dict(other.named_buffers())[name])
    with torch.no_grad():
        other.power.add_(1.0)
    assert not torch.equal(mine.power, other.power), "a copy"


def test_what_is_remembered_of_a_history() -> None:
    events = make_events([[5, 6, 7, 8], [], [9]])
    users, history = np.array([1, 2, 3, 1]), np.array([4, 0, 1, 2])
    asked = remember(SPEC, events, user_idx=users, history=history, most=3)
    assert asked.latest.tolist() == [[8, 7, 6], [0, 0, 0], [9, 0, 0], [6, 5, 0]]
    assert asked.active.tolist() == [True, False, False, False]
    assert asked.history.tolist() == [4, 0, 1, 2]
    few = remember(SPEC, events, user_idx=users[1:3], history=history[1:3], most=3)
    assert few.latest.tolist() == [[0, 0], [9, 0]], "at least two, though nobody has them"


# the tables

CUT = 40 * HOUR
KNOWN = 8


def counted(events: Events, **changes: Any) -> Memory:
    """All tables at `CUT`, in a window of 10 hours and over the whole log."""
    config = MemoryConfig(TERMS, (10.0, None), KNOWN, length=8, next_length=2, neighbours=3)
    memory = Memory(config)
    cut = changes.pop("cut", Cut.at(events, CUT, n_items=KNOWN))
    count_tables(memory, events, cut, **{"similar": "ease", "similar_l2": 5.0, **changes})
    return memory


def test_the_tables_are_counts() -> None:
    """1 was followed by 2 twice and by 3 once, in the last 10 hours by 3 alone."""
    rows = [(1, 1, 0), (1, 2, 1), (2, 1, 2), (2, 2, 3), (3, 1, 35 * HOUR), (3, 3, 36 * HOUR)]
    memory = counted(events_of(rows))
    # n(i, j) / (n(i) + d(i)): three events on two different items, one event on one
    assert memory.next_items[1, 1].tolist() == [2, 3, 0]
    np.testing.assert_allclose(memory.next_share[1, 1], [2 / 5, 1 / 5, 0], rtol=1e-6)
    assert memory.next_items[0, 1].tolist() == [3, 0, 0]
    np.testing.assert_allclose(memory.next_share[0, 1], [1 / 2, 0, 0], rtol=1e-6)
    # (n(j) + 1) / (n + V)
    popularity = np.array([4, 3, 2, 1, 1, 1, 1, 1]) / 14
    np.testing.assert_allclose(memory.log_recent[1, 1:].exp(), popularity, rtol=1e-5)
    # 1 and 3 once each in the window, backed off by popularity with the weight of two events
    recent = (np.array([1, 0, 1, 0, 0, 0, 0, 0]) + 2 * popularity) / 4
    np.testing.assert_allclose(memory.log_recent[0, 1:].exp(), recent, rtol=1e-5)
    assert 2 in memory.similar_items[1].tolist()
    for table in (memory.next_share[:, 0], memory.similar_weight[0], memory.log_recent[:, 0]):
        assert not table.any(), "PAD has nothing"


@pytest.mark.parametrize("similar", ["ease", "item_knn"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    later=st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, KNOWN + 4), st.integers(CUT, 2 * CUT)),
        max_size=20,
    ),
)
def test_what_happens_after_the_cut_changes_nothing(
    similar: str, seed: int, later: list[tuple[int, int, int]]
) -> None:
    """Users, items and events of later; a user of later is number 12 at most here and there."""
    before = [*random_rows(60, users=11, items=KNOWN, end=CUT, seed=seed), (12, 1, 0)]
    alone, both = (
        counted(events_of(rows), similar=similar) for rows in (before, [*before, *later])
    )
    for name, value in alone.named_buffers():
        np.testing.assert_array_equal(value, dict(both.named_buffers())[name], err_msg=name)
    assert any(value.any() for value in alone.buffers())


def test_the_fitted_numbers_stay_when_tables_are_counted() -> None:
    events = events_of(random_rows(60, users=11, items=KNOWN, end=CUT))
    memory = counted(events)
    fresh = Memory(memory.config)
    for name, value in memory.named_parameters():
        assert torch.equal(value, dict(fresh.named_parameters())[name])


def test_a_window_of_hours_needs_one_time() -> None:
    events = events_of(random_rows(60, users=11, items=KNOWN, end=CUT))
    each = Cut(events.counts_before(CUT), KNOWN, None)
    with pytest.raises(ConfigError, match="a window of hours needs one time"):
        counted(events, cut=each)
