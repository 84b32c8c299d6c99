"""Judges the candidate on the test period and says what may score next."""

import logging

from recsys_core.artifacts import MANIFEST, sha256, verify_manifest, write_json
from recsys_core.evaluation.gate import FALLBACK, judge
from recsys_core.layout import Layout
from recsys_core.rng import generator
from recsys_core.sections import Evaluate, Gate
from recsys_core.serving.registry import champion
from recsys_core.tables import RANKS, read_table
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, gate: Gate, evaluate: Evaluate, first_metric: str, seed: int) -> None:
    """Write the verdict on the exported bundle beside the registry."""
    verify_manifest(layout.bundle)
    verdict = judge(
        read_table(layout.ranks, RANKS),
        gate,
        metric=first_metric,
        draws=evaluate.bootstrap_draws,
        rng=generator(seed, "gate"),
    )
    incumbent = champion(layout.registry)
    graph = verdict.graph(None if incumbent is None else incumbent.graph)
    write_json(
        layout.gate,
        {
            **verdict.to_json(),
            "graph": graph,
            "incumbent": None if incumbent is None else incumbent.version,
            "bundle": sha256(layout.bundle / MANIFEST),
            "ranks": sha256(layout.ranks),
        },
    )
    logger.info("event=gate passed=%s reason=%r", verdict.passed, verdict.reason)
    if graph == FALLBACK:
        logger.warning("THE GATE REJECTED THE MODEL: popularity will score. %s", verdict.reason)
    elif graph is None and incumbent is not None:
        logger.warning(
            "THE GATE REJECTED THE MODEL: version %s stays champion. %s",
            incumbent.version,
            verdict.reason,
        )


if __name__ == "__main__":
    main(run)
