"""The blocks find what ranking every score finds, whatever the sizes, ties and what is left out."""

import doctest
from typing import Any

import numpy as np
import pytest

from recsys_core.errors import ModelError
from recsys_core.serving import item_blocks, ranked_keys, top_k
from recsys_core.serving.item_blocks import block_items
from recsys_core.serving.ranked_keys import Keys
from recsys_core.serving.top_k import Best, LeftOut, TopK


def naive(
    users: np.ndarray,
    vectors: np.ndarray,
    *,
    k: int,
    bias: np.ndarray | None = None,
    eligible: np.ndarray | None = None,
    left_out: LeftOut | None = None,
) -> Best:
    """Every score ranked by a stable sort."""
    scores = users @ vectors.T + (0 if bias is None else bias)  # (N, V + 1)
    scores[:, 0] = -np.inf
    if eligible is not None:
        scores[:, ~eligible] = -np.inf
    if left_out is not None:
        scores[left_out.rows, left_out.items] = -np.inf
    items = np.zeros((len(users), k), dtype=np.int64)
    best = np.full((len(users), k), -np.inf, dtype=np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, axis=1)
    items[:, : order.shape[1]] = np.where(values == -np.inf, 0, order)
    best[:, : order.shape[1]] = values
    return Best(items, best)


def whole_numbers(rng: np.random.Generator, *shape: int, most: int = 3) -> np.ndarray:
    """Small whole numbers: their products are exact in any order, and many are equal."""
    return rng.integers(-most, most, shape, endpoint=True).astype(np.float32)


def drawn_pairs(rng: np.random.Generator, *, users: int, items: int, each: int) -> LeftOut:
    """In no order, some of them twice, PAD among them."""
    return LeftOut(rng.integers(0, users, users * each), rng.integers(0, items, users * each))


def check(users: np.ndarray, vectors: np.ndarray, *, k: int, threads: int = 1, **how: Any) -> None:
    left_out = how.pop("left_out", None)
    how = {"bias": None, "eligible": None, **how}
    found = TopK(vectors, threads=threads, **how).search(users, k=k, left_out=left_out)
    expected = naive(users, vectors, k=k, left_out=left_out, **how)
    assert np.array_equal(found.items, expected.items)
    assert np.array_equal(found.scores, expected.scores)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 items, so that a small catalogue has many of them behind its sample."""
    monkeypatch.setattr(item_blocks, "ITEMS_AT_ONCE", 64)
    monkeypatch.setattr(item_blocks, "SAMPLE", 512)


def test_doctests() -> None:
    for module in (top_k, ranked_keys):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("n_items", [1, 2, 7, 63, 64, 65, 1_023, 1_024, 1_025, 2_100, 20_011])
def test_sizes_that_are_no_multiple_of_anything(rng: np.random.Generator, n_items: int) -> None:
    vectors, users = whole_numbers(rng, n_items + 1, 5), whole_numbers(rng, 37, 5)
    check(users, vectors, k=10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 3, 64, 100, 400, 3_000])
@pytest.mark.parametrize("most", [1, 50, 10_000])
def test_ties_come_in_the_order_of_idx(rng: np.random.Generator, k: int, most: int) -> None:
    vectors, users = whole_numbers(rng, 3_001, 4, most=most), whole_numbers(rng, 150, 4)
    users[7] = 0  # every item alike
    left_out = drawn_pairs(rng, users=150, items=3_001, each=30)
    check(users, vectors, k=k, left_out=left_out)


@pytest.mark.usefixtures("small_blocks")
def test_items_that_are_the_same_many_times(rng: np.random.Generator) -> None:
    vectors = np.repeat(whole_numbers(rng, 11, 6), 300, axis=0)
    check(whole_numbers(rng, 40, 6), vectors, k=50)


@pytest.mark.usefixtures("small_blocks")
def test_equal_scores_do_not_fill_the_memory(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_blocks, "PENDING", 1_000)
    monkeypatch.setattr(item_blocks, "REACHED_AT_ONCE", 100)
    waiting: list[int] = []
    first_k = item_blocks.Scan._first_k

    def counted(self: Any, kept: list[np.ndarray], *, k: int) -> Any:
        waiting.append(sum(map(len, kept)))
        return first_k(self, kept, k=k)

    monkeypatch.setattr(item_blocks.Scan, "_first_k", counted)
    check(np.zeros((16, 4), dtype=np.float32), whole_numbers(rng, 2_000, 4), k=20)
    # what waits, what the last ones added, and those that were kept
    assert max(waiting) <= 1_000 + 100 * 64 + 16 * 20
    assert len(waiting) > 4


@pytest.mark.usefixtures("small_blocks")
def test_a_sample_that_misleads_costs_time_alone(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is good lies in the sample, so that its guess is far too high."""
    vectors, users = np.abs(whole_numbers(rng, 4_001, 4)), np.abs(whole_numbers(rng, 60, 4)) + 1
    first = block_items(vectors, np.arange(1, 4_001), bias=None).item[:512]
    vectors[first[:40]] += 100
    searched: list[int] = []
    scan = top_k.Scan.best

    def counted(self: Any, tile: Any, **how: Any) -> Any:
        searched.append(len(tile.vectors))
        return scan(self, tile, **how)

    monkeypatch.setattr(top_k.Scan, "best", counted)
    check(users, vectors, k=100)
    assert sum(searched) == 120, "everybody was searched for again"


