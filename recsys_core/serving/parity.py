"""Whether an exported graph says what its model says: by value, for every length it reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from recsys_core.data.events import Events
from recsys_core.data.field_rows import FieldSizes, FieldTable
from recsys_core.data.histories import EVENT_NUMBERS, UNKNOWN
from recsys_core.errors import ModelError
from recsys_core.models.memory import Memory
from recsys_core.models.own_items import Own, gather_own
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.bundle import OUTPUTS
from recsys_core.serving.engine import open_session

Inputs = dict[str, npt.NDArray[np.generic]]
Float32 = npt.NDArray[np.float32]

TOLERANCE = 1e-4
"""Relative to the largest score of a row, at least 1."""


@dataclass(frozen=True)
class Parity:
    """What was compared, and the largest difference of two scores."""

    batches: int
    rows: int
    max_difference: float


OF_NETWORKS = ("items", "event_numbers", "length", "user_vector", "active", "user_fields")
"""The inputs of a graph that its networks read."""


def two_time_scale_scores(model: TwoTimeScale, memory: Memory) -> Callable[[Inputs], Float32]:
    """Scores of all items by the model and the memory themselves, in torch. (B, V + 1)"""

    @torch.inference_mode()
    def scores(inputs: Inputs) -> Float32:
        queries = model(**{name: torch.from_numpy(inputs[name]) for name in OF_NETWORKS})  # (B, D)
        logits = torch.addmm(model.item_bias, queries, model.item_vectors.T)  # (B, V + 1)
        names = ("active", "own_items", "own_numbers", "user_numbers")
        read = {name: torch.from_numpy(inputs[name]) for name in names}
        values: Float32 = memory(logits, **read).numpy() + inputs["trend"]
        values[:, 0] = -np.inf
        return values

    return scores


def two_time_scale_ratings(model: TwoTimeScale) -> Callable[[Inputs], Float32] | None:
    """Expected ratings of all items by the model itself; None where it predicts none.
    (B, V + 1)"""
    if model.ratings is None:
        return None
    rows = model.ratings.rows.detach()
    mean, deviation, least, greatest = model.ratings.scale.tolist()

    @torch.inference_mode()
    def expected(inputs: Inputs) -> Float32:
        asked = model.answers(**{name: torch.from_numpy(inputs[name]) for name in OF_NETWORKS})[1]
        assert asked is not None, "of the same model"
        z = asked[:, :-1] @ rows[:, :-1].T + asked[:, -1:] + rows[:, -1]  # (B, V + 1)
        values: Float32 = (mean + deviation * z).clamp(least, greatest).numpy()
        return values

    return expected


def popularity_scores(score: Float32) -> Callable[[Inputs], Float32]:
    """The same scores for every row, with what is added to everybody's. (B, V + 1)"""

    def scores(inputs: Inputs) -> Float32:
        added: Float32 = np.asarray(inputs["trend"], dtype=np.float32)  # (V + 1,)
        return np.tile(score + added, (len(inputs["length"]), 1))

    return scores


def check_parity(
    graph: Path,
    reference: Callable[[Inputs], Float32],
    spec: InputSpec,
    *,
    k: int,
    rng: np.random.Generator,
    ratings: Callable[[Inputs], Float32] | None = None,
) -> Parity:
    """Compare a graph on the CPU with the model that it was exported from, by the scores of all
    items and, where it predicts any, their `ratings`.

    Inputs: every length from 0 to the longest in one batch, and one by one the shortest and
    longest; users active and inactive; nothing seen, some seen, all but a few seen; from none to
    all of `spec.remembered` own items, of few events and of many. Raises `ModelError` at the first
    difference.
    """
    session = open_session(graph.read_bytes(), threads=1, providers=("CPUExecutionProvider",))
    batches = rows = 0
    worst = 0.0
    for inputs in example_inputs(spec, rng=rng):
        items, scores, rated = session.run(list(OUTPUTS), inputs)
        expected = reference(inputs)  # (B, V + 1)
        expected[inputs["seen_rows"], inputs["seen_items"]] = -np.inf
        difference = compare_top(items, scores, expected, k=k, name=graph.name)
        of_ratings = compare_ratings(items, rated, ratings and ratings(inputs), name=graph.name)
        worst = max(worst, difference, of_ratings)
        batches, rows = batches + 1, rows + len(items)
    return Parity(batches=batches, rows=rows, max_difference=worst)


