"""What the columns of a sample look like, counted in DuckDB: what guesses rest on.

A blank text counts as missing here, like a null.
"""

from dataclasses import dataclass

import duckdb

from recsys_core.data.duck import identifier

NUMBER_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
COMMON_VALUES = 20


@dataclass(frozen=True)
class Profile:
    """One column of a sample.

    `numbers` and `dates` are shares of the filled rows: texts that read as a number or a date count
    too. `low` and `high` hold all numbers but one per cent at either end, so that a few wrong ones
    do not blur the picture. `common` has the most frequent values, most frequent first.
    """

    name: str
    type: str
    rows: int
    filled: int
    distinct: int
    numbers: float
    whole: bool
    low: float | None
    high: float | None
    dates: float
    longest: int
    spaced: float
    common: tuple[str, ...]
    row_number: bool

    @property
    def is_time_type(self) -> bool:
        return self.type == "DATE" or self.type.startswith("TIMESTAMP")

    @property
    def is_number(self) -> bool:
        return self.numbers >= 0.9 and not self.is_time_type

    @property
    def is_date(self) -> bool:
        return self.is_time_type or (self.dates >= 0.9 and not self.is_number)

    @property
    def is_text(self) -> bool:
        return not self.is_number and not self.is_date

    def __str__(self) -> str:
        example = f", such as {self.common[0]!r:.40}" if self.common else ""
        return f"{self.name} ({self.distinct:,} distinct in {self.filled:,} rows{example})"


def profile_columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[Profile]:
    """The columns of a table in its order."""
    described = connection.execute(f"DESCRIBE {identifier(table)}").fetchall()
    return [_profile(connection, table, row[0], row[1]) for row in described]


def _profile(connection: duckdb.DuckDBPyConnection, table: str, column: str, kind: str) -> Profile:
    may_be_number = kind.startswith((*NUMBER_TYPES, "U")) or kind == "VARCHAR"
    number = "TRY_CAST(text AS DOUBLE)" if may_be_number else "CAST(NULL AS DOUBLE)"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE looked_at AS
        SELECT text, CASE WHEN isfinite({number}) THEN {number} END AS number
        FROM (SELECT nullif(trim(CAST({identifier(column)} AS VARCHAR)), '') AS text
              FROM {identifier(table)})
        """
    )
    rows, filled, distinct, numbers, fractions, low, high, longest, spaced = connection.execute(
        """
        SELECT count(*), count(text), count(DISTINCT text), count(number),
               count(*) FILTER (WHERE number <> trunc(number)),
               quantile_disc(number, 0.01), quantile_disc(number, 0.99),
               coalesce(max(length(text)), 0), count(*) FILTER (WHERE contains(text, ' '))
        FROM looked_at
        """
    ).fetchall()[0]
    dates = 0
    if kind == "VARCHAR" and numbers < filled:
        dates = connection.execute(
            "SELECT count(TRY_CAST(text AS TIMESTAMPTZ)) FROM looked_at"
        ).fetchall()[0][0]
    common = connection.execute(
        "SELECT text FROM looked_at WHERE text IS NOT NULL "
        f"GROUP BY text ORDER BY count(*) DESC, text LIMIT {COMMON_VALUES}"
    ).fetchall()
    whole = numbers > 0 and fractions == 0
    row_number = whole and numbers == rows == distinct and _counts_rows(connection)
    return Profile(
        name=column,
        type=kind,
        rows=rows,
        filled=filled,
        distinct=distinct,
        numbers=numbers / filled if filled else 0.0,
        whole=whole,
        low=low,
        high=high,
        dates=dates / filled if filled else 0.0,
        longest=longest,
        spaced=spaced / filled if filled else 0.0,
        common=tuple(row[0] for row in common),
        row_number=row_number,
    )


def _counts_rows(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the numbers, all distinct, are n numbers in a row, in the rows' order."""
    span, falls = connection.execute(
        "SELECT max(number) - min(number), count(*) FILTER (WHERE number < before) "
        "FROM (SELECT number, lag(number) OVER (ORDER BY rowid) AS before, rowid FROM looked_at)"
    ).fetchall()[0]
    rows = connection.execute("SELECT count(*) FROM looked_at").fetchall()[0][0]
    return bool(span == rows - 1 and falls == 0)


