"""How a source's column becomes text, number or time, as DuckDB's SQL.

What cannot be read becomes null, a value NaN: validation finds both, so no row is lost here.
"""

from recsys_core.data.card_parts import Time
from recsys_core.data.duck import identifier
from recsys_core.data.sources import Source
from recsys_core.errors import ConfigError

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}

FIRST_MICROSECOND = -62_135_596_800_000_000
LAST_MICROSECOND = 253_402_300_799_999_999
"""Years 1 to 9999, what Python's dates can say; a number outside of them was read wrongly."""

LIKELY = (631_152_000_000_000, 4_102_444_800_000_000)
"""Microseconds of 1990 and 2100: where the times of a log lie whose unit is right."""

EXACT = 2**53
"""Up to here a double holds every whole number."""

FLOATS = ("FLOAT", "DOUBLE")
INTEGERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)


def type_of(source: Source, column: str) -> str:
    """The SQL type of a column that the card names; `ConfigError` where there is no such."""
    if column not in source.types:
        raise ConfigError(
            f"{source.name}: the dataset card names a column {column!r}, "
            f"there are {list(source.types)}; correct the card"
        )
    return source.types[column]


def text_sql(source: Source, column: str) -> str:
    """A text; whole floats, which integers with gaps often become, lose the `.0`."""
    kind, name = type_of(source, column), identifier(column)
    if kind not in FLOATS:
        return f"CAST({name} AS VARCHAR)"
    whole = f"isfinite({name}) AND {name} = trunc({name}) AND abs({name}) < 1e15"
    return (
        f"CASE WHEN {whole} THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) "
        f"WHEN NOT isnan({name}) THEN CAST({name} AS VARCHAR) END"
    )


def value_sql(source: Source, column: str) -> str:
    """A float32; what stands there and is no number becomes NaN, for validation to see."""
    type_of(source, column)
    name = identifier(column)
    number = f"coalesce(TRY_CAST({name} AS FLOAT), CAST('nan' AS FLOAT))"
    return f"CASE WHEN {name} IS NOT NULL THEN {number} END"


def number_sql(source: Source, column: str) -> str:
    """A finite float64, null where it cannot be read."""
    type_of(source, column)
    number = f"TRY_CAST({identifier(column)} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def microseconds_sql(source: Source, column: str, time: Time) -> str:
    """Microseconds since 1970 or the log's start, null where they cannot be read.

    A rank is stored as that many microseconds: it keeps the order, and is no clock time. It has to
    be a whole number.
    """
    kind, name = type_of(source, column), identifier(column)
    factor = 1 if time.kind == "rank" else MICROSECONDS.get(time.unit or "")
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        # not TRY_CAST: some timestamps before the first of TIMESTAMPTZ end the whole database
        number = f"TRY(epoch_us(CAST({name} AS TIMESTAMPTZ)))"
    elif time.unit == "iso" and kind == "VARCHAR":
        moment = f"TRY_CAST({name} AS TIMESTAMPTZ)"
        number = f"CASE WHEN isfinite({moment}) THEN epoch_us({moment}) END"
    elif factor is not None and kind in INTEGERS:
        number = f"TRY_CAST(CAST({name} AS HUGEINT) * {factor} AS BIGINT)"
    elif factor is not None and (kind in (*FLOATS, "VARCHAR") or kind.startswith("DECIMAL")):
        # a double holds every microsecond up to the year 2255
        counted = f"TRY_CAST({name} AS DOUBLE)"
        number = f"TRY_CAST(round({counted} * {factor}) AS BIGINT)"
        if time.kind == "rank":
            whole = f"{counted} = trunc({counted}) AND abs({counted}) <= {EXACT}"
            number = f"CASE WHEN {whole} THEN {number} END"
    else:
        wanted = "a rank" if time.kind == "rank" else f"a time in unit {time.unit}"
        raise ConfigError(
            f"{source.name}: {column!r} is {kind}, which cannot be {wanted}; "
            "correct columns.timestamp or time.unit in the dataset card"
        )
    within = f"{number} BETWEEN {FIRST_MICROSECOND} AND {LAST_MICROSECOND}"
    return f"CASE WHEN {within} THEN {number} END"


def unit_counts_sql(column: str) -> list[str]:
    """Counts for `unit_hint`: values that are there, and likely times in each unit."""
    name = identifier(column)
    low, high = LIKELY
    number = f"TRY_CAST({name} AS DOUBLE)"
    likely = [f"{number} * {factor} BETWEEN {low} AND {high}" for factor in MICROSECONDS.values()]
    return [f"count(*) FILTER (WHERE {test})" for test in (f"{name} IS NOT NULL", *likely)]


def has_units(source: Source, column: str, time: Time) -> bool:
    """Whether a column holds clock times as numbers, or texts that may be such."""
    kind = type_of(source, column)
    numeric = kind in (*INTEGERS, *FLOATS, "VARCHAR") or kind.startswith("DECIMAL")
    return time.kind == "absolute" and numeric


def unit_hint(time: Time, counts: list[int]) -> str | None:
    """The unit in which most values are times of 1990 to 2100, where they are not in the card's.

    `counts` are those of `unit_counts_sql`. None where the card's unit fits, or no other does.
    """
    there, likely = counts[0], dict(zip(MICROSECONDS, counts[1:], strict=True))
    if 2 * likely.get(time.unit or "", 0) >= there:
        return None
    return next((unit for unit, count in likely.items() if 2 * count > there), None)
