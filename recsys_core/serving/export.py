"""Exports the graphs of a bundle, each in a process of its own (`graph_file.py`)."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recsys_core.errors import ModelError
from recsys_core.models.memory import Memory
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale, TwoTimeScaleConfig
from recsys_core.serving.bundle import Graph
from recsys_core.serving.graph_file import Ports, write_graph
from recsys_core.serving.graphs import (
    PopularityTop,
    TwoTimeScaleTop,
    example_of,
    input_sizes,
    output_sizes,
)
from recsys_core.serving.step_graph import write_step_graph

Arrays = Mapping[str, npt.NDArray[np.generic]]


def export_graphs(
    folder: Path,
    *,
    config: Mapping[str, Any],
    weights: Arrays,
    memory_config: Mapping[str, Any],
    memory_weights: Arrays,
    popularity: npt.NDArray[np.float32],
    k: int,
    step: bool = False,
) -> None:
    """Write `two_time_scale.onnx`, `popularity.onnx` and, for a `step`, `step.onnx` into `folder`.

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
            networks: dict[str, Any] = {
                "config": dict(config),
                "weights": dict(weights),
                "memory_config": dict(memory_config),
                "memory_weights": dict(memory_weights),
            }
            jobs = [
                processes.submit(_export_two_time_scale, folder, **networks, k=k),
                processes.submit(_export_popularity, folder, popularity, config=dict(config), k=k),
            ]
            if step:
                jobs.append(processes.submit(_export_step, folder, **networks, k=k))
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
    _write(graph, folder, "two_time_scale", spec=model.input_spec, k=k)


def _export_step(
    folder: Path,
    *,
    config: dict[str, Any],
    weights: Arrays,
    memory_config: dict[str, Any],
    memory_weights: Arrays,
    k: int,
) -> None:
    model = TwoTimeScale.from_arrays(config, weights)
    write_step_graph(folder, model, Memory.from_arrays(memory_config, memory_weights), k=k)


def _export_popularity(
    folder: Path, score: npt.NDArray[np.float32], *, config: dict[str, Any], k: int
) -> None:
    graph = PopularityTop(torch.from_numpy(score.copy()), k)
    spec = TwoTimeScaleConfig.from_json(config).input_spec  # one engine feeds both graphs
    _write(graph, folder, "popularity", spec=spec, k=k)


def _write(module: nn.Module, folder: Path, graph: Graph, *, spec: InputSpec, k: int) -> None:
    ports = Ports(inputs=input_sizes(spec), outputs=output_sizes(k))
    write_graph(module, folder / f"{graph}.onnx", ports=ports, example=example_of(spec))
