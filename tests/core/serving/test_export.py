"""The exported graphs say what the model says, and nothing of where they were made."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch

from recsys_core.artifacts import MANIFEST
from recsys_core.data.histories import EVENT_NUMBERS, Read
from recsys_core.errors import ModelError
from recsys_core.models.backbones import BackboneName
from recsys_core.models.item_decoder import FeatureDecoderConfig
from recsys_core.models.memory import Memory
from recsys_core.models.own_items import ITEM_NUMBERS, USER_NUMBERS
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.bundle import GRAPHS, INPUTS, OUTPUTS
from recsys_core.serving.engine import open_session
from recsys_core.serving.export import export_graphs
from recsys_core.serving.parity import (
    Parity,
    check_parity,
    compare_top,
    example_inputs,
    popularity_scores,
    remembered_widths,
    two_time_scale_ratings,
    two_time_scale_scores,
)
from tests.serving_world import (
    N_ITEMS,
    K,
    export_bundle,
    export_model,
    make_memory,
    make_model,
    make_popularity,
    make_spec,
    tiny_bundle,
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("seed", [0, 1])
def test_two_time_scale_graph_equals_the_model_by_value(bundle: Path, seed: int) -> None:
    model = make_model()
    rng = np.random.default_rng(seed)
    graph = bundle / "two_time_scale.onnx"
    parity = check_parity(
        graph, two_time_scale_scores(model, make_memory()), make_spec(), k=K, rng=rng
    )
    # every length twice in a batch, three lengths one by one; each with three shares of seen items;
    # and every length with each number of own items
    lengths = model.input_spec.max_length + 1
    assert parity.rows == 3 * (2 * lengths + 3) + len(remembered_widths(12)) * lengths
    assert 0 < parity.max_difference < 1e-5


@pytest.mark.parametrize(
    ("backbone", "depth", "score"),
    [
        ("gru", 3, "cosine"),
        ("lstm", 1, "dot"),
        ("lru", 1, "dot"),
        ("lru", 3, "cosine"),
        ("hgru", 1, "dot"),
    ],
)
def test_the_graph_of_each_backbone_equals_its_model(
    backbone: BackboneName, depth: int, score: Literal["dot", "cosine"], tmp_path: Path
) -> None:
    """At every length up to the longest; the item table lies in it once, as it is scored."""
    model = make_model(backbone=backbone, depth=depth, score=score)
    export_model(tmp_path, model, make_memory())
    path, rng = tmp_path / "two_time_scale.onnx", np.random.default_rng(0)
    parity = check_parity(
        path, two_time_scale_scores(model, make_memory()), make_spec(), k=K, rng=rng
    )
    assert 0 < parity.max_difference < 1e-4
    graph = onnx.load(path).graph
    operators = [node.op_type for node in graph.node]
    recurrent = {"gru": "GRU", "lstm": "LSTM"}.get(backbone)
    assert operators.count("GRU") + operators.count("LSTM") == (2 * depth if recurrent else 0)
    assert recurrent is None or operators.count(recurrent) == 2 * depth
    tables = [
        onnx.numpy_helper.to_array(initializer)
        for initializer in graph.initializer
        if int(np.prod(initializer.dims)) == (N_ITEMS + 1) * 8
    ]
    assert len(tables) == 1
    np.testing.assert_array_equal(tables[0], model.item_vectors.detach().numpy())


def test_a_graph_without_a_time_input_equals_its_model_and_reads_no_gaps(tmp_path: Path) -> None:
    model = make_model(reads=())
    export_model(tmp_path, model, make_memory())
    path, rng = tmp_path / "two_time_scale.onnx", np.random.default_rng(0)
    parity = check_parity(
        path, two_time_scale_scores(model, make_memory()), make_spec(), k=K, rng=rng
    )
    assert 0 < parity.max_difference < 1e-5
    graph = onnx.load(path).graph
    assert "event_numbers" in [port.name for port in graph.input], "every graph has the same inputs"
    assert not [node for node in graph.node if "event_numbers" in node.input]


def test_the_graph_holds_no_decoder_of_features(bundle: Path, tmp_path: Path) -> None:
    """The item table is mixed already: the graph is that of the same table without one."""
    features = FeatureDecoderConfig(dim=8, hidden=5, n_codes=(4, 900), n_numbers=2)
    export_model(tmp_path, make_model(features=features), make_memory())
    with_decoder, without = (folder / "two_time_scale.onnx" for folder in (tmp_path, bundle))
    assert with_decoder.read_bytes() == without.read_bytes()


@pytest.mark.parametrize("reads", [(), ("gap", "value")])
def test_the_graph_predicts_the_ratings_of_its_model(
    reads: tuple[Read, ...], tmp_path: Path
) -> None:
    model, memory = make_model(rating=True, reads=reads), make_memory()
    assert model.ratings is not None
    model.ratings.scale.copy_(torch.tensor([3.5, 1.1, 1.0, 5.0]))
    export_model(tmp_path, model, memory)
    graphs = {name: tmp_path / f"{name}.onnx" for name in GRAPHS}
    scores, ratings = two_time_scale_scores(model, memory), two_time_scale_ratings(model)

    def compared(ratings: Callable[..., np.ndarray] | None) -> Parity:
        rng = np.random.default_rng(0)
        graph = graphs["two_time_scale"]
        return check_parity(graph, scores, make_spec(), k=K, rng=rng, ratings=ratings)

    assert 0 < compared(ratings).max_difference < 1e-4
    other = make_model(rating=True, reads=reads)
    assert other.ratings is not None
    other.ratings.scale.copy_(torch.tensor([3.6, 1.1, 1.0, 5.0]))
    with pytest.raises(ModelError, match="a rating differs from the model's"):
        compared(two_time_scale_ratings(other))
    with pytest.raises(ModelError, match="ratings are there where the model has none"):
        compared(None)
    # the one that stands in for it says nothing
    session = open_session(
        graphs["popularity"].read_bytes(), threads=1, providers=("CPUExecutionProvider",)
    )
    inputs = next(example_inputs(make_spec(), rng=np.random.default_rng(0)))
    assert np.isnan(session.run(["top_ratings"], inputs)[0]).all()


def test_popularity_graph_equals_its_scores(bundle: Path) -> None:
    reference = popularity_scores(make_popularity())
    rng = np.random.default_rng(0)
    parity = check_parity(bundle / "popularity.onnx", reference, make_spec(), k=K, rng=rng)
    assert parity.max_difference == 0


def test_parity_fails_where_the_model_is_another_one(bundle: Path) -> None:
    assert_differs(bundle, make_model(seed=2), make_memory())


def test_parity_fails_where_one_bias_is_another(bundle: Path) -> None:
    other = make_model()
    other.item_bias.data[7] += 0.01
    assert_differs(bundle, other, make_memory())


@pytest.mark.parametrize("place", range(len(make_memory().config.numbered_terms)))
def test_parity_fails_where_one_term_counts_differently(bundle: Path, place: int) -> None:
    other = make_memory()
    other.coefficients.data[place, 2] += 0.05
    assert_differs(bundle, make_model(), other)


def assert_differs(bundle: Path, model: TwoTimeScale, memory: Memory) -> None:
    graph, reference = bundle / "two_time_scale.onnx", two_time_scale_scores(model, memory)
    with pytest.raises(ModelError, match="differs from the model's by"):
        check_parity(graph, reference, make_spec(), k=K, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("terms", "windows"),
    [((), (None,)), (("own",), (3.0,)), (("own", "recent"), (None,)), (("next",), (None,))],
)
def test_the_graph_with_fewer_terms_equals_its_model(
    terms: tuple[str, ...], windows: tuple[float | None, ...], tmp_path: Path
) -> None:
    """Without terms the networks stand alone; the inputs of the graph are the same."""
    model, memory = make_model(), make_memory(terms=terms, windows=windows)
    export_model(tmp_path, model, memory)
    path, rng = tmp_path / "two_time_scale.onnx", np.random.default_rng(0)
    parity = check_parity(path, two_time_scale_scores(model, memory), make_spec(), k=K, rng=rng)
    assert 0 < parity.max_difference < 1e-4
    graph = onnx.load(path).graph
    assert [port.name for port in graph.input] == list(INPUTS)
    assert bool(terms) == any("own_items" in node.input for node in graph.node)


def test_parity_fails_where_own_items_count_differently(bundle: Path) -> None:
    other = make_memory()
    assert other.own is not None
    other.own.outer.data[0] += 0.05
    assert_differs(bundle, make_model(), other)


def test_random_inputs_are_what_a_users_memory_may_be() -> None:
    """Every number of own items from none on, PAD after them alone, each once, many events."""
    spec = make_spec()
    batches = list(example_inputs(spec, rng=np.random.default_rng(0)))
    assert {batch["own_items"].shape[1] for batch in batches} <= set(range(1, 13))
    counts, most = set(), 0.0
    for batch in batches:
        own = batch["own_items"]
        there = (own > 0).sum(axis=1)
        np.testing.assert_array_equal(own > 0, np.arange(own.shape[1]) < there[:, None])
        assert own.max() <= spec.n_items
        for row, different in zip(own.tolist(), there.tolist(), strict=True):
            assert len(set(row[:different])) == different
        counts |= set(there.tolist())
        most = max(most, batch["user_numbers"][:, 0].max())
    assert counts == set(range(spec.remembered + 1))
    assert most > 200


@pytest.mark.parametrize("graph", GRAPHS)
def test_nothing_of_the_place_is_in_the_file(bundle: Path, graph: str) -> None:
    content = (bundle / f"{graph}.onnx").read_bytes()
    for word in (
        rb"\.py",
        rb"site-packages",
        rb"/root",
        rb"/home",
        rb"/work",
        rb"/tmp",
        rb"recsys",
    ):
        assert not re.search(word, content), word


@pytest.mark.parametrize("graph", GRAPHS)
def test_inputs_and_outputs_are_named_and_free(bundle: Path, graph: str) -> None:
    model = onnx.load(bundle / f"{graph}.onnx")
    sizes = {
        port.name: [size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert list(sizes) == [*INPUTS, *OUTPUTS]
    assert sizes == {
        "items": ["B", "T"],
        "event_numbers": ["B", "T", len(EVENT_NUMBERS)],
        "user_fields": ["B", 1],
        "length": ["B"],
        "user_vector": ["B", 8],
        "active": ["B"],
        "own_items": ["B", "M"],
        "own_numbers": ["B", "M", len(ITEM_NUMBERS)],
        "user_numbers": ["B", len(USER_NUMBERS)],
        "trend": [N_ITEMS + 1],
        "seen_rows": ["S"],
        "seen_items": ["S"],
        "top_items": ["B", K],
        "top_scores": ["B", K],
        "top_ratings": ["B", K],
    }


def test_the_catalogue_is_stored_once(bundle: Path) -> None:
    model = onnx.load(bundle / "two_time_scale.onnx")
    tables = [
        initializer.name
        for initializer in model.graph.initializer
        if int(np.prod(initializer.dims)) == (N_ITEMS + 1) * 8
    ]
    assert len(tables) == 1
    assert [node.op_type for node in model.graph.node].count("GRU") == 2


def test_same_model_same_bytes_in_another_folder(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "again"
    other.mkdir(parents=True)
    export_bundle(other, model=make_model(), memory=make_memory())
    names = sorted(path.name for path in bundle.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert {MANIFEST, "two_time_scale.onnx", "popularity.onnx"} <= set(names)
    for name in names:
        assert (bundle / name).read_bytes() == (other / name).read_bytes(), name


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    model, memory = make_model(), make_memory()
    good: dict[str, Any] = {
        "config": model.to_json(),
        "weights": model.to_arrays(),
        "memory_config": memory.to_json(),
        "memory_weights": memory.to_arrays(),
        "popularity": make_popularity(),
        "k": 4,
    }
    broken, strange = dict(good["weights"]), dict(good["memory_weights"])
    broken["item_bias"] = np.where(np.arange(41) == 2, np.nan, 0.0).astype(np.float32)
    strange["power"] = np.full(5, np.inf, dtype=np.float32)
    for changes, said in (
        ({"k": 41}, "top 41 of 40 items"),
        ({"popularity": good["popularity"][:-1]}, "needs 41 scores, PAD -inf"),
        ({"weights": broken}, "1 of 41 numbers in item_bias are NaN or infinite"),
        ({"memory_weights": strange}, "5 of 5 numbers in power are NaN or infinite"),
        (
            {"memory_config": make_memory(n_items=39).to_json()},
            "the memory knows 39 items and the model 40",
        ),
    ):
        with pytest.raises(ModelError, match=said):
            export_graphs(tmp_path, **{**good, **changes})
    assert list(tmp_path.iterdir()) == []


def top_of(expected: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    items = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    return items, np.take_along_axis(expected, items, axis=1)


def test_compare_top_accepts_ties_in_any_order_and_nothing_else() -> None:
    expected = np.array([[-np.inf, 3.0, 2.0, 2.0, 1.0]], dtype=np.float32)
    items, scores = top_of(expected, 3)
    assert compare_top(items, scores, expected, k=3, name="g") == 0
    assert compare_top(items[:, [0, 2, 1]], scores, expected, k=3, name="g") == 0
    tied = np.array([[1, 3]])
    assert compare_top(tied, scores[:, :2], expected, k=2, name="g") == 0
    with pytest.raises(ModelError, match="a top item differs from the model's by 1"):
        compare_top(np.array([[1, 4, 3]]), scores, expected, k=3, name="g")
    with pytest.raises(ModelError, match="an item comes twice"):
        compare_top(np.array([[1, 2, 2]]), scores, expected, k=3, name="g")
    with pytest.raises(ModelError, match="missing or NaN"):
        compare_top(items, scores * np.nan, expected, k=3, name="g")
    with pytest.raises(ModelError, match="shape"):
        compare_top(items, scores, expected, k=2, name="g")


def test_compare_top_wants_minus_infinity_where_nothing_is_left() -> None:
    expected = np.array([[-np.inf, 3.0, -np.inf]], dtype=np.float32)
    items, scores = top_of(expected, 2)
    assert compare_top(items, scores, expected, k=2, name="g") == 0
    with pytest.raises(ModelError, match="missing or NaN"):
        compare_top(items, np.array([[3.0, 0.0]], dtype=np.float32), expected, k=2, name="g")
