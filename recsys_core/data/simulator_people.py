"""The simulator's users and their sessions: who comes when, with what taste and what in mind.

Sessions do not depend on choices made in earlier ones, so all are drawn before any choice.

Letters: U users, N sessions, W weeks, S style dimensions, F factors.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.simulator_catalogue import BRAND_DIM, STYLE_DIM, Catalogue, shuffled_ids, unit
from recsys_core.data.simulator_config import MICROSECONDS_PER_DAY, SimulatorConfig, Words
from recsys_core.errors import ConfigError
from recsys_core.rng import generator

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

DEVICES = ("desktop", "phone", "tablet")
DEVICE_SHARE = (0.35, 0.5, 0.15)
USUAL_DEVICE = 0.85  # of a user's sessions are on the usual device
DEVICE_LENGTH = (1.25, 0.85, 1.0)  # a session on the phone is shorter

OLD_USER_SHARE = 0.2  # of the users come in the first days of the log, the others all through it
GROWTH = 0.5  # these come at day * uniform ** GROWTH: below 1 more and more of them
ONE_SESSION_SHARE = 0.12  # of the users never come back
MEAN_STAY_DAYS = 22.0
RATE_SPREAD = 1.15  # standard deviation of log sessions per day
MOST_SESSIONS_PER_DAY = 3.0
MEAN_SESSION = 6.0  # events
MEAN_FIRST_SESSION = 3.0
LONGEST_SESSION = 40
SESSION_SPACING_DAYS = (
    3.0 / 24.0
)  # between starts, longer than a session may last and its closing gap

DRIFT_PER_WEEK = 0.85  # correlation of the drifting part of taste from week to week
DRIFT = 0.45  # its size, beside a settled part of size 1
MISSION_NOISE = 0.6  # how far a session's intent strays from taste
MISSION_TOPIC_FOCUS = 6.0
RESUME = 0.6  # chance to go on with the last session's intent, right after it
RESUME_DAYS = 3.0  # by then that chance has fallen to 1 / e

HOURS = (2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 8, 9, 11, 13, 14, 12, 8, 4)
"""Weight of each hour of the day in the starts of sessions."""


@dataclass(frozen=True)
class People:
    """All that is true of the users."""

    user_ids: list[str]
    countries: list[str]
    age_bands: list[str]
    taste_by_week: (
        Float64  # (U, W, S) not yet of length one; in between it moves along a straight line
    )
    brand_taste: Float64  # (U, BRAND_DIM)
    price_taste: Float64  # (U,) negative: prefers cheap items
    rating_bias: Float64  # (U,)


@dataclass(frozen=True)
class Sessions:
    """Sessions in the order of (user, start)."""

    user: Int64  # (N,)
    start: Int64  # (N,) microseconds
    length: Int64  # (N,) events, where time does not end it before
    device: Int64  # (N,) position in DEVICES
    taste: Float64  # (N, S) unit vectors
    intent: Float64  # (N, S) unit vectors, shared by sessions of one mission
    topic: Int64  # (N,) the mission's topic

    def __len__(self) -> int:
        return len(self.user)

    def part(self, rows: slice) -> "Sessions":
        """Some of them."""
        return Sessions(
            user=self.user[rows],
            start=self.start[rows],
            length=self.length[rows],
            device=self.device[rows],
            taste=self.taste[rows],
            intent=self.intent[rows],
            topic=self.topic[rows],
        )


def make_people(config: SimulatorConfig, words: Words) -> People:
    """The users of a configuration; country and age shift taste, so they tell of a new user's."""
    rng = generator(config.seed, "users")
    n_users, weeks = config.users, config.days // 7 + 2
    country = _draw(words.countries, n_users, rng)
    age_band = _draw(words.age_bands, n_users, rng)
    country_taste = rng.standard_normal((len(words.countries), STYLE_DIM))
    age_taste = rng.standard_normal((len(words.age_bands), STYLE_DIM))
    settled = rng.standard_normal((n_users, STYLE_DIM))
    settled += 0.5 * country_taste[country] + 0.7 * age_taste[age_band]
    settled = unit(settled)

    taste = np.empty((n_users, weeks, STYLE_DIM))
    drift = rng.standard_normal((n_users, STYLE_DIM))
    for week in range(weeks):
        taste[:, week] = settled + DRIFT * drift
        news = rng.standard_normal((n_users, STYLE_DIM))
        drift = DRIFT_PER_WEEK * drift + np.sqrt(1.0 - DRIFT_PER_WEEK**2) * news
    return People(
        user_ids=shuffled_ids("u", n_users, rng),
        countries=[list(words.countries)[index] for index in country],
        age_bands=[list(words.age_bands)[index] for index in age_band],
        taste_by_week=taste,
        brand_taste=rng.standard_normal((n_users, BRAND_DIM)),
        price_taste=rng.normal(-0.3, 0.4, n_users)
        + rng.normal(0.0, 0.2, len(words.age_bands))[age_band],
        rating_bias=rng.normal(0.0, 0.6, n_users),
    )


