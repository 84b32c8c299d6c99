"""The step graph says of each event more what the model says of the history so far."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from recsys_core.errors import ModelError
from recsys_core.models.backbones import BackboneName
from recsys_core.models.online_step import state_size
from recsys_core.serving.bundle import OUTPUTS
from recsys_core.serving.engine import open_session
from recsys_core.serving.parity import (
    Parity,
    example_inputs,
    two_time_scale_ratings,
    two_time_scale_scores,
)
from recsys_core.serving.step_graph import FILE, USER, check_step_parity
from tests.serving_world import K, export_model, make_memory, make_model, make_spec


def parity_of(folder: Path, *, said_by_another: bool = False, **settings: object) -> Parity:
    """Export a model with its step graph and compare, with what another model says where asked."""
    model, memory = make_model(**settings), make_memory()  # type: ignore[arg-type]
    export_model(folder, model, memory, step=True)
    told = make_model(**{**settings, "seed": 2}) if said_by_another else model  # type: ignore[arg-type]
    return check_step_parity(
        folder / FILE,
        two_time_scale_scores(told, memory),
        make_spec(),
        k=K,
        rng=np.random.default_rng(0),
        ratings=two_time_scale_ratings(told),
    )


@pytest.mark.parametrize(
    ("backbone", "depth", "rating"),
    [("gru", 2, False), ("lstm", 1, True), ("lru", 2, False), ("hgru", 1, False)],
)
def test_stepping_equals_the_model_on_the_history_so_far(
    backbone: BackboneName, depth: int, rating: bool, tmp_path: Path
) -> None:
    parity = parity_of(tmp_path, backbone=backbone, depth=depth, rating=rating)
    # histories of 0 to 6 events, after 0, 1, 2, 3, 5 and 6 of them
    assert parity.rows == 7 + 6 + 5 + 4 + 2 + 1
    assert 0 < parity.max_difference < 1e-4


def test_a_step_graph_of_another_model_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"step.onnx: a top .* differs"):
        parity_of(tmp_path, said_by_another=True)


def test_an_update_costs_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    """No input of the graph grows with the history; what is seen may be left out."""
    model = make_model()
    export_model(tmp_path, model, make_memory(), step=True)
    graph = onnx.load(tmp_path / FILE).graph
    free = {
        port.name: [size.dim_param for size in port.type.tensor_type.shape.dim if size.dim_param]
        for port in graph.input
    }
    assert {name for sizes in free.values() for name in sizes} == {"B", "M", "S"}
    assert free["state"] == ["B"]
    assert graph.input[0].type.tensor_type.shape.dim[1].dim_value == state_size(model)


def test_rows_are_answered_alone_as_they_are_together(tmp_path: Path) -> None:
    model, memory = make_model(), make_memory()
    export_model(tmp_path, model, memory, step=True)
    session = open_session(
        (tmp_path / FILE).read_bytes(), threads=1, providers=("CPUExecutionProvider",)
    )
    inputs = next(example_inputs(make_spec(), rng=np.random.default_rng(1)))
    rows = len(inputs["length"])
    rng = torch.Generator().manual_seed(1)
    event = {
        "state": torch.randn(rows, state_size(model), generator=rng).numpy(),
        "item": inputs["items"][:, 0],
        "event_numbers": inputs["event_numbers"][:, 0],
    }
    nothing = np.zeros(0, dtype=np.int64)
    user = {**{name: inputs[name] for name in USER}, "seen_rows": nothing, "seen_items": nothing}
    together = session.run(["next_state", *OUTPUTS], {**event, **user})
    row = {
        name: value if name in ("trend", "seen_rows", "seen_items") else value[3:4]
        for name, value in {**event, **user}.items()
    }
    alone = session.run(["next_state", *OUTPUTS], row)
    np.testing.assert_allclose(alone[0], together[0][3:4], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(alone[1], together[1][3:4])
