"""How many rows a snapshot has taken in so far, by what became of them."""

from recsys_core.artifacts import MANIFEST
from recsys_core.config import read_params
from recsys_core.data.snapshot_manifest import read_manifest
from recsys_core.layout import Layout

COUNTS = ("rows_in", "rows", "redelivered", "redelivered_changed", "late")


def snapshot_counts(layout: Layout) -> dict[str, int]:
    """The sums over all parts, and how many parts there are; nothing where there is no snapshot."""
    folder = layout.root / read_params(layout.params).ingest.path
    if not (folder / MANIFEST).is_file():
        return {}
    parts = read_manifest(folder).parts
    sums = {name: sum(getattr(part, name) for part in parts) for name in COUNTS}
    return {"parts": len(parts), **sums}
