"""What lay in the future when a row came: timestamps that no clock could show on that day.

    begins = the earlier of `validate.timestamps_before` and two days after the part was taken

Midnights in UTC; the second day is for clocks a little ahead, and for those east of Greenwich that
show local time. A row of a snapshot is judged by the day of its own part, so that its verdict never
changes: were it taken for true once its day has come, an old part would have a new row, and the
vocabularies would number everything after it anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.columns import SOURCE_ROW, TIMESTAMP
from recsys_core.data.column_sql import LAST_MICROSECOND
from recsys_core.data.log_facts import DAY_MICROSECONDS
from recsys_core.errors import ContractError

AHEAD = timedelta(days=2)
NEVER = LAST_MICROSECOND // DAY_MICROSECONDS + 1


@dataclass(frozen=True)
class Future:
    """The rows at which the parts of a log begin (P,), and the days on which the future of their
    rows does (P,), counted from 1970-01-01."""

    first_rows: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]

    def days_ahead(self, rows: pa.Table) -> pa.Array:
        """How many days the timestamp of each row lies in its future (N,): 0 on the first of them,
        less than 0 where it lies before, null where there is none."""
        part = np.searchsorted(self.first_rows, rows[SOURCE_ROW].to_numpy(), side="right") - 1
        time = rows[TIMESTAMP].combine_chunks().cast(pa.int64())
        day = time.fill_null(0).to_numpy() // DAY_MICROSECONDS
        return pa.array(day - self.begins[part], mask=time.is_null().to_numpy(False))


def future_of(parts: Mapping[str, Any], *, before: date | None) -> Future | None:
    """When the future begins for the rows of each part, as ingest describes the parts of the log;
    None where nothing is known of it, neither `before` nor on which days the parts came."""
    first_rows, taken = parts["first_rows"], parts.get("taken")
    if taken is None:
        taken = [None] * len(first_rows)
    if len(taken) != len(first_rows):
        raise ContractError(
            f"the log has {len(first_rows)} parts and {len(taken)} days on which they came; "
            "run `ingest` again"
        )
    if before is None and not any(taken):
        return None
    return Future(
        first_rows=np.array(first_rows, dtype=np.int64),
        begins=np.array([_begins(day, before=before) for day in taken], dtype=np.int64),
    )


def _begins(taken: str | None, *, before: date | None) -> int:
    known = [] if before is None else [before]
    if taken is not None:
        known.append(date.fromisoformat(taken) + AHEAD)
    return min(((day - date(1970, 1, 1)).days for day in known), default=NEVER)