@pytest.mark.usefixtures("small_blocks")
def test_bias_mask_and_what_is_left_out_together(rng: np.random.Generator) -> None:
    vectors, users = whole_numbers(rng, 2_501, 8), whole_numbers(rng, 90, 8)
    bias = whole_numbers(rng, 2_501, most=9)
    eligible = rng.random(2_501) < 0.3
    left_out = drawn_pairs(rng, users=90, items=2_501, each=60)
    check(users, vectors, k=30, bias=bias, eligible=eligible, left_out=left_out)
    check(users, vectors, k=30, bias=bias, left_out=left_out)
    check(users, vectors, k=30, eligible=eligible)


def test_who_has_seen_everything_gets_nothing(rng: np.random.Generator) -> None:
    vectors, users = whole_numbers(rng, 31, 4), whole_numbers(rng, 3, 4)
    everything = LeftOut(np.full(30, 1), np.arange(1, 31))
    check(users, vectors, k=5, left_out=everything)
    found = TopK(vectors, bias=None, eligible=None, threads=1).search(
        users, k=5, left_out=everything
    )
    assert found.items[1].tolist() == [0] * 5
    assert (found.scores[1] == -np.inf).all()
    assert (found.items[[0, 2]] > 0).all()


def test_nobody_and_nothing(rng: np.random.Generator) -> None:
    vectors = whole_numbers(rng, 31, 4)
    one = TopK(vectors, bias=None, eligible=None, threads=2)
    assert one.search(np.zeros((0, 4), dtype=np.float32), k=3).items.shape == (0, 3)
    empty = TopK(vectors, bias=None, eligible=np.zeros(31, dtype=np.bool_), threads=2)
    found = empty.search(whole_numbers(rng, 2, 4), k=3)
    assert found.items.tolist() == [[0, 0, 0]] * 2
    assert (found.scores == -np.inf).all()


