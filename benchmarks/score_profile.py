"""`python -m benchmarks.score_profile`: where the time of our top-k goes, on one thread.

The shares are of Python's own profiler, by processor time, over one search of some users after one
to warm up.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.measure import print_table, write_results
from benchmarks.score_case import Case, draw
from benchmarks.score_speed import DIMS, ITEMS, PACKAGES, SEEN, K
from recsys_core.serving.item_blocks import Scan, Tile, block_items, product_session
from recsys_core.serving.top_k import USERS_AT_ONCE, guessed_rank

PARTS = {
    "products": ("run_with_iobinding",),
    "maxima of groups": ("reduce",),
    "the guess": ("_ranked",),
    "following the maxima down": ("_reaching",),
    "ranking": ("_first_k", "_answer"),
}
"""Functions of `item_blocks.py`, and what it calls, by what they do; none calls another of them."""

TILES = 4


def search_of(items: int, dim: int) -> Callable[[], None]:
    """A search for some tiles of users, as one thread does it."""
    case = Case(
        engine="ours",
        items=items,
        dim=dim,
        users=TILES * USERS_AT_ONCE,
        seen=SEEN,
        k=K,
        threads=1,
        seconds=0.0,
    )
    drawn = draw(case)
    table = np.concatenate([np.zeros((1, dim), np.float32), drawn.items])
    blocks = block_items(table, np.arange(1, items + 1), bias=None)
    scan = Scan(blocks, product_session(), width=USERS_AT_ONCE)
    rank = guessed_rank(K, share=blocks.sample_share)
    tiles = []
    for first in range(0, case.users, USERS_AT_ONCE):
        seen = drawn.seen[first : first + USERS_AT_ONCE]
        users = np.repeat(np.arange(len(seen)), SEEN)
        places = blocks.place[seen.reshape(-1) + 1]
        tiles.append(Tile(drawn.users[first : first + USERS_AT_ONCE], users, places))

    def search() -> None:
        for tile in tiles:
            scan.best(tile, k=K, rank=rank)

    return search


def shares_of(search: Callable[[], None]) -> dict[str, float]:
    """The share of each part in the time of a search, and of the rest."""
    search()
    profile = cProfile.Profile(time.thread_time)
    profile.runcall(search)
    stats: Mapping[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    shares = dict.fromkeys(PARTS, 0.0)
    for (_, _, name), (_, _, own, whole, _) in stats.items():
        for part, functions in PARTS.items():
            # those of Python are named, those of C described
            if name in functions:
                shares[part] += whole / total
            elif any(f"'{function}' of 'numpy.ufunc'" in name for function in functions):
                shares[part] += own / total
    return {**shares, "the rest": 1 - sum(shares.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Say where the time of our top-k goes.")
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS[:2]))
    arguments = parser.parse_args()
    rows = [
        {"items": items, "dim": dim, "shares": shares_of(search_of(items, dim))}
        for items in arguments.items
        for dim in DIMS
    ]
    write_results("score-profile", rows=rows, packages=PACKAGES)
    parts = [*PARTS, "the rest"]
    lines = [
        [f"{row['items']:,}", str(row["dim"]), *(f"{row['shares'][part]:.2f}" for part in parts)]
        for row in rows
    ]
    print_table(["items", "d", *parts], lines)


if __name__ == "__main__":
    main()
