"""Scores users with a bundle's graph in ONNX Runtime.

Histories become inputs by the same `make_requests` that training's validation and evaluation use.
Nothing here needs torch. The (B, V + 1) matrices of scores are most of the space that a batch
takes, so large vocabularies get smaller batches.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from recsys_core.data.events import Events
from recsys_core.errors import ModelError
from recsys_core.models.requests import make_requests, request_at
from recsys_core.models.trend import trend_of
from recsys_core.serving.bundle import INPUTS, OUTPUTS, Bundle, Graph
from recsys_core.serving.filters import Eligible, everything

logger = logging.getLogger(__name__)

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""In the order of preference."""

SCORE_CELLS = 2**23
"""Scores of one batch: 32 MiB, which the graph holds about ten times, once for each term of the
memory."""

MAX_BATCH = 4096

EVENTS_AT_ONCE = 2**17
"""Events of one batch: 128 MiB for each layer of 256 numbers an event."""

LOOKED_UP_AT_ONCE = 2**23
"""Numbers that a term of the memory looks up or works out for one batch: 32 MiB, and as items twice
that."""

FATAL, WARNING = 4, 2

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TopItems:
    """The best items of N users; item 0 with the score -inf where fewer than k were left."""

    items: Int64  # (N, k)
    scores: Float32  # (N, k)
    ratings: Float32  # (N, k) what each is expected to be given; NaN where nothing predicts it


def nothing(n: int, *, k: int) -> TopItems:
    """No item for any of `n` users. (N, k)"""
    return TopItems(
        items=np.zeros((n, k), dtype=np.int64),
        scores=np.full((n, k), -np.inf, dtype=np.float32),
        ratings=np.full((n, k), np.nan, dtype=np.float32),
    )


class ScoringEngine:
    """One graph of a bundle, ready to score.

    `provider` says where it really runs: ONNX Runtime falls back to the CPU without an error.
    """

    def __init__(
        self, bundle: Bundle, *, graph: Graph, threads: int, providers: tuple[str, ...] = PROVIDERS
    ) -> None:
        self.bundle = bundle
        self._graph = graph
        self._session = open_session(
            bundle.graph(graph).read_bytes(), threads=threads, providers=providers
        )
        self.provider: str = self._session.get_providers()[0]
        found = tuple(port.name for port in self._session.get_inputs())
        if found != INPUTS:
            raise ModelError(
                f"{bundle.graph(graph)}: inputs {found}, this version feeds {INPUTS}; export "
                "it again"
            )
        # of the log and the time that were asked for last: one for all shards of a run
        self._trend_of: tuple[Events, int | None, Float32] | None = None
        logger.info("engine graph=%s provider=%s threads=%d", graph, self.provider, threads)

    @property
    def max_batch(self) -> int:
        """The largest number of users at once that the space for scores, events and looked up
        numbers allows."""
        spec = self.bundle.spec
        return max(
            1,
            min(
                MAX_BATCH,
                SCORE_CELLS // (spec.n_items + 1),
                EVENTS_AT_ONCE // (spec.max_length + 1),
                LOOKED_UP_AT_ONCE // max(1, self.bundle.looked_up),
            ),
        )

    def top_items(
        self,
        known: Events,
        user_idx: Int64,
        *,
        k: int,
        seen_filter: bool,
        as_of: int | None = None,
        batch: int = MAX_BATCH,
        seen_types: tuple[int, ...] | None = None,
        eligible: Eligible | None = None,
    ) -> TopItems:
        """The k best items of each user after all their events in `known`. (N,) to (N, k)

        They are asked for at `as_of`, in microseconds, as the first of a session where the user has
        been away for the log's session gap; None: nobody knows when.

        `known` holds events of known items only (`requests.known_events`); a user without any is
        scored from the prior. `seen_filter` leaves out every item of the user's history, with
        `seen_types` those of events of these types alone; nothing is recommended that is not
        `eligible`, None: everything is. Items of equal score come in the order of their idx. Raises
        `ModelError` where k is more than the graph gives, or a score is NaN.
        """
        n_items = self.bundle.spec.n_items
        if k > self.bundle.k and self.bundle.k < n_items:
            raise ModelError(
                f"top {k} was asked for, but the graph gives {self.bundle.k}; "
                "lower score.k, or raise export_onnx.k and export again"
            )
        history = known.offsets[user_idx + 1] - known.offsets[user_idx]  # (N,)
        top = nothing(len(user_idx), k=k)
        width = min(k, self.bundle.k)
        trend = self._trend(known, as_of)
        spec = self.bundle.spec
        if eligible is None:
            eligible = everything(n_items=n_items, n_users=known.n_users)
        group = eligible.group[user_idx]  # (N,)
        # what a group may get is the same for its whole batch; in it users of like length
        # together, so that a batch pads little
        order = np.lexsort((history - spec.window_start(history), group))
        for rows in _batches(order, group, min(batch, self.max_batch)):
            requests = make_requests(
                spec,
                self.bundle.fold_in,
                known,
                user_idx=user_idx[rows],
                history=history[rows],
                request=None
                if as_of is None
                else request_at(
                    as_of,
                    known,
                    user_idx=user_idx[rows],
                    history=history[rows],
                    session_gap_seconds=self.bundle.session_gap_seconds,
                ),
            )
            pairs = seen_pairs(known, user_idx[rows], seen_types) if seen_filter else no_pairs()
            added = eligible.scores(int(group[rows[0]]), trend)
            inputs = {**requests.inputs(), "trend": added, **pairs}
            items, scores, ratings = self.run(inputs)  # (B, bundle k) each
            none = scores == -np.inf
            top.items[rows, :width] = np.where(none, 0, items)[:, :width]
            top.scores[rows, :width] = scores[:, :width]
            top.ratings[rows, :width] = np.where(none, np.nan, ratings)[:, :width]
        return top

    def _trend(self, known: Events, as_of: int | None) -> Float32:
        """What is added to everybody's logits at the time of the request, or the latest event's.
        (V + 1,)"""
        # popularity has a window of its own, and follows no trend beside it
        if self._graph == "popularity" or self.bundle.trend_hours is None or not len(known):
            return np.zeros(self.bundle.n_items + 1, dtype=np.float32)
        if self._trend_of is None or self._trend_of[0] is not known or self._trend_of[1] != as_of:
            index = trend_of(self.bundle, known, until=None)
            assert index is not None, "the bundle has a trend"
            at = int(known.timestamp.max()) if as_of is None else as_of
            self._trend_of = (known, as_of, index.offset(np.array([at + 1]), None)[0])
        return self._trend_of[2]

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> tuple[Int64, Float32, Float32]:
        """The graph's outputs for one batch, scores that are NaN or +inf refused."""
        # a NaN of one item alone need not be among the best that the graph gives
        added = np.asarray(inputs["trend"], dtype=np.float32)
        strange = int(np.count_nonzero(np.isnan(added) | np.isposinf(added)))
        if strange:
            raise ModelError(
                f"what is added to the scores of {strange} items is NaN or infinite; score again "
                "with a bundle without a trend (train_rnn.trend_hours: null)"
            )
        items, scores, ratings = self._session.run(list(OUTPUTS), dict(inputs))
        bad = int(np.count_nonzero((np.isnan(scores) | np.isposinf(scores)).any(axis=1)))
        if bad:
            raise ModelError(
                f"{bad} of {len(scores)} users have NaN scores, or infinite ones; the model has "
                "diverged: "
                "roll back to an earlier version, or train it again with a smaller learning rate"
            )
        return items, scores, ratings


