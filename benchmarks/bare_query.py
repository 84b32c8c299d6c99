"""The peer of sessionize: one DuckDB query for the same sessions, and DuckDB alone imported.

`python -m benchmarks.bare_query LOG FOLDER MEMORY_MB THREADS GAP_SECONDS`
"""

import sys

import duckdb


def main(log: str, folder: str, memory_mb: str, threads: str, gap_seconds: str) -> None:
    """Write the sessions of a Parquet log; the paths hold no quote and no `*`."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": int(threads),
        "temp_directory": f"{folder}/spill",
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as connection:
        connection.execute(
            f"""
            COPY (
                SELECT user_id, item_id, timestamp,
                       sum(starts) OVER (PARTITION BY user_id ORDER BY timestamp, source_row
                                         ROWS UNBOUNDED PRECEDING) AS session
                FROM (SELECT *, CAST(coalesce(
                          timestamp - lag(timestamp) OVER (PARTITION BY user_id
                                                           ORDER BY timestamp, source_row)
                              >= INTERVAL {gap_seconds} SECONDS, true) AS INTEGER) AS starts
                      FROM read_parquet('{log}'))
            ) TO '{folder}/sessions.parquet' (FORMAT parquet)
            """
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
