"""The tables of a memory, counted on what is known at a cut."""

import torch

from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.models.baselines import fit_popularity_within, fit_transitions
from recsys_core.models.item_factors import ItemFactorsSettings, fit_item_factors
from recsys_core.models.item_neighbours import ItemNeighboursSettings, fit_item_neighbours
from recsys_core.models.item_table import ItemTable, transition_table
from recsys_core.models.linear_items import LinearItemsSettings, fit_linear_items
from recsys_core.models.memory import Memory

SIMILAR = ("ease", "item_knn")

LATEST = 512
"""Events of each user that similar items are learned from: their number squared is the cost."""


def count_tables(memory: Memory, events: Events, cut: Cut) -> None:
    """Fill the tables of `memory` with what is known at `cut`; its fitted numbers stay.

    Raises `ConfigError` for a window where the cut has no one time, and `ModelError` for `ease` on
    too many items.
    """
    config, counts, n_items = memory.config, cut.counts, cut.n_items
    for place, hours in enumerate(config.windows):
        since = None if hours is None else cut.since(hours)
        popularity = fit_popularity_within(events, counts, n_items=n_items, since=since)
        if "recent" in config.terms:
            share = torch.from_numpy(popularity.log_probability.copy())
            share[0] = 0.0  # PAD is left out elsewhere
            memory.log_recent[place] = share
        if "next" in config.terms:
            transitions = fit_transitions(events, counts, backoff=popularity, since=since)
            table = transition_table(transitions, config.neighbours)
            memory.next_items[place] = torch.from_numpy(table.neighbour)
            memory.next_share[place] = torch.from_numpy(table.weight)
    if "factors" in config.terms:
        settings = ItemFactorsSettings(
            dim=config.factor_dim, alpha=config.factor_alpha, l2=config.factor_l2, latest=LATEST
        )
        factors = fit_item_factors(events, counts, n_items=n_items, settings=settings)
        memory.factor_items.copy_(torch.from_numpy(factors.items))
        memory.factor_mean.copy_(torch.from_numpy(factors.mean))
        memory.factor_variance.copy_(torch.from_numpy(factors.variance))
    if "similar" in config.terms:
        table = _similar(
            events, cut, kind=config.similar, l2=config.similar_l2, n=config.neighbours
        )
        memory.similar_items.copy_(torch.from_numpy(table.neighbour))
        memory.similar_weight.copy_(torch.from_numpy(table.weight))


def _similar(events: Events, cut: Cut, *, kind: str, l2: float, n: int) -> ItemTable:
    counts, n_items = cut.counts, cut.n_items
    if kind == "ease":
        linear = LinearItemsSettings(l2=l2, recency=0.0, latest=LATEST)
        model = fit_linear_items(events, counts, n_items=n_items, settings=linear)
        return model.table(n)
    assert kind == "item_knn", f"{kind} is not one of {SIMILAR}"
    near = ItemNeighboursSettings(
        shrink=l2, balance=0.5, breadth=0.5, neighbours=n, recency=0.0, latest=LATEST
    )
    return fit_item_neighbours(events, counts, n_items=n_items, settings=near).table
