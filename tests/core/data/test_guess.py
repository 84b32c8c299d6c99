"""Guesses of roles, clocks and kinds: tables whose answer is known, and names that say nothing."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from recsys_core.data.guess import Roles, guess_roles, is_a_log
from recsys_core.data.guess_clock import guess_clock
from recsys_core.data.guess_features import FeatureGuess, Table, guess_table
from recsys_core.data.guess_words import named_like, words
from recsys_core.data.profiles import Profile, profile_columns
from recsys_core.errors import DataError

START = 1_700_000_000
N = 2_000


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def clicks(**columns: Any) -> dict[str, Any]:
    """2,000 rows of 100 users, each with twenty rows, and items of which a few are everybody's."""
    rng = np.random.default_rng(3)
    row = np.arange(N)
    items = np.where(rng.random(N) < 0.5, rng.integers(0, 5, N), rng.integers(5, 300, N))
    return {"user": row % 100 + 7_000, "item": items, "at": START + 60 * row, **columns}


def profiled(
    connection: duckdb.DuckDBPyConnection, columns: dict[str, Any], name: str = "log"
) -> list[Profile]:
    connection.register("given", pa.table(columns))
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    return profile_columns(connection, name)


def guessed(connection: duckdb.DuckDBPyConnection, columns: dict[str, Any], **given: str) -> Roles:
    return guess_roles(connection, "log", profiled(connection, columns), given=given)


def roles_of(roles: Roles) -> tuple[str, str, str]:
    return roles.user_id.column, roles.item_id.column, roles.timestamp.column


@pytest.mark.parametrize(
    ("user", "item", "at"),
    [
        ("user_id", "item_id", "timestamp"),
        ("CustomerID", "StockCode", "InvoiceDate"),
        ("visitorid", "itemid", "ts"),
        ("reviewer", "asin", "unixReviewTime"),
        ("userId", "movieId", "created_at"),
    ],
)
def test_usual_names_are_known(
    connection: duckdb.DuckDBPyConnection, user: str, item: str, at: str
) -> None:
    log = clicks()
    # the item first: the order of columns must not decide
    columns = {item: log["item"], at: log["at"], user: log["user"]}
    assert roles_of(guessed(connection, columns)) == (user, item, at)


