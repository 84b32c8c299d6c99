"""The dataset card, `datasets/<name>.yaml`: what is true of a log, by whoever knows the data.

ingest writes the card that it used beside its tables, and every later step reads that one. No key
is in both card and params.yaml: the card says what the data is, params what is done with it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys_core.artifacts import read_json, write_json
from recsys_core.columns import REASON
from recsys_core.config import describe_errors, read_yaml
from recsys_core.data.simulator_config import SimulatorConfig
from recsys_core.errors import ConfigError
from recsys_core.sections import FORBID_EXTRA
from recsys_core.tables import INTERACTIONS, UTC_MICROSECONDS

ONE_TYPE = "interaction"
"""The event type of a log that tells none apart."""

FILE_ENDINGS = (".parquet", ".csv", ".csv.gz")
MAX_EVENT_TYPES = 127
"""Events store the type as int8."""


@dataclass(frozen=True)
class FilesSource:
    """Names of files inside `ingest.path`; `items` and `users` hold one row per id, or are null."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["files"]
    interactions: str
    items: str | None
    users: str | None

    def __post_init__(self) -> None:
        for name in (self.interactions, self.items, self.users):
            if name is not None and (Path(name).name != name or not name.endswith(FILE_ENDINGS)):
                raise ValueError(
                    f"{name!r} must be a file's name that ends in one of {', '.join(FILE_ENDINGS)}"
                )


@dataclass(frozen=True)
class SimulatorSource(SimulatorConfig):
    """The embedded simulator; `ingest.path` is the folder with its word lists."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    kind: Literal["simulator"]


class CardPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class DatasetCard(CardPart):
    """A dataset card; `event_types` are those kept, each with its weight; others are counted."""

    name: str
    title: str
    source: Annotated[FilesSource | SimulatorSource, Field(discriminator="kind")]
    columns: Columns
    time: Time
    event_types: (
        Annotated[dict[str, FiniteFloat], Field(min_length=1, max_length=MAX_EVENT_TYPES)] | None
    )
    sessions: Annotated[GapSessions | GivenSessions, Field(discriminator="kind")]
    context: dict[str, ContextKind] = {}
    item_features: Features = {}
    user_features: Features = {}
    cut_off: AwareDatetime | None
    expected_bad_share: Annotated[float, Field(ge=0, lt=1)]

    @field_validator("cut_off")
    @classmethod
    def _in_utc(cls, cut_off: datetime | None) -> datetime | None:
        if cut_off is not None and cut_off.utcoffset() != timedelta(0):
            raise ValueError("cut_off must be in UTC, as 2017-10-17T00:00:00Z")
        return cut_off

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.columns.event_type is None) != (self.event_types is None):
            raise ValueError(
                "columns.event_type and event_types belong together: give both or null for both"
            )
        if isinstance(self.sessions, GivenSessions) and self.columns.session_id is None:
            raise ValueError(
                "sessions are given, but columns.session_id is null; name it or use kind: gap"
            )
        if self.cut_off is not None and self.time.kind != "absolute":
            raise ValueError(
                f"cut_off is a date, but time is {self.time.kind}; set cut_off to null"
            )
        reserved = {*INTERACTIONS.names, REASON} & set(self.context)
        if reserved:
            raise ValueError(
                f"context cannot have columns named {sorted(reserved)}; those names are taken"
            )
        if isinstance(self.source, FilesSource):
            self._features_fit("item_features", self.item_features, "items", self.source.items)
            self._features_fit("user_features", self.user_features, "users", self.source.users)
        for key, features in (
            (self.columns.item_id, self.item_features),
            (self.columns.user_id, self.user_features),
        ):
            if {key, "item_id", "user_id"} & set(features):
                raise ValueError(f"{key!r} is the features' key; it cannot be a feature as well")
        return self

    @staticmethod
    def _features_fit(section: str, features: Features, key: str, file: str | None) -> None:
        if bool(features) != (file is not None):
            raise ValueError(
                f"source.{key} is {file!r} and {section} has {len(features)} columns; "
                "a file and its columns belong together"
            )

    @property
    def kept_types(self) -> tuple[str, ...]:
        """The kept event types by name; an event stores its type's position here."""
        return (ONE_TYPE,) if self.event_types is None else tuple(sorted(self.event_types))

    @property
    def context_fields(self) -> list[pa.Field]:
        """The declared context columns by name: they follow ours in tables of interactions."""
        return [pa.field(name, FEATURE_TYPES[self.context[name]]) for name in sorted(self.context)]

    @property
    def cut_off_microseconds(self) -> int | None:
        """The first microsecond since 1970 that is cut, or None."""
        if self.cut_off is None:
            return None
        return (self.cut_off - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def read_card(path: Path) -> DatasetCard:
    """The card in a YAML file.

    Raises `ConfigError` with everything that is wrong with it.
    """
    return check_card(read_yaml(path), where=str(path))


def check_card(value: Any, *, where: str) -> DatasetCard:
    """The card from a parsed `value`; `where` is named in errors."""
    try:
        return DatasetCard.model_validate(value)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, where=where)) from error


def write_resolved_card(path: Path, card: DatasetCard) -> None:
    """Write a card as JSON, short forms written out."""
    write_json(path, card.model_dump(mode="json"))


def read_resolved_card(path: Path) -> DatasetCard:
    """The card that ingest wrote."""
    return check_card(read_json(path), where=str(path))
