"""The step graph: (state, event) to (state, the best items), for those who answer online.

inputs    state         (B, N) float32        what the step before gave; any for a row that begins
          item          (B,) int64            the event's item; 0 begins: nothing else of it is read
          event_numbers (B, .) float32        of this one event, and as for the history graph
          user_fields, user_vector, active, own_items, own_numbers, user_numbers, trend, seen_rows,
          seen_items                          as for the history graph (`bundle.py`)
outputs   next_state    (B, N) float32
          top_items, top_scores, top_ratings  as of the history graph

`online_step.py` says what is carried, and when a step has to be taken again. A user vector stays
what it was when the row began; who reaches t* events begins anew, as an active user.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys_core.models.memory import Memory
from recsys_core.models.online_step import state_size, step
from recsys_core.models.own_items import ITEM_NUMBERS, USER_NUMBERS
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.bundle import OUTPUTS
from recsys_core.serving.engine import open_session
from recsys_core.serving.graph_file import Ports, write_graph
from recsys_core.serving.graphs import answered, input_sizes, output_sizes
from recsys_core.serving.parity import Inputs, Parity, compare_ratings, compare_top, example_inputs

Float32 = npt.NDArray[np.float32]
Reference = Callable[[Inputs], Float32]

FILE = "step.onnx"

USER = (
    "user_fields",
    "user_vector",
    "active",
    "own_items",
    "own_numbers",
    "user_numbers",
    "trend",
    "seen_rows",
    "seen_items",
)
COMPARED = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129)
"""Numbers of events after which a step's answer is compared, and the longest history."""

LEFT_OUT = 0.2
"""Of the items, in the comparison."""


class StepTop(nn.Module):
    """The model one event at a time with the memory beside it, and their top k."""

    def __init__(self, model: TwoTimeScale, memory: Memory, k: int) -> None:
        super().__init__()
        self.model = model
        self.memory = memory
        self.k = k

    def forward(
        self,
        state: Tensor,
        item: Tensor,
        event_numbers: Tensor,
        user_fields: Tensor,
        user_vector: Tensor,
        active: Tensor,
        own_items: Tensor,
        own_numbers: Tensor,
        user_numbers: Tensor,
        trend: Tensor,
        seen_rows: Tensor,
        seen_items: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs of the graph to its outputs."""
        vectors, asked, after = step(
            self.model, state, item, event_numbers, user_vector, active, user_fields
        )
        top = answered(
            self.model,
            self.memory,
            (vectors, asked),
            (active, own_items, own_numbers, user_numbers),
            trend,
            (seen_rows, seen_items),
            k=self.k,
        )
        return after, *top


def write_step_graph(folder: Path, model: TwoTimeScale, memory: Memory, *, k: int) -> None:
    """Write `step.onnx`; this process's first graph (`graph_file.py`)."""
    spec, size = model.input_spec, state_size(model)
    sizes = input_sizes(spec)
    ports = Ports(
        inputs={
            "state": ("B", size),
            "item": ("B",),
            "event_numbers": ("B", spec.event_columns),
            **{name: sizes[name] for name in USER},
        },
        outputs={"next_state": ("B", size), **output_sizes(k)},
    )
    example = (
        torch.zeros(3, size),
        torch.tensor([0, 1, 1]),
        torch.zeros(3, spec.event_columns),
        torch.zeros(3, spec.user_columns),
        torch.ones(3, spec.dim),
        torch.tensor([False, True, False]),
        torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]),
        torch.ones(3, 7, len(ITEM_NUMBERS)),
        torch.ones(3, len(USER_NUMBERS)),
        torch.zeros(spec.n_items + 1),
        torch.tensor([0, 0, 1, 1, 1]),
        torch.tensor([1, 1, 1, 1, 1]),
    )
    write_graph(StepTop(model, memory, k), folder / FILE, ports=ports, example=example)


def check_step_parity(
    graph: Path,
    reference: Reference,
    spec: InputSpec,
    *,
    k: int,
    rng: np.random.Generator,
    ratings: Reference | None = None,
) -> Parity:
    """Step through random histories on the CPU, and compare with what the model says of the whole
    history so far (`parity.check_parity`), after the start and after more and more events.

    Raises `ModelError` at the first difference.
    """
    session = open_session(graph.read_bytes(), threads=1, providers=("CPUExecutionProvider",))
    # the second batch: of these users some items are seen
    _, inputs, *_ = example_inputs(spec, rng=rng)
    trend = rng.standard_normal(spec.n_items + 1).astype(np.float32)
    trend[rng.random(len(trend)) < LEFT_OUT] = -np.inf  # as filters leave items out
    inputs = {**inputs, "trend": trend}
    history, length = inputs["items"].astype(np.int64), inputs["length"].astype(np.int64)
    of_events = inputs["event_numbers"].astype(np.float32)
    rows, longest = history.shape
    size = session.get_inputs()[0].shape[1]
    state = np.zeros((rows, size), dtype=np.float32)
    item = np.zeros(rows, dtype=np.int64)
    numbers = np.zeros((rows, spec.event_columns), dtype=np.float32)
    user = {name: inputs[name] for name in USER}
    compared, worst = 0, 0.0
    for t in range(longest + 1):
        event = {"state": state, "item": item, "event_numbers": numbers}
        state, *top = session.run(["next_state", *OUTPUTS], {**event, **user})
        if t in COMPARED or t == longest:
            there = np.flatnonzero(length >= t)  # those who have t events
            whole = {**inputs, "length": np.minimum(length, t)}
            expected = reference(whole)
            expected[inputs["seen_rows"], inputs["seen_items"]] = -np.inf
            items, scores, rated = (one[there] for one in top)
            difference = compare_top(items, scores, expected[there], k=k, name=graph.name)
            said = None if ratings is None else ratings(whole)[there]
            of_ratings = compare_ratings(items, rated, said, name=graph.name)
            worst, compared = max(worst, difference, of_ratings), compared + len(there)
        if t < longest:
            item, numbers = history[:, t], of_events[:, t]
    return Parity(batches=1, rows=compared, max_difference=worst)
