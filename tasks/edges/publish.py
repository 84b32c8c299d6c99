"""Publishes the scored run: readers of the table see the run before, and then this one."""

import logging
from datetime import UTC, datetime

from recsys_core.layout import Layout
from recsys_core.sections import Publish
from recsys_core.serving.shards import read_score_run
from tasks.step import main
from tasks.tables import note_table, table_of

logger = logging.getLogger(__name__)


def run(*, layout: Layout, publish: Publish) -> None:
    """Make the run in `scores/` the current one of the table; a second time changes nothing."""
    scored = read_score_run(layout.scores)
    table = table_of(layout, publish)
    note_table(layout, publish, published=False)
    published = table.publish(scored, keep_runs=publish.keep_runs, published_at=datetime.now(UTC))
    note_table(layout, publish, published=True)
    logger.info(
        "event=publish table=%s run_id=%s model_version=%s users=%d rows=%d shortfall=%d "
        "changed=%s",
        table.place,
        published.run_id,
        scored.facts.model_version,
        published.users,
        published.rows,
        scored.shortfall,
        published.changed,
    )


if __name__ == "__main__":
    main(run)
