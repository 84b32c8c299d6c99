"""Networks, memory and top-k as one ONNX graph: history in, the best items out.

The graphs hold weights and nothing of where they were made: the same model gives the same bytes in
any folder. The second export in one process fails (torch 2.13, a GRU with a dynamic T), so each has
a process of its own.
"""

import logging
import multiprocessing
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from recsys_core.artifacts import atomic_path
from recsys_core.errors import ModelError
from recsys_core.models.memory import Memory
from recsys_core.models.own_items import ITEM_NUMBERS, USER_NUMBERS
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale, TwoTimeScaleConfig
from recsys_core.serving.bundle import INPUTS, OUTPUTS, Graph

OPSET = 20
PROTOBUF_LIMIT = 2**31 - 1

# the names of the dimensions of each input and output; the others are numbers
DIMENSIONS: dict[str, tuple[str | None, ...]] = {
    "items": ("B", "T"),
    "event_numbers": ("B", "T", None),
    "user_fields": ("B", None),
    "length": ("B",),
    "user_vector": ("B", None),
    "active": ("B",),
    "own_items": ("B", "M"),
    "own_numbers": ("B", "M", None),
    "user_numbers": ("B", None),
    "trend": (None,),
    "seen_rows": ("S",),
    "seen_items": ("S",),
    "top_items": ("B", None),
    "top_scores": ("B", None),
    "top_ratings": ("B", None),
}

Arrays = Mapping[str, npt.NDArray[np.generic]]


class TwoTimeScaleTop(nn.Module):
    """The two-time-scale model and the memory beside it, with their top k."""

    def __init__(self, model: TwoTimeScale, memory: Memory, k: int) -> None:
        super().__init__()
        self.model = model
        self.memory = memory
        self.k = k

    def forward(
        self,
        items: Tensor,
        event_numbers: Tensor,
        user_fields: Tensor,
        length: Tensor,
        user_vector: Tensor,
        active: Tensor,
        own_items: Tensor,
        own_numbers: Tensor,
        user_numbers: Tensor,
        trend: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the graph to its outputs."""
        vectors, asked = self.model.answers(
            items, event_numbers, length, user_vector, active, user_fields
        )
        # `linear` reads the table as it lies; the transpose of `model.scores` would be stored
        # beside it
        table, bias = self.model.item_vectors, self.model.item_bias
        logits = nn.functional.linear(vectors, table, bias)  # (B, V + 1)
        scores = self.memory(logits, active, own_items, own_numbers, user_numbers)  # (B, V + 1)
        # after the memory, which scales what the networks say: the trend counts as it is
        scores = scores + trend
        # PAD is no candidate: as if everybody had seen it
        rows = torch.arange(length.shape[0])  # (B,)
        out_rows = torch.cat([rows, seen_rows])  # (B + S,)
        out_items = torch.cat([torch.zeros_like(rows), seen_items])  # (B + S,)
        top, best = best_items(scores, out_rows, out_items, k=self.k)
        if self.model.ratings is None or asked is None:
            return top, best, unrated(best)
        return top, best, self.model.ratings(asked, top)


class PopularityTop(nn.Module):
    """One ranking for everybody, less what each has seen."""

    score: Tensor

    def __init__(self, score: Tensor, k: int) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("score", score)  # (V + 1,)

    def forward(
        self,
        items: Tensor,  # noqa: ARG002 (the inputs of every graph are the same)
        event_numbers: Tensor,  # noqa: ARG002
        user_fields: Tensor,  # noqa: ARG002
        length: Tensor,
        user_vector: Tensor,  # noqa: ARG002
        active: Tensor,  # noqa: ARG002
        own_items: Tensor,  # noqa: ARG002
        own_numbers: Tensor,  # noqa: ARG002
        user_numbers: Tensor,  # noqa: ARG002
        trend: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the graph to its outputs; of the history only the number of rows is read."""
        # what is added is no trend here but who may be recommended
        scores = (self.score + trend).unsqueeze(0).expand(length.shape[0], -1)  # (B, V + 1)
        top, best = best_items(scores, seen_rows, seen_items, k=self.k)
        return top, best, unrated(best)


def unrated(scores: Tensor) -> Tensor:
    """The ratings of a model that predicts none: NaN for each of the scores (B, k). (B, k)"""
    return torch.full_like(scores, torch.nan)


def best_items(
    scores: Tensor, seen_rows: Tensor, seen_items: Tensor, *, k: int
) -> tuple[Tensor, Tensor]:
    """The k best items of each row and their scores, seen pairs left out.

    (B, V + 1), (S,), (S,) to (B, k) twice. Of equal scores the graph takes the lower idx first.
    """
    left = scores.index_put((seen_rows, seen_items), torch.tensor(-torch.inf))  # (B, V + 1)
    values, items = torch.topk(left, k)  # (B, k)
    return items, values


def export_graphs(
    folder: Path,
    *,
    config: Mapping[str, Any],
    weights: Arrays,
    memory_config: Mapping[str, Any],
    memory_weights: Arrays,
    popularity: npt.NDArray[np.float32],
    k: int,
) -> None:
    """Write `two_time_scale.onnx` and `popularity.onnx` into `folder`, in two processes.

    `config` and `weights` are `TwoTimeScale.to_json` and `to_arrays`, those of the memory likewise;
    `popularity` (V + 1,) scores all items, PAD -inf. Raises `ModelError` where a weight is not
    finite, the memory is of other items, or k is more than the items.
    """
    n_items = int(config["n_items"])
    if not 1 <= k <= n_items:
        raise ModelError(
            f"cannot export a top {k} of {n_items} items; k must be from 1 to {n_items}"
        )
    if memory_config["n_items"] != n_items:
        raise ModelError(
            f"the memory knows {memory_config['n_items']} items and the model {n_items}; both must "
            "come from one run of refit"
        )
    _check_finite({**weights, **memory_weights, "popularity": popularity[1:]})
    if popularity.shape != (n_items + 1,) or popularity[0] != -np.inf:
        raise ModelError(
            f"popularity has shape {popularity.shape} and {popularity[0]} for PAD; the graph "
            f"needs {n_items + 1} scores, PAD -inf"
        )
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            max_workers=2, mp_context=spawn, max_tasks_per_child=1
        ) as processes:
            jobs = [
                processes.submit(
                    _export_two_time_scale,
                    folder,
                    config=dict(config),
                    weights=dict(weights),
                    memory_config=dict(memory_config),
                    memory_weights=dict(memory_weights),
                    k=k,
                ),
                processes.submit(_export_popularity, folder, popularity, config=dict(config), k=k),
            ]
            for job in jobs:
                job.result()
    except BrokenProcessPool as error:
        raise ModelError(
            "an export process was killed, most likely for want of memory; free some and "
            "export again"
        ) from error


