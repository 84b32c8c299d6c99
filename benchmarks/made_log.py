"""A log as large as asked for, made as `validate` would leave it.

People come back in sessions of a few events, some people and items far more often than others;
ids are texts as they come in practice (`9f0c52d1be6a7734`, `p0041287`), and rows lie in the order
in which they were received, some seconds after they happened and so not quite in time order.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.rng import generator
from recsys_core.tables import VALID_INTERACTIONS, table_writer

DAYS = 30
START = 1_700_000_000_000_000
MICROSECONDS_PER_DAY = 86_400_000_000
EVENTS_PER_USER = 10
EVENTS_PER_SESSION = 4
EVENTS_PER_ITEM = 100
TYPES = {"view": 0.9, "cart": 0.07, "purchase": 0.03}
ROWS = 1_048_576


def write_log(path: Path, events: int) -> None:
    """Write a log of `events` valid interactions of about a tenth as many users."""
    rng = generator(7, f"made_log.{events}")
    user, timestamp = _events(rng, events)
    item = _skewed(rng, events, among=events // EVENTS_PER_ITEM, power=3.0)
    kind = rng.choice(len(TYPES), events, p=list(TYPES.values()))
    user_ids, item_ids = _user_ids(rng, events), _item_ids(rng, events)
    kinds = pa.array(list(TYPES))
    with table_writer(path, VALID_INTERACTIONS, key=("source_row",)) as write:
        for low in range(0, events, ROWS):
            rows = slice(low, min(low + ROWS, events))
            columns = [
                pa.array(np.arange(rows.start, rows.stop)),
                user_ids.take(pa.array(user[rows])),
                item_ids.take(pa.array(item[rows])),
                pa.array(timestamp[rows]).cast(pa.timestamp("us", tz="UTC")),
                kinds.take(pa.array(kind[rows])),
                pa.nulls(rows.stop - rows.start, pa.float32()),
                pa.nulls(rows.stop - rows.start, pa.string()),
            ]
            write(pa.table(columns, schema=VALID_INTERACTIONS))


def _events(
    rng: np.random.Generator, events: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The user and the time of each row. (N,), (N,)"""
    lengths = rng.geometric(1 / EVENTS_PER_SESSION, events)  # more sessions than needed
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), events)) + 1]
    session = np.repeat(np.arange(len(lengths)), lengths)[:events]  # (N,)
    user = _skewed(rng, len(lengths), among=events // EVENTS_PER_USER, power=2.0)
    begins = rng.integers(0, DAYS * MICROSECONDS_PER_DAY, len(lengths))
    passed = np.cumsum(rng.exponential(60e6, events).astype(np.int64))
    first = np.searchsorted(session, np.arange(len(lengths)))
    # milliseconds, as most logs have
    time = (START + begins[session] + passed - passed[first][session]) // 1_000 * 1_000
    received = np.argsort(time + rng.exponential(5e6, events), kind="stable")
    return user[session][received], time[received]


def _skewed(rng: np.random.Generator, n: int, *, among: int, power: float) -> npt.NDArray[np.int64]:
    """Draws from 0 to `among` - 1, low numbers far more often; the higher `power`, the more."""
    return (among * rng.random(n) ** power).astype(np.int64)


def _user_ids(rng: np.random.Generator, events: int) -> pa.StringArray:
    users = events // EVENTS_PER_USER
    numbers = np.unique(rng.integers(0, 2**63, users + users // 100 + 10))
    return pa.array([f"{number:016x}" for number in rng.permutation(numbers)[:users].tolist()])


def _item_ids(rng: np.random.Generator, events: int) -> pa.StringArray:
    items = events // EVENTS_PER_ITEM
    return pa.array([f"p{number:07}" for number in rng.permutation(3 * items)[:items].tolist()])
