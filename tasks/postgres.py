"""Rows of PostgreSQL by query, streamed into CSV files: one consistent moment, only read.

The connection is `TWOTEMPO_SOURCE_DSN`; nothing of it is logged, nor said in an error.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from recsys_core.data.card_parts import PostgresSource, Snapshot
from recsys_core.errors import BusyError, ConfigError

Connection = psycopg.Connection[tuple[object, ...]]

CONNECT_SECONDS = 15

CLOCK_TYPES = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}
"""Types of a watermark that a look-back in seconds can be taken from, by PostgreSQL's numbers."""
FLOAT_TYPES = (700, 701, 1700)
"""Types that know NaN, which is greater than every number."""


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
    with _connected(dsn) as connection:
        new, watermark = _new_rows(connection, source.interactions, rules=rules, since=since)
        interactions = folder / "interactions.csv"
        with _asking("interactions"):
            _copy(connection, source.interactions, new, interactions)
        tables: dict[str, Path | None] = {}
        for name, query in (("items", source.items), ("users", source.users)):
            tables[name] = None if query is None else folder / f"{name}.csv"
            if query is not None:
                with _asking(name):
                    _copy(connection, query, sql.SQL("true"), folder / f"{name}.csv")
    return Answer(
        interactions=interactions,
        items=tables["items"],
        users=tables["users"],
        watermark=watermark,
    )


@contextmanager
def _connected(dsn: SecretStr | None) -> Iterator[Connection]:
    """A connection in a read-only transaction that sees one moment, with times in UTC."""
    if dsn is None or not dsn.get_secret_value().strip():
        raise ConfigError(
            "TWOTEMPO_SOURCE_DSN is not set, but the card's source is postgres; "
            "set it to the database's address, as postgresql://user:password@host/database"
        )
    try:
        given = conninfo_to_dict(dsn.get_secret_value())
    except psycopg.ProgrammingError:
        # its message repeats a piece of the address
        raise ConfigError(
            "TWOTEMPO_SOURCE_DSN is no address of PostgreSQL; "
            "write it as postgresql://user:password@host/database"
        ) from None
    wanted = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "twotempo"}
    more = {name: value for name, value in wanted.items() if name not in given}
    address = make_conninfo(dsn.get_secret_value(), client_encoding="UTF8", **more)
    try:
        connection: Connection = psycopg.connect(address)
    except psycopg.OperationalError as error:
        raise BusyError(
            f"PostgreSQL cannot be reached ({_without_names(error)}); "
            "check TWOTEMPO_SOURCE_DSN, and that the server is up"
        ) from None
    try:
        with connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.execute("SET LOCAL TIME ZONE 'UTC'")
            connection.execute("SET LOCAL datestyle = 'ISO, YMD'")
            yield connection
    except psycopg.OperationalError as error:
        raise BusyError(
            f"PostgreSQL: the connection was lost or the query stopped ({_without_names(error)}); "
            "run it again: nothing was taken"
        ) from None


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """What the server finds wrong with a query of the card, as one line."""
    try:
        yield
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        said = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"source.{name}: PostgreSQL refuses the query ({said}); correct the dataset card, "
            "or grant the right to read"
        ) from None


def _new_rows(
    connection: Connection, query: str, *, rules: Snapshot, since: str | None
) -> tuple[sql.Composable, str | None]:
    """The condition for rows that may be new, and the latest watermark among them.

    A watermark more than a day ahead of the server's clock is wrong: rows with it come, each time,
    but it does not count as the latest, or no later row would ever be asked for.
    """
    if rules.watermark is None:
        return sql.SQL("true"), None
    column = sql.Identifier(rules.watermark)
    with _asking("interactions, or snapshot.watermark"):
        described = connection.execute(_select(column, query, sql.SQL("false"))).description
    assert described is not None
    kind = described[0].type_code
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
    with _asking("interactions, or snapshot.watermark"):
        selected = _select(sql.SQL("CAST({} AS text)").format(latest), query, true)
        row = connection.execute(selected).fetchone()
    assert row is not None
    return new, since if row[0] is None else str(row[0])


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


def _copy(connection: Connection, query: str, where: sql.Composable, path: Path) -> None:
    """Stream what a query selects into a CSV file; `""` is a text there, nothing at all a null."""
    statement = (
        sql.SQL("COPY (")
        + _select(sql.SQL("*"), query, where)
        + sql.SQL(") TO STDOUT (FORMAT csv, HEADER)")
    )
    with (
        path.open("wb") as file,
        connection.cursor() as cursor,
        cursor.copy(statement) as rows,
    ):
        for block in rows:
            file.write(block)


def _without_names(error: psycopg.Error) -> str:
    """What the client library says, less every name, address and port: those are of the DSN."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    said = re.sub(r'"[^"]*"', '"…"', said)
    said = re.sub(r"\([\d.:a-fA-F]+\)", "(…)", said)
    return re.sub(r"port \d+", "port …", said).rstrip(".")
