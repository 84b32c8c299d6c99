"""Sessions in a stream are the same wherever its batches are cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.session_runs import Columns, in_sessions

EVENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30)), min_size=1, max_size=30).map(
    sorted
)


def columns(events: list[tuple[int, int]], rows: list[int]) -> Columns:
    users, times = zip(*events, strict=True)
    return {
        "user_idx": np.array(users, dtype=np.int32),
        "timestamp": np.array(times, dtype=np.int64),
        "source_row": np.array(rows, dtype=np.int64),
    }


def cut(whole: Columns, places: list[int]) -> list[Columns]:
    edges = sorted({0, *places, len(whole["user_idx"])})
    return [
        {name: column[low:high] for name, column in whole.items()} for low, high in pairwise(edges)
    ]


@given(EVENTS, st.randoms(use_true_random=False), st.data())
def test_the_cuts_of_a_stream_do_not_matter(
    events: list[tuple[int, int]], random: np.random.Generator, data: st.DataObject
) -> None:
    rows = list(range(len(events)))
    random.shuffle(rows)
    gap = data.draw(st.one_of(st.none(), st.integers(1, 8)))
    places = data.draw(st.lists(st.integers(1, len(events)), max_size=8))
    pieces = list(in_sessions(cut(columns(events, rows), places), gap=gap))
    got = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    sessions: list[list[int]] = []
    for place, (user, time) in enumerate(events):
        before = events[place - 1] if place else None
        starts = (
            before is None or before[0] != user or (gap is not None and time - before[1] >= gap)
        )
        if starts:
            sessions.append([])
        sessions[-1].append(rows[place])
        assert got["session_start"][place] == starts
    lowest = [1 + min(session) for session in sessions for _ in session]
    assert got["session_idx"].tolist() == lowest
    assert got["session_idx"].dtype == np.int64
    assert got["source_row"].tolist() == rows
    # each piece holds whole sessions
    assert all(piece["session_start"][0] for piece in pieces)


@pytest.mark.parametrize(("gap", "starts"), [(100, [1, 0, 1, 1]), (None, [1, 0, 0, 1])])
def test_a_session_begins_with_a_user_and_after_a_gap(gap: int | None, starts: list[int]) -> None:
    whole = columns([(1, 0), (1, 99), (1, 199), (2, 200)], [3, 1, 0, 2])
    (rows,) = in_sessions([whole], gap=gap)
    assert rows["session_start"].tolist() == [bool(start) for start in starts]


def test_no_rows_are_no_sessions() -> None:
    assert list(in_sessions([], gap=100)) == []
