"""The dataset card, `datasets/<name>.yaml`: what is true of a log, by whoever knows the data.

ingest writes the card that it used beside its tables, and every later step reads that one. No key
is in both card and params.yaml: the card says what the data is, params what is done with it.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import (
    AwareDatetime,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys_core.artifacts import read_json, write_json
from recsys_core.columns import (
    EVENT_TYPE,
    ITEM_ID,
    REASON,
    SESSION_ID,
    USER_ID,
    VALUE,
)
from recsys_core.config import describe_errors, read_yaml
from recsys_core.data.card_parts import (
    FEATURE_TYPES,
    GIVEN_GAP_SECONDS,
    MAX_EVENT_TYPES,
    ONE_TYPE,
    CardPart,
    Columns,
    ContextKind,
    Expected,
    Features,
    FilesSource,
    GapSessions,
    GivenSessions,
    NoSessions,
    PostgresSource,
    Rule,
    SimulatorSource,
    Snapshot,
    Time,
)
from recsys_core.errors import ConfigError
from recsys_core.tables import INTERACTIONS

Weight = Annotated[FiniteFloat, Field(gt=0)]

TEXT_ROLES = (USER_ID, ITEM_ID, EVENT_TYPE, SESSION_ID)
"""Roles that a rule may look at, beside `value` and the context columns."""


class DatasetCard(CardPart):
    """A dataset card; `event_types` are those kept, each with its weight; others are counted."""

    name: str
    title: str
    source: Annotated[FilesSource | PostgresSource | SimulatorSource, Field(discriminator="kind")]
    snapshot: Snapshot | None = None
    columns: Columns
    time: Time
    event_types: (
        Annotated[dict[str, Weight], Field(min_length=1, max_length=MAX_EVENT_TYPES)] | None
    )
    sessions: Annotated[GapSessions | GivenSessions | NoSessions, Field(discriminator="kind")]
    context: dict[str, ContextKind] = Field(default_factory=dict)
    scenario: str | None = None
    item_features: Features = Field(default_factory=dict)
    user_features: Features = Field(default_factory=dict)
    cut_off: AwareDatetime | None
    rules: dict[str, Rule] = Field(default_factory=dict)
    duplicates: Literal["quarantine", "keep"] = "quarantine"
    expected: Expected

    @field_validator("cut_off")
    @classmethod
    def _in_utc(cls, cut_off: datetime | None) -> datetime | None:
        if cut_off is not None and cut_off.utcoffset() != timedelta(0):
            raise ValueError("cut_off must be in UTC, as 2017-10-17T00:00:00Z")
        return cut_off

    @model_validator(mode="after")
    def _source_fits(self) -> Self:
        if isinstance(self.source, PostgresSource) and self.snapshot is None:
            raise ValueError("a postgres source is read through a snapshot; add `snapshot`")
        if isinstance(self.source, SimulatorSource) and self.snapshot is not None:
            raise ValueError("the simulator needs no snapshot; leave `snapshot` out")
        asks_for_more = self.snapshot is not None and (
            self.snapshot.watermark is not None or self.snapshot.lookback_seconds > 0
        )
        if isinstance(self.source, FilesSource) and asks_for_more:
            raise ValueError("watermark and lookback_seconds are for a postgres source")
        return self

    @model_validator(mode="after")
    def _clock_fits(self) -> Self:
        if self.time.kind == "rank" and isinstance(self.sessions, GapSessions):
            raise ValueError(
                "sessions by a gap need clock times, but time is a rank; use kind: given or none"
            )
        if self.time.kind == "rank" and self.expected.last_day_share is not None:
            raise ValueError(
                "expected.last_day_share needs days, but time is a rank; set it to null"
            )
        return self

    @model_validator(mode="after")
    def _scenario_fits(self) -> Self:
        if self.scenario is not None and self.context.get(self.scenario) != "categorical":
            raise ValueError(
                f"scenario is {self.scenario!r}, it must be a categorical column of `context`"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit(self) -> Self:
        for name, rule in self.rules.items():
            numeric = name == VALUE or self.context.get(name) == "numeric"
            if not numeric and name not in (*TEXT_ROLES, *self.context):
                raise ValueError(
                    f"rules has {name!r}; rules are for {[*TEXT_ROLES, VALUE, *self.context]}"
                )
            if numeric and rule.matches is not None:
                raise ValueError(f"rules.{name}: matches is for texts; give min or max")
            if not numeric and (rule.min is not None or rule.max is not None):
                raise ValueError(f"rules.{name}: min and max are for numbers; give matches")
        for ids, source, file in (
            ("items_described", "items", self.item_features),
            ("users_described", "users", self.user_features),
        ):
            if getattr(self.expected, ids) is not None and not file:
                raise ValueError(f"expected.{ids} needs a table of {source}; name its features")
        return self

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
        # what reads our tables, DuckDB before all, does not tell `value` from `VALUE`
        taken = {*INTERACTIONS.names, REASON}
        reserved = {name for name in self.context if name.lower() in taken}
        if reserved:
            raise ValueError(
                f"context cannot have columns named {sorted(reserved)}, in capitals or not: our "
                "own columns are called so; rename them in the export"
            )
        for section in (self.context, self.item_features, self.user_features):
            lower = [name.lower() for name in section]
            alike = sorted(name for name in section if lower.count(name.lower()) > 1)
            if alike:
                raise ValueError(
                    f"{alike} differ in capitals alone, which our tables cannot tell apart; "
                    "rename them in the export"
                )
        if isinstance(self.source, FilesSource | PostgresSource):
            self._features_fit("item_features", self.item_features, "items", self.source.items)
            self._features_fit("user_features", self.user_features, "users", self.source.users)
        for key, features in (
            (self.columns.item_id, self.item_features),
            (self.columns.user_id, self.user_features),
        ):
            own = {key.lower(), ITEM_ID, USER_ID} & {name.lower() for name in features}
            if own:
                raise ValueError(
                    f"{key!r} is the features' key, so {sorted(own)}, in capitals or not, cannot "
                    "be features as well; leave them out, or rename them in the export"
                )
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
    def type_weights(self) -> tuple[float, ...]:
        """How much an event of each kept type weighs in the loss, in the order of `kept_types`."""
        weights = self.event_types
        return tuple(1.0 if weights is None else weights[name] for name in self.kept_types)

    @property
    def session_gap_seconds(self) -> float | None:
        """Who has been away so long opens a session with the next request; None where the log has
        no sessions. Of given ones nobody knows how they were cut: it is half an hour then."""
        if isinstance(self.sessions, GapSessions):
            return self.sessions.gap_seconds
        return GIVEN_GAP_SECONDS if isinstance(self.sessions, GivenSessions) else None

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
    return parse_card(read_yaml(path), where=str(path))


def parse_card(value: Any, *, where: str) -> DatasetCard:
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
    return parse_card(read_json(path), where=str(path))
