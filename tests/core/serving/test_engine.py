"""The engine gives the exact best items of the model for every user, or says why not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.errors import ModelError
from recsys_core.models.own_items import gather_own
from recsys_core.models.predict import expected_ratings, user_vectors
from recsys_core.models.requests import make_requests
from recsys_core.models.trend import TrendIndex, index_trend
from recsys_core.serving import engine as engine_module
from recsys_core.serving.bundle import Bundle, read_bundle
from recsys_core.serving.engine import ScoringEngine, no_pairs, seen_pairs
from tests.serving_world import (
    MINUTE,
    N_ITEMS,
    export_bundle,
    make_events,
    make_memory,
    make_model,
    make_popularity,
    random_histories,
    tiny_bundle,
)

CPU = ("CPUExecutionProvider",)

# user 1 has no event, user 2 one; 3 and 4 are just below and at t* = 4; the others are active
LENGTHS = [0, 1, 3, 4, 5, 9, 0, 30, 2, 12]
USERS = np.arange(1, len(LENGTHS) + 1)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(tiny_bundle(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> ScoringEngine:
    return ScoringEngine(bundle, graph="two_time_scale", threads=1, providers=CPU)


@pytest.fixture(scope="module")
def popularity(bundle: Bundle) -> ScoringEngine:
    return ScoringEngine(bundle, graph="popularity", threads=1, providers=CPU)


@pytest.fixture(scope="module")
def events() -> Events:
    return make_events(random_histories(LENGTHS))


def model_scores(
    events: Events,
    user_idx: np.ndarray,
    *,
    as_of: int | None = None,
    opens: bool = False,
    trend: Any = 0.0,
) -> np.ndarray:
    """Scores of all items by model and memory in torch, (N, V + 1): the truth of these tests.

    Each user is asked for alone, with as many own items as there are.
    """

    model, memory = make_model(), make_memory()
    scores = []
    for user in user_idx:
        history = np.diff(events.offsets)[[user]]
        request = None if as_of is None else RequestTimes(np.array([as_of]), np.array([opens]))
        vectors = user_vectors(
            model, events, user_idx=np.array([user]), history=history, request=request
        )
        own = gather_own(
            events, user_idx=np.array([user]), history=history, most=memory.config.length
        )
        with torch.inference_mode():
            logits = torch.from_numpy(vectors) @ model.item_vectors.T + model.item_bias
            active = torch.from_numpy(history >= model.config.t_star)
            inputs = (own.items, own.numbers, own.user_numbers)
            both = memory(logits, active, *(torch.from_numpy(array) for array in inputs))
        scores.append((both + trend).numpy())
    scored = np.concatenate(scores)
    scored[:, 0] = -np.inf
    return scored


def brute_force(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best by a stable sort: of equal scores the lower idx first."""
    items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return items, np.take_along_axis(scores, items, axis=1)


def test_top_items_are_those_of_brute_force(engine: ScoringEngine, events: Events) -> None:
    top = engine.top_items(events, USERS, k=10, seen_filter=False)
    items, scores = brute_force(model_scores(events, USERS), 10)
    np.testing.assert_array_equal(top.items, items)
    np.testing.assert_allclose(top.scores, scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("minutes", "opens"), [(29, False), (30, True), (10_000, True)])
def test_who_is_asked_about_later_is_answered_for_that_time(
    engine: ScoringEngine, events: Events, minutes: int, opens: bool
) -> None:
    """Half an hour opens a session of this log; each user has been away for `minutes`."""
    for user in USERS[np.array(LENGTHS) > 0]:
        as_of = int(events.timestamp[events.offsets[user + 1] - 1]) + minutes * MINUTE
        top = engine.top_items(events, np.array([user]), k=10, seen_filter=False, as_of=as_of)
        expected = model_scores(events, np.array([user]), as_of=as_of, opens=opens)
        np.testing.assert_array_equal(top.items, brute_force(expected, 10)[0])
        unasked = engine.top_items(events, np.array([user]), k=10, seen_filter=False)
        assert (top.scores != unasked.scores).any()


def test_the_trend_is_that_of_the_moment(bundle: Bundle, events: Events) -> None:
    trending = replace(bundle, trend_hours=0.2, trend_temperature=0.5)
    engine = ScoringEngine(trending, graph="two_time_scale", threads=1, providers=CPU)
    index = index_trend(events, n_items=N_ITEMS, window_seconds=720.0, temperature=0.5, until=None)
    some = np.array([3, 8])
    answers = []
    for minutes in (1, 5):
        as_of = int(events.timestamp.max()) + minutes * MINUTE
        trend = index.offset(np.array([as_of + 1]), None)[0]
        top = engine.top_items(events, some, k=10, seen_filter=False, as_of=as_of)
        for row, user in enumerate(some):
            away = as_of - int(events.timestamp[events.offsets[user + 1] - 1])
            expected = model_scores(
                events,
                np.array([user]),
                as_of=as_of,
                opens=away >= 30 * MINUTE,
                trend=torch.from_numpy(trend),
            )
            items, scores = brute_force(expected, 10)
            np.testing.assert_array_equal(top.items[row], items[0])
            np.testing.assert_allclose(top.scores[row], scores[0], rtol=1e-5, atol=1e-5)
        answers.append(trend)
    assert (answers[0] != answers[1]).any()


