"""Puts the bundle that the gate has judged into the registry and makes it the champion."""

import logging
from datetime import UTC, datetime

from recsys_core.artifacts import MANIFEST, read_json, sha256, verify_manifest
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Register
from recsys_core.serving.registry import add_version, champion, promote, prune
from tasks.step import main

logger = logging.getLogger(__name__)


def run(*, layout: Layout, register: Register) -> None:
    """Register what the verdict names; where it names nothing the incumbent stays."""
    verdict = read_json(layout.gate)
    verify_manifest(layout.bundle)
    exported = sha256(layout.bundle / MANIFEST)
    if verdict["bundle"] != exported:
        raise ContractError(
            f"{layout.gate} judged bundle {verdict['bundle'][:12]}, {layout.bundle} holds "
            f"{exported[:12]}; "
            "run the gate edge again"
        )
    if verdict["ranks"] != sha256(layout.ranks):
        raise ContractError(
            f"{layout.gate} was judged on other ranks than those of {layout.ranks}; "
            "run the gate edge again"
        )
    before = champion(layout.registry)
    if verdict["graph"] is None:
        stays = "none" if before is None else before.version
        logger.warning("event=register champion=%s unchanged reason=%r", stays, verdict["reason"])
        return
    version = add_version(layout.registry, layout.bundle, graph=verdict["graph"], verdict=verdict)
    now = promote(
        layout.registry, version, registered_at=datetime.now(UTC).isoformat(timespec="seconds")
    )
    removed = prune(layout.registry, keep=register.keep_versions)
    logger.info(
        "event=register champion=%s graph=%s previous=%s removed=%d",
        now.version,
        now.graph,
        "none" if before is None else before.version,
        len(removed),
    )


if __name__ == "__main__":
    main(run)