def make_sessions(config: SimulatorConfig, people: People, catalogue: Catalogue) -> Sessions:
    """All sessions of a configuration: a Poisson process per user, with a long-tailed rate."""
    rng = generator(config.seed, "sessions")
    user, day = _visits(config, rng)
    gap_days = np.diff(day, prepend=0.0)
    first = np.diff(user, prepend=-1) != 0
    keep = first | (gap_days >= SESSION_SPACING_DAYS)
    user, day = user[keep], day[keep]
    first, gap_days = np.diff(user, prepend=-1) != 0, np.diff(day, prepend=0.0)

    n_sessions = len(user)
    taste = _taste_at(people.taste_by_week, user, day)
    resumes = ~first & (rng.random(n_sessions) < RESUME * np.exp(-gap_days / RESUME_DAYS))
    mission = np.maximum.accumulate(np.where(resumes, 0, np.arange(n_sessions)))
    strayed = taste + MISSION_NOISE * unit(rng.standard_normal((n_sessions, STYLE_DIM)))
    intent = unit(strayed)[mission]
    focus = (
        MISSION_TOPIC_FOCUS * (intent @ catalogue.topic_style.T) + catalogue.topic_log_popularity
    )
    focus += rng.gumbel(size=focus.shape)  # the largest is a draw from the softmax
    topic = np.argmax(focus, axis=1)[mission]

    usual = rng.choice(len(DEVICES), size=config.users, p=DEVICE_SHARE)[user]
    other = rng.choice(len(DEVICES), size=n_sessions, p=DEVICE_SHARE)
    device = np.where(rng.random(n_sessions) < USUAL_DEVICE, usual, other)
    mean = np.where(first, MEAN_FIRST_SESSION, MEAN_SESSION) * np.array(DEVICE_LENGTH)[device]
    length = np.minimum(rng.geometric(1.0 / mean), LONGEST_SESSION)
    return Sessions(
        user=user,
        start=config.start_timestamp
        + np.rint(day * MICROSECONDS_PER_DAY / 1000).astype(np.int64) * 1000,
        length=length,
        device=device,
        taste=taste,
        intent=intent,
        topic=topic,
    )


def _draw(weights: dict[str, float], count: int, rng: np.random.Generator) -> Int64:
    share = np.array(list(weights.values()), dtype=np.float64)
    return rng.choice(len(share), size=count, p=share / share.sum())


def _visits(config: SimulatorConfig, rng: np.random.Generator) -> tuple[Int64, Float64]:
    """User and start (in days of the log) of each session, by both; a user's first is arrival."""
    n_users, days = config.users, float(config.days)
    old = rng.random(n_users) < OLD_USER_SHARE
    early = rng.exponential(0.04 * days, n_users)
    any_day = days * rng.random(n_users) ** GROWTH
    arrival = np.where(old & (early < days), early, any_day)
    stay = rng.exponential(MEAN_STAY_DAYS, n_users)
    stay = np.where(rng.random(n_users) < ONE_SESSION_SHARE, 0.0, np.minimum(stay, days - arrival))
    rate = _visit_rate(np.exp(rng.normal(0.0, RATE_SPREAD, n_users)), stay, config)
    more = rng.poisson(rate * stay)
    user = np.concatenate([np.arange(n_users), np.repeat(np.arange(n_users), more)])
    time = np.concatenate(
        [arrival, np.repeat(arrival, more) + rng.random(int(more.sum())) * np.repeat(stay, more)]
    )
    by_hour = np.concatenate([[0.0], np.cumsum(HOURS)]) / sum(HOURS)
    day = np.floor(time) + np.interp(time % 1.0, by_hour, np.arange(25) / 24.0)
    order = np.lexsort((day, user))
    return user[order], day[order]


def _visit_rate(activity: Float64, stay: Float64, config: SimulatorConfig) -> Float64:
    """Sessions per day, in proportion to `activity` and capped, that give the mean events per user.

    A visit too soon after another is dropped later, which happens with a known probability. (U,)
    """
    by_hour = np.array(HOURS) / np.mean(HOURS)
    crowding = SESSION_SPACING_DAYS * float(np.mean(by_hour**2))

    def more_events(scale: float) -> float:
        rate = np.minimum(scale * activity, MOST_SESSIONS_PER_DAY)
        return MEAN_SESSION * float(np.sum(stay * rate * np.exp(-crowding * rate)))

    wanted = len(activity) * max(config.events_per_user - MEAN_FIRST_SESSION, 0.0)
    low, high = 0.0, 1000.0
    most = more_events(high)
    if wanted > most:
        raise ConfigError(
            f"events_per_user is {config.events_per_user}, but {config.days} days allow no more "
            f"than {MEAN_FIRST_SESSION + most / len(activity):.0f}; lower it or simulate more days"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if more_events(middle) < wanted else (low, middle)
    return np.minimum(high * activity, MOST_SESSIONS_PER_DAY)


def _taste_at(by_week: Float64, user: Int64, day: Float64) -> Float64:
    """Taste of a user on a day, of length one. (N, S)"""
    week = np.floor(day / 7.0).astype(np.int64)
    part = (day / 7.0 - week)[:, None]
    return unit((1.0 - part) * by_week[user, week] + part * by_week[user, week + 1])
