"""Files between steps: written whole or not at all, with the same bytes for the same content."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recsys_core.errors import ContractError

MANIFEST = "manifest.json"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys; NaN is refused, since JSON has none."""
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON value of `path`."""
    if not path.exists():
        raise ContractError(f"{path}: no such file; run the stage that writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ContractError(
            f"{path}: not JSON ({error}); delete it and run its stage again"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], *, note: str = "") -> None:
    """Write named arrays as one safetensors file, in the order of their names, with a text beside
    them."""
    from safetensors.numpy import save_file

    # ascontiguousarray would turn a scalar into a vector
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    with atomic_path(path) as temporary:
        save_file(ordered, temporary, metadata={"note": note} if note else None)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of a safetensors file."""
    return read_tensors_and_note(path)[0]


def read_tensors_and_note(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The named arrays of a safetensors file, and the text beside them ("" where there is none)."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise ContractError(f"{path}: no such file; run the stage that writes it")
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, (file.metadata() or {}).get("note", "")
    except SafetensorError as error:
        raise ContractError(
            f"{path}: broken ({error}); delete it and run its stage again"
        ) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> str:
    """Write `manifest.json` of a folder: `facts`, and the SHA-256 of each file; returns its own
    SHA-256."""
    files = {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    write_json(folder / MANIFEST, {**facts, "files": files})
    return sha256(folder / MANIFEST)


def verify_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose every file still has the SHA-256 it was written with.

    Raises `ContractError` where a file is missing, changed or was added.
    """
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    found = {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and file.name != MANIFEST
    }
    declared = set(manifest["files"])
    if found != declared:
        raise ContractError(
            f"{folder}: missing files {sorted(declared - found)}, "
            f"unexpected files {sorted(found - declared)}; "
            "export or restore this bundle again"
        )
    for name, digest in manifest["files"].items():
        if sha256(folder / name) != digest:
            raise ContractError(
                f"{folder / name}: its SHA-256 is not the manifest's; restore this bundle"
            )
    return manifest
