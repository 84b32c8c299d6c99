"""`python -m benchmarks.report`: writes docs/performance.md from benchmarks/results, and from
nothing else: a number on that page was measured by the command beside it."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT
from benchmarks.step_table import HEADERS, NOT_KNOWN, table_rows
from recsys_core.artifacts import atomic_path, read_json

PAGE = ROOT / "docs" / "performance.md"

HEAD = """\
# Performance

Written by `python -m benchmarks.report` from `benchmarks/results/*.json`. To measure again, on a
machine that does nothing else (the largest log takes an hour or more):

```
make bench                                    # all sizes, then this page
make bench SIZES="100000 1000000" REPEATS=1   # minutes
```

Seconds are those of one machine; ratios, and how cost grows from size to size, say more. Memory is
the largest resident set of the step's own process, files that it maps included.
"""

PIPELINE = """
## Every step, by size of the log

`python -m benchmarks.pipeline`. Each step is a fresh process in a workspace, as in life, without
DVC and Prefect around it, on logs of the simulator that were written to Parquet before. All sizes
have the same catalogue and the same sixty days; a larger log has more users.

- **seconds** are from start to exit, the median of the runs; what is per second follows from them.
  Of the smallest log most is what costs the same at any size: starting Python, importing,
  validating a model on at most 20,000 targets.
- **inside** is the speed that trainings and scoring log: of the epochs, of the shards, alone. A
  training fits twice, one epoch each: to choose on validation, then up to the test period.
- **cost / size before** is seconds per event (target, user) over those of the next smaller log:
  below 1, a step's time grows more slowly than the log.
"""

SESSIONIZE = """
## sessionize beside the bare query

`python -m benchmarks.sessionize`. The stage numbers users and items, orders, checks and cuts the
log; *in parts* it also asks when each row of 30 deliveries arrived. *bare* is one DuckDB query for
the same sessions and nothing else, with the same threads and memory. They run in turn; time / bare
is the median over rounds. The goals, at 10,000,000 events: at least 1,500,000 events/s, at most 1.3
of time / bare, and no more per event than at 1,000,000.
"""

NOT_MEASURED = "\nNot measured yet.\n"


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for what was measured, by the name of the benchmark; what is missing says so."""
    steps, sessionize = _pipeline(results.get("pipeline")), _sessionize(results.get("sessionize"))
    return HEAD + PIPELINE + steps + SESSIONIZE + sessionize


def read_results(folder: Path) -> dict[str, Any]:
    """The results that lie in a folder, by the name of the benchmark."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def _pipeline(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("rows"):
        return NOT_MEASURED
    sizes = found["rows"]
    threads = found.get("omp_num_threads")
    long = f"{found['long_seconds']:.0f} seconds"
    runs = f"- Runs of each step, after one to warm up: {found['repeats']}; of one that took longer"
    facts = [
        _circumstances(found),
        f"- Params: the defaults, but {_code(found['overrides'])}.",
        f"{runs} than {long} only the first.",
        *([] if threads is None else [f"- PyTorch had `OMP_NUM_THREADS={threads}`."]),
        *(
            f"- {size['events']:,} events: {size['users']:,} users, {size['items']:,} items; "
            f"simulated in {size['simulation']['seconds']:,.0f} seconds."
            for size in sorted(sizes, key=lambda size: int(size["size"]))
        ),
    ]
    return "\n" + "\n".join(facts) + "\n\n" + _markdown(HEADERS, table_rows(sizes))


def _sessionize(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("rows"):
        return NOT_MEASURED
    rows = [
        [
            name.replace("_", " "),
            f"{row['events']:,}",
            f"{row['events_per_second'][name]:,}",
            _number(row.get("cpu_seconds", {}).get(name), "{:,.1f}"),
            f"{row['peak_mb'][name]:,}",
            _number(row["ratio_to_bare"].get(name), "{:.2f}"),
            str(len(row["runs"][name])),
        ]
        for row in sorted(found["rows"], key=lambda row: int(row["events"]))
        for name in ("stage", "in_parts", "bare")
    ]
    headers = ["", "events", "events/s", "CPU s", "peak MB", "time / bare", "runs"]
    return f"\n{_circumstances(found)}\n\n{_markdown(headers, rows)}"


def _circumstances(found: Mapping[str, Any]) -> str:
    machine, versions = found["machine"], found["versions"]
    changed = ", with changes that were not committed" if found["changed_since"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    return (
        f"- {machine['cpus']} CPUs of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}; commit {found['commit'][:10]}{changed}; {packages}."
    )


def _code(texts: Sequence[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def _number(value: float | None, form: str) -> str:
    return NOT_KNOWN if value is None else form.format(value)


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    argparse.ArgumentParser(description="Write docs/performance.md.").parse_args()
    text = page(read_results(RESULTS))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
