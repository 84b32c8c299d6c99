"""The simulator's items: topics, style, brand, price, title, launch, and how popularity moves.

Items are in the order of their main topic: a topic is a slice, bounded by `topic_offsets`.
An item's `factors` hold what a user can care for:

    style (6) | brand (3) | price (1)

Letters: V items, K topics, P periods of six hours, S = 6 style dimensions, F = 10 factors.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recsys_core.data.simulator_config import (
    MICROSECONDS_PER_HOUR,
    PERIOD_HOURS,
    SMALLEST_TOPIC,
    SimulatorConfig,
    Words,
)
from recsys_core.errors import ConfigError
from recsys_core.rng import generator

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

STYLE_DIM = 6
BRAND_DIM = 3
PRICE_LEVELS = 7
MIDDLE_PRICE = 4.0

NEW_SHARE = 0.3  # of the items launch during the log
EVERGREEN_SHARE = 0.35  # neither rise after launch nor decay
SHELF_SHARE = 0.7  # of a topic's launched items can be seen on a given day
SHELF_PROMOTION_DAYS = 3.0  # a launched item is surely on the shelf for so long
LEVEL_SPREAD = 1.3  # standard deviation of log popularity between items
PEAK = 3.5  # log popularity that a fading item gains at launch
FLOOR = -1.0  # what it keeps of that in the end


@dataclass(frozen=True)
class Catalogue:
    """All that is true of the items."""

    item_ids: list[str]
    titles: list[str]
    genres: list[str]  # one to three, the main topic's first, joined by |
    brands: list[str]
    price_level: Int64  # (V,) from 1 to 7
    launch: Int64  # (V,) microseconds, the start of a period
    factors: Float64  # (V, F)
    appeal: Float64  # (P, V) log popularity; -inf where not yet launched or not on the day's shelf
    topic_offsets: Int64  # (K + 1,)
    topic_style: Float64  # (K, S) unit vectors
    topic_log_popularity: Float64  # (K,)
    successor: Int64  # (K,) the next topic of the chain, one cycle through all
    complement: Float64  # (S, S) what goes with style s is s @ complement, at a right angle to s

    @property
    def style(self) -> Float64:
        """Unit vectors. (V, S)"""
        return self.factors[:, :STYLE_DIM]


def make_catalogue(config: SimulatorConfig, words: Words) -> Catalogue:
    """The items of a configuration."""
    if config.topics > len(words.genres):
        raise ConfigError(
            f"topics is {config.topics}, but the word lists have {len(words.genres)} genres; "
            "add genres or lower it"
        )
    rng = generator(config.seed, "items")
    n_topics, n_items = config.topics, config.items
    share = rng.dirichlet(np.full(n_topics, 8.0))
    sizes = SMALLEST_TOPIC + rng.multinomial(n_items - SMALLEST_TOPIC * n_topics, share)
    topic = np.repeat(np.arange(n_topics), sizes)  # (V,)
    topic_style = unit(rng.standard_normal((n_topics, STYLE_DIM)))

    others = rng.random((n_items, n_topics))
    others[np.arange(n_items), topic] = 2.0
    second = np.argsort(others, axis=1)[:, :2]  # (V, 2) two topics besides the main one
    n_second = rng.choice(3, size=n_items, p=[0.5, 0.35, 0.15])
    style = rng.standard_normal((n_items, STYLE_DIM))
    for place in range(2):
        style[n_second > place] += topic_style[second[n_second > place, place]]
    style = unit(style)

    brand_share = 1.0 / np.arange(1, len(words.brands) + 1) ** 0.7
    brand = rng.choice(len(words.brands), size=n_items, p=brand_share / brand_share.sum())
    brand_style = rng.standard_normal((len(words.brands), BRAND_DIM)) / np.sqrt(BRAND_DIM)
    price = MIDDLE_PRICE + rng.normal(0.0, 0.7, n_topics)[topic]
    price += rng.normal(0.0, 0.7, len(words.brands))[brand] + rng.normal(0.0, 1.3, n_items)
    price_level = np.clip(np.rint(price), 1, PRICE_LEVELS).astype(np.int64)
    factors = np.concatenate(
        [style, brand_style[brand], (price_level - MIDDLE_PRICE)[:, None] / 2.0], axis=1
    )  # (V, F)

    chain = rng.permutation(n_topics)
    successor = np.empty(n_topics, dtype=np.int64)
    successor[chain] = np.roll(chain, -1)
    axes, _ = np.linalg.qr(rng.standard_normal((STYLE_DIM, STYLE_DIM)))
    quarter_turn = np.kron(np.eye(STYLE_DIM // 2), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    complement = axes @ quarter_turn @ axes.T

    offsets = np.concatenate([[0], np.cumsum(sizes)])
    launch, appeal = _appeal(config, offsets, rng)
    genres = [
        "|".join(words.genres[k] for k in (main, *more[:count]))
        for main, more, count in zip(topic, second, n_second, strict=True)
    ]
    return Catalogue(
        item_ids=shuffled_ids("i", n_items, rng),
        titles=_titles(words, topic, brand, rng),
        genres=genres,
        brands=[words.brands[b] for b in brand],
        price_level=price_level,
        launch=launch,
        factors=factors,
        appeal=appeal,
        topic_offsets=offsets,
        topic_style=topic_style,
        topic_log_popularity=rng.normal(0.0, 0.5, n_topics),
        successor=successor,
        complement=complement,
    )


def unit(vectors: Float64) -> Float64:
    """The vectors of the last axis, scaled to length one."""
    scaled: Float64 = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def shuffled_ids(prefix: str, count: int, rng: np.random.Generator) -> list[str]:
    """Different ids of equal width whose order tells nothing."""
    width = len(str(count - 1))
    return [f"{prefix}{number:0{width}d}" for number in rng.permutation(count).tolist()]


def _appeal(
    config: SimulatorConfig, topic_offsets: Int64, rng: np.random.Generator
) -> tuple[Int64, Float64]:
    """Launch times (V,) and log popularity by period (P, V), -inf where an item cannot be seen.

    Evergreen items wave slowly about their level. The others rise from launch for a day or so, then
    decay to a floor. The first two items of each topic are old, evergreen and always on the shelf,
    so that there is something to see besides the item seen just before.
    """
    n_items, n_periods = config.items, config.periods
    anchors = _anchors(topic_offsets)
    new = rng.random(n_items) < NEW_SHARE
    age_at_start = np.rint(rng.exponential(90.0, n_items) * 24 / PERIOD_HOURS).astype(np.int64)
    launch_period = np.where(new, rng.integers(1, n_periods, n_items), -1 - age_at_start)  # (V,)
    launch_period[anchors] = -1 - age_at_start[anchors]
    evergreen = rng.random(n_items) < EVERGREEN_SHARE
    evergreen[anchors] = True

    level = rng.normal(0.0, LEVEL_SPREAD, n_items)
    rise_days = rng.uniform(0.25, 1.5, n_items)
    decay_days = rng.uniform(4.0, 20.0, n_items)
    wave_days, wave_phase = rng.uniform(20.0, 90.0, n_items), rng.uniform(0.0, 2 * np.pi, n_items)
    period = np.arange(n_periods)[:, None]
    age = (period - launch_period + 0.5) * PERIOD_HOURS / 24  # (P, V) days
    known_age = np.maximum(age, 0.5 * PERIOD_HOURS / 24)
    rise = np.log(np.minimum(1.0, known_age / rise_days))
    fading = np.maximum(PEAK + rise - known_age / decay_days * (PEAK - FLOOR) / 2, FLOOR)
    waving = 0.5 * np.sin(2 * np.pi * age / wave_days + wave_phase)
    appeal = level + np.where(evergreen, waving, fading)  # (P, V)

    appeal[~_shelf(appeal, age, topic_offsets, rng) | (age < 0.0)] = -np.inf
    return config.start_timestamp + launch_period * PERIOD_HOURS * MICROSECONDS_PER_HOUR, appeal


def _anchors(topic_offsets: Int64) -> Int64:
    """The first two items of each topic. (2 K,)"""
    return np.concatenate([topic_offsets[:-1], topic_offsets[:-1] + 1])


def _shelf(
    appeal: Float64, age: Float64, topic_offsets: Int64, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """What is shown at all: a draw per day and topic, by popularity without replacement. (P, V)

    So the log never shows liking alone: what is off the shelf is not chosen (exposure bias).
    """
    periods_per_day = 24 // PERIOD_HOURS
    shown = np.zeros(appeal.shape, dtype=np.bool_)
    for first in range(0, len(appeal), periods_per_day):
        last = first + periods_per_day - 1
        key = appeal[last] + rng.gumbel(size=appeal.shape[1])  # the largest keys are such a draw
        key[(age[last] < SHELF_PROMOTION_DAYS) & (age[last] > 0.0)] = np.inf
        key[_anchors(topic_offsets)] = np.inf
        key[age[last] < 0.0] = -np.inf
        for begin, end in pairwise(topic_offsets.tolist()):
            launched = np.count_nonzero(age[last, begin:end] > 0.0)
            room = int(np.ceil(SHELF_SHARE * launched))
            best = begin + np.argsort(-key[begin:end], kind="stable")[:room]
            shown[first : last + 1, best] = True
        shown[first : last + 1, np.isposinf(key)] = True
    return shown


def _titles(words: Words, topic: Int64, brand: Int64, rng: np.random.Generator) -> list[str]:
    """A title for each item, all different: brand, adjective, a noun of the main topic's genre."""
    titles: list[str] = []
    used: Counter[tuple[int, int]] = Counter()
    n_adjectives = len(words.adjectives)
    # each brand walks through the pairs from a place of its own, and names no pair twice
    start = rng.integers(0, 1 << 30, len(words.brands)).tolist()
    order = [rng.permutation(n_adjectives * len(nouns)).tolist() for nouns in words.nouns]
    for k, b in zip(topic.tolist(), brand.tolist(), strict=True):
        turn = used[k, b]
        if turn == len(order[k]):
            raise ConfigError(
                f"the word lists allow {turn} titles of {words.brands[b]} in {words.genres[k]}, "
                "more are needed; add words"
            )
        used[k, b] += 1
        pair = order[k][(start[b] + turn) % len(order[k])]
        adjective, noun = (
            words.adjectives[pair % n_adjectives],
            words.nouns[k][pair // n_adjectives],
        )
        titles.append(f"{words.brands[b]} {adjective.capitalize()} {noun.capitalize()}")
    return titles
