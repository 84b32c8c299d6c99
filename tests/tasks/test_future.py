"""What lay in the future when it came stays rejected: numbers that were given never change."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from tasks.edges import snapshot
from tasks.future import future_of
from tasks.step import run_step
from tests.door_logs import MIDNIGHT, card, clean_rows, ingested, run_validate
from tests.small_logs import DAY, params_for, run_stages, workspace

SECOND = 1_000_000
BEGUN = "2023-11-15"
"""The day of MIDNIGHT."""


def rejected(layout: Layout) -> list[int]:
    rows: list[int] = pq.read_table(layout.quarantine)["source_row"].to_pylist()
    return rows


def test_vocabularies_stay_a_prefix_through_nights_with_a_clock_ahead(tmp_path: Path) -> None:
    """The row's day comes on the third night: then it must not become the sixth item."""
    layout = workspace(
        tmp_path,
        source={"kind": "files", "interactions": ".", "items": None, "users": None},
        snapshot={"row_key": ["user", "item", "at"]},
        expected={"bad_share": 0.5},
    )
    (tmp_path / "in").mkdir()
    deliveries = (
        [("u1", f"a{n}", MIDNIGHT + n * SECOND) for n in range(5)]
        + [("u2", "x", MIDNIGHT + 5 * DAY)],
        [("u1", f"b{n}", MIDNIGHT + DAY + (9 - n) * SECOND) for n in range(5)],
        [("u3", f"c{n}", MIDNIGHT + 4 * DAY + n * SECOND) for n in range(5)],
    )
    items: list[str] = []
    users: list[str] = []
    for night, rows in enumerate(deliveries):
        columns = dict(zip(("user", "item", "at"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{night}.parquet")
        params = params_for(
            "small",
            "snapshots/small",
            snapshot={"path": "in"},
            split={"kind": "quantile", "share": 0.2},
            validate={"timestamps_before": f"2023-11-{(17, 18, 21)[night]}"},
        )
        run_step(snapshot.run, layout, params)
        run_stages(layout, "ingest", params=params)
        parts = read_json(layout.parts)
        assert len(parts["taken"]) == len(parts["first_rows"]) == night + 1
        # the edge reads the clock of this machine, the log is of 2023
        write_json(
            layout.parts,
            {**parts, "taken": ["2023-11-15", "2023-11-16", "2023-11-19"][: night + 1]},
        )
        run_stages(layout, "validate", "sessionize", params=params)
        assert rejected(layout) == [5]
        now = pq.read_table(layout.item_vocabulary)["item_id"].to_pylist()
        assert now[: len(items)] == items
        items = now
        people = pq.read_table(layout.user_vocabulary)["user_id"].to_pylist()
        assert people[: len(users)] == users
        users = people
    # the second night's came newest first
    second = [f"b{n}" for n in reversed(range(5))]
    assert items == [*(f"a{n}" for n in range(5)), *second, *(f"c{n}" for n in range(5))]
    assert users == ["u1", "u3"]


@pytest.mark.parametrize(
    ("taken", "before", "bad"),
    [
        # four rows a day from the 15th; the day on which they came may be, and the next
        ({0: BEGUN}, date(2023, 12, 31), list(range(8, 40))),
        ({0: BEGUN}, None, list(range(8, 40))),
        ({0: BEGUN, 20: "2023-11-19"}, date(2023, 12, 31), [*range(8, 20), *range(24, 40)]),
        # what the params say may be earlier, and holds for all
        ({0: BEGUN, 20: "2023-11-30"}, date(2023, 11, 16), list(range(4, 40))),
        ({0: "2023-11-30", 20: "2023-11-30"}, None, []),
        # a log without a snapshot
        (None, date(2023, 11, 24), list(range(36, 40))),
        (None, None, []),
    ],
)
def test_each_part_is_judged_by_the_day_on_which_it_came(
    taken: dict[int, str] | None, before: date | None, bad: list[int], tmp_path: Path
) -> None:
    rules = {"price": {"min": 0.0}}
    unruly = card(rules=rules, expected={"bad_share": 0.9})
    layout = ingested(tmp_path, clean_rows(), unruly, taken=taken)
    run_validate(layout, before=before, batch_rows=7)
    assert rejected(layout) == bad
    report = read_json(layout.report("validate"))
    assert report["quarantined_by_reason"] == ({"timestamp_in_future": len(bad)} if bad else {})
    if bad:
        shown = report["row_rules"]["timestamp_in_future"]["examples"][0]
        assert shown["source_row"] == bad[0]
        assert shown["value"].startswith("2023-11-")


def test_a_part_without_a_day_has_no_future_and_a_row_without_a_time_neither() -> None:
    future = future_of({"first_rows": [0, 2], "taken": [None, BEGUN]}, before=None)
    assert future is not None
    last = 253_402_300_799_999_999  # of the year 9999
    rows = pa.table(
        {
            "source_row": [0, 1, 2, 3, 4],
            "timestamp": pa.array([last, None, None, MIDNIGHT + 2 * DAY, MIDNIGHT + 2 * DAY - 1]),
        }
    )
    assert [None if day is None else day >= 0 for day in future.days_ahead(rows).to_pylist()] == [
        False,
        None,
        None,
        True,
        False,
    ]


def test_days_and_parts_that_do_not_belong_together_are_refused() -> None:
    parts: dict[str, Any] = {"first_rows": [0, 5], "taken": [BEGUN]}
    with pytest.raises(ContractError, match=r"2 parts and 1 days .* run `ingest` again"):
        future_of(parts, before=None)


def test_without_what_ingest_says_of_the_parts_nothing_is_judged(tmp_path: Path) -> None:
    """A missing file once let a log in the wrong unit pass."""
    layout = ingested(tmp_path, clean_rows(), card(), unit_hint="s")
    layout.parts.unlink()
    with pytest.raises(ContractError, match=r"parts\.json: no such file; run the stage"):
        run_validate(layout)
