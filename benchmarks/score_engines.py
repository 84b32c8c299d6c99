"""Top-k by this project and by what it is measured beside, each in a process of its own.

How each leaves out what a user has seen:

- ours, torch, onnxruntime: the scores of seen pairs become -inf before the best are taken
- implicit: its own `filter_query_items`
- faiss: it has no filter of each query's own; asked for as many more as there are seen, and those
  are dropped afterwards

`implicit` and `faiss` are imported where they run: by the interpreter that has them.
"""

import time
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.score_case import Case, batches, draw, say_search, without_seen
from benchmarks.training_case import say

CELLS = 2**24
"""Scores that torch and ONNX Runtime hold at once, 64 MiB: users at a time fewer, the more items
there are."""

PRODUCT_SIZE, PRODUCTS = 2_048, 5


def ours(settings: str) -> None:
    """`recsys_core.serving.top_k`."""
    from recsys_core.serving.top_k import LeftOut, TopK

    case = Case.from_json(settings)
    drawn = draw(case)
    left_out = LeftOut(drawn.seen_rows, drawn.seen.reshape(-1) + 1)
    table = np.concatenate([np.zeros((1, case.dim), np.float32), drawn.items])
    top_k = TopK(table, bias=None, eligible=None, threads=case.threads)

    def search() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        best = top_k.search(drawn.users, k=case.k, left_out=left_out)
        return best.items - 1, best.scores

    say_search(case, search)


def torch_topk(settings: str) -> None:
    """`torch.mm` and `torch.topk`."""
    import torch

    case = Case.from_json(settings)
    torch.set_num_threads(case.threads)
    drawn = draw(case)
    items, users, seen = map(torch.from_numpy, (drawn.items, drawn.users, drawn.seen))
    size = max(1, CELLS // case.items)

    @torch.inference_mode()
    def search() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        found = []
        for rows in batches(case.users, size=size):
            scores = users[rows] @ items.T  # (B, V)
            scores.scatter_(1, seen[rows], -torch.inf)
            found.append(torch.topk(scores, case.k))
        values, indices = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return indices, values

    say_search(case, search)


def onnx_topk(settings: str) -> None:
    """A graph of `MatMul`, `ScatterElements` and `TopK` in ONNX Runtime, the items a constant."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    case = Case.from_json(settings)
    drawn = draw(case)
    floats, whole = TensorProto.FLOAT, TensorProto.INT64
    ports = [
        helper.make_tensor_value_info("users", floats, ["B", case.dim]),
        helper.make_tensor_value_info("seen", whole, ["B", case.seen]),
        helper.make_tensor_value_info("none", floats, ["B", case.seen]),
        helper.make_tensor_value_info("values", floats, ["B", case.k]),
        helper.make_tensor_value_info("best", whole, ["B", case.k]),
    ]
    nodes = [
        helper.make_node("MatMul", ["users", "items"], ["scores"]),
        helper.make_node("ScatterElements", ["scores", "seen", "none"], ["left"], axis=1),
        helper.make_node("TopK", ["left", "k"], ["values", "best"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(drawn.items.T), "items"),
        numpy_helper.from_array(np.array([case.k]), "k"),
    ]
    graph = helper.make_graph(nodes, "top", ports[:3], ports[3:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    size = max(1, CELLS // case.items)
    none = np.full((size, case.seen), -np.inf, dtype=np.float32)

    def search() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        found = []
        for rows in batches(case.users, size=size):
            users, seen = drawn.users[rows], drawn.seen[rows]
            inputs = {"users": users, "seen": seen, "none": none[: len(users)]}
            found.append(session.run(["best", "values"], inputs))
        best, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return best, values

    say_search(case, search)


def implicit_topk(settings: str) -> None:
    """The top-k that `recommend` of the package's factor models calls."""
    from implicit.cpu.topk import topk
    from scipy.sparse import csr_matrix

    case = Case.from_json(settings)
    drawn = draw(case)
    ones = np.ones(drawn.seen.size, dtype=np.float32)
    offsets = np.arange(case.users + 1) * case.seen
    shape = (case.users, case.items)
    seen = csr_matrix((ones, drawn.seen.reshape(-1), offsets), shape=shape)

    def search() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        items, scores = topk(
            drawn.items,
            drawn.users,
            case.k,
            filter_query_items=seen,
            num_threads=case.threads,
        )
        return items, scores

    say_search(case, search, versions={name: version(name) for name in ("implicit", "numpy")})


def faiss_flat(settings: str) -> None:
    """`IndexFlatIP`, an exhaustive search."""
    import faiss

    case = Case.from_json(settings)
    faiss.omp_set_num_threads(case.threads)
    drawn = draw(case)
    index = faiss.IndexFlatIP(case.dim)
    index.add(drawn.items)

    def search() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        scores, items = index.search(drawn.users, case.k + case.seen)
        return without_seen(items, scores, drawn=drawn, k=case.k)

    say_search(case, search, versions={"faiss-cpu": version("faiss-cpu")})


def sgemm(threads: int) -> None:
    """How fast the libraries that are installed anyway multiply two large square matrices."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    torch.set_num_threads(threads)
    rng = np.random.default_rng(1)
    size = PRODUCT_SIZE
    left, right = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "abc"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ports[:2], ports[2:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    one, other = torch.from_numpy(left), torch.from_numpy(right)
    products = {
        "numpy": lambda: left @ right,
        "torch": lambda: one @ other,
        "onnxruntime": lambda: session.run(None, {"a": left, "b": right}),
    }
    work = PRODUCTS * size**3
    rates, cpu_rates = {}, {}
    for name, product in products.items():
        product()
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(PRODUCTS):
            product()
        cpu_rates[name] = round(work / (time.process_time() - cpu))
        rates[name] = round(work / (time.perf_counter() - began))
    say(multiply_adds_per_second=rates, multiply_adds_per_cpu_second=cpu_rates)
