"""Says what an artifact of a workspace is: what it holds, which step wrote it, from which params.

A reader for each kind of file that the pipeline writes; a folder lists its files and its manifest.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recsys_core.artifacts import MANIFEST, read_json, verify_manifest
from recsys_core.config import read_yaml
from recsys_core.errors import ContractError
from recsys_core.layout import EDGES, STAGES
from recsys_core.serving.table_contract import Table
from tasks.tables import table_at

SHOWN = 40
SHOWN_CHARACTERS = 100
WRITTEN_BY = {"scores": "score", "published": "publish"}


def describe_artifact(path: Path) -> Iterator[str]:
    """Lines about a file or folder: its content first, then where it comes from."""
    if not path.exists():
        raise ContractError(
            f"{path}: no such file or folder; look in artifacts/ or reports/ of a workspace"
        )
    yield str(path)
    if path.is_dir():
        yield from _folder(path)
    else:
        yield f"  size: {path.stat().st_size:,} bytes"
        yield from READERS.get(path.suffix, _unknown)(path)
    table = table_at(path)
    if table is not None:
        yield from _published(table)
    yield from _origin(path)


def _published(table: Table) -> Iterator[str]:
    """The runs of a published table that is no single file."""
    yield f"  published table: {table.place}"
    for run in table.runs().to_pylist():
        state = "current" if run["current"] else run["status"]
        yield (
            f"    run {run['run_id']}: {state}, {run['rows']:,} rows for {run['users']:,} users, "
            f"model {run['model_version']}, as of {run['as_of']}, sha256 {run['sha256']}"
        )


def _folder(path: Path) -> Iterator[str]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    total = sum(file.stat().st_size for file in files)
    yield f"  folder: {len(files)} files, {total:,} bytes"
    for file in files[:SHOWN]:
        yield f"    {file.relative_to(path).as_posix()}  {file.stat().st_size:,} bytes"
    if len(files) > SHOWN:
        yield f"    … and {len(files) - SHOWN} more"
    if (path / MANIFEST).is_file():
        manifest = verify_manifest(path)
        yield "  manifest: every file has the SHA-256 that it was written with"
        for key in sorted(set(manifest) - {"files"}):
            yield f"    {key}: {_short(manifest[key])}"


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    yield f"  parquet: {file.metadata.num_rows:,} rows in {file.metadata.num_row_groups} row groups"
    for field in file.schema_arrow:
        yield f"    {field.name}: {field.type}{'' if field.nullable else ', never null'}"


def _npy(path: Path) -> Iterator[str]:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield f"  array: {array.dtype} {array.shape}"


def _json(path: Path) -> Iterator[str]:
    value = read_json(path)
    if isinstance(value, dict):
        yield f"  json: {len(value)} keys"
        for key in list(value)[:SHOWN]:
            yield f"    {key}: {_short(value[key])}"
    elif isinstance(value, list):
        yield f"  json: a list of {len(value)}"
        if value:
            yield f"    first: {_short(value[0])}"
    else:
        yield f"  json: {_short(value)}"


def _yaml(path: Path) -> Iterator[str]:
    value = read_yaml(path)
    yield "  yaml"
    for key, entry in value.items() if isinstance(value, dict) else enumerate([value]):
        yield f"    {key}: {_short(entry)}"


def _safetensors(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        yield f"  tensors: {len(names)}"
        for name in names:
            tensor = file.get_slice(name)
            yield f"    {name}: {tensor.get_dtype()} {tuple(tensor.get_shape())}"


def _onnx(path: Path) -> Iterator[str]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    opsets = ", ".join(
        f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import
    )
    yield f"  onnx: {len(model.graph.node)} nodes, opset {opsets}"
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
            dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            yield f"    {kind} {value.name}: {dtype} ({', '.join(sizes)})"


def _duckdb(path: Path) -> Iterator[str]:
    from recsys_core.serving.tables import open_table

    with open_table(path, read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_name, table_type FROM information_schema.tables ORDER BY table_name"
        ).fetchall()
        for name, kind in tables:
            quoted = '"' + name.replace('"', '""') + '"'
            rows = connection.execute(f"SELECT count(*) FROM {quoted}").fetchall()[0][0]
            yield f"  {'view' if kind == 'VIEW' else 'table'} {name}: {rows:,} rows"
            columns = connection.execute(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_name = ? ORDER BY ordinal_position",
                [name],
            ).fetchall()
            for column, dtype in columns:
                yield f"    {column}: {dtype}"


def _unknown(path: Path) -> Iterator[str]:
    yield f"  kind: {path.suffix or 'no suffix'}; not one that the pipeline writes"


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".parquet": _parquet,
    ".npy": _npy,
    ".json": _json,
    ".yaml": _yaml,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
    ".duckdb": _duckdb,
}


def _origin(path: Path) -> Iterator[str]:
    """Which step wrote it, with what DVC recorded then."""
    place = path.resolve()
    workspace = next((folder for folder in place.parents if (folder / "dvc.yaml").is_file()), None)
    if workspace is None:
        yield "  origin: not in a workspace"
        return
    stage = _step_of(place.relative_to(workspace))
    if stage is None:
        yield "  origin: no step's output"
        return
    yield f"  written by: {stage} (in {workspace})"
    if stage in EDGES:
        yield "  an edge: DVC records nothing of it; what it did last stands in run.json"
        return
    lock = workspace / "dvc.lock"
    recorded = read_yaml(lock)["stages"].get(stage) if lock.is_file() else None
    if recorded is None:
        yield "  dvc.lock: nothing recorded for this stage"
        return
    for output in recorded.get("outs", []):
        if place.is_relative_to((workspace / output["path"]).resolve()):
            yield f"  {output['path']}: {output.get('hash', 'md5')} {output['md5']}"
    for sections in recorded.get("params", {}).values():
        for name, value in sections.items():
            yield f"  params {name}: {value}"


def _step_of(relative: Path) -> str | None:
    """The step that writes a path of a workspace, by the first two parts of it."""
    first, second = (*relative.parts, "", "")[:2]
    if first == "registry":
        return "gate" if second == "gate.json" else "register"
    if first in WRITTEN_BY:
        return WRITTEN_BY[first]
    if first == "artifacts" and second in STAGES:
        return second
    if first == "reports":
        name = second.removesuffix(".json")
        owners = {"cohorts": "evaluate", **{f"{stage}_curve": stage for stage in STAGES}}
        owner = owners.get(name, name)
        return owner if owner in STAGES else None
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