def compare_top(
    items: npt.NDArray[np.int64], scores: Float32, expected: Float32, *, k: int, name: str
) -> float:
    """The largest difference of a top k found, (B, k) twice, from scores of all items (B, V + 1).

    Items may differ from the exact top k only where their expected scores are equal within the
    tolerance.
    """
    if items.shape != (len(expected), k) or scores.shape != items.shape:
        raise ModelError(
            f"{name}: outputs of shape {items.shape} and {scores.shape}, expected "
            f"{(len(expected), k)}"
        )
    best = -np.sort(-expected, axis=1)[:, :k]  # (B, k)
    theirs = np.take_along_axis(expected, items, axis=1)  # (B, k)
    scale = np.maximum(
        1.0, np.abs(np.where(np.isfinite(best), best, 0.0)).max(axis=1, keepdims=True)
    )
    worst = 0.0
    for what, found in (("score", scores), ("item", theirs)):
        if np.any(np.isneginf(found) != np.isneginf(best)) or np.isnan(found).any():
            raise ModelError(
                f"{name}: a top {what} is missing or NaN where the model has one; do not use "
                "this export"
            )
        finite = np.isfinite(best)
        gap = np.abs(np.where(finite, found, 0.0) - np.where(finite, best, 0.0))
        if np.any(gap > TOLERANCE * scale):
            raise ModelError(
                f"{name}: a top {what} differs from the model's by {gap.max():.3g}, allowed "
                f"is {TOLERANCE:g} of the "
                "largest score; do not use this export"
            )
        worst = max(worst, float(gap.max(initial=0.0)))
    ordered = np.sort(items, axis=1)
    if np.any(ordered[:, 1:] == ordered[:, :-1]):
        raise ModelError(f"{name}: an item comes twice in one top {k}; do not use this export")
    return worst


def compare_ratings(
    items: npt.NDArray[np.int64], ratings: Float32, expected: Float32 | None, *, name: str
) -> float:
    """The largest difference of the ratings of a top k (B, k) from those of all items
    (B, V + 1); where none are expected, all must be NaN."""
    if expected is None:
        theirs = np.full(items.shape, np.nan, dtype=np.float32)
    else:
        theirs = np.take_along_axis(expected, items, axis=1)  # (B, k)
    if ratings.shape != items.shape or np.any(np.isnan(ratings) != np.isnan(theirs)):
        raise ModelError(
            f"{name}: ratings are there where the model has none, or the other way round; do not "
            "use this export"
        )
    gap = float(np.nan_to_num(np.abs(ratings - theirs)).max(initial=0.0))
    allowed = TOLERANCE * max(1.0, float(np.nan_to_num(np.abs(theirs)).max(initial=0.0)))
    if gap > allowed:
        raise ModelError(
            f"{name}: a rating differs from the model's by {gap:.3g}, allowed is {allowed:.3g}; do "
            "not use this export"
        )
    return gap


def example_inputs(spec: InputSpec, *, rng: np.random.Generator) -> Iterator[Inputs]:
    """Batches of random inputs, as `check_parity` says."""
    every, most = np.arange(spec.max_length + 1), spec.remembered
    for length in (every, rng.permutation(every), every[:1], every[1:2], every[-1:]):
        for share in (0.0, 0.3, 1.0):
            yield _random_inputs(spec, length, width=most, seen_share=share, rng=rng)
    for width in remembered_widths(most):
        yield _random_inputs(spec, every, width=width, seen_share=0.3, rng=rng)


def remembered_widths(most: int) -> list[int]:
    """Numbers of own items from the fewest, 1, to `most`: 1, 2, 3, 5, 9, 17 ..."""
    steps = (1, *(2**power + 1 for power in range(most.bit_length())))
    return sorted({*(width for width in steps if width < most), most})


def _random_inputs(
    spec: InputSpec,
    length: npt.NDArray[np.int64],
    *,
    width: int,
    seen_share: float,
    rng: np.random.Generator,
) -> Inputs:
    """A row for each of `length`; `width` own items."""
    rows, longest = len(length), max(1, int(length.max()))
    valid = np.arange(longest) < length[:, None]  # (B, T)
    seen = rng.random((rows, spec.n_items)) < seen_share  # (B, V)
    seen[:, rng.integers(spec.n_items)] = False
    seen_rows, seen_columns = np.nonzero(seen)
    active = rng.random(rows) < 0.5
    vector = rng.standard_normal((rows, spec.dim)) * active[:, None]
    own = _random_own(spec, rows, width=width, rng=rng)
    return {
        "items": np.where(valid, rng.integers(1, spec.n_items + 1, valid.shape), 0),
        "event_numbers": _random_numbers(spec, valid, rng=rng),
        "user_fields": _random_users(spec, rows, rng=rng),
        "length": length,
        "user_vector": vector.astype(np.float32),
        "active": active,
        "own_items": own.items,
        "own_numbers": own.numbers,
        "user_numbers": own.user_numbers,
        "trend": _random_trend(spec, rng=rng),
        "seen_rows": seen_rows,
        "seen_items": seen_columns + 1,
    }


