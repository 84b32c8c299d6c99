"""What a scoring machine needs, in one folder, each file with its SHA-256 in the manifest.

two_time_scale.onnx   popularity.onnx   same inputs and outputs, so that one engine runs either
fold_in.safetensors                     stage one's side: turns a history into a user vector
items.parquet                           the model's vocabulary: the first items of the log's, and
                                        behind them those that were new, told by their features
model.json                              sizes of networks and memory, k, as_of, how fields become
                                        numbers
step.onnx                               only where it was asked for: one event at a time, with other
                                        inputs (step_graph.py)

inputs    items         (B, T) int64        own_items    (B, M) int64, M > 0
          event_numbers (B, T, .) float32   own_numbers  (B, M, .) float32    of these, and of the
          length        (B,) int64          user_numbers (B, .) float32       user: own_items.py
          user_vector   (B, D) float32      seen_rows    (S,) int64     an item seen_items[s] is
          active        (B,) bool           seen_items   (S,) int64     left out of row seen_rows[s]
          user_fields   (B, .) float32      trend        (V + 1,) float32   is added to everybody's
                                                         scores, 0 where there is none, -inf
                                                         where an item may not be recommended
          of the events' numbers: data/histories.py; of their context, behind these, and of users'
          fields: data/field_rows.py
outputs   top_items    (B, k) int64         best first
          top_scores   (B, k) float32       -inf where nothing is left
          top_ratings  (B, k) float32       what the user is expected to give; NaN: not predicted
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from recsys_core.artifacts import (
    MANIFEST,
    read_json,
    read_tensors,
    sha256,
    verify_manifest,
    write_json,
    write_manifest,
    write_tensors,
)
from recsys_core.columns import ITEM_IDX
from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.fields import FieldEncoding
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.requests import InputSpec
from recsys_core.tables import ITEM_VOCABULARY, read_table, write_table

Graph = Literal["two_time_scale", "popularity"]
GRAPHS: tuple[Graph, ...] = ("two_time_scale", "popularity")

INPUTS = (
    "items",
    "event_numbers",
    "user_fields",
    "length",
    "user_vector",
    "active",
    "own_items",
    "own_numbers",
    "user_numbers",
    "trend",
    "seen_rows",
    "seen_items",
)
OUTPUTS = ("top_items", "top_scores", "top_ratings")

FORMAT = 6
"""The version of the folder's layout and of the graphs' inputs and outputs."""

OWN_INPUTS = 32
"""About as many numbers are worked out of each own item."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those of its manifest."""

    folder: Path
    sha256: str
    """The SHA-256 of the manifest: it names the bundle, whatever folder it lies in."""
    spec: InputSpec
    fields: FieldEncoding | None
    """How context and user features become what the graph reads; None where it reads none."""
    fold_in: FoldIn
    items: Vocabulary
    new_items: int
    """How many items at the end of the vocabulary were told by their features alone: in the log
    they have other numbers, or none."""
    k: int
    as_of: int
    popularity_hours: float | None
    """The window of the popularity graph; None where it counts the whole log."""
    session_gap_seconds: float | None
    """Who has been away so long opens a session; None where there are none."""
    trend_hours: float | None
    trend_temperature: float
    looked_up: int
    """The most numbers that a term of the memory looks up or works out for one user."""

    @property
    def n_items(self) -> int:
        """The model's vocabulary: items with a larger idx are unknown."""
        return self.spec.n_items

    @property
    def logged_items(self) -> int:
        """Items that have the same idx in the log: the first ones of both."""
        return self.n_items - self.new_items

    def graph(self, graph: Graph) -> Path:
        """The file of a graph."""
        return self.folder / f"{graph}.onnx"


