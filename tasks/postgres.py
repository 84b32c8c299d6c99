"""Rows of PostgreSQL by query, streamed into CSV files: one consistent moment, only read.

The connection is `TWOTEMPO_SOURCE_DSN`, of which nothing is told (`recsys_core/postgres.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr

from recsys_core.data.card_parts import PostgresSource, Snapshot
from recsys_core.errors import BusyError, ConfigError
from recsys_core.postgres import Database, connected

VARIABLE = "TWOTEMPO_SOURCE_DSN"

CLOCK_TYPES = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}
"""Types of a watermark that a look-back in seconds can be taken from, by PostgreSQL's numbers."""
FLOAT_TYPES = (700, 701, 1700)
"""Types that know NaN, which is greater than every number."""
INTEGER_TYPES = (20, 21, 23)


@dataclass(frozen=True)
class Answer:
    """The files that answer the queries, CSV with a header, and the latest watermark."""

    interactions: Path
    items: Path | None
    users: Path | None
    watermark: str | None


def copy_out(
    dsn: SecretStr | None,
    source: PostgresSource,
    *,
    rules: Snapshot,
    since: str | None,
    folder: Path,
) -> Answer:
    """Write what the queries select into `folder`; of the log what is new `since` a watermark.

    What is new: the watermark column is at least `since`, less the look-back, or null. Equal ones
    may have been committed later, so they come again; the row key knows them. Everything is read in
    one transaction. Raises `ConfigError` where a person must mend something, `BusyError` where the
    server cannot be reached or the connection is lost.
    """
    with _connected(dsn) as database:
        new, watermark = _new_rows(database, source.interactions, rules=rules, since=since)
        interactions = folder / "interactions.csv"
        _copy(database, source.interactions, new, interactions)
        tables: dict[str, Path | None] = {}
        for name, query in (("items", source.items), ("users", source.users)):
            tables[name] = None if query is None else folder / f"{name}.csv"
            if query is not None:
                _copy(database, query, sql.SQL("true"), folder / f"{name}.csv")
    return Answer(
        interactions=interactions,
        items=tables["items"],
        users=tables["users"],
        watermark=watermark,
    )


@contextmanager
def _connected(dsn: SecretStr | None) -> Iterator[Database]:
    """A connection in a read-only transaction that sees one moment, with times in UTC."""
    with connected(dsn, variable=VARIABLE, needed_by="the card's source is postgres") as database:
        connection = database.connection
        try:
            with connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                connection.execute("SET LOCAL TIME ZONE 'UTC'")
                connection.execute("SET LOCAL datestyle = 'ISO, YMD'")
                yield database
        except psycopg.OperationalError as error:
            raise BusyError(
                "PostgreSQL: the connection was lost or the query stopped "
                f"({database.said(error)}); run it again: nothing was taken"
            ) from None


@contextmanager
def _asking(name: str, database: Database) -> Iterator[None]:
    """What the server finds wrong with a query of the card, as one line."""
    try:
        yield
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise ConfigError(
            f"source.{name}: PostgreSQL refuses the query ({database.said(error)}); correct "
            "the dataset card, or grant the right to read"
        ) from None


