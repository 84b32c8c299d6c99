"""Logs as ingest leaves them, for tests of the door: a card with every rule, and forty rows that
break none."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_core.artifacts import write_json
from recsys_core.data.cards import DatasetCard, parse_card, write_resolved_card
from recsys_core.layout import Layout
from recsys_core.sections_of_data import Validate
from recsys_core.tables import INTERACTIONS
from tasks.stages import validate
from tests.small_logs import DAY, card_value

N = 40
MIDNIGHT = 1_700_006_400_000_000
"""2023-11-15 00:00 UTC; four rows a day follow, for ten days."""

BEFORE = date(2023, 12, 15)

FULL: dict[str, Any] = {
    "columns": {
        "user_id": "user",
        "item_id": "item",
        "timestamp": "at",
        "event_type": "type",
        "value": "value",
        "session_id": "visit",
    },
    "source": {
        "kind": "files",
        "interactions": "log.parquet",
        "items": "items.parquet",
        "users": "users.parquet",
    },
    "event_types": {"view": 1.0},
    "sessions": {"kind": "given"},
    "context": {"os": "categorical", "price": "numeric"},
    "item_features": {"colour": "categorical"},
    "user_features": {"colour": "categorical"},
    "rules": {
        "user_id": {"required": True, "matches": "^[^x]"},
        "item_id": {"matches": "^(?!x)"},
        "event_type": {"matches": "^(view|buy)$"},
        "session_id": {"matches": "^[^x]"},
        "os": {"required": True, "matches": "^o"},
        "value": {"required": True, "min": 0.7, "max": 1.0},
        "price": {"required": True, "min": 0.0, "max": 99.5},
    },
    "expected": {
        "bad_share": 0.1,
        "rows": 36,
        "last_day_share": 0.5,
        "items_described": 0.9,
        "users_described": 0.9,
    },
}
"""Every key of a card that makes a rule."""


def card(**changes: Any) -> DatasetCard:
    return parse_card(card_value(**{**FULL, **changes}), where="small.yaml")


def clean_rows() -> list[dict[str, Any]]:
    """Forty rows that break no rule of `FULL`."""
    return [
        {
            "source_row": row,
            "user_id": f"u{row % 4}",
            "item_id": f"i{row // 2 % 4}",
            "timestamp": MIDNIGHT + row * DAY // 4 + 1,
            "event_type": "view",
            "value": 0.7,  # the least that is allowed, and float32 has no such number
            "session_id": f"s{row // 8}",
            "os": "os",
            "price": 99.5,
        }
        for row in range(N)
    ]


def described(key: str) -> list[dict[str, str]]:
    """A row of features for each user or item of the clean rows."""
    return [{f"{key}_id": f"{key[0]}{row}", "colour": "red"} for row in range(4)]


def ingested(
    root: Path,
    rows: list[dict[str, Any]],
    card: DatasetCard,
    *,
    items: list[dict[str, str]] | None = None,
    users: list[dict[str, str]] | None = None,
    unit_hint: str | None = None,
    taken: dict[int, str] | None = None,
) -> Layout:
    """A workspace in which ingest has written these rows; `taken` are the days on which the parts
    came, by their first row."""
    layout = Layout(root)
    schema = pa.schema([*INTERACTIONS, *card.context_fields])
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    layout.interactions.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=schema), layout.interactions)
    write_resolved_card(layout.resolved_card, card)
    parts = {
        "first_rows": [0] if taken is None else list(taken),
        "taken": None if taken is None else list(taken.values()),
        "unit_hint": unit_hint,
    }
    write_json(layout.parts, parts)
    for path, table in (
        (layout.item_features, described("item") if items is None else items),
        (layout.user_features, described("user") if users is None else users),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table), path)
    return layout


def run_validate(layout: Layout, *, batch_rows: int = 1_000, before: date | None = BEFORE) -> None:
    section = Validate(batch_rows=batch_rows, timestamps_before=before, memory_mb=256)
    validate.run(layout=layout, validate=section)
