"""A memory as the params want it, its tables counted at a cut, and what they may be counted by."""

from dataclasses import dataclass, replace

from recsys_core.data.cuts import Cut, known_part
from recsys_core.data.events import Events
from recsys_core.models.linear_items import LARGEST_CATALOGUE
from recsys_core.models.memory import Memory, MemoryConfig
from recsys_core.models.memory_tables import count_tables
from recsys_core.sections import TrainMemory


@dataclass(frozen=True)
class Similar:
    """An item-item model, with its ridge or shrinkage."""

    kind: str
    l2: float

    def __str__(self) -> str:
        return f"{self.kind} {self.l2:g}"


@dataclass(frozen=True)
class Chosen:
    """What the tables of a memory are counted with, of what there is to choose from."""

    similar: Similar
    factors: tuple[float, float]
    """The alpha and the ridge of item factors."""


NO_FACTORS = (0.0, 0.0)
"""Without the term."""


def similar_models(params: TrainMemory, *, catalogue: int) -> list[Similar]:
    """The item-item models to choose from, at least one.

    `catalogue` is the number of items at the latest cut that tables will be counted at: of more
    than `LARGEST_CATALOGUE` there is no ease.
    """
    if "similar" not in params.terms:
        return [Similar("none", 0.0)]
    ease = params.similar_ease if catalogue <= LARGEST_CATALOGUE else ()
    return [
        *(Similar("ease", l2) for l2 in ease),
        *(Similar("item_knn", l2) for l2 in params.similar_item_knn),
    ]


def factors_named(chosen: Chosen) -> str:
    """The alpha and the ridge of its factors, for reports; none without the term."""
    if chosen.factors == NO_FACTORS:
        return "none"
    return "alpha {:g} ridge {:g}".format(*chosen.factors)


def new_memory(params: TrainMemory, cut: Cut, chosen: Chosen, /) -> Memory:
    """Nothing counted, nothing fitted."""
    return Memory(
        MemoryConfig(
            terms=params.terms,
            windows=params.windows,
            n_items=cut.n_items,
            length=params.length,
            next_length=params.next_length,
            similar_length=params.similar_length,
            neighbours=params.neighbours,
            hidden=params.hidden,
            similar=chosen.similar.kind,
            similar_l2=chosen.similar.l2,
            factor_dim=params.factor_dim,
            factor_alpha=chosen.factors[0],
            factor_l2=chosen.factors[1],
        )
    )


def counted(memory: Memory, events: Events, cut: Cut) -> Memory:
    """A memory with the numbers of `memory`, and the tables of what is known at `cut`."""
    fresh = Memory(replace(memory.config, n_items=cut.n_items))
    fresh.take_numbers(memory)
    count_tables(fresh, *known_part(events, cut))
    return fresh
