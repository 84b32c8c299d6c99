"""What users of the simulator do in their sessions: all sessions together, one event at a time.

An event repeats the previous item (view -> cart -> purchase), or it is a view of an item chosen so:

    P(item) = P(topic | previous topic, how long it lasted, mission, taste) * P(item | topic)
    P(item | topic) = softmax over the topic's items, but not the previous one, of
                      query . factors + appeal[period]
    query = taste, brands, price  +  the session's intent  +  what complements the previous item

So order matters twice (the chain of topics, the complement), and the session counts as a whole
(intent). All of it is float64: on another machine a choice differs only where a draw meets a bound
to 15 digits.

Letters: N sessions, B of them still going on, K topics, F factors, S style dimensions, E events.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.simulator_catalogue import MIDDLE_PRICE, STYLE_DIM, Catalogue
from recsys_core.data.simulator_config import MICROSECONDS_PER_HOUR, PERIOD_HOURS, SimulatorConfig
from recsys_core.data.simulator_people import LONGEST_SESSION, People, Sessions

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

EVENT_TYPES = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)

TASTE_WEIGHT = 3.0
BRAND_WEIGHT = 1.0
INTENT_WEIGHT = 4.0
COMPLEMENT_WEIGHT = 6.0
TOPIC_TASTE_WEIGHT = 2.0

STAY = np.array(
    [0.8, 0.50, 0.25, 0.10]
)  # in the topic: at the start, after 1, 2, 3 or more of its items
MOVE = np.array([0.0, 0.35, 0.60, 0.75])  # on to the topic's successor; what is left follows taste

CART_LOGIT, PURCHASE_LOGIT = -3.3, -0.3
CART_AFFINITY, CART_PRICE = 0.4, -0.25
PURCHASE_AFFINITY, PURCHASE_PRICE = 0.2, -0.15
DEVICE_LOGIT = np.array([0.3, -0.2, 0.0])  # buying is easier on the desktop

RATED_SHARE = 0.5  # of the purchases
SESSION_HOURS = 2.0  # a session ends with the first event after so long
LONGEST_DWELL, LONGEST_PAUSE = 600.0, 900.0  # seconds; together less than a session's gap


@dataclass(frozen=True)
class Choices:
    """One event of each session that goes on."""

    session: Int64  # (E,) row in the sessions
    timestamp: Int64  # (E,) microseconds
    item: Int64  # (E,) row in the catalogue
    event_type: npt.NDArray[np.int8]  # (E,) position in EVENT_TYPES
    rating: npt.NDArray[np.float32]  # (E,) 1 to 5, NaN where there is none
    dwell_seconds: npt.NDArray[np.float32]  # (E,) NaN where it is not a view
    covered: npt.NDArray[np.bool_]  # (E,) by the oracle


@dataclass(frozen=True)
class States:
    """What decided the covered events, in their order, just before their coins were flipped."""

    period: Int64  # (C,)
    query: npt.NDArray[np.float32]  # (C, F)
    topic_log_probability: npt.NDArray[np.float32]  # (C, K)
    previous_item: npt.NDArray[np.int32]  # (C,) -1 at the start of a session
    repeat_probability: npt.NDArray[np.float32]  # (C,)


def choose(
    sessions: Sessions,
    people: People,
    *,
    catalogue: Catalogue,
    config: SimulatorConfig,
    oracle_start: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Choices, States]]:
    """The first events of all sessions, then the second ones, and so on while any goes on.

    States are given for the events that are not before `oracle_start` (microseconds).
    """
    last_time = np.minimum(
        config.end_timestamp, sessions.start + round(SESSION_HOURS * MICROSECONDS_PER_HOUR)
    )
    liking = _liking(sessions, people)  # (N, F)
    time = sessions.start.copy()
    topic = sessions.topic.copy()
    lasted = np.zeros(len(sessions), dtype=np.int64)  # events of the topic since it was entered
    item = np.full(len(sessions), -1, dtype=np.int64)
    kind = np.full(len(sessions), PURCHASE, dtype=np.int8)
    repeat = np.zeros(len(sessions))
    for position in range(LONGEST_SESSION):
        rows = np.flatnonzero((sessions.length > position) & (time < last_time))  # (B,)
        if len(rows) == 0:
            return
        period = (time[rows] - config.start_timestamp) // (PERIOD_HOURS * MICROSECONDS_PER_HOUR)
        topics = _topic_probability(sessions.taste[rows], topic[rows], lasted[rows], catalogue)
        query = _query(liking[rows], sessions.intent[rows], item[rows], catalogue)
        covered = time[rows] >= oracle_start
        states = States(
            period=period[covered],
            query=query[covered].astype(np.float32),
            topic_log_probability=np.log(topics[covered]).astype(np.float32),
            previous_item=item[rows[covered]].astype(np.int32),
            repeat_probability=repeat[rows[covered]].astype(np.float32),
        )

        repeats = rng.random(len(rows)) < repeat[rows]
        new_topic = _draw(topics, rng.random(len(rows)))
        new_item = _draw_items(
            query, new_topic, item[rows], period, catalogue, rng.random(len(rows))
        )
        stays = (new_topic == topic[rows]) & (lasted[rows] > 0)
        lasted[rows] = np.where(repeats, lasted[rows], np.where(stays, lasted[rows] + 1, 1))
        topic[rows] = np.where(repeats, topic[rows], new_topic)
        item[rows] = np.where(repeats, item[rows], new_item)
        kind[rows] = np.where(repeats, kind[rows] + 1, VIEW)

        affinity = np.einsum("bf,bf->b", liking[rows], catalogue.factors[item[rows]])
        price = (catalogue.price_level[item[rows]] - MIDDLE_PRICE).astype(np.float64)
        repeat[rows] = _repeat_probability(kind[rows], affinity, price, sessions.device[rows])
        viewed = kind[rows] == VIEW
        dwell = _seconds(3.2 + 0.3 * affinity, 0.7, LONGEST_DWELL, rng)
        pause = _seconds(np.full(len(rows), 3.3), 0.9, LONGEST_PAUSE, rng)
        rating = _ratings(people.rating_bias[sessions.user[rows]] + 0.4 * affinity, rng)
        yield (
            Choices(
                session=rows,
                timestamp=time[rows],
                item=item[rows],
                event_type=kind[rows],
                rating=np.where(kind[rows] == PURCHASE, rating, np.nan).astype(np.float32),
                dwell_seconds=np.where(viewed, dwell, np.nan).astype(np.float32),
                covered=covered,
            ),
            states,
        )
        seconds = np.where(viewed, dwell, 0.0) + pause
        time[rows] += np.rint(seconds * 1000).astype(np.int64) * 1000


def _liking(sessions: Sessions, people: People) -> Float64:
    """What each session's user likes, apart from what the session is for. (N, F)"""
    return np.concatenate(
        [
            TASTE_WEIGHT * sessions.taste,
            BRAND_WEIGHT * people.brand_taste[sessions.user],
            people.price_taste[sessions.user, None],
        ],
        axis=1,
    )