def test_the_answer_does_not_depend_on_threads_or_company(rng: np.random.Generator) -> None:
    """To the bit, though the sizes of the products differ."""
    vectors = rng.standard_normal((9_001, 32), dtype=np.float32)
    users = rng.standard_normal((700, 32), dtype=np.float32)
    left_out = drawn_pairs(rng, users=700, items=9_001, each=20)
    one, three = (
        TopK(vectors, bias=None, eligible=None, threads=threads).search(
            users, k=40, left_out=left_out
        )
        for threads in (1, 3)
    )
    assert np.array_equal(one.items, three.items)
    assert np.array_equal(one.scores, three.scores)
    alone = TopK(vectors, bias=None, eligible=None, threads=1).search(
        users[600:601],
        k=40,
        left_out=LeftOut(
            left_out.rows[left_out.rows == 600] - 600, left_out.items[left_out.rows == 600]
        ),
    )
    assert np.array_equal(alone.items[0], one.items[600])
    assert np.array_equal(alone.scores[0], one.scores[600])
    exact = users.astype(np.float64) @ vectors.T.astype(np.float64)
    exact[:, 0] = exact[left_out.rows, left_out.items] = -np.inf
    expected = -np.sort(-exact, axis=1)[:, :40]
    assert np.allclose(one.scores, expected, rtol=0, atol=1e-4)
    assert np.allclose(np.take_along_axis(exact, one.items, axis=1), expected, rtol=0, atol=1e-4)


def test_numbers_that_are_none_are_refused(rng: np.random.Generator) -> None:
    vectors, users = whole_numbers(rng, 31, 4), whole_numbers(rng, 3, 4)
    bad = vectors.copy()
    bad[[5, 6], 2] = np.nan, np.inf
    with pytest.raises(ModelError, match=r"^2 of 30 items have NaN or infinite"):
        TopK(bad, bias=None, eligible=None, threads=1)
    allowed = np.ones(31, dtype=np.bool_)
    allowed[[5, 6]] = False
    check(users, np.nan_to_num(bad, posinf=0), k=5, eligible=allowed)
    TopK(bad, bias=None, eligible=allowed, threads=1).search(users, k=5)
    users[1, 0] = np.nan
    with pytest.raises(ModelError, match="scores are NaN"):
        TopK(vectors, bias=None, eligible=None, threads=1).search(users, k=5)


@pytest.mark.parametrize(
    ("row", "item"), [(3, 1), (-1, 1), (0, 31), (0, -1)], ids=["row", "before", "item", "below"]
)
def test_pairs_of_nobody_or_nothing_are_refused(
    rng: np.random.Generator, row: int, item: int
) -> None:
    one = TopK(whole_numbers(rng, 31, 4), bias=None, eligible=None, threads=1)
    pairs = LeftOut(np.array([0, row]), np.array([1, item]))
    with pytest.raises(ModelError, match=r"^1 of 2 pairs to leave out"):
        one.search(whole_numbers(rng, 3, 4), k=5, left_out=pairs)
    with pytest.raises(ModelError, match="at least 1"):
        one.search(whole_numbers(rng, 3, 4), k=0)


def test_the_first_items_are_a_sample_of_all() -> None:
    item = block_items(np.zeros((10_001, 1), np.float32), np.arange(1, 10_001), bias=None).item
    assert np.array_equal(np.sort(item), np.arange(1, 10_001))
    by_age = np.bincount((item[:1_000] - 1) // 1_000, minlength=10)
    assert by_age.min() >= 99
    assert by_age.max() <= 101


def test_keys_rank_as_users_scores_and_items_do(rng: np.random.Generator) -> None:
    scores = np.array([np.inf, 3e38, 2.5, 1e-40, 0.0, -0.0, -1e-40, -7.0, -3e38], np.float32)
    user = rng.integers(0, 8, 500)
    score, item = rng.choice(scores, 500), rng.integers(0, 1_000, 500)
    keys = Keys(8)
    packed = keys.pack(user, score, item)
    expected = np.lexsort((item, -score, user))
    ordered = np.sort(packed)
    assert np.array_equal(keys.items(ordered), item[expected])
    assert np.array_equal(keys.scores(ordered), score[expected])
    starts = keys.starts(ordered)
    assert np.array_equal(np.diff(starts), np.bincount(user, minlength=8))
    one = Keys(1)
    alone = np.sort(one.pack(np.zeros(500, np.int64), score, item))
    assert np.array_equal(one.items(alone), item[np.lexsort((item, -score))])
    assert one.starts(alone).tolist() == [0, 500]
