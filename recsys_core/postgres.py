"""Connections to PostgreSQL of whose address nobody is told.

Nothing of an address is logged, nor said in an error: of what goes wrong with it only a phrase of
our own is told, and in what the server says its names and values are blotted out.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from recsys_core.errors import BusyError, ConfigError

Connection = psycopg.Connection[tuple[object, ...]]

CONNECT_SECONDS = 15

TO_MEND = {
    "the login was refused": (
        r"authentication failed|no password supplied|role .* does not exist|pg_hba\.conf"
        r"|not permitted to log in|permission denied for database"
    ),
    "there is no such database": r"database .* does not exist",
    "the address is not valid": (
        r"invalid .*value|invalid port|invalid integer|could not match|could not parse"
        r"|definition of service|Servname not supported|label empty or too long"
    ),
}
"""What a person must mend where a connection fails, by what the client library says of it."""
MAY_PASS = {
    "the server was not there in time": r"timeout|timed out",
    "the host is not found": r"failed to resolve host|could not translate host name",
    "the connection was refused": r"refused|No such file or directory",
    "the server has too many clients": r"too many clients|remaining connection slots",
    "the server is starting or stopping": r"starting up|shutting down|recovery",
}
"""What may pass; anything else may, too."""
ADDRESS = "write it as postgresql://user:password@host/database"


@dataclass(frozen=True)
class Database:
    """A connection, and the words of its address, of which nobody is told."""

    connection: Connection
    words: frozenset[str]

    def said(self, error: psycopg.Error) -> str:
        """What is said of a query, in one line, less the words of the address."""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        for word in sorted(self.words, key=len, reverse=True):
            said = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "…", said)
        return said.rstrip(".")


@contextmanager
def connected(dsn: SecretStr | None, *, variable: str, needed_by: str) -> Iterator[Database]:
    """An open connection to the address that the environment's `variable` holds; the caller closes
    it, by its own `with`.

    Raises `ConfigError` where a person must mend something, `BusyError` where the server cannot be
    reached.
    """
    if dsn is None or not dsn.get_secret_value().strip():
        raise ConfigError(
            f"{variable} is not set, but {needed_by}; "
            "set it to the database's address, as postgresql://user:password@host/database"
        )
    with _unheard():
        yield _connect(dsn.get_secret_value(), variable=variable)


def _connect(address: str, *, variable: str) -> Database:
    """A connection to an address; an error says nothing of it, and of the library's words none."""
    wanted = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "twotempo"}
    try:
        given = conninfo_to_dict(address)
        more = {name: value for name, value in wanted.items() if name not in given}
        words = {word for value in given.values() for word in str(value).split(",") if word}
        full = make_conninfo(address, client_encoding="UTF8", **more)
        return Database(connection=psycopg.connect(full), words=frozenset(words))
    except psycopg.OperationalError as error:
        said: str | None = str(error)
    except (psycopg.Error, ValueError, OverflowError):
        said = None
    if said is None:
        raise ConfigError(f"{variable} is no address of PostgreSQL; {ADDRESS}")
    for why, pattern in TO_MEND.items():
        if re.search(pattern, said):
            raise ConfigError(f"PostgreSQL: {why}; correct {variable}, {ADDRESS}")
    found = (why for why, pattern in MAY_PASS.items() if re.search(pattern, said))
    raise BusyError(
        f"PostgreSQL cannot be reached ({next(found, 'the connection failed')}); "
        f"check {variable}, and that the server is up"
    )


@contextmanager
def _unheard() -> Iterator[None]:
    """The client library's own log names hosts, users and databases: it is off here."""
    library = logging.getLogger("psycopg")
    before, library.disabled = library.disabled, True
    try:
        yield
    finally:
        library.disabled = before
