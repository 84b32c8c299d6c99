"""`make bench-hrnn ROW=<experiment> SEED=<n>`: one experiment of HRNN-meta, by one command.

It runs what is not done yet in the workspaces under benchmarks/runs/hrnn, writes
benchmarks/results/hrnn-<experiment>.json of all seeds that are finished, and docs/results.md.
Whatever ends it, the same command takes it up.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import (
    hrnn_ablation,
    hrnn_cold,
    hrnn_hierarchy,
    hrnn_rating,
    hrnn_results,
    hrnn_sampled,
    hrnn_trend,
    results,
)
from benchmarks.quality import RUNS
from benchmarks.row import LOGS
from recsys_core.errors import TwotempoError

EXPERIMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "ablation": hrnn_ablation.run,
    "cold": hrnn_cold.run,
    "hierarchy": hrnn_hierarchy.run,
    "rating": hrnn_rating.run,
    "sampled": hrnn_sampled.run,
    "trend": hrnn_trend.run,
}
"""Each takes a seed, `runs` and `logs`, and returns an `hrnn_results.Experiment` of all seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one experiment of HRNN-meta.")
    parser.add_argument("--row", required=True, choices=sorted(EXPERIMENTS))
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    try:
        found = EXPERIMENTS[arguments.row](arguments.seed, runs=RUNS / "hrnn", logs=LOGS)
    except TwotempoError as error:
        sys.exit(f"error: {error}")
    print(f"benchmarks/results/{hrnn_results.write_experiment(found)}")
    results.write_page()


if __name__ == "__main__":
    main()
