"""Writes a module as one ONNX file, whose inputs and outputs have the names and sizes that it says.

The file holds weights and nothing of where it was made: the same module gives the same bytes in
any folder. The second export in one process fails (torch 2.13, a GRU with a dynamic T), so each has
a process of its own.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from recsys_core.artifacts import atomic_path
from recsys_core.errors import ModelError

OPSET = 20
PROTOBUF_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Ports:
    """Inputs and outputs of a graph in their order: each dimension has a name where it is free, and
    a number where it is not."""

    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]


def write_graph(
    module: nn.Module, path: Path, *, ports: Ports, example: tuple[Tensor, ...]
) -> None:
    """Write one graph, traced with `example`, a value for each input; this process's first.

    Raises `ModelError` where the exporter made other ports of it, or it is larger than a file may
    be.
    """
    dynamic = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(sizes) if isinstance(size, str)}
        for sizes in ports.inputs.values()
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
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(ports.inputs),
            output_names=list(ports.outputs),
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    _check_ports(model, ports)
    _strip(model)
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise ModelError(
            f"{path.name}: the graph has {model.ByteSize()} bytes, one ONNX file holds "
            f"{PROTOBUF_LIMIT}; "
            "use a smaller train_memory.neighbours, train_memory.factor_dim or train_embeddings.dim"
        )
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _check_ports(model: onnx.ModelProto, ports: Ports) -> None:
    """Name the dynamic dimensions; `ModelError` where the exporter has baked a number into one."""
    found = [*model.graph.input, *model.graph.output]
    expected = {**ports.inputs, **ports.outputs}
    names = tuple(port.name for port in found)
    if names != tuple(expected):
        raise ModelError(
            f"the exported graph has inputs and outputs {names}, it needs {tuple(expected)}"
        )
    for port in found:
        sizes = zip(port.type.tensor_type.shape.dim, expected[port.name], strict=True)
        for axis, (size, said) in enumerate(sizes):
            if isinstance(said, int) and size.dim_value != said:
                raise ModelError(
                    f"{port.name}: dimension {axis} was exported as {size}, it must be {said}"
                )
            if isinstance(said, str) and not size.dim_param:
                raise ModelError(
                    f"{port.name}: dimension {axis} was baked in as {size.dim_value}, it must "
                    f"be free ({said})"
                )
            if isinstance(said, str):
                size.dim_param = said


def _strip(model: onnx.ModelProto) -> None:
    """Remove what tells of the place of export: stack traces with paths, the build of torch."""
    model.producer_version = model.producer_version.partition("+")[0]
    del model.graph.value_info[:]
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
