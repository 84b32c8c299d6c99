"""The memory adds what its formulas say, term by term, against a walk over each user's items."""

import math
from dataclasses import replace
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
    Memory,
)
from recsys_core.models.memory_tables import count_tables
from recsys_core.models.own_items import Own, gather_own
from tests.event_rows import HOUR, events_of, random_rows
from tests.serving_world import N_ITEMS, make_events, make_memory

ITEMS = 6


def one_term(term: str, *, window: int = 0) -> Memory:
    """A memory of random tables in which `term` alone counts, once."""
    memory = make_memory(n_items=ITEMS)
    memory.own = None
    with torch.no_grad():
        memory.network.copy_(torch.tensor([1.0, 0.0, 0.0]))
        memory.coefficients.zero_()
        memory.coefficients[memory.config.numbered_terms.index((term, window)), 0] = 1.0
    return memory


def own_of(histories: list[list[int]]) -> Own:
    """What is read of users whose items these are, the last one last."""
    users = np.arange(1, len(histories) + 1)
    length = np.array([len(history) for history in histories])
    return gather_own(make_events(histories), user_idx=users, history=length, most=12)


def scored(
    memory: Memory,
    histories: list[list[int]],
    *,
    active: bool = False,
    logits: torch.Tensor | None = None,
) -> np.ndarray:
    """What is added to `logits`, else of 0, for users whose items these are. (B, V)"""
    own, rows = own_of(histories), len(histories)
    with torch.inference_mode():
        return memory(
            torch.zeros(rows, memory.config.n_items + 1) if logits is None else logits,
            torch.full((rows,), active),
            torch.from_numpy(own.items),
            torch.from_numpy(own.numbers),
            torch.from_numpy(own.user_numbers),
        )[:, 1:].numpy()


def walked(memory: Memory, term: str, window: int, history: list[int]) -> list[float]:
    """One term for items 1, 2, ..., by the formula at the head of `memory.py`."""
    place = memory.config.numbered_terms.index((term, window))
    r = math.log1p(math.exp(memory.power[place].item()))
    e = math.exp(memory.log_scale[place].item())
    if term == "recent":
        return memory.log_recent[window, 1:].tolist()
    latest_first = history[::-1]
    if term == "factors":
        sums, n = torch.zeros(memory.config.factor_dim), 0.0
        for item in dict.fromkeys(latest_first):
            decay = (latest_first.index(item) + 1) ** -r
            sums += decay * (memory.factor_items[item] - memory.factor_mean)
            n += decay
        folded = sums / (n * memory.factor_variance + e)
        return [float(folded @ memory.factor_items[item]) for item in range(1, ITEMS + 1)]
    votes = [0.0] * (memory.config.n_items + 1)
    for j, item in enumerate(dict.fromkeys(latest_first)):
        decay = (latest_first.index(item) + 1) ** -r
        if term == "next" and j < memory.config.next_length:
            table = memory.next_items[window, item], memory.next_share[window, item]
        elif term == "similar" and j < memory.config.similar_length:
            table = memory.similar_items[item], memory.similar_weight[item]
        else:
            continue
        for other, weight in zip(*table, strict=True):
            votes[int(other)] += decay * float(weight) / e
    return [vote if term == "similar" else math.log1p(vote) for vote in votes[1:]]


TERM_AND_WINDOW = [("next", 0), ("next", 1), ("similar", 0)]
TERM_AND_WINDOW += [("factors", 0), ("recent", 0), ("recent", 1)]


@pytest.mark.parametrize(("term", "window"), TERM_AND_WINDOW)
@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(1, ITEMS), max_size=14), min_size=1, max_size=4),
)
def test_each_term_is_its_formula(term: str, window: int, histories: list[list[int]]) -> None:
    """Users with few items and with none beside those with many: PAD adds nothing to an item."""
    if not any(histories):
        return
    memory = one_term(term, window=window)
    expected = [walked(memory, term, window, history) for history in histories]
    np.testing.assert_allclose(scored(memory, histories), expected, rtol=2e-5, atol=1e-6)


def test_own_items_are_scored_and_no_others() -> None:
    memory, without = make_memory(), make_memory()
    assert without.own is not None
    without.own = None
    histories = [[4, 7, 4], [9], []]
    added = scored(memory, histories) - scored(without, histories)
    assert [(1 + np.flatnonzero(np.abs(row) > 1e-6)).tolist() for row in added] == [[4, 7], [9], []]


