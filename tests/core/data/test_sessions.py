"""Sessionising equals a plain Python reference, whatever the ties, the memory and the night."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.cards import DatasetCard
from recsys_core.data.duck import arrow_batches, open_duckdb
from recsys_core.data.events import Events
from recsys_core.data.sessions import (
    LogCounts,
    load_log,
    write_event_columns,
    write_vocabularies,
)
from recsys_core.errors import ContractError, DataError
from recsys_core.tables import (
    ITEM_VOCABULARY,
    USER_VOCABULARY,
    VALID_INTERACTIONS,
    read_events,
    read_table,
    write_table,
)
from tests.small_logs import contents, small_card

SECOND = 1_000_000
TYPED = {"user_id": "user", "item_id": "item", "timestamp": "at", "event_type": "type"}
GIVEN = {"user_id": "user", "item_id": "item", "timestamp": "at", "session_id": "visit"}


@dataclass(frozen=True)
class Row:
    user: str
    item: str
    second: int
    kind: str = "interaction"
    visit: str | None = None
    value: float | None = None


def table_of(rows: list[Row]) -> pa.Table:
    return pa.table(
        {
            "source_row": pa.array(range(len(rows)), pa.int64()),
            "user_id": pa.array([row.user for row in rows], pa.string()),
            "item_id": pa.array([row.item for row in rows], pa.string()),
            "timestamp": pa.array([row.second * SECOND for row in rows], pa.int64()).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "event_type": pa.array([row.kind for row in rows], pa.string()),
            "value": pa.array([row.value for row in rows], pa.float32()),
            "session_id": pa.array([row.visit for row in rows], pa.string()),
        },
        schema=VALID_INTERACTIONS,
    )


@dataclass(frozen=True)
class Sessionized:
    counts: LogCounts
    sessions: int
    events: Events
    items: list[str]
    users: list[str]
    first_item: list[int]


def sessionized(
    folder: Path, rows: list[Row], card: DatasetCard, memory_mb: int = 256
) -> Sessionized:
    write_table(folder / "log.parquet", table_of(rows), VALID_INTERACTIONS, key=("source_row",))
    out = folder / "out"
    with open_duckdb(folder / "work", memory_mb=memory_mb) as connection:
        counts = load_log(connection, folder / "log.parquet", card=card)
        write_vocabularies(connection, items=out / "items", users=out / "users")
        sessions = write_event_columns(connection, out / "events", card=card)
    items = read_table(out / "items", ITEM_VOCABULARY)
    return Sessionized(
        counts=counts,
        sessions=sessions,
        events=read_events(out / "events"),
        items=items["item_id"].to_pylist(),
        users=read_table(out / "users", USER_VOCABULARY)["user_id"].to_pylist(),
        first_item=items["first_timestamp"].cast(pa.int64()).to_pylist(),
    )


def reference(rows: list[Row], card: DatasetCard) -> list[tuple[Any, ...]]:
    """(user, item, timestamp, session, start, type, source_row) of each event, in order."""
    end = card.cut_off_microseconds
    log = [
        (row.second * SECOND, number, row)
        for number, row in enumerate(rows)
        if (end is None or row.second * SECOND < end) and row.kind in card.kept_types
    ]
    log.sort(key=lambda entry: entry[:2])
    items: dict[str, int] = {}
    users: dict[str, int] = {}
    last: dict[str, tuple[int, int]] = {}
    given_sessions: dict[tuple[str, str | None], int] = {}
    sessions = 0
    events = []
    for time, number, row in log:
        item = items.setdefault(row.item, len(items) + 1)
        user = users.setdefault(row.user, len(users) + 1)
        if card.sessions.kind == "gap":
            start = row.user not in last or time - last[row.user][0] >= (
                card.sessions.gap_seconds * SECOND
            )
            session = sessions + 1 if start else last[row.user][1]
        else:
            start = (row.user, row.visit) not in given_sessions
            session = given_sessions.setdefault((row.user, row.visit), sessions + 1)
        sessions += start
        last[row.user] = (time, session)
        kind = card.kept_types.index(row.kind)
        events.append((user, item, time, session, start, kind, number))
    return sorted(events, key=lambda event: (event[0], event[2], event[6]))


def as_tuples(events: Events) -> list[tuple[Any, ...]]:
    columns = (
        events.user_idx,
        events.item_idx,
        events.timestamp,
        events.session_idx,
        events.session_start,
        events.event_type,
        events.source_row,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


ROWS = st.lists(
    st.builds(
        Row,
        user=st.sampled_from(["u", "v", "w"]),
        item=st.sampled_from(["a", "b", "A", "10", "9", "é"]),
        second=st.integers(0, 12),  # few times, so that there are many ties
        kind=st.sampled_from(["view", "cart", "other"]),
        visit=st.sampled_from(["1", "2"]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 5), st.booleans(), st.integers(1, 15))
def test_events_are_those_of_the_reference(
    rows: list[Row], gap: int, given_sessions: bool, cut_off: int
) -> None:
    sessions = {"kind": "given"} if given_sessions else {"kind": "gap", "gap_seconds": gap}
    card = small_card(
        columns={**TYPED, **GIVEN},
        event_types={"view": 1.0, "cart": 2.0},
        sessions=sessions,
        cut_off=f"1970-01-01T00:00:{cut_off:02}Z",
    )
    wanted = reference(rows, card)
    with tempfile.TemporaryDirectory() as name:
        if not wanted:
            with pytest.raises(DataError, match="is an event"):
                sessionized(Path(name), rows, card)
            return
        got = sessionized(Path(name), rows, card)
        assert as_tuples(got.events) == wanted
        assert got.sessions == len({event[3] for event in wanted})
        cut = sum(row.second >= cut_off for row in rows)
        dropped = sum(row.second < cut_off and row.kind == "other" for row in rows)
        assert got.counts == LogCounts(len(rows), cut, dropped, len(wanted))
        assert got.counts.rows_in == cut + dropped + len(got.events)


def test_a_session_ends_after_the_gap_and_not_before_it(tmp_path: Path) -> None:
    rows = [Row("u", "a", second) for second in (0, 99, 199, 200)]  # gaps 99, 100, 1; the card: 100
    events = sessionized(tmp_path, rows, small_card()).events
    assert events.session_start.tolist() == [True, False, True, False]
    assert events.session_idx.tolist() == [1, 1, 2, 2]


def test_sessions_are_numbered_across_users_by_their_first_event(tmp_path: Path) -> None:
    rows = [Row("v", "a", 5), Row("u", "a", 1), Row("u", "a", 300), Row("v", "a", 6)]
    got = sessionized(tmp_path, rows, small_card())
    assert got.users == ["u", "v"]
    assert got.events.session_idx.tolist() == [1, 3, 2, 2]
    assert got.sessions == 3


def test_the_same_given_id_of_two_users_is_two_sessions(tmp_path: Path) -> None:
    card = small_card(columns=GIVEN, sessions={"kind": "given"})
    rows = [
        Row("u", "a", 1, visit="1"),
        Row("v", "a", 2, visit="1"),
        Row("u", "a", 9_000, visit="1"),
    ]
    events = sessionized(tmp_path, rows, card).events
    assert events.session_idx.tolist() == [1, 1, 2]
    assert events.session_start.tolist() == [True, False, True]


def test_equal_times_keep_the_order_of_rows(tmp_path: Path) -> None:
    rows = [Row("u", item, 7) for item in "dacbdab"]
    got = sessionized(tmp_path, rows, small_card())
    assert got.items == ["d", "a", "c", "b"]
    assert got.events.source_row.tolist() == list(range(7))
    assert got.events.item_idx.tolist() == [1, 2, 3, 4, 1, 2, 4]
    assert got.events.session_start.tolist() == [True] + [False] * 6


def test_values_stay_and_missing_ones_are_nan(tmp_path: Path) -> None:
    rows = [Row("u", "a", 1, value=2.5), Row("u", "b", 2)]
    value = sessionized(tmp_path, rows, small_card()).events.value
    assert value[0] == 2.5
    assert np.isnan(value[1])


def test_types_are_numbered_by_their_names(tmp_path: Path) -> None:
    card = small_card(columns=TYPED, event_types={"view": 1.0, "buy": 1.0})
    rows = [Row("u", "a", 1, "view"), Row("u", "a", 2, "buy"), Row("u", "a", 3, "other")]
    assert sessionized(tmp_path, rows, card).events.event_type.tolist() == [1, 0]


def random_rows(n: int, seed: int, low: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(low, low + n // 3, n))
    users, items = rng.integers(0, n // 10, n), rng.zipf(1.5, n) % n
    return [
        Row(f"u{user}", f"i{item}", int(time))
        for user, item, time in zip(users, items, times, strict=True)
    ]


def test_a_night_more_renumbers_nothing(tmp_path: Path) -> None:
    rows = random_rows(4_000, seed=1)
    night = random_rows(1_000, seed=2, low=rows[-1].second + 1)
    before = sessionized(tmp_path / "before", rows, small_card())
    after = sessionized(tmp_path / "after", rows + night, small_card())
    assert after.items[: len(before.items)] == before.items
    assert after.users[: len(before.users)] == before.users
    assert len(after.items) > len(before.items)
    assert after.first_item == sorted(after.first_item)
    # events of the first nights keep their numbers too, sessions included
    old = {event[6]: event for event in as_tuples(before.events)}
    again = {event[6]: event for event in as_tuples(after.events) if event[6] < len(rows)}
    assert again == old


def test_two_runs_and_little_memory_give_the_same_bytes(tmp_path: Path) -> None:
    rows = random_rows(60_000, seed=3)
    sessionized(tmp_path / "one", rows, small_card())
    sessionized(tmp_path / "two", rows, small_card(), memory_mb=64)
    assert contents(tmp_path / "one" / "out") == contents(tmp_path / "two" / "out")
    assert list((tmp_path / "two" / "work").iterdir()) == []


def test_too_little_memory_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 2 MB"):
        sessionized(tmp_path, random_rows(60_000, seed=3), small_card(), memory_mb=2)
    assert list((tmp_path / "work").iterdir()) == []


def overflowing(folder: Path) -> Iterator[pa.RecordBatch]:
    with open_duckdb(folder, memory_mb=256) as connection:
        query = "SELECT CAST(127 - (300_000 - range) AS TINYINT) FROM range(300_000)"
        yield from arrow_batches(connection, query, rows=1_000)


def test_an_error_in_the_middle_of_a_stream_is_not_an_end(tmp_path: Path) -> None:
    with pytest.raises(duckdb.Error, match=r"TINYINT|INT8"):
        list(overflowing(tmp_path))


def test_nothing_left_says_why(tmp_path: Path) -> None:
    card = small_card(cut_off="1970-01-01T00:00:01Z")
    with pytest.raises(
        DataError, match=r"none of 2 interactions is an event \(2 after the cut-off"
    ):
        sessionized(tmp_path, [Row("u", "a", 1), Row("u", "a", 2)], card)


def test_a_missing_table_names_the_cure(tmp_path: Path) -> None:
    with (
        pytest.raises(ContractError, match="run the stage that writes it"),
        open_duckdb(tmp_path / "work", memory_mb=256) as connection,
    ):
        load_log(connection, tmp_path / "log.parquet", card=small_card())