def _batches(order: Int64, group: Int64, size: int) -> Iterator[Int64]:
    """The rows in `order` (N,), at most `size` at a time and never of two groups."""
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        for first in range(0, len(part), size):
            yield part[first : first + size]


def seen_pairs(
    known: Events, user_idx: Int64, types: tuple[int, ...] | None = None
) -> dict[str, Int64]:
    """Every event of each user, of some `types` or of any, as a pair of the user's row and the
    item, repeats too. (S,)"""
    first, last = known.offsets[user_idx], known.offsets[user_idx + 1]
    length = last - first  # (B,)
    rows = np.repeat(np.arange(len(user_idx), dtype=np.int64), length)  # (S,)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    place = np.repeat(first, length) + within
    if types is not None:
        of_types = np.isin(known.event_type[place], types)
        rows, place = rows[of_types], place[of_types]
    return {"seen_rows": rows, "seen_items": known.item_idx[place].astype(np.int64)}


def no_pairs() -> dict[str, Int64]:
    """Nothing to leave out. (0,)"""
    return {"seen_rows": np.zeros(0, dtype=np.int64), "seen_items": np.zeros(0, dtype=np.int64)}


def open_session(
    graph: bytes, *, threads: int, providers: tuple[str, ...]
) -> onnxruntime.InferenceSession:
    """A session on the first of `providers` that loads; the same inputs give the same outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    wanted = [name for name in providers if name in onnxruntime.get_available_providers()]
    # a build for CUDA lists it on every machine and complains at length where it does not load;
    # which provider runs is said by the caller
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        if "CUDAExecutionProvider" in wanted:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                onnxruntime.preload_dlls()
            logger.debug("engine preload_dlls=%r", said.getvalue())
        return onnxruntime.InferenceSession(graph, options, providers=_with_options(wanted))
    finally:
        onnxruntime.set_default_logger_severity(WARNING)


def _with_options(providers: list[str]) -> list[tuple[str, dict[str, str]]]:
    # TF32 keeps 10 bits of the mantissa: scores would no longer be those that the gate has seen
    options = {"CUDAExecutionProvider": {"use_tf32": "0"}}
    return [(name, options.get(name, {})) for name in providers]