def test_an_own_item_is_scored_by_what_is_known_of_it_and_not_by_which_it_is() -> None:
    """With tables that say nothing, histories that differ by the names of items score alike."""
    memory = make_memory()
    for table in memory.buffers():
        table.zero_()
    one, renamed = scored(memory, [[1, 2, 2, 3, 2], [11, 12, 12, 13, 12]])
    assert one[:3] == pytest.approx(renamed[10:13], rel=1e-5)
    assert len(set(one[:3].tolist())) == 3, "how often and how lately counts"


def test_what_the_networks_and_tables_say_of_an_own_item_counts_in_its_score() -> None:
    memory = make_memory(terms=("own", "next", "recent"))
    with torch.no_grad():
        memory.network.zero_()
        memory.coefficients.zero_()
    history = [[4, 7, 4]]
    before = scored(memory, history)
    logits = torch.zeros(1, N_ITEMS + 1)
    logits[0, 7] = 2.0
    assert np.abs(scored(memory, history, logits=logits) - before)[0, 6] > 1e-3
    logits[0, :] = 0.0
    logits[0, 0] = 9.0
    np.testing.assert_array_equal(scored(memory, history, logits=logits), before, "PAD is no item")
    with torch.no_grad():
        memory.log_recent[0, 7] -= 1.0
    recent = scored(memory, history)
    assert np.abs(recent - before)[0, 6] > 1e-3
    with torch.no_grad():
        memory.next_items[1, 4, 0], memory.next_share[1, 4, 0] = 7, 0.9
    assert np.abs(scored(memory, history) - recent)[0, 6] > 1e-3


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
    np.testing.assert_allclose(beside[0], alone[0], rtol=1e-5, atol=1e-5)


def test_coefficients_depend_on_who_asks() -> None:
    """c_1 + c_2 [active] + c_3 log(1 + n) / 5, of the networks' logits too."""
    memory = make_memory(terms=("recent",), windows=(None,))
    with torch.no_grad():
        memory.network.copy_(torch.tensor([0.5, 0.25, 2.0]))
        memory.coefficients.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
    logits = torch.arange(N_ITEMS + 1, dtype=torch.float32).repeat(2, 1)
    recent, known = memory.log_recent[0].numpy(), np.log1p([2.0, 0.0]) / EVENTS_SCALE
    for active in (False, True):
        scores = scored(memory, [[4, 1], []], active=active, logits=logits)
        network = 0.5 + 0.25 * active + 2.0 * known
        coefficient = 1.0 + 10.0 * active + 100.0 * known
        expected = network[:, None] * logits.numpy() + coefficient[:, None] * recent
        np.testing.assert_allclose(scores, expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_a_new_memory_leaves_the_networks_as_they_are() -> None:
    """Nothing is fitted yet, even where what is to be learned from is drawn; and without terms
    there is nothing to fit."""
    logits = torch.randn(2, N_ITEMS + 1, generator=torch.Generator().manual_seed(0))
    for terms in (TERMS, ()):
        memory = Memory(replace(make_memory().config, terms=terms))
        if memory.own is not None:
            memory.own.draw(np.random.default_rng(0))
        found = scored(memory, [[1, 2, 3], []], logits=logits)
        np.testing.assert_array_equal(found, logits[:, 1:].numpy())


def test_each_window_is_a_term_of_its_own() -> None:
    memory = make_memory(terms=("next", "own", "recent"), windows=(1.0, 24.0, None))
    assert memory.config.numbered_terms == [
        *(("next", window) for window in range(3)),
        *(("recent", window) for window in range(3)),
    ]
    assert list(memory.described()) == [
        "networks",
        *("next 1h", "next 24h", "next whole log"),
        *("recent 1h", "recent 24h", "recent whole log"),
    ]
    described = memory.described()
    assert set(described["next 1h"]) == {"one", "active", "events", "r", "e"}
    assert set(described["recent 1h"]) == {"one", "active", "events"}
    assert described["next 1h"]["e"] == pytest.approx(INITIAL_SCALE["next"], rel=1e-3)


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


# the tables

CUT = 40 * HOUR
KNOWN = 8


def counted(events: Events, **changes: Any) -> Memory:
    """All tables at `CUT`, in a window of 10 hours and over the whole log."""
    settings = {"similar": "ease", "similar_l2": 5.0, **changes}
    cut = settings.pop("cut", Cut.at(events, CUT, n_items=KNOWN))
    config = make_memory(n_items=KNOWN, windows=(10.0, None)).config
    memory = Memory(replace(config, **settings))
    count_tables(memory, events, cut)
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
