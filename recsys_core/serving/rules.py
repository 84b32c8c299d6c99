"""Business rules over the table of items: SQL expressions that DuckDB evaluates, and nothing else.

    price < 20 AND category != 'x'      item_id  price  category    keeps  null
                                        a        10.0   y           yes
                                        b        30.0   y           no
                                        c        (none) y           no     counted

A rule comes from params.yaml, and may still hold anything. It is parsed before it is run, and must
be one expression over the columns: no statement, subquery, aggregate or window, no function that
asks for a clock, a draw or a setting, since the same table must give the same items on any day. It
runs in a database in memory that holds the table alone, without files, network or extensions, with
its configuration locked.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.data.duck import one_line
from recsys_core.errors import ConfigError

TABLE = "items"
KEEPS = "keeps"

MEMORY_MB = 1024

CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "OPERATOR",
        "TYPE",
    }
)
"""The parts that an expression over columns is made of, as DuckDB names them."""

CLOCKS = frozenset({"age", "current_localtime", "current_localtimestamp", "version"})
"""Functions that DuckDB holds to be consistent, and that another day or build answers otherwise."""

MAKERS = frozenset(
    {"array_resize", "format", "list_resize", "lpad", "printf", "repeat", "rpad"}
    | {"damerau_levenshtein", "editdist3", "levenshtein"}
)
"""Functions whose result, or work, is as large as a number in the rule says: of a few rows they
make gigabytes, which DuckDB's limit of memory does not count."""

CONSISTENT = """
SELECT function_name FROM duckdb_functions() GROUP BY 1
HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')
"""


@dataclass(frozen=True, eq=False)
class Ruled:
    """What a rule says of the rows of a table."""

    keeps: npt.NDArray[np.bool_]  # (N,) false where the rule is null
    null: int
    """Rows of which the rule says nothing, most often since a column is null there."""


def apply_rules(rules: Sequence[str], table: pa.Table) -> list[Ruled]:
    """What each rule says of the rows of `table`, in their order.

    Raises `ConfigError` where a rule is not one boolean expression over the columns.
    """
    if not rules:
        return []
    with duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{MEMORY_MB}MB",
            "temp_directory": "",
            "threads": 1,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        },
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_external_access = false")
        functions = {found for (found,) in connection.execute(CONSISTENT).fetchall()}
        functions -= CLOCKS | MAKERS
        columns = table.schema.names
        read = [_columns_of(connection, rule, columns, functions=functions) for rule in rules]
        # texts that no rule reads may be most of the table
        needed = [name for name in columns if any(name.lower() in names for names in read)]
        place = _unused("place", columns)
        number = pa.array(np.arange(table.num_rows, dtype=np.int64))
        connection.register("given", table.select(needed).append_column(place, number))
        try:
            connection.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM given")
        except duckdb.Error as error:
            raise _refused(", ".join(rules), one_line(error), columns) from error
        connection.unregister("given")
        connection.execute("SET lock_configuration = true")
        return [_apply(connection, rule, columns, place=place) for rule in rules]


def _apply(
    connection: duckdb.DuckDBPyConnection, rule: str, columns: list[str], *, place: str
) -> Ruled:
    """What a rule that has been checked says of the table."""
    try:
        query = connection.sql(f"SELECT {_alone(rule)} AS {KEEPS} FROM {TABLE} ORDER BY {place}")
        if str(query.types[0]) != "BOOLEAN":
            raise _refused(rule, f"it gives {query.types[0]}, not BOOLEAN", columns)
        keeps = query.to_arrow_table().column(0)
    except duckdb.Error as error:
        raise _refused(rule, one_line(error), columns) from error
    found = keeps.fill_null(False).to_numpy()
    return Ruled(keeps=np.asarray(found, dtype=bool), null=keeps.null_count)


def _columns_of(
    connection: duckdb.DuckDBPyConnection, rule: str, columns: list[str], *, functions: set[str]
) -> set[str]:
    """The columns that a rule reads, in lower case; `ConfigError` unless it is one expression that
    columns and `functions` make."""
    try:
        query = _parsed(connection, f"SELECT {_alone(rule)} AS {KEEPS} FROM {TABLE}")
        bare = _parsed(connection, f"SELECT (true) AS {KEEPS} FROM {TABLE}")
        if query["error"]:
            raise _refused(rule, str(query["error_message"]), columns)
        # what is more than an expression, by whatever brackets and commas, changes the query
        # around it
        expressions, frame = _taken_apart(query)
        if frame != _taken_apart(bare)[1] or len(expressions) != 1:
            raise _refused(rule, "it is more than one expression", columns)
    except duckdb.Error as error:
        raise _refused(rule, one_line(error), columns) from error
    except RecursionError as error:
        raise _refused(rule, "it is nested too deep", columns) from error
    known, read = {name.lower() for name in columns}, set()
    for part in _parts(expressions):
        kind = part["class"]
        if kind not in CLASSES:
            raise _refused(rule, f"{kind.lower()} is not allowed in it", columns)
        if kind == "COLUMN_REF":
            *tables, column = part["column_names"]
            if column.lower() not in known or tables not in ([], [TABLE]):
                raise _refused(rule, f"there is no column {column}", columns)
            read.add(column.lower())
        if kind == "FUNCTION" and part["function_name"].lower() not in functions:
            name = part["function_name"]
            raise _refused(rule, f"the function {name} is not one of a row's values alone", columns)
    return read


def _alone(rule: str) -> str:
    """A rule in brackets of its own; a comment in it ends with its line."""
    return f"(\n{rule}\n)"


def _parsed(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    (text,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0]
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _taken_apart(query: dict[str, Any]) -> tuple[list[Any], Any]:
    """The expressions that a parsed query selects, and all the rest of it but for places."""
    statements = query["statements"]
    expressions = statements[0]["node"].get("select_list", []) if statements else []
    return expressions, _without(query, {"select_list", "query_location", "query_location_length"})


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(one, names) for name, one in value.items() if name not in names}
    return [_without(one, names) for one in value] if isinstance(value, list) else value


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every part of an expression that has a class, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class" in one:
                yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _unused(name: str, names: list[str]) -> str:
    lower = {one.lower() for one in names}
    while name in lower:
        name += "_"
    return name


def _refused(rule: str, why: str, columns: list[str]) -> ConfigError:
    return ConfigError(
        f"rule {rule!r}: {why}; it must be one expression that is true or false for an item, of "
        f"the columns {', '.join(columns)}: write it so in score.filters, or declare the column "
        "among item_features of the dataset card"
    )