def _query(liking: Float64, intent: Float64, previous: Int64, catalogue: Catalogue) -> Float64:
    """Weights of an item's factors in the next choice; `previous` is -1 at a start. (B, F)"""
    complement = catalogue.style[previous] @ catalogue.complement  # (B, S)
    complement[previous < 0] = 0.0
    query = liking.copy()
    query[:, :STYLE_DIM] += INTENT_WEIGHT * intent + COMPLEMENT_WEIGHT * complement
    return query


def _topic_probability(
    taste: Float64, topic: Int64, lasted: Int64, catalogue: Catalogue
) -> Float64:
    """Of the next topic, after `lasted` events of `topic`, 0 where the session starts. (B, K)"""
    by_taste = TOPIC_TASTE_WEIGHT * (taste @ catalogue.topic_style.T)  # (B, K)
    by_taste = np.exp(by_taste + catalogue.topic_log_popularity)
    by_taste /= by_taste.sum(axis=1, keepdims=True)
    stay, move = STAY[np.minimum(lasted, 3)], MOVE[np.minimum(lasted, 3)]  # (B,)
    rows = np.arange(len(topic))
    probability: Float64 = (1.0 - stay - move)[:, None] * by_taste
    probability[rows, topic] += stay
    probability[rows, catalogue.successor[topic]] += move
    return probability


def _draw(weight: Float64, uniform: Float64) -> Int64:
    """A column of each row, in proportion to its weight. (B, n) and (B,) in, (B,) out."""
    total = np.cumsum(weight, axis=1)
    column: Int64 = np.argmax(total > (uniform * total[:, -1])[:, None], axis=1)
    return column


def _draw_items(
    query: Float64,
    topic: Int64,
    previous: Int64,
    period: Int64,
    catalogue: Catalogue,
    uniform: Float64,
) -> Int64:
    """An item of each event's topic, by the softmax over its items but the previous one. (B,)"""
    item = np.empty(len(topic), dtype=np.int64)
    by_topic = np.argsort(topic, kind="stable")
    bounds = np.searchsorted(topic[by_topic], np.arange(len(catalogue.topic_offsets)))
    for k in range(len(bounds) - 1):
        rows = by_topic[bounds[k] : bounds[k + 1]]
        if len(rows) == 0:
            continue
        items = slice(catalogue.topic_offsets[k], catalogue.topic_offsets[k + 1])
        logit = query[rows] @ catalogue.factors[items].T + catalogue.appeal[period[rows], items]
        in_topic = np.flatnonzero((previous[rows] >= items.start) & (previous[rows] < items.stop))
        logit[in_topic, previous[rows[in_topic]] - items.start] = -np.inf
        logit -= logit.max(axis=1, keepdims=True)
        item[rows] = items.start + _draw(np.exp(logit), uniform[rows])
    return item


def _repeat_probability(
    kind: npt.NDArray[np.int8], affinity: Float64, price: Float64, device: Int64
) -> Float64:
    """Chance that the next event takes the same item one step further down the funnel. (B,)"""
    cart = CART_LOGIT + CART_AFFINITY * affinity + CART_PRICE * price
    purchase = PURCHASE_LOGIT + PURCHASE_AFFINITY * affinity + PURCHASE_PRICE * price
    logit = np.where(kind == VIEW, cart, purchase) + DEVICE_LOGIT[device]
    return np.where(kind == PURCHASE, 0.0, 1.0 / (1.0 + np.exp(-logit)))


def _ratings(mood: Float64, rng: np.random.Generator) -> Float64:
    """Whole stars from 1 to 5 about 3.2 + `mood`; NaN for those who give none. (B,)"""
    stars = np.clip(np.rint(3.2 + mood + rng.normal(0.0, 0.7, len(mood))), 1.0, 5.0)
    return np.where(rng.random(len(mood)) < RATED_SHARE, stars, np.nan)


def _seconds(mean_log: Float64, spread: float, longest: float, rng: np.random.Generator) -> Float64:
    """Durations with a long tail, in tenths of a second, from one second to `longest`. (B,)"""
    drawn = np.exp(mean_log + rng.normal(0.0, spread, len(mean_log)))
    return np.round(np.clip(drawn, 1.0, longest), 1)
