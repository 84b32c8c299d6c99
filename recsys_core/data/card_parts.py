"""The parts of a dataset card: where the log comes from, its columns, its clock, its rules."""

import re
import warnings
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

from recsys_core.data.simulator_config import SimulatorConfig
from recsys_core.section_checks import FORBID_EXTRA
from recsys_core.tables import UTC_MICROSECONDS

GIVEN_GAP_SECONDS = 1800.0
ONE_TYPE = "interaction"
"""The event type of a log that tells none apart."""

FILE_ENDINGS = (".parquet", ".csv", ".csv.gz")
MAX_EVENT_TYPES = 127
"""Events store the type as int8."""


@dataclass(frozen=True)
class FilesSource:
    """Files inside `ingest.path`, or inside `snapshot.path` where the card has a snapshot.

    `interactions` is a file, or a folder of files with one ending, read in the order of their
    names; `.` is the folder itself. `items` and `users` hold one row per id, or are null.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["files"]
    interactions: str
    items: str | None
    users: str | None

    def __post_init__(self) -> None:
        for name in (self.interactions, self.items, self.users):
            if name is not None and (name.startswith("/") or ".." in PurePosixPath(name).parts):
                raise ValueError(f"{name!r} must lie inside the folder that ingest.path names")
        for name in (self.items, self.users):
            if name is not None and not name.endswith(FILE_ENDINGS):
                raise ValueError(
                    f"{name!r} must be a file whose name ends in one of {', '.join(FILE_ENDINGS)}"
                )


@dataclass(frozen=True)
class PostgresSource:
    """SQL queries, without a semicolon; the connection is `TWOTEMPO_SOURCE_DSN`.

    Such a log is always taken into a snapshot first.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["postgres"]
    interactions: str
    items: str | None
    users: str | None

    def __post_init__(self) -> None:
        for query in (self.interactions, self.items, self.users):
            if query is not None and (not query.strip() or ";" in query):
                raise ValueError(f"{query!r:.60} must be one query without a semicolon")


@dataclass(frozen=True)
class SimulatorSource(SimulatorConfig):
    """The embedded simulator; `ingest.path` is the folder with its word lists."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["simulator"]


class CardPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Snapshot(CardPart):
    """The log arrives in deliveries, which are kept as append-only parts.

    Rows with the same values in `row_key` are one row, delivered again. `watermark` is the column
    that only grows, by which a query asks for what is new; each time it is asked for
    `lookback_seconds` more, for rows that were committed late.
    """

    row_key: Annotated[list[str], Field(min_length=1)]
    watermark: str | None = None
    lookback_seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @field_validator("row_key")
    @classmethod
    def _each_once(cls, row_key: list[str]) -> list[str]:
        twice = sorted({name for name in row_key if row_key.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice} twice; name each column once")
        return row_key


class Columns(CardPart):
    """The log's own names for our roles; null where the log has no such column."""

    user_id: str
    item_id: str
    timestamp: str
    event_type: str | None = None
    value: str | None = None
    session_id: str | None = None

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        names = [name for name in self.model_dump().values() if name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice} have two roles; each column may have one")
        return self


class Time(CardPart):
    """`absolute`: date and time; `relative`: counted from the log's start; `rank`: only an order.

    A column of a timestamp type is taken as it is, whatever the unit; a text without a zone is UTC.
    """

    kind: Literal["absolute", "relative", "rank"]
    unit: Literal["s", "ms", "us", "iso"] | None

    @model_validator(mode="after")
    def _unit_fits(self) -> Self:
        if (self.kind == "rank") != (self.unit is None):
            raise ValueError(
                f"kind {self.kind!r} with unit {self.unit!r}; only a rank has unit null"
            )
        if self.kind == "relative" and self.unit == "iso":
            raise ValueError("kind 'relative' with unit 'iso'; a date is absolute")
        return self


class GapSessions(CardPart):
    """A new session begins when the user has been away for `gap_seconds` or longer."""

    kind: Literal["gap"]
    gap_seconds: Annotated[FiniteFloat, Field(gt=0)]


class GivenSessions(CardPart):
    """A session is all events of a user with the same session_id."""

    kind: Literal["given"]


class NoSessions(CardPart):
    """The log has none: a user's whole history is one session."""

    kind: Literal["none"]


class Rule(CardPart):
    """What must hold for a column's values; rows that break it go to quarantine.

    `matches` is a regular expression that must be found in a text; `min` and `max` are inclusive.
    A missing value breaks `required` alone.
    """

    required: bool = False
    matches: str | None = None
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None

    @field_validator("matches")
    @classmethod
    def _is_a_regular_expression(cls, matches: str | None) -> str | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                re.compile(matches or "")
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from error
        except FutureWarning as error:
            # `[[:alpha:]]` is a class of letters elsewhere, and one of `[:alph` before a `]` here
            raise ValueError(
                f"a regular expression that does not say what it seems to ({error}); write "
                r"`[a-zA-Z]` for `[[:alpha:]]`, and `\[` for a bracket in brackets"
            ) from error
        return matches

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.required and self.matches is None and self.min is None and self.max is None:
            raise ValueError("says nothing; give required, matches, min or max")
        if self.matches is not None and (self.min is not None or self.max is not None):
            raise ValueError("matches is for texts, min and max for numbers; give one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class Expected(CardPart):
    """What the log as a whole is expected to be; a log that is not stops the run.

    `bad_share`: of the rows at most this share may be quarantined. `rows`: at least as many.
    `last_day_share`: the last whole day has at least this share of the rows of the median day
    of the four weeks before it. `items_described`, `users_described`: at least this share of the
    rows is of an item, a user, with a row of features. Null expects nothing.
    """

    bad_share: Annotated[float, Field(ge=0, lt=1)]
    rows: Annotated[int, Field(ge=1)] = 1
    last_day_share: Annotated[float, Field(gt=0, le=1)] | None = None
    items_described: Annotated[float, Field(gt=0, le=1)] | None = None
    users_described: Annotated[float, Field(gt=0, le=1)] | None = None


class Feature(CardPart):
    """A column of features; `separator` (`|` unless said) cuts a multi-categorical one."""

    kind: Literal["categorical", "multi_categorical", "numeric", "text", "timestamp"]
    separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _separator_fits(self) -> Self:
        if (self.kind == "multi_categorical") != (self.separator is not None):
            raise ValueError(
                f"separator {self.separator!r} with kind {self.kind!r}; it is for multi_categorical"
            )
        return self


def _expand(value: Any) -> Any:
    """The short form of a feature, its kind alone, written out."""
    full = {"kind": value} if isinstance(value, str) else value
    if isinstance(full, dict) and full.get("kind") == "multi_categorical":
        return {"separator": "|", **full}
    return full


Features = dict[str, Annotated[Feature, BeforeValidator(_expand)]]
ContextKind = Literal["categorical", "numeric"]

FEATURE_TYPES: dict[str, pa.DataType] = {
    "categorical": pa.string(),
    "multi_categorical": pa.list_(pa.string()),
    "numeric": pa.float64(),
    "text": pa.string(),
    "timestamp": UTC_MICROSECONDS,
}
"""What each kind of feature is in our tables."""
