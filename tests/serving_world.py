"""A small world for tests of what comes after training: a log, a model, a bundle."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch

from recsys_core.artifacts import write_json
from recsys_core.data.events import Events
from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.splits import Split
from recsys_core.layout import Layout
from recsys_core.models.backbones import BackboneName
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.item_decoder import FeatureDecoderConfig
from recsys_core.models.memory import TERMS, Memory, MemoryConfig
from recsys_core.models.requests import InputSpec
from recsys_core.models.two_time_scale import TwoTimeScale, TwoTimeScaleConfig
from recsys_core.sections import Read, Score
from recsys_core.sections_of_scoring import Cold, Filters
from recsys_core.serving.bundle import Graph, write_bundle
from recsys_core.serving.export import export_graphs
from recsys_core.serving.registry import add_version, promote
from recsys_core.tables import (
    ITEM_VOCABULARY,
    USER_VOCABULARY,
    write_events,
    write_table,
)
from tasks.memory_files import write_memory
from tasks.model_files import write_model

N_ITEMS = 40
K = N_ITEMS
START = 1_700_000_000_000_000
MINUTE = 60_000_000

HOSTILE = ("o'hara", 'quo"te', "semi;colon --", "naïve ☃ 例", "new\nline", "%s {0} $1")
"""Ids that a careless hand would paste into SQL."""


def make_events(histories: list[list[int]]) -> Events:
    """Events of users 1, 2, ...: one item a minute, the users one after the other."""
    lengths = np.array([0, *(len(history) for history in histories)])
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    n = len(items)
    return Events(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item_idx=items,
        timestamp=START + MINUTE * np.arange(n, dtype=np.int64),
        session_idx=np.zeros(n, dtype=np.int64),
        session_start=np.zeros(n, dtype=bool),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def random_histories(
    lengths: list[int], *, n_items: int = N_ITEMS, seed: int = 3
) -> list[list[int]]:
    """A history of random items for each of `lengths`."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, n_items + 1, length).tolist() for length in lengths]


def make_model(
    *,
    n_items: int = N_ITEMS,
    seed: int = 1,
    reads: tuple[Read, ...] = get_args(Read),
    backbone: BackboneName = "gru",
    depth: int = 1,
    score: Literal["dot", "cosine"] = "dot",
    trend_hours: float | None = None,
    features: FeatureDecoderConfig | None = None,
    context: FieldSizes = NO_FIELDS,
    users: FieldSizes = NO_FIELDS,
    rating: bool = False,
) -> TwoTimeScale:
    """A model with random weights: t* = 4, a window of 6. A decoder changes no other weight, but
    for what folds users in."""
    torch_rng = torch.Generator().manual_seed(seed)
    model = TwoTimeScale(
        TwoTimeScaleConfig(
            n_items=n_items,
            dim=8,
            backbone=backbone,
            hidden=12,
            depth=depth,
            ffn=2,
            reads=reads,
            time_dim=4,
            n_types=2,
            score=score,
            temperature=0.1,
            t_star=4,
            window=6,
            fold_in_l2=0.5,
            fold_in_limit=50,
            trend_hours=trend_hours,
            trend_temperature=1.0,
            ablation="none",
            free_users=0,
            features=features,
            context=context,
            users=users,
            rating=rating,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=torch_rng))
        model.set_items(model.item_vectors, model.item_bias)
        stage_one = torch.randn(n_items + 1, 8, generator=torch_rng)
        bias = torch.randn(n_items + 1, generator=torch_rng)
        fold_in = FoldIn.fit(stage_one.numpy(), bias.numpy(), l2=0.5, limit=50)
        model.fold_in_items.copy_(stage_one)
        model.fold_in_mean.copy_(torch.from_numpy(fold_in.mean))
        model.fold_in_basis.copy_(torch.from_numpy(fold_in.basis))
        model.fold_in_variance.copy_(torch.from_numpy(fold_in.variance))
    return model.eval()


def make_memory(
    *,
    n_items: int = N_ITEMS,
    seed: int = 1,
    terms: tuple[str, ...] = TERMS,
    windows: tuple[float | None, ...] = (24.0, None),
    length: int = 12,
    fitted: bool = True,
) -> Memory:
    """A memory with random tables and numbers: three neighbours, which of some items are fewer.

    One that is not `fitted` adds nothing.
    """
    torch_rng = torch.Generator().manual_seed(seed)
    config = MemoryConfig(
        terms=terms,
        windows=windows,
        n_items=n_items,
        length=length,
        next_length=4,
        similar_length=8,
        neighbours=3,
        hidden=5,
        similar="ease",
        factor_dim=4,
        factor_alpha=0.1,
        factor_l2=0.1,
        similar_l2=1.0,
    )
    memory = Memory(config)
    with torch.no_grad():
        for items, weight in (
            (memory.next_items, memory.next_share),
            (memory.similar_items, memory.similar_weight),
        ):
            drawn = torch.randint(0, n_items + 1, items.shape, generator=torch_rng)
            drawn[..., :1, :] = 0  # nothing follows PAD, nothing resembles it
            items.copy_(drawn)
            weight.copy_(torch.rand(items.shape, generator=torch_rng) * (drawn > 0))
        memory.similar_weight.mul_(0.2).sub_(0.05).mul_(memory.similar_items > 0)
        for factors in (memory.factor_items, memory.factor_mean, memory.factor_variance):
            factors.copy_(torch.rand(factors.shape, generator=torch_rng))
        memory.log_recent.copy_(-4.0 * torch.rand(memory.log_recent.shape, generator=torch_rng))
        own = [] if memory.own is None else memory.own.parameters()
        for parameter in (memory.network, memory.coefficients, memory.power, *own):
            parameter.add_(fitted * 0.5 * torch.randn(parameter.shape, generator=torch_rng))
    return memory.eval()


