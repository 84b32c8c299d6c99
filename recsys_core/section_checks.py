"""What the numbers of a params section must be; pydantic tells a `ValueError` with its place."""

import math
import re
from typing import Any

FORBID_EXTRA: dict[str, Any] = {"extra": "forbid"}


LARGEST = 2**31 - 1
"""Of a count: more than anything here can be, and what every library takes."""


SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
"""A name of a schema in PostgreSQL that means the same with and without quotes."""


def schema_name(name: str) -> str:
    """The name of a schema; raises `ValueError` unless it is a plain one."""
    if not SCHEMA_NAME.fullmatch(name):
        raise ValueError(
            f"schema is {name!r}, it must be at most 63 lower case letters, digits and "
            "underscores, not beginning with a digit or pg_"
        )
    return name


def positive(section: object, *names: str) -> None:
    """Raise `ValueError` unless these numbers of a section are greater than 0."""
    for name in names:
        if getattr(section, name) <= 0:
            raise ValueError(f"{name} is {getattr(section, name)}, it must be greater than 0")
    bounded(section, *names)


def not_negative(section: object, *names: str) -> None:
    """Raise `ValueError` unless these numbers of a section are at least 0."""
    for name in names:
        if getattr(section, name) < 0:
            raise ValueError(f"{name} is {getattr(section, name)}, it must be at least 0")
    bounded(section, *names)


def bounded(section: object, *names: str) -> None:
    """Raise `ValueError` unless these are finite, and counts no larger than `LARGEST`."""
    for name in names:
        value = getattr(section, name)
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, it must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"{name} is {value}, it must be at most {LARGEST}")


def share(section: object, *names: str) -> None:
    """Raise `ValueError` unless these are at least 0 and less than 1."""
    for name in names:
        if not 0.0 <= getattr(section, name) < 1.0:
            raise ValueError(
                f"{name} is {getattr(section, name)}, it must be at least 0 and less than 1"
            )
