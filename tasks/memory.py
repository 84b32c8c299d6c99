"""A memory as the params want it, and its tables counted at a cut."""

from recsys_core.data.cuts import Cut, known_part
from recsys_core.data.events import Events
from recsys_core.models.memory import Memory, MemoryConfig
from recsys_core.models.memory_tables import count_tables
from recsys_core.sections import TrainMemory


def new_memory(params: TrainMemory, cut: Cut) -> Memory:
    """Nothing counted, nothing fitted."""
    config = MemoryConfig(
        terms=params.terms,
        windows=params.windows,
        n_items=cut.n_items,
        length=params.length,
        next_length=params.next_length,
        neighbours=params.neighbours,
    )
    return Memory(config)


def counted(memory: Memory, params: TrainMemory, events: Events, cut: Cut) -> Memory:
    """A memory with the numbers of `memory`, and the tables of what is known at `cut`."""
    fresh = new_memory(params, cut)
    fresh.take_numbers(memory)
    count_tables(
        fresh,
        *known_part(events, cut),
        similar=params.similar,
        similar_l2=params.similar_l2,
    )
    return fresh
