"""Rules keep what a plain reading of the table keeps; hostile ones are refused before they run."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.errors import ConfigError
from recsys_core.serving.rules import apply_rules

ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "o'hara"],
        "price": pa.array([10.0, 30.0, None, 19.5]),
        "category": ["y", "y", "y", "x"],
        "genres": pa.array([["war", "art"], [], None, ["art"]], pa.list_(pa.string())),
        "launch": pa.array(
            [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)],
            pa.timestamp("us", tz="UTC"),
        ),
        "End date": pa.array([None, 1.0, None, 2.0]),
        "place": ["p", "q", "r", "s"],
    }
)


def kept(rule: str, table: pa.Table = ITEMS) -> tuple[list[str], int]:
    (ruled,) = apply_rules([rule], table)
    return table.column("item_id").filter(pa.array(ruled.keeps)).to_pylist(), ruled.null


@pytest.mark.parametrize(
    ("rule", "expected", "null"),
    [
        ("price < 20 AND category != 'x'", ["a"], 1),
        ("price < 20", ["a", "o'hara"], 1),
        ("price IS NULL OR price BETWEEN 15 AND 25", ["c", "o'hara"], 0),
        ("coalesce(price, 0) < 15", ["a", "c"], 0),
        ("category IN ('x', 'z')", ["o'hara"], 0),
        ("item_id != 'o''hara'", ["a", "b", "c"], 0),
        ("list_contains(genres, 'art')", ["a", "o'hara"], 1),
        ("upper(category) LIKE 'X%' OR item_id ~ '^[ab]$'", ["a", "b", "o'hara"], 0),
        ("CASE WHEN category = 'x' THEN price > 100 ELSE true END", ["a", "b", "c"], 0),
        ("launch >= TIMESTAMPTZ '2024-03-01 00:00:00+00'", ["c", "o'hara"], 0),
        ("launch + INTERVAL 40 DAY < TIMESTAMPTZ '2024-03-12 00:00:00+00'", ["a"], 0),
        ("PRICE::INT % 3 = 1", ["a"], 1),
        ('"End date" IS NULL', ["a", "c"], 0),
        ("items.price > 20 -- dear", ["b"], 1),
        ("place <> 'q'", ["a", "c", "o'hara"], 0),
        ("true", ["a", "b", "c", "o'hara"], 0),
        ("price > null", [], 4),
    ],
)
def test_a_rule_keeps_the_rows_that_it_is_true_for(
    rule: str, expected: list[str], null: int
) -> None:
    assert kept(rule) == (expected, null)


def test_rows_stay_in_their_order() -> None:
    """More rows than one of DuckDB's row groups, and none of them in order."""
    numbers = np.random.default_rng(3).permutation(300_000)
    table = pa.table({"item_id": numbers.astype(str), "n": numbers})
    even, low = apply_rules(["n % 2 = 0", "n < 1000"], table)
    np.testing.assert_array_equal(even.keeps, numbers % 2 == 0)
    np.testing.assert_array_equal(low.keeps, numbers < 1000)


HOSTILE = [
    "'; DROP TABLE items",
    "true; DROP TABLE items",
    "true) AS keeps FROM items; COPY items TO '/tmp/stolen.csv'; SELECT (true",
    "true), (false",
    "true) FROM items UNION ALL SELECT (true",
    "true) FROM read_csv('/etc/passwd') --",
    "read_csv('/etc/passwd')",
    "length(lpad(item_id, 30000000, 'b')) > 3",
    "md5(format('{:>400000000}', item_id)) > 'a'",
    "levenshtein(item_id, item_id) > 3",
    "read_text('/etc/passwd') IS NULL",
    "EXISTS (SELECT * FROM read_csv('/etc/passwd'))",
    "item_id IN (SELECT content FROM read_text('/etc/passwd'))",
    "price > (SELECT avg(price) FROM items)",
    "(SELECT count(*) FROM duckdb_settings()) > 0",
    "COPY items TO '/tmp/stolen.csv'",
    "PRAGMA database_list",
    "SET threads = 1",
    "ATTACH '/tmp/other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT true",
    "FROM items",
    "getenv('HOME') = ''",
    "current_setting('memory_limit') = ''",
    "version() = 'x'",
    "random() < 0.5",
    "now() > launch",
    "current_date > DATE '2024-01-01'",
    "today() > DATE '2024-01-01'",
    "age(launch) > INTERVAL 3 DAY",
    "sum(price) > 3",
    "row_number() OVER () = 1",
    "price > 3 OVER ()",
    "nextval('s') > 1",
    "sleep_ms(10) IS NULL",
    "COLUMNS(*) IS NULL",
    "* IS NULL",
    "$1 = price",
    "? = price",
    "pg_catalog.current_user = 'x'",
    "other.price > 1",
    "list_filter(genres, lambda one: one = 'art') IS NULL",
    "price >",
    "",
    "/*",
    "price > 1 /*",
    "(" * 3000 + "true" + ")" * 3000,
    "NOT " * 900 + "true",
    "price" + " + 1" * 900 + " > 3",
    "repeat('x', 2000000000) || item_id = 'x'",
]


@pytest.mark.parametrize("rule", HOSTILE, ids=lambda rule: rule[:40])
def test_what_is_more_than_an_expression_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="it must be one expression") as refused:
        apply_rules(["price < 20", rule], ITEMS)
    assert "\n" not in str(refused.value)
    assert not Path("/tmp/stolen.csv").exists()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("prise < 20", "there is no column prise"),
        ("price", "it gives DOUBLE, not BOOLEAN"),
        ("price < 'cheap'", "Could not convert string"),
        ("lower(price, 3) = 'x'", "lower"),
        ("now() > launch", "the function now is not one of a row's values alone"),
        ("price > (SELECT 1)", "subquery is not allowed"),
    ],
)
def test_the_error_says_the_rule_why_and_the_columns(rule: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        apply_rules([rule], ITEMS)
    said = str(refused.value)
    assert said.startswith(f"rule {rule!r}: ")
    assert why in said
    assert "item_id, price, category, genres" in said
    assert "score.filters" in said


def test_a_rule_of_many_ids_is_a_rule() -> None:
    many = " OR ".join(f"item_id = 'id {n}'" for n in range(3000))
    assert kept(f"{many} OR item_id = 'b'") == (["b"], 0)


def test_texts_that_no_rule_reads_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_core.serving.rules.MEMORY_MB", 32)
    numbers = np.arange(100_000)
    texts = pa.array(np.char.mod("%01000d", numbers).astype(object))
    table = pa.table({"item_id": numbers.astype(str), "text": texts, "n": numbers})
    (ruled,) = apply_rules(["n < 10"], table)
    assert np.flatnonzero(ruled.keeps).tolist() == list(range(10))
    with pytest.raises(ConfigError, match=r"rule .*emory"):
        apply_rules(["text < 'x'"], table)


def test_no_rules_and_no_rows() -> None:
    assert apply_rules([], ITEMS) == []
    (ruled,) = apply_rules(["price < 20"], ITEMS.slice(0, 0))
    assert (len(ruled.keeps), ruled.null) == (0, 0)