def test_the_trend_is_counted_once_for_all_shards_of_a_run(
    bundle: Bundle, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    trend_of = engine_module.trend_of

    def counting(config: Bundle, known: Events, *, until: int | None) -> TrendIndex | None:
        counted.append(len(known))
        return trend_of(config, known, until=until)

    monkeypatch.setattr(engine_module, "trend_of", counting)
    trending = replace(bundle, trend_hours=0.2, trend_temperature=0.5)
    engine = ScoringEngine(trending, graph="two_time_scale", threads=1, providers=CPU)
    now, other = int(events.timestamp.max()), make_events(random_histories(LENGTHS, seed=4))
    asked = [(events, now), (events, now), (events, now + MINUTE), (other, now + MINUTE)]
    tops = [
        engine.top_items(log, np.array([3]), k=5, seen_filter=False, as_of=as_of)
        for log, as_of in asked
    ]
    assert len(counted) == 3
    np.testing.assert_array_equal(tops[0].scores, tops[1].scores)


def test_seen_items_are_left_out(engine: ScoringEngine, events: Events) -> None:
    top = engine.top_items(events, USERS, k=10, seen_filter=True)
    expected = model_scores(events, USERS)
    for row, user in enumerate(USERS):
        seen = events.item_idx[events.offsets[user] : events.offsets[user + 1]]
        assert not set(top.items[row]) & set(seen.tolist())
        expected[row, seen] = -np.inf
    np.testing.assert_array_equal(top.items, brute_force(expected, 10)[0])


def test_ties_come_in_the_order_of_idx(popularity: ScoringEngine, events: Events) -> None:
    top = popularity.top_items(events, USERS, k=9, seen_filter=False)
    # item 3 is best, then pairs of equal score: (1, 2), 4 alone, (5, 6), (7, 8), 9
    assert top.items.tolist() == [[3, 1, 2, 4, 5, 6, 7, 8, 9]] * len(USERS)
    np.testing.assert_array_equal(top.scores[0], make_popularity()[top.items[0]])


def test_each_user_alone_is_as_in_the_batch(engine: ScoringEngine, events: Events) -> None:
    together = engine.top_items(events, USERS, k=10, seen_filter=True)
    for row, user in enumerate(USERS):
        alone = engine.top_items(events, np.array([user]), k=10, seen_filter=True)
        np.testing.assert_array_equal(alone.items[0], together.items[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batch_size_and_order_of_users_do_not_matter(
    engine: ScoringEngine, events: Events, batch: int
) -> None:
    backwards = USERS[::-1]
    top = engine.top_items(events, backwards, k=5, seen_filter=False, batch=batch)
    whole = engine.top_items(events, USERS, k=5, seen_filter=False)
    np.testing.assert_array_equal(top.items[::-1], whole.items)


def test_users_without_events_get_the_prior(engine: ScoringEngine, events: Events) -> None:
    top = engine.top_items(events, np.array([1, 7]), k=10, seen_filter=True)
    prior = model_scores(make_events([[], [1]]), np.array([1]))
    np.testing.assert_array_equal(top.items[0], brute_force(prior, 10)[0][0])
    np.testing.assert_array_equal(top.items[0], top.items[1])


def test_more_than_the_catalogue(engine: ScoringEngine, events: Events) -> None:
    top = engine.top_items(events, USERS, k=N_ITEMS + 5, seen_filter=False)
    for row in top.items:
        assert sorted(row[:N_ITEMS].tolist()) == list(range(1, N_ITEMS + 1))
    assert np.all(top.items[:, N_ITEMS:] == 0)
    assert np.all(np.isneginf(top.scores[:, N_ITEMS:]))


def test_a_user_who_has_seen_everything(popularity: ScoringEngine) -> None:
    events = make_events([list(range(1, N_ITEMS + 1)), [3]])
    top = popularity.top_items(events, np.array([1, 2]), k=3, seen_filter=True)
    assert top.items.tolist() == [[0, 0, 0], [1, 2, 4]]
    assert np.all(np.isneginf(top.scores[0]))


def test_no_users(engine: ScoringEngine, events: Events) -> None:
    top = engine.top_items(events, np.zeros(0, dtype=np.int64), k=3, seen_filter=True)
    assert top.items.shape == top.scores.shape == (0, 3)


def test_more_than_the_graph_gives_is_refused(bundle: Bundle, events: Events) -> None:
    short = ScoringEngine(replace(bundle, k=4), graph="popularity", threads=1, providers=CPU)
    with pytest.raises(
        ModelError, match=r"top 5 was asked for, but the graph gives 4; lower score\.k"
    ):
        short.top_items(events, USERS, k=5, seen_filter=False)


def test_nan_is_refused(engine: ScoringEngine, bundle: Bundle, events: Events) -> None:
    history = np.diff(events.offsets)[USERS]
    requests = make_requests(bundle.spec, bundle.fold_in, events, user_idx=USERS, history=history)
    trend = np.zeros(N_ITEMS + 1, dtype=np.float32)
    inputs = {**requests.inputs(), "trend": trend, **no_pairs()}
    broken = requests.user_vector.copy()
    broken[7] = np.nan
    with pytest.raises(ModelError, match="1 of 10 users have NaN scores"):
        engine.run({**inputs, "user_vector": broken})
    items, *_ = engine.run(inputs)
    assert len(items) == len(USERS)


def test_seen_pairs_are_all_events_of_the_rows(events: Events) -> None:
    pairs = seen_pairs(events, np.array([4, 1, 2]))
    assert pairs["seen_rows"].tolist() == [0, 0, 0, 0, 2]
    first, second = events.offsets[4], events.offsets[2]
    assert pairs["seen_items"].tolist() == [
        *events.item_idx[first : first + 4],
        events.item_idx[second],
    ]


def test_batches_shrink_with_the_catalogue(
    engine: ScoringEngine, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.max_batch == engine_module.MAX_BATCH
    whole = engine.top_items(events, USERS, k=5, seen_filter=False)
    monkeypatch.setattr(engine_module, "SCORE_CELLS", 2 * (N_ITEMS + 1))
    assert engine.max_batch == 2
    sizes = []
    run = engine.run
    monkeypatch.setattr(
        engine, "run", lambda inputs: (sizes.append(len(inputs["length"])), run(inputs))[1]
    )
    top = engine.top_items(events, USERS, k=5, seen_filter=False)
    assert sizes == [2] * 5
    np.testing.assert_array_equal(top.items, whole.items)


def test_batches_shrink_with_the_window(
    engine: ScoringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = engine.bundle.spec.max_length + 1
    monkeypatch.setattr(engine_module, "EVENTS_AT_ONCE", 3 * longest + 1)
    assert engine.max_batch == 3
    monkeypatch.setattr(engine_module, "EVENTS_AT_ONCE", 1)
    assert engine.max_batch == 1, "a user at least"


def test_batches_shrink_with_what_the_memory_looks_up(
    engine: ScoringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = engine.bundle.looked_up
    monkeypatch.setattr(engine_module, "LOOKED_UP_AT_ONCE", 3 * looked_up + 1)
    assert engine.max_batch == 3
    bare = replace(engine.bundle, looked_up=0)
    monkeypatch.setattr(engine, "bundle", bare)
    monkeypatch.setattr(engine_module, "LOOKED_UP_AT_ONCE", engine_module.MAX_BATCH)
    assert engine.max_batch == engine_module.MAX_BATCH, "a memory without terms looks up nothing"


def test_the_provider_that_really_runs_is_said(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = ScoringEngine(bundle, graph="popularity", threads=1)
    assert engine.provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    said = capfd.readouterr()
    assert said.out == said.err == "", "ONNX Runtime talks where CUDA does not load"


def test_a_graph_with_other_inputs_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "popularity.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"inputs \('x',\), this version feeds"):
        ScoringEngine(
            replace(bundle, folder=tmp_path), graph="popularity", threads=1, providers=CPU
        )


def test_recommended_items_have_the_ratings_that_the_model_expects(tmp_path: Path) -> None:
    """Of the users' last events and values; where nothing is recommended there is none."""
    model = make_model(rating=True, reads=("value",))
    assert model.ratings is not None
    model.ratings.scale.copy_(torch.tensor([3.0, 1.4, 1.0, 5.0]))
    export_bundle(tmp_path, model=model, memory=make_memory())
    events = make_events(random_histories([5, 0, 9]))
    events = replace(events, value=(events.item_idx % 5 + 1).astype(np.float32))
    users, history = np.array([1, 2, 3]), np.array([5, 0, 9])
    rated = ScoringEngine(read_bundle(tmp_path), graph="two_time_scale", threads=1, providers=CPU)
    top = rated.top_items(events, users, k=N_ITEMS, seen_filter=True)
    left = top.scores > -np.inf
    assert not left.all()
    np.testing.assert_array_equal(np.isnan(top.ratings), ~left)
    for place in range(N_ITEMS):
        there = left[:, place]
        expected = expected_ratings(
            model,
            events,
            user_idx=users[there],
            history=history[there],
            items=top.items[there, place],
        )
        np.testing.assert_allclose(top.ratings[there, place], expected, rtol=1e-4)


def test_without_a_rating_head_there_are_no_ratings(
    engine: ScoringEngine, popularity: ScoringEngine, events: Events
) -> None:
    for one in (engine, popularity):
        assert np.isnan(one.top_items(events, USERS, k=3, seen_filter=False).ratings).all()
