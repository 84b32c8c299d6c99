"""Sessionising equals a plain Python reference, whatever the ties, the memory and the night."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from recsys_core.errors import ConfigError, ContractError, DataError
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
    first_user: list[int]


def sessionized(
    folder: Path,
    rows: list[Row],
    card: DatasetCard,
    *,
    first_rows: Sequence[int] = (0,),
    memory_mb: int = 256,
    threads: int | None = None,
    ties: Literal["first", "last"] = "first",
) -> Sessionized:
    write_table(folder / "log.parquet", table_of(rows), VALID_INTERACTIONS, key=("source_row",))
    out = folder / "out"
    with open_duckdb(
        folder / "work", memory_mb=memory_mb, threads=threads, insertion_order=False
    ) as connection:
        counts = load_log(
            connection,
            folder / "log.parquet",
            card=card,
            cut_off=card.cut_off_microseconds,
            first_rows=first_rows,
            ties=ties,
        )
        write_vocabularies(connection, items=out / "items", users=out / "users")
        sessions = write_event_columns(connection, out / "events", card=card, events=counts.events)
    items = read_table(out / "items", ITEM_VOCABULARY)
    users = read_table(out / "users", USER_VOCABULARY)
    return Sessionized(
        counts=counts,
        sessions=sessions,
        events=read_events(out / "events"),
        items=items["item_id"].to_pylist(),
        users=users["user_id"].to_pylist(),
        first_item=items["first_timestamp"].cast(pa.int64()).to_pylist(),
        first_user=users["first_timestamp"].cast(pa.int64()).to_pylist(),
    )


@dataclass(frozen=True)
class Reference:
    """What plain Python says; events are (user, item, timestamp, session, start, type, row)."""

    events: list[tuple[Any, ...]]
    items: dict[str, int]
    users: dict[str, int]


def reference(rows: list[Row], card: DatasetCard, first_rows: Sequence[int]) -> Reference:
    end = card.cut_off_microseconds
    log = [
        (row.second * SECOND, number, row)
        for number, row in enumerate(rows)
        if (end is None or row.second * SECOND < end) and row.kind in card.kept_types
    ]
    items, users = arrivals(log, first_rows)
    item_idx = {name: number for number, name in enumerate(items, 1)}
    user_idx = {name: number for number, name in enumerate(users, 1)}
    placed: list[list[tuple[int, int, Row]]] = []
    for user in users:
        own = sorted((entry for entry in log if entry[2].user == user), key=lambda e: e[:2])
        sessions: dict[Any, list[tuple[int, int, Row]]] = {}
        last, runs = None, 0
        for entry in own:
            if card.sessions.kind == "gap":
                runs += last is None or entry[0] - last >= card.sessions.gap_seconds * SECOND
                last = entry[0]
            name = {"gap": runs, "given": entry[2].visit, "none": 0}[card.sessions.kind]
            sessions.setdefault(name, []).append(entry)
        placed += sessions.values()
    events = [
        (
            user_idx[row.user],
            item_idx[row.item],
            time,
            1 + min(entry[1] for entry in session),
            (time, number) == session[0][:2],
            card.kept_types.index(row.kind),
            number,
        )
        for session in placed
        for time, number, row in session
    ]
    return Reference(sorted(events, key=lambda e: (e[0], e[2], e[6])), items, users)


def arrivals(
    log: list[tuple[int, int, Row]], first_rows: Sequence[int]
) -> tuple[dict[str, int], dict[str, int]]:
    """When each item and each user arrived, in that order."""
    arrived = []
    for time, number, row in log:
        begin = max(first for first in first_rows if first <= number)
        floor = max((t for t, n, _ in log if n < begin), default=time)
        arrived.append((max(time, floor), number, row))
    arrived.sort(key=lambda entry: entry[:2])
    items: dict[str, int] = {}
    users: dict[str, int] = {}
    for arrival, _, row in arrived:
        items.setdefault(row.item, arrival)
        users.setdefault(row.user, arrival)
    return items, users


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


SESSIONS = st.one_of(
    st.builds(lambda gap: {"kind": "gap", "gap_seconds": gap}, st.integers(1, 5)),
    st.just({"kind": "given"}),
    st.just({"kind": "none"}),
)


@settings(max_examples=60, deadline=None)
@given(ROWS, SESSIONS, st.integers(1, 15), st.lists(st.integers(0, 30), max_size=4))
def test_events_are_those_of_the_reference(
    rows: list[Row], sessions: dict[str, Any], cut_off: int, more_parts: list[int]
) -> None:
    card = small_card(
        columns={**TYPED, **GIVEN},
        event_types={"view": 1.0, "cart": 2.0},
        sessions=sessions,
        cut_off=f"1970-01-01T00:00:{cut_off:02}Z",
    )
    first_rows = [0, *sorted(more_parts)]  # parts may be empty, the last ones too
    wanted = reference(rows, card, first_rows)
    with tempfile.TemporaryDirectory() as name:
        if not wanted.events:
            with pytest.raises(DataError, match="is an event"):
                sessionized(Path(name), rows, card, first_rows=first_rows)
            return
        got = sessionized(Path(name), rows, card, first_rows=first_rows)
        assert as_tuples(got.events) == wanted.events
        assert dict(zip(got.items, got.first_item, strict=True)) == wanted.items
        assert dict(zip(got.users, got.first_user, strict=True)) == wanted.users
        assert (got.items, got.users) == (list(wanted.items), list(wanted.users))
        assert got.sessions == len({event[3] for event in wanted.events})
        cut = sum(row.second >= cut_off for row in rows)
        dropped = sum(row.second < cut_off and row.kind == "other" for row in rows)
        assert got.counts == LogCounts(len(rows), cut, dropped, len(wanted.events))
        assert got.counts.rows_in == cut + dropped + len(got.events)


def test_a_session_ends_after_the_gap_and_not_before_it(tmp_path: Path) -> None:
    rows = [Row("u", "a", second) for second in (0, 99, 199, 200)]  # gaps 99, 100, 1; the card: 100
    events = sessionized(tmp_path, rows, small_card()).events
    assert events.session_start.tolist() == [True, False, True, False]
    assert events.session_idx.tolist() == [1, 1, 3, 3]


def test_a_session_is_numbered_by_its_lowest_row_and_begins_with_its_earliest(
    tmp_path: Path,
) -> None:
    rows = [Row("v", "a", 6), Row("u", "a", 300), Row("v", "b", 5), Row("u", "a", 1)]
    got = sessionized(tmp_path, rows, small_card())
    assert got.users == ["u", "v"]
    assert got.events.source_row.tolist() == [3, 1, 2, 0]
    assert got.events.session_idx.tolist() == [4, 2, 1, 1]
    assert got.events.session_start.tolist() == [True, True, True, False]
    assert got.sessions == 3


def test_without_sessions_a_history_is_one(tmp_path: Path) -> None:
    rows = [Row("u", "a", 1), Row("v", "a", 2), Row("u", "a", 9_000_000)]
    got = sessionized(tmp_path, rows, small_card(sessions={"kind": "none"}))
    assert got.events.session_idx.tolist() == [1, 1, 2]
    assert got.events.session_start.tolist() == [True, False, True]
    assert got.sessions == 2


@pytest.mark.parametrize("sessions", [{"kind": "none"}, {"kind": "gap", "gap_seconds": 100}])
def test_a_session_longer_than_many_batches_is_one(
    tmp_path: Path, sessions: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_core.data.sessions.BATCH_ROWS", 2_048)
    rows = [Row("robot", "a", second) for second in range(10_000, 0, -1)]
    rows += [Row("v", "a", 20_000 + 60 * second) for second in range(5_000)]
    events = sessionized(tmp_path, rows, small_card(sessions=sessions)).events
    assert set(events.session_idx[:10_000].tolist()) == {1}
    assert set(events.session_idx[10_000:].tolist()) == {10_001}
    assert np.flatnonzero(events.session_start).tolist() == [0, 10_000]


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


def test_rows_without_a_given_session_are_one_session_of_their_user(tmp_path: Path) -> None:
    card = small_card(columns=GIVEN, sessions={"kind": "given"})
    rows = [Row("u", "a", 1), Row("v", "a", 2), Row("u", "a", 3, visit="1"), Row("u", "b", 4)]
    events = sessionized(tmp_path, rows, card).events
    assert events.session_idx.tolist() == [1, 3, 1, 2]
    assert events.session_start.tolist() == [True, True, False, True]


def test_equal_times_keep_the_order_of_rows(tmp_path: Path) -> None:
    rows = [Row("u", item, 7) for item in "dacbdab"]
    got = sessionized(tmp_path, rows, small_card())
    assert got.items == ["d", "a", "c", "b"]
    assert got.events.source_row.tolist() == list(range(7))
    assert got.events.item_idx.tolist() == [1, 2, 3, 4, 1, 2, 4]
    assert got.events.session_start.tolist() == [True] + [False] * 6


def test_ties_in_the_other_order_change_nothing_else(tmp_path: Path) -> None:
    """The log is read backwards: rows of one time come from its end, the others by time."""
    rows = [Row("u", item, second) for second, item in zip((1, 7, 7, 7, 9), "dabca", strict=True)]
    got = sessionized(tmp_path, rows, small_card(), ties="last")
    assert [got.items[idx - 1] for idx in got.events.item_idx] == list("dcbaa")
    assert got.events.source_row.tolist() == [4, 1, 2, 3, 0]
    assert (got.events.timestamp // SECOND).tolist() == [1, 7, 7, 7, 9]
    with pytest.raises(ConfigError, match=r"sessionize\.ties is last, but the log came in 2 parts"):
        sessionized(tmp_path / "parts", rows, small_card(), first_rows=[0, 2], ties="last")


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


def by_row(events: Events) -> dict[int, tuple[Any, ...]]:
    return {event[6]: event for event in as_tuples(events)}


@pytest.mark.parametrize("sessions", [{"kind": "none"}, {"kind": "gap", "gap_seconds": 100}])
def test_a_night_more_renumbers_nothing(tmp_path: Path, sessions: dict[str, Any]) -> None:
    rows = random_rows(4_000, seed=1)
    night = random_rows(1_000, seed=2, low=rows[-1].second + 1)
    card = small_card(sessions=sessions)
    before = sessionized(tmp_path / "before", rows, card)
    after = sessionized(tmp_path / "after", rows + night, card, first_rows=[0, len(rows)])
    for name in ("items", "users", "first_item", "first_user"):
        old = getattr(before, name)
        assert getattr(after, name)[: len(old)] == old
    assert len(after.items) > len(before.items)
    assert after.first_item == sorted(after.first_item)
    # events of the first nights keep their numbers too, sessions included
    old_events, events = by_row(before.events), by_row(after.events)
    assert {row: events[row] for row in old_events} == old_events


def test_late_rows_take_the_next_numbers_and_leave_other_sessions_alone(tmp_path: Path) -> None:
    rows = random_rows(4_000, seed=1)
    # half of the night is late, with old and with new ids; ids that are new come again in time
    late = [
        Row(f"late{n % 90}" if n % 3 else row.user, f"l{n}" if n % 2 else row.item, row.second)
        for n, row in enumerate(random_rows(500, seed=4, low=rows[0].second))
    ]
    night = late + random_rows(500, seed=2, low=rows[-1].second + 1)
    before = sessionized(tmp_path / "before", rows, small_card())
    after = sessionized(tmp_path / "after", rows + night, small_card(), first_rows=[0, len(rows)])
    for name in ("items", "users", "first_item", "first_user"):
        old = getattr(before, name)
        assert getattr(after, name)[: len(old)] == old
    latest = max(row.second for row in rows) * SECOND
    assert min(after.first_item[len(before.items) :]) == latest
    assert after.first_user == sorted(after.first_user)
    old_events, events = by_row(before.events), by_row(after.events)
    assert {row: events[row][:3] for row in old_events} == {
        row: event[:3] for row, event in old_events.items()
    }
    # a session has another number only where a late row joined it to one that began in a lower row
    met = {row.user for row in late}
    untouched = [row for row in old_events if rows[row].user not in met]
    assert len(untouched) > 1_000
    assert all(events[row] == old_events[row] for row in untouched)
    moved = [(old_events[row][3], events[row][3]) for row in old_events]
    assert all(new <= old for old, new in moved)
    assert any(new < old for old, new in moved)


def test_a_late_row_that_joins_two_sessions_gives_them_the_lower_number(tmp_path: Path) -> None:
    rows = [Row("u", "a", 0), Row("v", "a", 10), Row("u", "a", 150), Row("u", "a", 900)]
    before = sessionized(tmp_path / "before", rows, small_card()).events
    assert before.session_idx.tolist() == [1, 3, 4, 2]
    after = sessionized(
        tmp_path / "after", [*rows, Row("u", "new", 80)], small_card(), first_rows=[0, 4]
    )
    assert after.events.source_row.tolist() == [0, 4, 2, 3, 1]
    assert after.events.session_idx.tolist() == [1, 1, 1, 4, 2]
    assert (after.items, after.first_item) == (["a", "new"], [0, 900 * SECOND])


def test_parts_may_be_smaller_and_larger_than_a_page_of_the_lookup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_core.data.sessions.PAGE_BITS", 4)
    rows = [Row(f"u{n}", "a", n % 7) for n in range(200)]
    first_rows = [0, 1, 2, 2, 15, 16, 17, 100, 112, 190]
    got = sessionized(tmp_path, rows, small_card(), first_rows=first_rows)
    wanted = reference(rows, small_card(), first_rows)
    assert dict(zip(got.users, got.first_user, strict=True)) == wanted.users
    assert got.users == list(wanted.users)


@pytest.mark.parametrize("first_rows", [[], [1], [0, 3, 2]])
def test_parts_that_leave_rows_out_are_refused(tmp_path: Path, first_rows: list[int]) -> None:
    with pytest.raises(ContractError, match=r"must begin at 0 and never fall; run `ingest` again"):
        sessionized(tmp_path, [Row("u", "a", 1)] * 4, small_card(), first_rows=first_rows)


@pytest.mark.parametrize("sessions", [{"kind": "given"}, {"kind": "gap", "gap_seconds": 100}])
def test_threads_and_little_memory_give_the_same_bytes(
    tmp_path: Path, sessions: dict[str, Any]
) -> None:
    rows = random_rows(60_000, seed=3)
    first_rows = [0, 20_000, 20_500]
    card = small_card(columns=GIVEN, sessions=sessions)
    for name, memory_mb, threads in (("one", 256, 1), ("four", 256, 4), ("little", 32, 2)):
        sessionized(
            tmp_path / name,
            rows,
            card,
            first_rows=first_rows,
            memory_mb=memory_mb,
            threads=threads,
        )
        assert contents(tmp_path / name / "out") == contents(tmp_path / "one" / "out")
        assert list((tmp_path / name / "work").iterdir()) == []


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
        load_log(
            connection,
            tmp_path / "log.parquet",
            card=small_card(),
            cut_off=None,
            first_rows=[0],
            ties="first",
        )
