"""Items that tonight's table describes and the model never met, made part of what is exported."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys_core.artifacts import read_json
from recsys_core.columns import ITEM_ID
from recsys_core.data.features import FeatureEncoding, encode
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.models.item_features import ItemFeatures, new_item_rows
from recsys_core.models.memory import Memory
from recsys_core.models.new_items import memory_with_new_items, with_new_items
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import ExportOnnx
from recsys_core.tables import ITEM_VOCABULARY, read_table
from tasks.item_features import ENCODING, ITEM_TABLE

logger = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Exported:
    """What becomes a bundle; the last `new_items` of `items` are told by their features alone."""

    model: TwoTimeScale
    memory: Memory
    popularity: Float32  # (V + 1,)
    items: pa.Table  # ITEM_VOCABULARY
    new_items: int = 0
    without_row: int = 0
    """Items of the log that the model does not know and the table does not describe."""


def grown(exported: Exported, layout: Layout, *, as_of: int) -> Exported:
    """With all items that tonight's table describes and the model does not know, in its order.

    They count as known from `as_of` on, and are the least popular. Raises `ContractError` where the
    model reads no features.
    """
    folder, model = layout.stage("refit"), exported.model
    if model.decoder is None or not (folder / ENCODING).exists():
        raise ContractError(
            f"export_onnx.new_items is true, but the model in {folder} reads no item features; "
            "name columns in features.items and run `dvc repro`, or set it to false"
        )
    encoding = FeatureEncoding.from_json(read_json(folder / ENCODING))
    table = read_table(layout.item_features, ITEM_TABLE)
    described = table.column(ITEM_ID).combine_chunks()
    known = exported.items.column(ITEM_ID).combine_chunks()
    ids = described.filter(pc.invert(pc.is_in(described, value_set=known)))
    encoded = encode(encoding, table, ids)
    rows = new_item_rows(model.decoder, ItemFeatures.of(encoded, device=torch.device("cpu")))[1:]
    first, n = len(known) + 1, len(ids)
    seen = Vocabulary.from_table(exported.items).first_timestamp
    since = max(as_of, int(seen.max(initial=0)))  # what came last in a late delivery, later still
    new = pa.table(
        [
            pa.array(np.arange(first, first + n, dtype=np.int32)),
            ids,
            pa.array(np.full(n, since), pa.int64()).cast(ITEM_VOCABULARY.field(2).type),
        ],
        schema=ITEM_VOCABULARY,
    )
    of_log = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY)).ids
    later = of_log.slice(len(known))
    without_row = len(later) - pc.sum(pc.is_in(later, value_set=ids)).as_py() if len(later) else 0
    logger.info("event=new_items recommendable=%d without_row=%d", n, without_row)
    least = np.full(n, exported.popularity[1:].min(initial=0.0), dtype=np.float32)
    return Exported(
        model=with_new_items(model, rows),
        memory=memory_with_new_items(exported.memory, n),
        popularity=np.concatenate([exported.popularity, least]),
        items=pa.concat_tables([exported.items, new]),
        new_items=n,
        without_row=int(without_row),
    )


def new_items_report(exported: Exported, export_onnx: ExportOnnx) -> dict[str, dict[str, int]]:
    """What the report says of new items, where they are asked for."""
    if not export_onnx.new_items:
        return {}
    counts = {"recommendable": exported.new_items, "without_feature_row": exported.without_row}
    return {"new_items": counts}
