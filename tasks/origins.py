"""The moments from which a memory is fitted: the start of the validation period, and of periods as
long before it (`train_memory.origins`).

    ... | origin 2 | origin 1 | validation | test ...

At each stand networks that knew nothing later, and targets of the period after it. One period alone
may be unlike all others, as a Sunday is.
"""

from pathlib import Path

from recsys_core.data.cuts import Cut, Cuts, Period
from recsys_core.data.events import Events
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.tables import ITEM_VOCABULARY, read_table

ORIGINS = "origins"
"""The folder of what was fitted at earlier origins, beside what later stages read."""


def earlier_periods(layout: Layout, events: Events, cuts: Cuts, *, origins: int) -> list[Period]:
    """The `origins` - 1 periods before validation, each as long as it in time, the latest first.

    Raises `DataError` where nothing lies in one of them or before it, `ConfigError` where everybody
    is cut at a moment of their own.
    """
    if origins == 1:
        return []
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    start = cuts.valid.one_time("train_memory.origins above 1")
    length = cuts.test.one_time("train_memory.origins above 1") - start
    periods, until = [], cuts.valid
    for number in range(1, origins):
        time = start - number * length
        before = Cut.at(events, time, n_items=items.known_before(time))
        if before.counts.sum() == 0 or until.counts.sum() <= before.counts.sum():
            raise DataError(
                f"train_memory.origins is {origins}, but {number} periods before validation there "
                f"is nothing left to learn from or to ask for; set it to {number}"
            )
        periods.append(Period(before, until))
        until = before
    return periods


def origin_folder(folder: Path, number: int) -> Path:
    """Where a stage keeps what it fitted at the origin so many periods before validation."""
    return folder / ORIGINS / str(number)
