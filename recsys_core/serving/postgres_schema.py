"""What a published table is in PostgreSQL: SQL for its objects, all in one schema.

    recommendations            view         of the current run; made once, so that grants on it stay
    recommendation_runs        table        every run, and the number of its rows' partition
    recommendation_rows        partitioned  rows of the runs published with the layout `rows`
    recommendation_lists       partitioned  those published with `arrays`, one row for each user
    recommendations_<run_id>   tables       the partitions, one for each run that is kept
    recommendation_parts       table        of a run that is being written: shards that are there

The view takes the run from `recommendation_runs`, in the reader's own snapshot: making a run
current is an UPDATE, which waits for no reader and lets none wait.
"""

from typing import Literal, LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier

from recsys_core.section_checks import schema_name
from recsys_core.serving.table_contract import check_run_id

Layout = Literal["rows", "arrays"]

CREATE: tuple[LiteralString, ...] = (
    """
    CREATE TABLE {runs} (
        run_id text PRIMARY KEY,
        model_version text NOT NULL,
        graph text NOT NULL,
        as_of timestamptz NOT NULL,
        users bigint NOT NULL,
        rows bigint NOT NULL,
        sha256 text NOT NULL,
        status text NOT NULL CHECK (status IN ('writing', 'published', 'dropped')),
        published_at timestamptz NOT NULL,
        schema_version integer NOT NULL,
        current boolean NOT NULL,
        published_order integer NOT NULL,
        forgotten bigint NOT NULL,
        run_number integer NOT NULL UNIQUE,
        layout text NOT NULL CHECK (layout IN ('rows', 'arrays'))
    )
    """,
    "CREATE UNIQUE INDEX ON {runs} ((true)) WHERE current",
    "CREATE SEQUENCE {numbers} AS integer OWNED BY {runs}.run_number",
    """
    CREATE TABLE {parts} (
        run_number integer NOT NULL,
        part integer NOT NULL,
        sha256 text NOT NULL,
        rows bigint NOT NULL,
        PRIMARY KEY (run_number, part)
    )
    """,
    """
    CREATE TABLE {rows} (
        run_number integer NOT NULL,
        rank integer NOT NULL,
        score real NOT NULL,
        rating real,
        user_id text NOT NULL,
        item_id text NOT NULL
    ) PARTITION BY LIST (run_number)
    """,
    """
    CREATE TABLE {lists} (
        run_number integer NOT NULL,
        user_id text NOT NULL,
        item_ids text[] NOT NULL,
        scores real[] NOT NULL,
        ratings real[] NOT NULL
    ) PARTITION BY LIST (run_number)
    """,
    """
    CREATE VIEW {view} AS
    SELECT found.user_id, found.rank, found.item_id, found.score, run.model_version, run.as_of,
        found.rating
    FROM (
        SELECT run_number, user_id, rank, item_id, score, rating FROM {rows}
        UNION ALL
        SELECT lists.run_number, lists.user_id, best.rank::integer, best.item_id, best.score,
            best.rating
        FROM {lists} AS lists
        CROSS JOIN LATERAL unnest(lists.item_ids, lists.scores, lists.ratings)
            WITH ORDINALITY AS best (item_id, score, rating, rank)
    ) AS found
    CROSS JOIN (SELECT model_version, as_of FROM {runs} WHERE current) AS run
    WHERE found.run_number = (SELECT run_number FROM {runs} WHERE current)
    """,
)


class Names:
    """The identifiers of a table's objects, each with its schema, and SQL with them filled in."""

    def __init__(self, schema: str) -> None:
        self.schema = schema_name(schema)
        self._known = {
            "view": self._named("recommendations"),
            "runs": self._named("recommendation_runs"),
            "parts": self._named("recommendation_parts"),
            "rows": self._named("recommendation_rows"),
            "lists": self._named("recommendation_lists"),
            "numbers": self._named("recommendation_run_numbers"),
        }

    def sql(self, text: LiteralString, **more: Composable) -> Composed:
        """SQL in which `{runs}` and its like stand for the objects of this schema."""
        return SQL(text).format(**self._known, **more)

    def of_run(self, run_id: str) -> Identifier:
        """The table with the rows of a run."""
        return self._named(f"recommendations_{check_run_id(run_id)}")

    def parent(self, layout: Layout) -> Identifier:
        return self._known["rows" if layout == "rows" else "lists"]

    def _named(self, name: str) -> Identifier:
        return Identifier(self.schema, name)
