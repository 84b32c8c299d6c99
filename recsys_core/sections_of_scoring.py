"""The parts of the section `score`: who gets rows of what."""

from dataclasses import dataclass
from typing import ClassVar

from recsys_core.section_checks import FORBID_EXTRA
from recsys_core.section_checks import positive as _positive


@dataclass(frozen=True)
class Available:
    """Columns of the table of items, timestamps: an item may be recommended from `since` on and
    before `until`. Null in the table, or here: no such bound."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    since: str | None
    until: str | None

    def __post_init__(self) -> None:
        if self.since is None and self.until is None:
            raise ValueError("since and until are both null; name a column, or set it to null")


@dataclass(frozen=True)
class Candidates:
    """What may be recommended to the users of a segment: items for which every one of `rules` is
    true, of those that a file of `allow` names (without one: of all), and none that a file of
    `deny` names. What is not given leaves nothing out."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    rules: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segments:
    """Candidates by the value of a column of the table of users; `default` is for every other
    value, and for who has none."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    by: str
    sets: dict[str, Candidates]
    default: Candidates


@dataclass(frozen=True)
class Filters:
    """What may be recommended at all: as of `Candidates`, within the time that `available` says,
    and to a user what the user's segment allows too."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    available: Available | None
    rules: tuple[str, ...]
    segments: Segments | None


@dataclass(frozen=True)
class Cold:
    """The list of users without an event: what was popular in the last `hours` (null: in the window
    of the bundle's popularity) among the users of one value of `segment`, a column of the table of
    users (null: among all)."""

    __pydantic_config__: ClassVar = FORBID_EXTRA
    segment: str | None
    hours: float | None

    def __post_init__(self) -> None:
        if self.hours is not None:
            _positive(self, "hours")