def _check_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise ModelError(
                f"{bad} of {array.size} numbers in {name} are NaN or infinite; "
                "the model has diverged: train it again with a smaller learning rate"
            )


def _export_two_time_scale(
    folder: Path,
    *,
    config: dict[str, Any],
    weights: Arrays,
    memory_config: dict[str, Any],
    memory_weights: Arrays,
    k: int,
) -> None:
    model = TwoTimeScale.from_arrays(config, weights)
    memory = Memory.from_arrays(memory_config, memory_weights)
    graph = TwoTimeScaleTop(model, memory, k)
    _export(graph, folder, "two_time_scale", spec=model.input_spec, k=k)


def _export_popularity(
    folder: Path, score: npt.NDArray[np.float32], *, config: dict[str, Any], k: int
) -> None:
    graph = PopularityTop(torch.from_numpy(score.copy()), k)
    spec = TwoTimeScaleConfig.from_json(config).input_spec  # one engine feeds both graphs
    _export(graph, folder, "popularity", spec=spec, k=k)


def _export(module: nn.Module, folder: Path, graph: Graph, *, spec: InputSpec, k: int) -> None:
    """Write one graph. It must be this process's first."""
    dynamic = tuple(
        {axis: Dim.DYNAMIC for axis, letter in enumerate(DIMENSIONS[name]) if letter}
        for name in INPUTS
    )
    # exporter and registry talk of optional packages and of torch's own deprecations: nothing to
    # act on
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        program = torch.onnx.export(
            module.eval(),
            _example(spec),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    _check_shapes(model, spec, k=k)
    _strip(model)
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise ModelError(
            f"{graph}: the graph has {model.ByteSize()} bytes, one ONNX file holds "
            f"{PROTOBUF_LIMIT}; "
            "use a smaller train_memory.neighbours, train_memory.factor_dim or train_embeddings.dim"
        )
    onnx.checker.check_model(model)
    with atomic_path(folder / f"{graph}.onnx") as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _example(spec: InputSpec) -> tuple[Tensor, ...]:
    """Inputs to trace with: all sizes differ, none is 1: the tracer takes that as a constant."""
    return (
        torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]),
        torch.zeros(3, 4, spec.event_columns),
        torch.zeros(3, spec.user_columns),
        torch.tensor([2, 4, 0]),
        torch.ones(3, spec.dim),
        torch.tensor([False, True, False]),
        torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]),
        torch.ones(3, 7, len(ITEM_NUMBERS)),
        torch.ones(3, len(USER_NUMBERS)),
        torch.zeros(spec.n_items + 1),
        torch.tensor([0, 0, 1, 1, 1]),
        torch.tensor([1, 1, 1, 1, 1]),
    )


def _check_shapes(model: onnx.ModelProto, spec: InputSpec, *, k: int) -> None:
    """Name the dynamic dimensions; `ModelError` where the exporter has baked a number into one."""
    ports = [*model.graph.input, *model.graph.output]
    names = tuple(port.name for port in ports)
    if names != (*INPUTS, *OUTPUTS):
        raise ModelError(
            f"the exported graph has inputs and outputs {names}, it needs {(*INPUTS, *OUTPUTS)}"
        )
    for port in ports:
        sizes = port.type.tensor_type.shape.dim
        letters = DIMENSIONS[port.name]
        fixed = {
            "event_numbers": spec.event_columns,
            "user_fields": spec.user_columns,
            "user_vector": spec.dim,
            "own_numbers": len(ITEM_NUMBERS),
            "user_numbers": len(USER_NUMBERS),
            "trend": spec.n_items + 1,
        }.get(port.name, k)
        for axis, (size, letter) in enumerate(zip(sizes, letters, strict=True)):
            if letter is None and size.dim_value != fixed:
                raise ModelError(
                    f"{port.name}: dimension {axis} was exported as {size}, it must be {fixed}"
                )
            if letter is not None and not size.dim_param:
                raise ModelError(
                    f"{port.name}: dimension {axis} was baked in as {size.dim_value}, it must "
                    f"be free ({letter})"
                )
            if letter is not None:
                size.dim_param = letter


def _strip(model: onnx.ModelProto) -> None:
    """Remove what tells of the place of export: stack traces with paths, the build of torch."""
    model.producer_version = model.producer_version.partition("+")[0]
    del model.graph.value_info[:]
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