def write_bundle(
    folder: Path,
    *,
    config: Mapping[str, Any],
    memory: Mapping[str, Any],
    fold_in: FoldIn,
    items: pa.Table,
    k: int,
    as_of: int,
    popularity_hours: float | None,
    session_gap_seconds: float | None,
    fields: FieldEncoding | None = None,
    new_items: int = 0,
) -> str:
    """Write the manifest and all but the graphs, which are there; returns the manifest's SHA-256.

    `config` and `memory` are `TwoTimeScale.to_json` and `Memory.to_json`, `items` the model's
    vocabulary table, `as_of` the time of the latest event that it has seen, `popularity_hours` the
    window of the popularity graph, None where it has none, `session_gap_seconds` what opens a
    session of the log, None where nothing does, `fields` how those that the networks read become
    numbers. The last `new_items` of `items` are told by their features alone.
    """
    write_tensors(
        folder / "fold_in.safetensors",
        {
            "items": fold_in.items,
            "mean": fold_in.mean,
            "basis": fold_in.basis,
            "variance": fold_in.variance,
        },
    )
    write_table(folder / "items.parquet", items, ITEM_VOCABULARY, key=(ITEM_IDX,))
    model = {
        "config": dict(config),
        "memory": dict(memory),
        "new_items": new_items,
        "k": k,
        "as_of": as_of,
        "popularity_hours": popularity_hours,
        "session_gap_seconds": session_gap_seconds,
        "fields": fields and fields.to_json(),
    }
    write_json(folder / "model.json", model)
    return write_manifest(folder, {"format": FORMAT, "as_of": as_of})


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder, once every file of it has been compared with the manifest.

    Raises `ContractError` where a file is missing, changed or added, or the format is another.
    """
    manifest = verify_manifest(folder)
    if manifest["format"] != FORMAT:
        raise ContractError(
            f"{folder}: bundle format {manifest['format']}, this version reads {FORMAT}; "
            "export it again with this version of twotempo"
        )
    model = read_json(folder / "model.json")
    config, arrays = model["config"], read_tensors(folder / "fold_in.safetensors")
    spec = InputSpec(
        n_items=config["n_items"],
        dim=config["dim"],
        t_star=config["t_star"],
        window=config["window"],
        remembered=model["memory"]["length"],
        ablation=config["ablation"],
        reads=tuple(config["reads"]),
        context=FieldSizes.from_json(config["context"]),
        users=FieldSizes.from_json(config["users"]),
    )
    fields = model["fields"] and FieldEncoding.from_json(model["fields"])
    if (fields.sizes if fields else (NO_FIELDS, NO_FIELDS)) != (spec.context, spec.users):
        raise ContractError(
            f"{folder}: the graph does not read what its encoding of fields gives; export it again"
        )
    fold_in = FoldIn(
        items=arrays["items"],
        mean=arrays["mean"],
        basis=arrays["basis"],
        variance=arrays["variance"],
        l2=config["fold_in_l2"],
        limit=config["fold_in_limit"],
    )
    items = Vocabulary.from_table(read_table(folder / "items.parquet", ITEM_VOCABULARY))
    if len(items) != spec.n_items or fold_in.items.shape != (spec.n_items + 1, spec.dim):
        raise ContractError(
            f"{folder}: the model has {spec.n_items} items of {spec.dim} dimensions, its "
            f"vocabulary {len(items)} and "
            f"its fold-in {fold_in.items.shape[0] - 1} of {fold_in.items.shape[1]}; export it again"
        )
    return Bundle(
        folder=folder,
        sha256=sha256(folder / MANIFEST),
        spec=spec,
        fields=fields,
        fold_in=fold_in,
        items=items,
        new_items=model["new_items"],
        k=model["k"],
        as_of=model["as_of"],
        popularity_hours=model["popularity_hours"],
        session_gap_seconds=model["session_gap_seconds"],
        trend_hours=config["trend_hours"],
        trend_temperature=config["trend_temperature"],
        looked_up=_looked_up(model["memory"]),
    )


def _looked_up(memory: Mapping[str, Any]) -> int:
    length, neighbours = memory["length"], memory["neighbours"]
    by_term = {
        "own": length * (memory["hidden"] + OWN_INPUTS),
        "next": min(length, memory["next_length"]) * neighbours,
        "similar": min(length, memory["similar_length"]) * neighbours,
        "factors": length * memory["factor_dim"],
        "recent": 1,
    }
    return max((by_term[term] for term in memory["terms"]), default=0)
