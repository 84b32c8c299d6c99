"""Which columns a regression on item features has: those that enough items have something in."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recsys_core.models.item_features import ItemFeatures
from recsys_core.models.wide_features import CHUNK, Atoms

FEWEST_ITEMS = 2.0
"""A column of one item says nothing of any other."""

MOST_CODES, MOST_PAIRED, MOST_PAIRS = 1024, 256, 1024
"""Columns of one code, codes that are multiplied, columns of two atoms: those of the most items."""

MOST_BUMPS = 1024
"""Of all numbers together: the regression costs the square of its columns."""


def choose_columns(atoms: Atoms, features: ItemFeatures, *, paired: Sequence[bool]) -> Tensor:
    """One, codes, bumps, and pairs of codes with each other and with broad bumps. (F, 2)

    `paired` says of which bags codes are multiplied. Of more codes, bumps or pairs than are
    allowed those of the most items are taken; equal ones in the order of their numbers.
    """
    support = torch.zeros(atoms.total, dtype=torch.float64)
    for part in _atoms_of(atoms, features):
        support += part.sum(0)
    codes = torch.arange(1, atoms.first_bump)
    singles = codes[_most(support[codes], most=MOST_CODES)]
    bags = [torch.full((n,), yes) for n, yes in zip(atoms.n_codes, paired, strict=True)]
    lists = codes[torch.cat([torch.zeros(0, dtype=torch.bool), *bags])]
    lists = lists[_most(support[lists], most=MOST_PAIRED)]
    both = torch.cat([lists, torch.arange(atoms.first_broad, atoms.total)])
    together = torch.zeros(len(lists), len(both), dtype=torch.float64)
    for part in _atoms_of(atoms, features):
        together += part[:, lists].T @ part[:, both]
    # two codes once, whichever comes first
    once = torch.arange(len(both)) > torch.arange(len(lists)).unsqueeze(1)
    first, second = torch.nonzero(once, as_tuple=True)
    kept = _most(together[first, second], most=MOST_PAIRS)
    pairs = torch.stack([lists[first[kept]], both[second[kept]]], dim=1)
    bumps = torch.arange(atoms.first_bump, atoms.first_broad)
    if len(bumps) > MOST_BUMPS:
        order = torch.argsort(support[bumps], descending=True, stable=True)
        bumps = bumps[order[:MOST_BUMPS].sort().values]
    alone = torch.cat([torch.zeros(1, dtype=torch.int64), singles, bumps])
    return torch.cat([torch.stack([torch.zeros_like(alone), alone], dim=1), pairs])  # (F, 2)


def _most(support: Tensor, *, most: int) -> Tensor:
    """The places of what enough items have, by falling number, at most so many."""
    order = torch.argsort(support, descending=True, stable=True)
    return order[support[order] >= FEWEST_ITEMS][:most]


def _atoms_of(atoms: Atoms, features: ItemFeatures) -> Iterator[Tensor]:
    """The atoms of items, a chunk at a time. (N, A)"""
    for first in range(0, len(features), CHUNK):
        part = features.take(slice(first, first + CHUNK))
        yield atoms.of(part.codes, part.weights, part.numbers).double()
