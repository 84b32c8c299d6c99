"""The item features that params name, as a fit up to a cut may know them, and as files."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_core.artifacts import read_json, write_json
from recsys_core.columns import ITEM_ID
from recsys_core.data.cuts import Cut
from recsys_core.data.features import encode, fit_encoding
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.layout import Layout
from recsys_core.sections import Features
from recsys_core.tables import ITEM_VOCABULARY, read_table
from recsys_core.training.cold_rows import ColdRows
from recsys_core.training.item_mixing import KnownFeatures
from tasks.feature_kinds import kinds_read

logger = logging.getLogger(__name__)

ITEM_TABLE = pa.schema([pa.field(ITEM_ID, pa.string())])
"""What every table of item features begins with."""

ENCODING = "features.json"


def known_features(layout: Layout, features: Features, cut: Cut) -> KnownFeatures | None:
    """The features of the items that are known at a cut, encoded by what these say, in the order of
    their idx; None where no column is read.

    Raises `ConfigError` where params name a column that the card lacks.
    """
    if not features.items:
        return None
    declared = read_json(layout.declared_features)["item_features"]
    kinds = kinds_read(features, {name: one["kind"] for name, one in declared.items()})
    vocabulary = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    ids = vocabulary.ids.slice(0, cut.n_items)
    table = read_table(layout.item_features, ITEM_TABLE).select([ITEM_ID, *kinds])
    encoding = fit_encoding(table, kinds, ids=ids, most=features.categories, words=features.words)
    known = KnownFeatures(encoding, encode(encoding, table, ids), features)
    counts = known.encoded.counts
    logger.info(
        "event=item_features items=%d without_row=%d rows_unused=%d %s",
        counts.ids,
        counts.without_row,
        counts.rows_unused,
        " ".join(
            f"{field}.{what}={number}"
            for field, found in counts.fields.items()
            for what, number in found.items()
        ),
    )
    return known


def write_encoding(folder: Path, known: KnownFeatures | None) -> None:
    """Write how features became numbers beside the model that reads them; where it reads none, none
    of an earlier run is left there."""
    if known is None:
        (folder / ENCODING).unlink(missing_ok=True)
    else:
        write_json(folder / ENCODING, known.encoding.to_json())


def features_report(
    known: KnownFeatures | None, cold_rows: ColdRows | None = None
) -> dict[str, Any]:
    """What a stage's report says of the item features that it read, and of the regression on them
    that was chosen before validation."""
    if known is None:
        return {}
    found = {} if cold_rows is None else {"cold_rows": _rounded(asdict(cold_rows))}
    return {"item_features": asdict(known.encoded.counts), **found}


def _rounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: round(v, 6) if isinstance(v, float) else v for key, v in facts.items()}
