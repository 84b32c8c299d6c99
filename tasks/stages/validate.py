"""Guards the door: rows that break a rule go to quarantine, with the rules' names; the others pass.

The rules are Great Expectations objects, and their own results say which rows they reject. A new
rule is added to `rules`, and nowhere else.
"""

import importlib
import logging
import os
import warnings
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_core.artifacts import write_json
from recsys_core.columns import (
    EVENT_TYPE,
    ITEM_ID,
    REASON,
    SESSION_ID,
    SOURCE_ROW,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recsys_core.data.cards import DatasetCard, GivenSessions, read_resolved_card
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.sections import Validate
from recsys_core.tables import INTERACTIONS, VALID_INTERACTIONS, read_batches, table_writer
from tasks.step import DO_NOT_REPORT_USE, main

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.expectations.expectation import Expectation

logger = logging.getLogger(__name__)

LARGEST_FLOAT = float(np.finfo(np.float32).max)


def run(*, layout: Layout, validate: Validate) -> None:
    card = read_resolved_card(layout.resolved_card)
    judged = rules(card)
    door = open_door()
    found = pa.schema([*INTERACTIONS, *card.context_fields])
    valid = pa.schema([*VALID_INTERACTIONS, *card.context_fields])
    rejected = found.append(pa.field(REASON, pa.string(), nullable=False))
    rows_in, reasons = 0, Counter[str]()
    key = (SOURCE_ROW,)
    with (
        table_writer(layout.valid_interactions, valid, key=key) as write_valid,
        table_writer(layout.quarantine, rejected, key=key) as write_rejected,
    ):
        for rows in read_batches(layout.interactions, found, rows=validate.batch_rows):
            bad, why = judge(door, frame_of(rows), judged)
            mask = pa.array(bad)
            write_valid(rows.filter(pc.invert(mask)))
            write_rejected(rows.filter(mask).append_column(rejected.field(REASON), why))
            rows_in += len(rows)
            reasons.update(why.to_pylist())
    if rows_in == 0:
        raise DataError(f"{layout.interactions}: it has no rows; check the log that ingest reads")
    quarantined = reasons.total()
    report = {
        "rows_in": rows_in,
        "rows_out": rows_in - quarantined,
        "quarantined": quarantined,
        "quarantined_by_reason": dict(reasons),
        "expectations": sorted(judged),
    }
    write_json(layout.report("validate"), report)
    logger.info("validate rows_in=%d quarantined=%d rules=%d", rows_in, quarantined, len(judged))
    if quarantined > card.expected_bad_share * rows_in:
        raise DataError(
            f"{quarantined} of {rows_in} rows break a rule {dict(reasons.most_common(3))}, "
            f"the card expects a share of at most {card.expected_bad_share}; look at "
            f"{layout.quarantine}, then mend the log or raise expected_bad_share"
        )


def rules(card: DatasetCard) -> "dict[str, Expectation]":
    """What must hold for every row of a card's log, by the name that quarantine shows."""
    load_great_expectations()
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween,
    )
    from great_expectations.expectations.core.expect_column_values_to_match_regex import (
        ExpectColumnValuesToMatchRegex,
    )
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
        ExpectColumnValuesToNotBeNull,
    )

    absolute = card.time.kind == "absolute"
    # a day late: a clock that was never set says 1970-01-01
    first = datetime(1970, 1, 2 if absolute else 1, tzinfo=UTC)
    named: dict[str, Expectation] = {
        "user_id_missing": ExpectColumnValuesToNotBeNull(column=USER_ID),
        "user_id_blank": ExpectColumnValuesToMatchRegex(column=USER_ID, regex=r"\S"),
        "item_id_missing": ExpectColumnValuesToNotBeNull(column=ITEM_ID),
        "item_id_blank": ExpectColumnValuesToMatchRegex(column=ITEM_ID, regex=r"\S"),
        "timestamp_missing": ExpectColumnValuesToNotBeNull(column=TIMESTAMP),
        "timestamp_out_of_range": ExpectColumnValuesToBeBetween(
            column=TIMESTAMP,
            min_value=first,
            max_value=datetime(2100, 1, 1, tzinfo=UTC),
            strict_max=True,
        ),
        "event_type_missing": ExpectColumnValuesToNotBeNull(column=EVENT_TYPE),
    }
    if card.columns.value is not None:
        named["value_not_finite"] = ExpectColumnValuesToBeBetween(
            column=VALUE, min_value=-LARGEST_FLOAT, max_value=LARGEST_FLOAT
        )
    if isinstance(card.sessions, GivenSessions):
        named["session_id_missing"] = ExpectColumnValuesToNotBeNull(column=SESSION_ID)
    for name, expectation in named.items():
        expectation.meta = {"rule": name}
    return named


