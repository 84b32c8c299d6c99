"""Embeddings as files: safetensors and JSON, nothing pickled."""

from pathlib import Path

from recsys_core.artifacts import read_json, read_tensors, write_json, write_tensors
from recsys_core.models.embeddings import Embeddings

UNTIL_VALID = "until_valid"
UNTIL_TEST = "until_test"
"""Folders of what is known before the validation period, and before the test period."""


def write_embeddings(folder: Path, embeddings: Embeddings) -> None:
    """Write stage one's output into `folder`."""
    tables = {
        "users": embeddings.users,
        "items": embeddings.items,
        "item_bias": embeddings.item_bias,
    }
    write_tensors(folder / "embeddings.safetensors", tables)
    write_json(folder / "embeddings.json", {"fold_in_l2": embeddings.fold_in_l2})


def read_embeddings(folder: Path) -> Embeddings:
    """The embeddings of `write_embeddings`."""
    tables = read_tensors(folder / "embeddings.safetensors")
    return Embeddings(
        users=tables["users"],
        items=tables["items"],
        item_bias=tables["item_bias"],
        fold_in_l2=read_json(folder / "embeddings.json")["fold_in_l2"],
    )
