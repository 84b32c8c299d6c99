"""twotempo's embedded data set: a log drawn from a known truth, the same bytes for the same card.

What moves it, so that each part of a recommender has something to find: topics, style, brands,
prices, launches and fading popularity (`simulator_catalogue`); long-tailed activity, drifting
taste, missions that last over sessions (`simulator_people`); a chain of topics, complements, the
funnel, dwell and ratings (`simulator_choices`). It shares no code with the models.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.columns import EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID, VALUE
from recsys_core.data.oracle import Oracle
from recsys_core.data.simulator_catalogue import Catalogue, make_catalogue
from recsys_core.data.simulator_choices import EVENT_TYPES, Choices, States, choose
from recsys_core.data.simulator_config import MICROSECONDS_PER_DAY, SimulatorConfig, read_words
from recsys_core.data.simulator_people import DEVICES, People, Sessions, make_people, make_sessions
from recsys_core.rng import generator

__all__ = ["SimulatedLog", "SimulatorConfig", "simulate"]

logger = logging.getLogger(__name__)

Int64 = npt.NDArray[np.int64]
Columns = TypeVar("Columns", Choices, States)

BLOCK_SESSIONS = 65_536
"""Sessions that are drawn together; this bounds the memory, and is part of what a seed means."""

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class SimulatedLog:
    """Tables and truth of one simulated world.

    interactions  user_id, item_id, timestamp, event_type, value, device, dwell_seconds, by time;
                  value is a purchase's rating, dwell_seconds are a view's, null where there is none
    items         item_id, title, genres, brand, price_level, launch; all items, by item_id
    users         user_id, country, age_band; all users, by user_id
    oracle        the truth about the last events; its `source_row` is the row in `interactions`
    """

    interactions: pa.Table
    items: pa.Table
    users: pa.Table
    oracle: Oracle


def simulate(config: SimulatorConfig, *, words: Path) -> SimulatedLog:
    """The log of a configuration; `words` is the folder with the word lists."""
    word_lists = read_words(words)
    catalogue = make_catalogue(config, word_lists)
    people = make_people(config, word_lists)
    sessions = make_sessions(config, people, catalogue)
    choices, states = _choose_all(config, catalogue, people, sessions)

    user = sessions.user[choices.session]
    # a user's times all differ, so this order is complete
    order = np.lexsort((user, choices.timestamp))
    device = sessions.device[choices.session]
    item = _shuffle_items(choices.item, user, config) if config.shuffle else choices.item
    value, dwell = choices.rating[order], choices.dwell_seconds[order]
    interactions = pa.table(
        {
            USER_ID: pa.array(people.user_ids).take(pa.array(user[order])),
            ITEM_ID: pa.array(catalogue.item_ids).take(pa.array(item[order])),
            TIMESTAMP: pa.array(choices.timestamp[order]).cast(UTC_MICROSECONDS),
            EVENT_TYPE: pa.array(EVENT_TYPES).take(pa.array(choices.event_type[order])),
            VALUE: pa.array(value, mask=np.isnan(value)),
            "device": pa.array(DEVICES).take(pa.array(device[order])),
            "dwell_seconds": pa.array(dwell, mask=np.isnan(dwell)),
        }
    )
    logger.info(
        "simulated interactions=%d users=%d items=%d sessions=%d",
        len(order),
        config.users,
        config.items,
        len(np.unique(choices.session)),
    )
    return SimulatedLog(
        interactions=interactions,
        items=_item_table(catalogue),
        users=_user_table(people),
        oracle=_oracle(catalogue, choices, states, order),
    )


def _choose_all(
    config: SimulatorConfig, catalogue: Catalogue, people: People, sessions: Sessions
) -> tuple[Choices, States]:
    """The events of all sessions, block by block; their `session` counts over all blocks."""
    # with its items permuted, an event has no known distribution
    covered_days = 0 if config.shuffle else config.oracle_days
    parts: list[Choices] = []
    states: list[States] = []
    for block, first in enumerate(range(0, len(sessions), BLOCK_SESSIONS)):
        waves = choose(
            sessions.part(slice(first, first + BLOCK_SESSIONS)),
            people,
            catalogue=catalogue,
            config=config,
            oracle_start=config.end_timestamp - covered_days * MICROSECONDS_PER_DAY,
            rng=generator(config.seed, "choices", block),
        )
        for choices, known in waves:
            parts.append(replace(choices, session=first + choices.session))
            states.append(known)
    return _joined(parts), _joined(states)


def _joined(parts: list[Columns]) -> Columns:
    kind = type(parts[0])
    return kind(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(kind)
        }
    )


def _shuffle_items(item: Int64, user: Int64, config: SimulatorConfig) -> Int64:
    """The items, permuted among the events of each user."""
    rng = generator(config.seed, "shuffle")
    by_user = np.argsort(user, kind="stable")
    at_random = np.lexsort((rng.random(len(user)), user))
    shuffled = np.empty_like(item)
    shuffled[by_user] = item[at_random]
    return shuffled


def _oracle(catalogue: Catalogue, choices: Choices, states: States, order: Int64) -> Oracle:
    """The states by source row, with the periods of popularity that they need."""
    source_row = np.empty(len(order), dtype=np.int64)
    source_row[order] = np.arange(len(order))
    rows = source_row[choices.covered]
    by_row = np.argsort(rows)
    first = int(states.period.min(initial=len(catalogue.appeal)))
    return Oracle(
        item_ids=catalogue.item_ids,
        topic_offsets=catalogue.topic_offsets,
        factors=catalogue.factors.astype(np.float32),
        appeal=catalogue.appeal[first:].astype(np.float32),
        source_row=rows[by_row],
        period=states.period[by_row] - first,
        query=states.query[by_row],
        topic_log_probability=states.topic_log_probability[by_row],
        previous_item=states.previous_item[by_row],
        repeat_probability=states.repeat_probability[by_row],
    )


def _item_table(catalogue: Catalogue) -> pa.Table:
    return _by_id(
        {
            ITEM_ID: catalogue.item_ids,
            "title": catalogue.titles,
            "genres": catalogue.genres,
            "brand": catalogue.brands,
            "price_level": catalogue.price_level.astype(np.int32),
            "launch": pa.array(catalogue.launch).cast(UTC_MICROSECONDS),
        }
    )


def _user_table(people: People) -> pa.Table:
    return _by_id(
        {USER_ID: people.user_ids, "country": people.countries, "age_band": people.age_bands}
    )


def _by_id(columns: dict[str, Iterable[object]]) -> pa.Table:
    """A table in the order of its first column."""
    table = pa.table(columns)
    return table.sort_by(table.column_names[0])
