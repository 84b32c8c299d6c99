"""Great Expectations: rules as its expectations, and its verdict on the values of a column.

A rule looks at one column alone, so each distinct value is judged once: a log has many more rows
than ids, and texts are what costs. This is the only module that imports Great Expectations.
"""

import importlib
import logging
import os
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from recsys_core.errors import DataError
from tasks.step import DO_NOT_REPORT_USE

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.expectations.expectation import Expectation

Bound = float | datetime

VALUES_AT_ONCE = 500_000
"""It copies the values several times over for each rule: this bounds them to some 300 MB."""

RESULT_FORMAT = {
    "result_format": "COMPLETE",  # every rejected value, not the first twenty
    "return_unexpected_index_query": False,
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}


@dataclass(frozen=True)
class Door:
    """Where Great Expectations takes its frames from: in memory, silent, reporting to nobody."""

    values: "BatchDefinition[None]"


@dataclass(frozen=True)
class Rule:
    """What must hold for the values of a column, by the name that quarantine shows."""

    name: str
    column: str
    expectation: "Expectation"


def not_null(name: str, column: str) -> Rule:
    """No value is missing."""
    _load()
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
        ExpectColumnValuesToNotBeNull,
    )

    return _rule(name, column, ExpectColumnValuesToNotBeNull(column=column))


def matches(name: str, column: str, regex: str) -> Rule:
    """A regular expression is found in every text that there is."""
    _load()
    from great_expectations.expectations.core.expect_column_values_to_match_regex import (
        ExpectColumnValuesToMatchRegex,
    )

    return _rule(name, column, ExpectColumnValuesToMatchRegex(column=column, regex=regex))


def matches_not(name: str, column: str, regex: str) -> Rule:
    """A regular expression is found in no text."""
    _load()
    from great_expectations.expectations.core.expect_column_values_to_not_match_regex import (
        ExpectColumnValuesToNotMatchRegex,
    )

    return _rule(name, column, ExpectColumnValuesToNotMatchRegex(column=column, regex=regex))


def between(
    name: str,
    column: str,
    *,
    low: Bound | None = None,
    high: Bound | None = None,
    below: Bound | None = None,
) -> Rule:
    """Every value that there is lies from `low` to `high`, or before `below`."""
    _load()
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween,
    )

    expectation = ExpectColumnValuesToBeBetween(
        column=column,
        min_value=low,
        max_value=high if below is None else below,
        strict_max=below is not None,
    )
    return _rule(name, column, expectation)


def open_door() -> Door:
    """A door without any rules; opening it takes seconds."""
    _load()
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
    return Door(asset.add_batch_definition_whole_dataframe("values"))


def judge(door: Door, rows: pa.Table, rules: list[Rule]) -> dict[str, npt.NDArray[np.bool_]]:
    """By rule, in the order of `rules`, whether each row breaks it (N,).

    Raises `DataError` unless every rule was evaluated: an empty suite would call any log valid.
    """
    broken: dict[str, npt.NDArray[np.bool_]] = {}
    for column in dict.fromkeys(rule.column for rule in rules if rule.column in rows.column_names):
        encoded = rows[column].combine_chunks().dictionary_encode(null_encoding="encode")
        of_column = [rule for rule in rules if rule.column == column]
        parts = [
            _judge(door, encoded.dictionary.slice(low, VALUES_AT_ONCE), of_column)
            for low in range(0, len(encoded.dictionary), VALUES_AT_ONCE)
        ]
        places = encoded.indices.to_numpy()
        for rule in of_column:
            if all(rule.name in part for part in parts):
                broken[rule.name] = np.concatenate([part[rule.name] for part in parts])[places]
    missing = [rule.name for rule in rules if rule.name not in broken]
    if missing or not rules:
        raise DataError(
            f"{len(broken)} of {len(rules)} expectations were evaluated, without {missing}; "
            "no row can be called valid before all are (where it is a rule of the card with "
            "`matches`, write its regular expression more simply)"
        )
    return {rule.name: broken[rule.name] for rule in rules}


def _judge(door: Door, values: pa.Array, rules: list[Rule]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which values break each rule that was evaluated without an error (N,)."""
    from great_expectations.core.expectation_suite import ExpectationSuite

    suite = ExpectationSuite(name="log", expectations=[rule.expectation for rule in rules])
    # texts as Python's: where they are Arrow's, another engine than Python's judges some regular
    # expressions, and finds other texts or does not know them
    with pd.option_context("mode.string_storage", "python"), warnings.catch_warnings():
        # pandas takes groups in a card's regular expression for a question about them
        warnings.filterwarnings("ignore", "This pattern is interpreted as a regular expression")
        frame = values.to_pandas().to_frame(rules[0].column)
        batch = door.values.get_batch(batch_parameters={"dataframe": frame})
        results = batch.validate(suite, result_format=RESULT_FORMAT).results
    broken = {}
    for result in results:
        config = result.expectation_config
        if config is not None and config.meta and "unexpected_index_list" in result.result:
            flags = np.zeros(len(frame), dtype=bool)
            flags[result.result["unexpected_index_list"]] = True
            broken[config.meta["rule"]] = flags
    return broken


def _rule(name: str, column: str, expectation: "Expectation") -> Rule:
    expectation.meta = {"rule": name}  # by which its result is known
    return Rule(name=name, column=column, expectation=expectation)


def _load() -> None:
    """Import Great Expectations, reporting to nobody and saying nothing but warnings.

    Only where it is used: it takes seconds, and whoever reads a stage's signature should not wait.
    """
    os.environ.update(DO_NOT_REPORT_USE)
    # it logs hundreds of lines about its own methods while it is imported
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that it imports
        importlib.import_module("great_expectations")