def _random_trend(spec: InputSpec, *, rng: np.random.Generator) -> Float32:
    """None or one, and of every second one a fifth of the items not to be recommended. (V + 1,)"""
    trend = rng.standard_normal(spec.n_items + 1) * rng.integers(0, 2)
    left_out = rng.random(spec.n_items + 1) < 0.2 * rng.integers(0, 2)
    return np.where(left_out, -np.inf, trend).astype(np.float32)


def _random_users(spec: InputSpec, rows: int, *, rng: np.random.Generator) -> Float32:
    """The fields of so many users. (B, .)"""
    drawn = _random_fields(spec.users, (rows,), rng=rng)
    return drawn if spec.users.width else np.zeros((rows, spec.user_columns), dtype=np.float32)


def _random_fields(
    sizes: FieldSizes, shape: tuple[int, ...], *, rng: np.random.Generator
) -> Float32:
    """Rows of fields of any codes, of a third nothing is known. (*shape, width)"""
    bags = zip(sizes.n_codes, sizes.widths, strict=True)
    codes = [rng.integers(0, n_codes, (*shape, width)) for n_codes, width in bags]
    weights = [rng.random(one.shape) < 0.1 for one in codes]
    table = FieldTable(
        sizes,
        tuple(one.reshape(-1, one.shape[-1]).astype(np.int32) for one in codes),
        tuple(one.reshape(-1, one.shape[-1]).astype(np.float32) for one in weights),
        rng.standard_normal((int(np.prod(shape)), sizes.n_numbers)).astype(np.float32),
    )
    drawn = table.rows(np.arange(int(np.prod(shape))).reshape(shape))
    return np.where(rng.random((*shape, 1)) < 1 / 3, sizes.unknown, drawn)


def _random_numbers(
    spec: InputSpec, valid: npt.NDArray[np.bool_], *, rng: np.random.Generator
) -> Float32:
    """Numbers of the events that `valid` (B, T) marks, some of them unknown. (B, T, .)"""
    # edges of the model's buckets among them, where a comparison must fall on the same side
    times = np.concatenate([[UNKNOWN], 2.0 ** np.arange(24) - 1.0, rng.exponential(1e5, 16)])
    there = rng.random(valid.shape) < 0.7
    columns = {
        "gap_seconds": rng.choice(times, valid.shape),
        "request_seconds": rng.choice(times, valid.shape),
        "opens_session": rng.integers(-1, 2, valid.shape),
        "event_type": rng.integers(-1, 4, valid.shape),
        "value": np.where(there, 3.0 * rng.standard_normal(valid.shape), 0.0),
        "has_value": there,
    }
    numbers = np.stack([columns[name] for name in EVENT_NUMBERS], axis=-1)
    context = _random_fields(spec.context, valid.shape, rng=rng)
    numbers = np.concatenate([numbers, context], axis=-1)
    return np.where(valid[:, :, None], numbers, 0.0).astype(np.float32)


def _random_own(spec: InputSpec, rows: int, *, width: int, rng: np.random.Generator) -> Own:
    """Users who have from none to `width` own items, after from none to thousands of events.

    Their numbers are counted of histories that are drawn, so that they go together as those of
    users do.
    """
    different = rng.integers(0, width + 1, rows)  # (B,)
    length = different * rng.choice([1, 2, 30], rows)  # (B,)
    offsets = np.concatenate([[0, 0], np.cumsum(length)])
    row = np.repeat(np.arange(rows), length)  # (H,)
    first = rng.integers(0, spec.n_items, rows)  # consecutive ones: no two alike
    item = 1 + (first[row] + rng.integers(0, different[row])) % spec.n_items
    n = len(row)
    events = Events(
        offsets=offsets,
        item_idx=item.astype(np.int32),
        timestamp=np.cumsum(rng.choice([0, 1, 1_000_000, 86_400_000_000], n)),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )
    users = np.arange(1, rows + 1)
    return gather_own(events, user_idx=users, history=length, most=width)
