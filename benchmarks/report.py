"""`python -m benchmarks.report`: writes docs/performance.md from benchmarks/results, and from
nothing else: a number on that page was measured by the command beside it."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT
from benchmarks.score_table import HEADERS as SCORE_HEADERS
from benchmarks.score_table import table_rows as score_rows
from benchmarks.step_table import HEADERS, NOT_KNOWN, table_rows
from benchmarks.train_table import HEADERS as TRAINING_HEADERS
from benchmarks.train_table import table_rows as training_rows
from recsys_core.artifacts import atomic_path, read_json

PAGE = ROOT / "docs" / "performance.md"

HEAD = """\
# Performance

Written by `python -m benchmarks.report` from `benchmarks/results/*.json`. To measure again, on a
machine that does nothing else (the largest log takes an hour or more):

```
make bench                                    # all sizes, then this page
make bench SIZES="100000 1000000" REPEATS=1   # minutes
make bench-train                              # training beside its peers: three quarters of an hour
make bench-score                              # top-k beside its peers: half an hour
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

TRAINING = """
## Training, beside a plain loop and a public peer

`make bench-train`. Every training is a fresh process, one after the other, all of them once a
round, on the same threads and the same training events: those before the validation period of the
rows `loo-ml1m` and `day-globo` of docs/results.md. Each has item vectors and a hidden state of the
same width, one layer, dropout .2, the same window, and batches of the same number of places,
padding included.

- **gru, lstm, lru** are stage two's first phase, as the stage runs it: block shell, AdamW,
  clipping, batches of windows of similar length. **nn.GRU, plain loop** is an embedding, one
  `nn.GRU` and the embedding once more as the output layer: windows in random order, padded to the
  longest of the batch; full cross-entropy at the real targets alone; Adam. **SASRec of RecTools**
  (one block, one head) trains by its own `fit`, in an environment of its own.
- **events/s** are targets learned a second within epochs, the first batches left out; the median of
  the runs. **/ plain GRU** is that over the plain loop's on the same log; its equal in objective is
  gru with the softmax.
- **multiply-adds** of a target are those of the matrix products, forward and backward, counted by
  the formula in `benchmarks/training_work.py`; **share of sgemm** is how many of them there were a
  second, over those of a large product of two square matrices on the same threads.
- **negatives** of a sampled loss, the number behind its name, are shared by a batch here; the peer
  draws its own for each target.
"""

NO_PEER = (
    "- SASRec of RecTools was not measured: no interpreter that has it was given "
    "(`RECTOOLS_PYTHON`; it pins older versions of NumPy and pandas, so it needs an environment of "
    "its own)."
)

SCORE = """
## The best items of every user, beside its peers

`make bench-score`. Exact top-k of inner products over whole catalogues, with what each user has
seen left out, on the same drawn vectors; every search is a fresh process, one after the other, all
of them once a round, on the same threads. All find the same scores, or nothing is written. The
vectors are normal: no item is long enough to be left unread, as of a trained model some are.

- **ours** is `recsys_core/serving/top_k.py`; **onnxruntime MatMul + TopK** is one graph with the
  items as a constant, **torch mm + topk** two calls, both on as many users at once as 64 MiB of
  scores hold. These three make the scores of seen items -inf before the best are taken;
  **implicit** is handed them as `filter_query_items`; **faiss** has no filter of each query's own,
  so it is asked for as many items more as are seen, and those are dropped.
- **/ ours** is the median over rounds of the speed over ours of the same round.
- **share of sgemm** is how many multiply-adds the scores take, over those that a product of two
  large square matrices does in the same time and round, by the library whose product is fastest.
- **users / CPU s** and **share in CPU time** are the same in processor time of all threads, which
  other work on the machine changes less; threads that wait for each other awake are charged for it.
"""

NO_SCORE_PEERS = (
    "- implicit and faiss were not measured: no interpreter that has them was given "
    "(`PEERS_PYTHON`, extra `[peers]`)."
)

PROFILE = """\
Where ours spends its processor time, on one thread (`python -m benchmarks.score_profile`):
"""

NOT_MEASURED = "\nNot measured yet.\n"


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for what was measured, by the name of the benchmark; what is missing says so."""
    steps, sessionize = _pipeline(results.get("pipeline")), _sessionize(results.get("sessionize"))
    training, score = _training(results.get("training")), _score(results.get("score"))
    score += _profile(results.get("score-profile"))
    return HEAD + PIPELINE + steps + SESSIONIZE + sessionize + TRAINING + training + SCORE + score


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


def _training(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("rows"):
        return NOT_MEASURED
    product, catalogue = found["product"], found["catalogue"]
    peer = {str(row["versions"]): row["versions"] for row in found["rows"] if row["versions"]}
    within = "below" if catalogue["peak_mb"] < catalogue["limit_mb"] else "NOT below"
    facts = [
        _circumstances(found),
        f"- Width {found['width']}; {found['seconds']:g} seconds of each run at least; threads of "
        f"PyTorch: {product['threads']}; device: {found['rows'][0]['device']}; sgemm of "
        f"{product['size']:,}: {product['multiply_adds_per_second'] / 1e9:,.1f}e9 multiply-adds a "
        "second.",
        *(
            f"- {log['log']}: {log['events']:,} training events of {log['users']:,} users, "
            f"{log['items']:,} items; window {log['window']}, batches of {log['batch']:,} places."
            for log in found["logs"]
        ),
        *(f"- The peer: {_versions(versions)}." for versions in peer.values()),
        *([] if found["peer"] else [NO_PEER]),
    ]
    last = (
        f"A catalogue of {catalogue['items']:,} items on a CPU, {catalogue['model']} with "
        f"{catalogue['loss']}: one epoch of {catalogue['events']:,} events (at least "
        f"{catalogue['steps_at_least']:,} batches), its validation and its checkpoint held "
        f"{catalogue['peak_mb']:,} MB at most, {within} the bound of {catalogue['limit_mb']:,} MB."
    )
    table = _markdown(TRAINING_HEADERS, training_rows(found))
    return "\n" + "\n".join(facts) + f"\n\n{table}\n{last}\n"


def _score(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("rows"):
        return NOT_MEASURED
    rates = [
        product["multiply_adds_per_second"] for row in found["rows"] for product in row["products"]
    ]
    sgemm = ", ".join(
        f"{name} {statistics.median(rate[name] for rate in rates) / 1e9:,.1f}e9"
        for name in sorted(rates[0])
    )
    peers = {str(row["versions"]): row["versions"] for row in found["rows"] if row["versions"]}
    had = statistics.median(
        run["cpu_seconds"] / (run["seconds"] * found["threads"])
        for row in found["rows"]
        for run in row["runs"]
    )
    facts = [
        _circumstances(found),
        f"- Of their threads' time the runs had {had:.0%} (median); where that is far below 100 %, "
        "the machine had other work, and what is compared within a round says more than users/s.",
        f"- k = {found['k']}, {found['seen']} seen items of each user; {found['seconds']:g} "
        f"seconds of each run at least; threads: {found['threads']}.",
        f"- sgemm, multiply-adds a second, median of all rounds: {sgemm}.",
        *(f"- A peer: {_versions(versions)}." for versions in peers.values()),
        *([] if found["peers"] else [NO_SCORE_PEERS]),
    ]
    return "\n" + "\n".join(facts) + "\n\n" + _markdown(SCORE_HEADERS, score_rows(found))


def _profile(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("rows"):
        return ""
    parts = list(found["rows"][0]["shares"])
    rows = [
        [f"{row['items']:,}", str(row["dim"]), *(f"{row['shares'][part]:.2f}" for part in parts)]
        for row in found["rows"]
    ]
    table = _markdown(["items", "d", *parts], rows)
    return f"\n{PROFILE}\n{_circumstances(found)}\n\n{table}"


def _circumstances(found: Mapping[str, Any]) -> str:
    machine, versions = found["machine"], found["versions"]
    changed = ", with changes that were not committed" if found["changed_since"] else ""
    return (
        f"- {machine['cpus']} CPUs of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}; commit {found['commit'][:10]}{changed}; {_versions(versions)}."
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))


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
