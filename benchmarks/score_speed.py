"""`make bench-score`: top-k over a whole catalogue, beside its peers, on the same vectors.

Every search is a fresh process, one after the other, all of them once a round and a product of two
large matrices before them, with as many threads as `OMP_NUM_THREADS` says (all processors where it
says nothing). Reading, drawing and indexing are not counted; the first search warms up. Its memory
is the largest resident set of the process, the vectors included.

The peers `implicit` and `faiss` are measured where an interpreter has them (extra `[peers]`):

    make bench-score PEERS_PYTHON=.venv/peers/bin/python
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.measure import (
    Command,
    Measured,
    call,
    measure_and_listen,
    print_table,
    write_results,
)
from benchmarks.score_case import Case
from benchmarks.score_table import HEADERS, OURS, table_rows
from benchmarks.training_case import heard
from recsys_core.data.duck import usable_cpus

ENGINES = {
    OURS: "ours",
    "onnxruntime MatMul + TopK": "onnx_topk",
    "torch mm + topk": "torch_topk",
}
PEERS = {"implicit topk": "implicit_topk", "faiss flat": "faiss_flat"}
ITEMS, DIMS = (26_700, 100_000, 1_000_000), (64, 128)
K, SEEN = 100, 50
SAME = 1e-4
"""Two engines have found the same where their mean scores differ by no more than this part."""

PACKAGES = ("numpy", "onnxruntime-gpu", "torch")

Run = tuple[Measured, dict[str, Any]]
Product = dict[str, dict[str, float]]


def users_of(items: int) -> int:
    """How many users are searched for in one call: fewer, the longer that takes."""
    return 4_096 if items <= 100_000 else 1_024


def cases_of(items: int, dim: int, *, threads: int, seconds: float, peers: bool) -> list[Case]:
    """What is measured on a catalogue of this size, ours first."""
    names = [*ENGINES, *(PEERS if peers else ())]
    case = Case(
        engine="",
        items=items,
        dim=dim,
        users=users_of(items),
        seen=SEEN,
        k=K,
        threads=threads,
        seconds=seconds,
    )
    return [replace(case, engine=name) for name in names]


def command_of(case: Case, *, peers_python: str | None) -> Command:
    """The process that measures a case."""
    function = {**ENGINES, **PEERS}[case.engine]
    command = call(f"benchmarks.score_engines:{function}", case.to_json())
    if case.engine not in PEERS:
        return command
    assert peers_python is not None, "without an interpreter there are no such cases"
    return replace(command, words=(peers_python, *command.words[1:]))


def measure_cases(
    cases: Sequence[Case], *, repeats: int, peers_python: str | None
) -> list[dict[str, Any]]:
    """A row of the results for each case of one catalogue; they run in turn, round by round."""
    runs: dict[str, list[Run]] = {case.engine: [] for case in cases}
    products: list[Product] = []
    for _ in range(repeats):
        _, text = measure_and_listen(call("benchmarks.score_engines:sgemm", cases[0].threads))
        products.append(heard(text))
        for case in cases:
            measured, text = measure_and_listen(command_of(case, peers_python=peers_python))
            told = heard(text)
            runs[case.engine].append((measured, told))
            print(
                f"event=measured items={case.items} dim={case.dim} engine={case.engine!r} "
                f"users_per_second={told['users_per_second']:.0f}",
                file=sys.stderr,
                flush=True,
            )
    check_same(runs)
    ours = [facts["users_per_second"] for _, facts in runs[OURS]]
    return [row_of(case, runs[case.engine], ours=ours, products=products) for case in cases]


def check_same(runs: dict[str, list[Run]]) -> None:
    """Stop where two engines have not found the same scores: their speeds would say nothing."""
    means = {name: found[-1][1]["mean_score"] for name, found in runs.items()}
    if max(means.values()) - min(means.values()) > SAME * max(map(abs, means.values())):
        sys.exit(f"the engines have not found the same items, their mean scores are {means}")


def row_of(
    case: Case, runs: Sequence[Run], *, ours: Sequence[float], products: Sequence[Product]
) -> dict[str, Any]:
    """What the results say of a case: medians over rounds, ratios and shares those of one round.

    Processor time says more than time where the machine has other work as well; a library whose
    threads wait for each other awake is charged for that.
    """
    told = [facts for _, facts in runs]
    speeds = [facts["users_per_second"] for facts in told]
    cpu_speeds = [
        facts["users_per_second"] * facts["seconds"] / facts["cpu_seconds"] for facts in told
    ]
    return {
        "engine": case.engine,
        "items": case.items,
        "dim": case.dim,
        "users": case.users,
        "users_per_second": statistics.median(speeds),
        "users_per_cpu_second": round(statistics.median(cpu_speeds), 1),
        "ratio_to_ours": round(
            statistics.median(speed / of for speed, of in zip(speeds, ours, strict=True)), 3
        ),
        "share_of_sgemm": share(case, speeds, products, of="multiply_adds_per_second"),
        "share_of_sgemm_cpu": share(case, cpu_speeds, products, of="multiply_adds_per_cpu_second"),
        "peak_mb": round(max(measured.peak_mb for measured, _ in runs)),
        "versions": told[-1].get("versions"),
        "runs": [
            {name: run[name] for name in ("users_per_second", "cpu_seconds", "seconds")}
            for run in told
        ],
        "products": list(products),
    }


def share(case: Case, speeds: Sequence[float], products: Sequence[Product], *, of: str) -> float:
    """The share of the multiply-adds that the fastest library's product does in the same time."""
    return round(
        statistics.median(
            speed * case.items * case.dim / max(product[of].values())
            for speed, product in zip(speeds, products, strict=True)
        ),
        3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure top-k over whole catalogues.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run, warmed up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS))
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    parser.add_argument(
        "--peers-python", default="", help="an interpreter that has implicit and faiss-cpu"
    )
    arguments = parser.parse_args()
    peers_python = arguments.peers_python or None
    threads = int(os.environ.get("OMP_NUM_THREADS") or usable_cpus())
    os.environ["OMP_NUM_THREADS"] = str(threads)  # NumPy's products take it from nowhere else
    settings = {
        "seconds": arguments.seconds,
        "repeats": arguments.repeats,
        "threads": threads,
        "k": K,
        "seen": SEEN,
        "peers": peers_python is not None,
    }
    rows: list[dict[str, Any]] = []
    for items in arguments.items:
        for dim in arguments.dims:
            cases = cases_of(
                items,
                dim,
                threads=threads,
                seconds=arguments.seconds,
                peers=peers_python is not None,
            )
            rows += measure_cases(cases, repeats=arguments.repeats, peers_python=peers_python)
            # after each size, so that what was measured is kept whatever happens to the next one
            write_results("score", rows=rows, packages=PACKAGES, settings=settings)
    print_table(HEADERS, table_rows({**settings, "rows": rows}))


if __name__ == "__main__":
    main()