def rising(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> float:
    """The share of rows whose number is not below that of the row before."""
    number = f"TRY_CAST({identifier(column)} AS DOUBLE)"
    return _share(
        connection,
        "SELECT avg(CASE WHEN number >= before THEN 1.0 ELSE 0.0 END) FROM (SELECT number, "
        f"lag(number) OVER (ORDER BY rowid) AS before FROM (SELECT {number} AS number, rowid "
        f"FROM {identifier(table)})) WHERE before IS NOT NULL AND number IS NOT NULL",
    )


def counts_up(connection: duckdb.DuckDBPyConnection, table: str, column: str, *, by: str) -> float:
    """The share of groups, of two rows and more, whose numbers are 0..n-1 or 1..n in some order."""
    number = f"TRY_CAST({identifier(column)} AS DOUBLE)"
    return _share(
        connection,
        "SELECT avg(CASE WHEN low IN (0, 1) AND high - low = n - 1 AND n = different "
        f"THEN 1.0 ELSE 0.0 END) FROM (SELECT min({number}) AS low, max({number}) AS high, "
        f"count({number}) AS n, count(DISTINCT {number}) AS different "
        f"FROM {identifier(table)} GROUP BY {identifier(by)}) WHERE n > 1",
    )


def nested(connection: duckdb.DuckDBPyConnection, table: str, column: str, *, within: str) -> float:
    """The share of a column's values that occur with one value of `within` alone."""
    name = identifier(column)
    return _share(
        connection,
        "SELECT avg(CASE WHEN n <= 1 THEN 1.0 ELSE 0.0 END) FROM "
        f"(SELECT count(DISTINCT {identifier(within)}) AS n FROM {identifier(table)} "
        f"WHERE {name} IS NOT NULL GROUP BY {name})",
    )


def head_share(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> float:
    """The share of rows that the most frequent one per cent of the values have."""
    name = identifier(column)
    return _share(
        connection,
        "SELECT sum(n) FILTER (WHERE place <= greatest(1, different * 0.01)) / sum(n) FROM "
        "(SELECT n, row_number() OVER (ORDER BY n DESC) AS place, count(*) OVER () AS different "
        f"FROM (SELECT count(*) AS n FROM {identifier(table)} WHERE {name} IS NOT NULL "
        f"GROUP BY {name}))",
    )


def overlap(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, *, log: str, log_column: str
) -> float:
    """The share of the log's values that this table's column has."""
    ids = f"SELECT DISTINCT CAST({identifier(log_column)} AS VARCHAR) AS id FROM {identifier(log)}"
    there = f"SELECT CAST({identifier(column)} AS VARCHAR) FROM {identifier(table)}"
    return _share(
        connection,
        f"SELECT avg(CASE WHEN id IN ({there}) THEN 1.0 ELSE 0.0 END) FROM ({ids}) "
        "WHERE id IS NOT NULL",
    )


def separated(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, separator: str
) -> tuple[float, int]:
    """The share of filled texts with a separator inside, and how many distinct parts there are."""
    name = f"CAST({identifier(column)} AS VARCHAR)"
    share, parts = connection.execute(
        f"SELECT avg(CASE WHEN contains(trim({name}), $1) THEN 1.0 ELSE 0.0 END), "
        f"(SELECT count(DISTINCT trim(part)) FROM (SELECT unnest(string_split({name}, $1)) AS part "
        f"FROM {identifier(table)})) FROM {identifier(table)} WHERE {name} IS NOT NULL",
        [separator],
    ).fetchall()[0]
    return float(share or 0.0), int(parts)


def _share(connection: duckdb.DuckDBPyConnection, query: str) -> float:
    found = connection.execute(query).fetchall()[0][0]
    return 0.0 if found is None else float(found)
