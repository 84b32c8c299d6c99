"""Memories as files: safetensors and JSON, nothing pickled."""

from pathlib import Path

from recsys_core.artifacts import read_json, read_tensors, write_json, write_tensors
from recsys_core.models.memory import Memory


def write_memory(folder: Path, memory: Memory) -> None:
    """Write a memory into `folder`."""
    write_tensors(folder / "memory.safetensors", memory.to_arrays())
    write_json(folder / "memory.json", memory.to_json())


def read_memory(folder: Path) -> Memory:
    """The memory of `write_memory`, ready to predict."""
    return Memory.from_arrays(
        read_json(folder / "memory.json"), read_tensors(folder / "memory.safetensors")
    )
