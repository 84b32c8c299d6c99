"""Fields in what is exported: the graph, the bundle with their encoding, and the engine."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.data.feature_bags import BagField
from recsys_core.data.features import FeatureEncoding, NumberField
from recsys_core.data.fields import FieldEncoding
from recsys_core.errors import ContractError
from recsys_core.models.predict import user_vectors
from recsys_core.serving.bundle import Bundle, read_bundle, write_bundle
from recsys_core.serving.engine import ScoringEngine
from recsys_core.serving.parity import check_parity, popularity_scores, two_time_scale_scores
from recsys_core.tables import ITEM_VOCABULARY
from tests.core.models.test_fields import EVENTS, HISTORY, PEOPLE, with_rows
from tests.serving_world import (
    START,
    K,
    export_model,
    item_ids,
    make_memory,
    make_model,
    make_popularity,
    vocabulary_table,
)

ENCODING = FieldEncoding(
    FeatureEncoding(
        (BagField("device", "categorical", ("phone", "tv", "web"), 0),),
        (NumberField("dwell", "numeric", 1.0, 2.0),),
    ),
    FeatureEncoding(
        (
            BagField("gender", "categorical", ("f", "m"), 0),
            BagField("about", "text", ("a", "b", "c", "d"), 1),
        ),
        (NumberField("age", "numeric", 30.0, 9.0),),
    ),
)
MODEL = make_model(context=ENCODING.sizes[0], users=ENCODING.sizes[1])
# the networks alone: what a memory adds is tested without fields
MEMORY = make_memory(terms=(), fitted=False)


def write(folder: Path, fields: FieldEncoding | None) -> None:
    """All but the graphs."""
    write_bundle(
        folder,
        config=MODEL.to_json(),
        memory=MEMORY.to_json(),
        fold_in=MODEL.fold_in,
        items=vocabulary_table(item_ids(), ITEM_VOCABULARY),
        k=K,
        as_of=START,
        popularity_hours=24.0,
        session_gap_seconds=1800.0,
        fields=fields,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("fields")
    export_model(folder, MODEL, MEMORY)
    write(folder, ENCODING)
    return read_bundle(folder)


def test_the_graphs_read_fields_and_equal_their_models(bundle: Bundle) -> None:
    spec = bundle.spec
    assert (spec.event_columns, spec.user_columns) == (6 + 3, 1 + 128 + 2)
    for graph, reference in (
        ("two_time_scale", two_time_scale_scores(MODEL, MEMORY)),
        ("popularity", popularity_scores(make_popularity())),
    ):
        path = bundle.folder / f"{graph}.onnx"
        parity = check_parity(path, reference, spec, k=K, rng=np.random.default_rng(1))
        assert parity.rows > 0
        assert parity.max_difference < 1e-5


def test_the_engine_scores_with_the_fields_that_events_have(bundle: Bundle) -> None:
    engine = ScoringEngine(
        bundle, graph="two_time_scale", threads=1, providers=("CPUExecutionProvider",)
    )
    found = []
    for seed in (1, 2):
        events = with_rows(EVENTS, users=seed)
        vectors = user_vectors(MODEL, events, user_idx=PEOPLE, history=HISTORY)
        with torch.inference_mode():
            expected = MODEL.scores(torch.from_numpy(vectors)).numpy()
        top = engine.top_items(events, PEOPLE, k=5, seen_filter=False)
        best = -np.sort(-expected, axis=1)[:, :5]
        np.testing.assert_allclose(top.scores, best, rtol=1e-5, atol=1e-5)
        found.append(top.scores)
    assert (found[0] != found[1]).any(axis=1).all(), "who has no event is told by fields alone"


def test_a_bundle_holds_how_fields_become_numbers(bundle: Bundle) -> None:
    assert bundle.fields == ENCODING
    assert bundle.spec.context == ENCODING.sizes[0]
    assert bundle.spec.users == ENCODING.sizes[1]


@pytest.mark.parametrize(
    "fields", [None, FieldEncoding(ENCODING.users, ENCODING.context)], ids=["none", "others"]
)
def test_a_bundle_of_another_encoding_is_refused(
    bundle: Bundle, fields: FieldEncoding | None, tmp_path: Path
) -> None:
    for graph in ("two_time_scale", "popularity"):
        (tmp_path / f"{graph}.onnx").write_bytes(bundle.graph(graph).read_bytes())
    write(tmp_path, fields)
    with pytest.raises(ContractError, match="its encoding of fields"):
        read_bundle(tmp_path)