def _new_rows(
    database: Database, query: str, *, rules: Snapshot, since: str | None
) -> tuple[sql.Composable, str | None]:
    """The condition for rows that may be new, and the latest watermark among them.

    A watermark more than a day ahead of the server's clock is wrong: rows with it come, each time,
    but it does not count as the latest, or no later row would ever be asked for.
    """
    if rules.watermark is None:
        return sql.SQL("true"), None
    column = sql.Identifier(rules.watermark)
    kind = _watermark_type(rules.watermark, _columns(database, query, name="interactions"))
    clock = CLOCK_TYPES.get(kind)
    if rules.lookback_seconds > 0 and clock is None:
        raise ConfigError(
            f"snapshot.lookback_seconds is {rules.lookback_seconds}, but {rules.watermark!r} is "
            "neither a date nor a timestamp; set lookback_seconds to 0"
        )
    new: sql.Composable = sql.SQL("true")
    latest: sql.Composable = sql.SQL("max({})").format(column)
    if since is not None:
        bound: sql.Composable = sql.Literal(since)
        if clock is not None:
            bound = sql.SQL("CAST({} AS {}) - make_interval(secs => {})").format(
                bound, sql.SQL(clock), sql.Literal(rules.lookback_seconds)
            )
        new = sql.SQL("({0} >= {1} OR {0} IS NULL)").format(column, bound)
        latest = sql.SQL("greatest({}, {})").format(latest, sql.Literal(since))
    true = new
    if clock is not None:
        true = sql.SQL("{} AND {} <= now() + interval '1 day'").format(new, column)
    elif kind in FLOAT_TYPES:
        true = sql.SQL("{} AND {} < 'infinity'").format(new, column)
    with _asking("interactions", database):
        selected = _select(sql.SQL("CAST({} AS text)").format(latest), query, true)
        row = database.connection.execute(selected).fetchone()
    assert row is not None
    return new, since if row[0] is None else str(row[0])


def _watermark_type(watermark: str, columns: dict[str, int]) -> int:
    """PostgreSQL's number of a watermark's type; `ConfigError` unless its values, which come back
    to the server as text, are compared there as what they are: a text '100' is less than '99'."""
    if watermark not in columns:
        raise ConfigError(
            f"source.interactions: snapshot.watermark is {watermark!r}, but the query selects "
            f"{list(columns)}; correct the dataset card"
        )
    kind = columns[watermark]
    if kind not in (*CLOCK_TYPES, *FLOAT_TYPES, *INTEGER_TYPES):
        known = psycopg.adapters.types.get(kind)
        raise ConfigError(
            f"snapshot.watermark: {watermark!r} is of type {known.name if known else kind}, it "
            "must be a number, a date or a timestamp; cast it in source.interactions, as "
            f"{watermark}::bigint"
        )
    return kind


def _columns(database: Database, query: str, *, name: str) -> dict[str, int]:
    """The columns that a query selects, with PostgreSQL's numbers of their types.

    Raises `ConfigError` where two have one name, lower and upper case being the same, or one has
    a line break in its name.
    """
    with _asking(name, database):
        asked = _select(sql.SQL("*"), query, sql.SQL("false"))
        described = database.connection.execute(asked).description or []
    columns: dict[str, int] = {}
    called: dict[str, str] = {}
    for column in described:
        if "\n" in column.name or "\r" in column.name:
            raise ConfigError(
                f"source.{name}: the column {column.name!r} of the query has a line break in its "
                "name; give it an alias"
            )
        other = called.setdefault(column.name.lower(), column.name)
        if column.name in columns or other != column.name:
            raise ConfigError(
                f"source.{name}: two columns of the query are called {other!r} and "
                f"{column.name!r} (lower and upper case are the same); give each an alias, as "
                "SELECT a.id AS user_id"
            )
        columns[column.name] = column.type_code
    return columns


def _select(what: sql.Composable, query: str, where: sql.Composable) -> sql.Composed:
    # on a line of its own: the query may end in a comment
    asked = sql.SQL(query)
    return (
        sql.SQL("SELECT ")
        + what
        + sql.SQL(" FROM (")
        + asked
        + sql.SQL("\n) AS log WHERE ")
        + where
    )


def _copy(database: Database, query: str, where: sql.Composable, path: Path) -> None:
    """Stream what a query selects into a CSV file; `""` is a text there, nothing at all a null.

    Errors speak of the query by the file's name.
    """
    _columns(database, query, name=path.stem)
    statement = (
        sql.SQL("COPY (")
        + _select(sql.SQL("*"), query, where)
        + sql.SQL(") TO STDOUT (FORMAT csv, HEADER)")
    )
    with (
        _asking(path.stem, database),
        path.open("wb") as file,
        database.connection.cursor() as cursor,
        cursor.copy(statement) as rows,
    ):
        for block in rows:
            file.write(block)