def make_spec() -> InputSpec:
    """What the exported graph of `make_model` and `make_memory` reads."""
    return replace(make_model().input_spec, remembered=make_memory().config.length)


def make_popularity(n_items: int = N_ITEMS) -> np.ndarray:
    """Scores of the popularity graph: item 3 best, then pairs of equal score, PAD -inf."""
    score = -np.ceil(np.arange(n_items + 1) / 2).astype(np.float32)
    score[3] = 5.0
    score[0] = -np.inf
    return score


def vocabulary_table(ids: list[str], schema: pa.Schema) -> pa.Table:
    """A vocabulary in which each id was first seen a minute after the one before."""
    first = pa.array(START + MINUTE * np.arange(len(ids)), pa.int64()).cast(schema.field(2).type)
    return pa.table(
        [pa.array(range(1, len(ids) + 1), pa.int32()), pa.array(ids, pa.string()), first],
        schema=schema,
    )


def item_ids(n: int = N_ITEMS) -> list[str]:
    """The hostile ids first, so that they are recommended too."""
    return [*HOSTILE, *(f"item-{number}" for number in range(len(HOSTILE) + 1, n + 1))][:n]


def user_ids(n: int) -> list[str]:
    """The hostile ids first; not in the order of their idx."""
    return [*HOSTILE, *(f"user-{n - number}" for number in range(len(HOSTILE), n))][:n]


def tiny_bundle(base: Path) -> Path:
    """The bundle of `make_model`, `make_memory` and `make_popularity`, made once per `base`."""
    folder = base / "tiny_bundle"
    if not (folder / "manifest.json").exists():
        folder.mkdir()
        export_bundle(folder, model=make_model(), memory=make_memory())
    return folder


def export_bundle(folder: Path, *, model: TwoTimeScale, memory: Memory) -> None:
    """Export a model of the tiny world into an empty folder."""
    export_model(folder, model, memory)
    write_bundle(
        folder,
        config=model.to_json(),
        memory=memory.to_json(),
        fold_in=model.fold_in,
        items=vocabulary_table(item_ids(), ITEM_VOCABULARY),
        k=K,
        as_of=START,
        popularity_hours=24.0,
        session_gap_seconds=1800.0,
    )


def export_model(folder: Path, model: TwoTimeScale, memory: Memory, *, step: bool = False) -> None:
    """Export the graphs, the popularity of `make_popularity`, into a folder."""
    export_graphs(
        folder,
        config=model.to_json(),
        weights=model.to_arrays(),
        memory_config=memory.to_json(),
        memory_weights=memory.to_arrays(),
        popularity=make_popularity(),
        k=K,
        step=step,
    )


def make_workspace(root: Path, *, histories: list[list[int]], n_items: int = N_ITEMS) -> Layout:
    """A workspace as sessionize and refit leave it; the model knows the first `N_ITEMS` items."""
    layout = Layout(root)
    events = make_events(histories)
    layout.events.mkdir(parents=True)
    write_events(layout.events, events)
    write_table(
        layout.item_vocabulary,
        vocabulary_table(item_ids(n_items), ITEM_VOCABULARY),
        ITEM_VOCABULARY,
    )
    write_table(
        layout.user_vocabulary,
        vocabulary_table(user_ids(len(histories)), USER_VOCABULARY),
        USER_VOCABULARY,
    )
    as_of = int(events.timestamp.max(initial=START))
    split = Split(valid_start=START, test_start=START + 1, end=as_of + 1, as_of=as_of)
    write_json(layout.split, split.to_json())
    write_json(layout.session_gap, {"seconds": 3600.0})
    write_model(layout.stage("refit"), make_model())
    write_memory(layout.stage("refit"), make_memory())
    write_json(layout.stage("refit") / "training.json", {"epochs": 1, "cut": "end"})
    return layout


def scoring_workspace(
    root: Path, *, bundles: Path, histories: list[list[int]], n_items: int = N_ITEMS
) -> Layout:
    """`make_workspace` with the tiny bundle, made once per folder `bundles`, as its champion."""
    layout = make_workspace(root, histories=histories, n_items=n_items)
    register_bundle(layout, tiny_bundle(bundles))
    return layout


def register_bundle(layout: Layout, bundle: Path, *, graph: Graph = "two_time_scale") -> str:
    """Make a bundle the champion of a workspace; returns its version."""
    version = add_version(layout.registry, bundle, graph=graph, verdict={"passed": True})
    promote(layout.registry, version, registered_at="2026-01-01T00:00:00+00:00")
    return version


def score_params(
    *,
    k: int,
    shard_users: int,
    seen: Literal["none", "all"] | tuple[str, ...] = "none",
    active_within: float | None = None,
    filters: Filters | None = None,
    cold: Cold | None = None,
) -> Score:
    """The section `score` with nothing left out and no cold list, but for what is given."""
    nothing = Filters(allow=(), deny=(), available=None, rules=(), segments=None)
    return Score(
        k=k,
        shard_users=shard_users,
        active_within=active_within,
        seen=seen,
        filters=nothing if filters is None else filters,
        cold=cold,
    )