def load_great_expectations() -> None:
    """Import Great Expectations, reporting to nobody and saying nothing but warnings.

    Only where it is used: it takes seconds, and whoever reads a stage's signature should not wait.
    """
    os.environ.update(DO_NOT_REPORT_USE)
    # it logs hundreds of lines about its own methods while it is imported
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that it imports
        importlib.import_module("great_expectations")


def open_door() -> "BatchDefinition[None]":
    """Where Great Expectations takes its frames from: in memory, silent, reporting to nobody."""
    load_great_expectations()
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=config, mode="ephemeral")
    asset = context.data_sources.add_pandas("log").add_dataframe_asset("interactions")
    return asset.add_batch_definition_whole_dataframe("rows")


def frame_of(rows: pa.Table) -> pd.DataFrame:
    """The columns that rules may look at; rows are numbered from 0."""
    roles = rows.select([USER_ID, ITEM_ID, TIMESTAMP, EVENT_TYPE, VALUE, SESSION_ID])
    # pandas takes NaN for missing, but here it is a value that could not be read
    value = pc.if_else(pc.is_nan(rows[VALUE]), pa.scalar(np.inf, pa.float32()), rows[VALUE])
    frame: pd.DataFrame = roles.drop_columns(VALUE).append_column(VALUE, value).to_pandas()
    return frame


def judge(
    door: "BatchDefinition[None]", frame: pd.DataFrame, judged: "dict[str, Expectation]"
) -> tuple[npt.NDArray[np.bool_], pa.StringArray]:
    """Which rows break a rule (N,), and for those the broken rules' names, joined by `;`.

    Raises `DataError` unless every rule was evaluated: an empty suite would call any log valid.
    """
    from great_expectations.core.expectation_suite import ExpectationSuite

    suite = ExpectationSuite(name="log", expectations=list(judged.values()))
    complete = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
    batch = door.get_batch(batch_parameters={"dataframe": frame})
    results = batch.validate(suite, result_format=complete).results
    rows = {}
    for result in results:
        config = result.expectation_config
        if config is not None and config.meta and "unexpected_index_list" in result.result:
            rows[config.meta["rule"]] = result.result["unexpected_index_list"]
    return broken_rules(rows, names=list(judged), n=len(frame))


def broken_rules(
    rows: dict[str, Any], *, names: list[str], n: int
) -> tuple[npt.NDArray[np.bool_], pa.StringArray]:
    """The verdict on `n` rows from the rows that each evaluated rule rejects."""
    missing = sorted(set(names) - set(rows))
    if missing or not names:
        raise DataError(
            f"{len(rows)} of {len(names)} expectations were evaluated, without {missing}; "
            "no row can be called valid before all are"
        )
    flags: npt.NDArray[np.bool_] = np.zeros((n, len(names)), dtype=bool)  # (N, R)
    for place, name in enumerate(names):
        flags[rows[name], place] = True
    bad: npt.NDArray[np.bool_] = np.any(flags, axis=1)
    patterns, which = np.unique(flags[bad], axis=0, return_inverse=True)
    texts = [
        ";".join(name for name, flag in zip(names, row, strict=True) if flag) for row in patterns
    ]
    return bad, pa.array(texts, pa.string()).take(pa.array(which, pa.int64()))


if __name__ == "__main__":
    main(run)