def test_names_that_say_nothing_leave_it_to_the_values(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    log = clicks()
    columns = {"b": log["item"], "c": log["at"] * 1_000, "a": log["user"]}
    roles = guessed(connection, columns)
    assert roles_of(roles) == ("a", "b", "c")
    assert roles.clock.unit == "ms"
    # and it says that it may be the other way round
    assert roles.user_id.others == ("b",)
    assert roles.item_id.others == ("a",)


def test_columns_that_are_given_need_no_guess(connection: duckdb.DuckDBPyConnection) -> None:
    columns = clicks(user_id=np.arange(N) % 50, bought=START + np.arange(N))
    roles = guessed(connection, columns, user_id="user", item_id="item", timestamp="bought")
    assert roles_of(roles) == ("user", "item", "bought")
    assert roles.user_id.why == "given by --user"


def test_a_given_column_that_is_not_there(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(DataError, match=r"--user who: there is no such column; the log has \['us"):
        guessed(connection, clicks(), user_id="who")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_units_by_plausible_years(
    connection: duckdb.DuckDBPyConnection, unit: str, factor: int
) -> None:
    columns = clicks(at=(START + 60 * np.arange(N)) * factor)
    clock = guessed(connection, columns).clock
    assert (clock.kind, clock.unit) == ("absolute", unit)
    assert "2023-11-1" in clock.why


def test_a_few_wrong_times_do_not_hide_the_unit(connection: duckdb.DuckDBPyConnection) -> None:
    at = START + 60 * np.arange(N)
    at[[3, 500]] = [0, 99_999_999_999_999]
    assert guessed(connection, clicks(at=at)).clock.unit == "s"


def test_dates_as_text_and_as_timestamps(connection: duckdb.DuckDBPyConnection) -> None:
    texts = [f"2024-03-{1 + row % 28:02} 10:00" for row in range(N)]
    text, typed = profiled(
        connection, {"text": texts, "typed": pa.array(range(N), pa.timestamp("us"))}
    )
    assert guess_clock(text).unit == "iso"  # type: ignore[union-attr]
    assert guess_clock(typed).unit == "us"  # type: ignore[union-attr]


def test_dates_that_cannot_be_read_are_named(connection: duckdb.DuckDBPyConnection) -> None:
    # there is another column that grows, an invoice's number: it must not be taken instead
    at = [f"{1 + row % 28}/12/2023 10:00" for row in range(N)]
    with pytest.raises(DataError, match=r"'at' looks like one .*write it as 2024-03-31 18:05:00"):
        guessed(connection, clicks(at=at, invoice=np.arange(N) // 5))


def test_small_growing_numbers_are_seconds_from_the_start(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    clock = guessed(connection, clicks(at=np.arange(N) * 30)).clock
    assert (clock.kind, clock.unit) == ("relative", "s")


def test_each_users_own_count_is_a_rank(connection: duckdb.DuckDBPyConnection) -> None:
    columns = clicks(place=np.arange(N) // 100 + 1, line=np.arange(N))
    del columns["at"]
    roles = guessed(connection, columns)
    assert (roles.timestamp.column, roles.clock.kind, roles.clock.unit) == ("place", "rank", None)
    assert roles.left_out["line"] == "it numbers the rows"


def test_without_a_time_it_says_what_it_saw(connection: duckdb.DuckDBPyConnection) -> None:
    columns = clicks(colour=["red", "blue"] * (N // 2))
    del columns["at"]
    with pytest.raises(DataError, match=r"no time found; name the column with --time\. Seen: user"):
        guessed(connection, columns)


def test_without_users_it_says_what_it_saw(connection: duckdb.DuckDBPyConnection) -> None:
    columns = {"at": clicks()["at"], "colour": ["red", "blue"] * (N // 2)}
    with pytest.raises(DataError, match=r"no user and no item found.*colour \(2 distinct in 2,000"):
        guessed(connection, columns)


@pytest.mark.parametrize("name", ["action", "what"])
def test_event_types_by_name_or_by_values(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    kinds = ["view", "view", "view", "purchase", "return"] * (N // 5)
    roles = guessed(connection, clicks(**{name: kinds}))
    assert roles.event_type is not None
    assert roles.event_type.column == name
    # what was sent back is no interest
    assert (set(roles.weights), roles.refused) == ({"view", "purchase"}, ("return",))


def test_few_other_texts_are_context(connection: duckdb.DuckDBPyConnection) -> None:
    roles = guessed(connection, clicks(device=["phone", "desk"] * (N // 2)))
    assert roles.event_type is None
    assert roles.context["device"][0] == "categorical"


def test_values_sessions_and_context(connection: duckdb.DuckDBPyConnection) -> None:
    rng = np.random.default_rng(0)
    row = np.arange(N)
    roles = guessed(
        connection,
        clicks(
            rating=rng.integers(1, 6, N),
            session_id=row % 100 * 10 + row // 500,  # four sessions of each user
            session_start=START + row // 7,
            session_size=row % 4,
            price=rng.random(N),
            region=row % 30,
            note=[f"a word or {n}" for n in row],
            shop=["one"] * N,
        ),
    )
    assert roles.value is not None
    assert roles.value.column == "rating"
    assert roles.session_id is not None
    assert roles.session_id.column == "session_id"
    assert {name: kind for name, (kind, _) in roles.context.items()} == {
        "price": "numeric",
        "region": "categorical",
    }
    assert set(roles.left_out) == {"session_start", "session_size", "note", "shop"}
    assert "knows what came later" in roles.left_out["session_size"]


def test_sessions_shared_by_users_are_none(connection: duckdb.DuckDBPyConnection) -> None:
    assert guessed(connection, clicks(visit=np.arange(N) // 40)).session_id is None


def test_a_table_of_items_is_no_log(connection: duckdb.DuckDBPyConnection) -> None:
    assert is_a_log(profiled(connection, clicks()))
    items = {"item": range(300), "released": [START + n for n in range(300)]}
    assert not is_a_log(profiled(connection, items, "items"))


def test_kinds_of_features(connection: duckdb.DuckDBPyConnection) -> None:
    profiled(connection, clicks())
    rng = np.random.default_rng(1)
    n = 300
    genres = ["|".join(rng.choice(["a", "b", "c", "d"], 1 + k % 3, False)) for k in range(n)]
    columns = {
        "item": range(n),
        "title": [f"the title of {k}" for k in range(n)],
        "genres": genres,
        "tags": [text.replace("|", " ") for text in genres],
        "country": [("United Kingdom", "France", "New Zealand")[k % 3] for k in range(n)],
        "price": rng.random(n),
        "year": 1990 + np.arange(n) % 20,
        "age_class": np.arange(n) % 7,
        "launch": [f"2024-01-{1 + k % 28:02}" for k in range(n)],
        "median_price": rng.random(n),
        "code": [f"x{k}" for k in range(n)],
    }
    table = described(connection, columns)
    assert (table.of, table.key) == ("items", "item")
    assert {name: (f.kind, f.separator) for name, f in table.features.items()} == {
        "title": ("text", None),
        "genres": ("multi_categorical", "|"),
        "tags": ("multi_categorical", " "),
        "country": ("categorical", None),
        "price": ("numeric", None),
        "year": ("numeric", None),
        "age_class": ("numeric", None),
        "launch": ("timestamp", None),
    }
    assert "knows the future" in table.left_out["median_price"]
    assert set(table.left_out) == {"median_price", "code"}
    assert isinstance(table.features["title"], FeatureGuess)


def test_a_table_without_the_logs_ids_says_what_to_rename(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    profiled(connection, clicks())
    with pytest.raises(DataError, match=r"things.csv: neither 'item' \(items\) nor 'user'.*rename"):
        described(connection, {"id": range(300), "title": ["x"] * 300})


def described(connection: duckdb.DuckDBPyConnection, columns: dict[str, Any]) -> Table:
    return guess_table(
        connection,
        "things",
        profiled(connection, columns, "things"),
        name="things.csv",
        log="log",
        user="user",
        item="item",
        timestamp_unit="s",
    )


def test_words_of_names() -> None:
    assert words("InvoiceNo") == ["invoice", "no"]
    assert words("user_ID2") == ["user", "id2"]
    assert named_like("userid", ("user",)) == named_like("User ID", ("user",)) == 2.0
    assert named_like("user_country", ("user",)) == 1.0
    assert named_like("surface", ("user",)) == 0.0
