"""What the simulator is told: the numbers of a dataset card and the word lists beside it."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from recsys_core.config import read_yaml
from recsys_core.errors import ConfigError

MICROSECONDS_PER_HOUR = 3_600_000_000
MICROSECONDS_PER_DAY = 24 * MICROSECONDS_PER_HOUR
PERIOD_HOURS = 6
"""Popularity, the shelf and launches change at the start of a period and are constant inside it."""

SMALLEST_TOPIC = 4


@dataclass(frozen=True)
class SimulatorConfig:
    """The `source` section of a simulator's dataset card, less its `kind`.

    users, items    how many exist; a few may have no event
    topics          of the catalogue; one genre each, so at most as many as the word lists have
    days, start     the log runs from 00:00 UTC of the ISO date `start`, for that many days
    events_per_user the mean, met within some percent; the median is several times smaller
    oracle_days     the true probabilities are kept for events of that many last days
    shuffle         permute each user's items among that user's events, even to before their launch:
                    what a user saw and when the user was there stay, order goes
    seed            of all that is drawn, so that the data set does not follow `seed` of params.yaml
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    users: int
    items: int
    topics: int
    days: int
    start: str
    events_per_user: float
    oracle_days: int
    shuffle: bool
    seed: int

    def __post_init__(self) -> None:
        if self.topics < 3:
            raise ValueError(f"topics is {self.topics}, it must be at least 3")
        if self.items < SMALLEST_TOPIC * self.topics:
            raise ValueError(
                f"items is {self.items}, it must be at least {SMALLEST_TOPIC} for each of "
                f"{self.topics} topics"
            )
        if self.users < 1 or self.days < 1:
            raise ValueError(
                f"users is {self.users} and days is {self.days}, both must be at least 1"
            )
        if self.events_per_user < 1.0:
            raise ValueError(f"events_per_user is {self.events_per_user}, it must be at least 1")
        if not 0 <= self.oracle_days <= self.days:
            raise ValueError(
                f"oracle_days is {self.oracle_days}, it must be from 0 to days ({self.days})"
            )
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.start):
            raise ValueError(f"start is {self.start!r}, it must be a date like 2024-03-01")
        date.fromisoformat(self.start)

    @property
    def start_timestamp(self) -> int:
        """The first microsecond of the log."""
        return (date.fromisoformat(self.start) - date(1970, 1, 1)).days * MICROSECONDS_PER_DAY

    @property
    def end_timestamp(self) -> int:
        """The first microsecond after the log."""
        return self.start_timestamp + self.days * MICROSECONDS_PER_DAY

    @property
    def periods(self) -> int:
        """How many periods the log has."""
        return self.days * 24 // PERIOD_HOURS


@dataclass(frozen=True)
class Words:
    """Words of titles and features; `nouns[k]` belong to `genres[k]`, weights are in proportion."""

    genres: list[str]
    nouns: list[list[str]]
    adjectives: list[str]
    brands: list[str]
    countries: dict[str, float]
    age_bands: dict[str, float]


def read_words(folder: Path) -> Words:
    """The word lists of `folder`, a YAML file each: genres, adjectives, brands, and so on.

    Raises `ConfigError` where a file is missing or not of its form.
    """
    genres = _mapping(folder / "genres.yaml")
    for genre, nouns in genres.items():
        _check_words(nouns, where=f"{folder / 'genres.yaml'}: {genre}")
    _check_words(
        [noun for nouns in genres.values() for noun in nouns],
        where=f"{folder / 'genres.yaml'}: all nouns",
    )
    return Words(
        genres=list(genres),
        nouns=list(genres.values()),
        adjectives=_words(folder / "adjectives.yaml"),
        brands=_words(folder / "brands.yaml"),
        countries=_weights(folder / "countries.yaml"),
        age_bands=_weights(folder / "age_bands.yaml"),
    )


def _words(path: Path) -> list[str]:
    words = read_yaml(path)
    _check_words(words, where=str(path))
    return list(words)


def _check_words(words: Any, *, where: str) -> None:
    good = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
    if not good or len(set(words)) != len(words):
        raise ConfigError(f"{where}: found {words!r:.60}, it must be a list of different words")


def _mapping(path: Path) -> dict[str, Any]:
    value = read_yaml(path)
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"{path}: found {value!r:.60}, it must map names to values; quote names like NO or 1"
        )
    return value


def _weights(path: Path) -> dict[str, float]:
    weights = _mapping(path)
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or weight <= 0:
            raise ConfigError(f"{path}: {name} has weight {weight!r}, it must be a number above 0")
    return weights
