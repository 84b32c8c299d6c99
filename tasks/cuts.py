"""The cuts of the sessionized log, and the validation targets that every choice is made on."""

import numpy as np
import numpy.typing as npt

from recsys_core.artifacts import read_json
from recsys_core.data.cuts import Cuts, Period, cuts_of
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.sections import Evaluate
from recsys_core.tables import ITEM_VOCABULARY, read_table
from recsys_core.training.validation import Validation

VALIDATION_TARGETS = 20_000
"""Targets that are ranked after each epoch; the standard error of their mean metric is below
.003."""


def read_cuts(layout: Layout, events: Events) -> Cuts:
    """The cuts of the sessionized log."""
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    return cuts_of(events, Split(**read_json(layout.split)), items)


def validation_of(
    events: Events,
    period: Period,
    *,
    evaluate: Evaluate,
    metric_name: str,
    seed: int,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> Validation:
    """Targets of the validation period, or one before it, asked and ranked as those of the test;
    the same ones for every model.

    With `wanted` (N,) of these only the events that it marks.
    """
    return Validation(
        events,
        period=period,
        kind=evaluate.targets,
        seen_filter=evaluate.seen_filter,
        streaming=evaluate.streaming,
        metric_name=metric_name,
        limit=VALIDATION_TARGETS,
        rng=generator(seed, "validation targets"),
        wanted=wanted,
    )
