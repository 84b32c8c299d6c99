"""Embeddings as files: safetensors and JSON, nothing pickled."""

from pathlib import Path

from recsys_core.artifacts import read_json, read_tensors, write_json, write_tensors
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.step_sizes import StepSizes

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


def write_step_sizes(folder: Path, steps: StepSizes) -> None:
    """Write how far events move a user's embedding, by the embeddings of before validation."""
    tables = {"users": steps.users, "step": steps.step, "first_step": steps.first_step}
    write_tensors(folder / "step_sizes.safetensors", tables)


def read_step_sizes(folder: Path) -> StepSizes:
    """The step sizes of `write_step_sizes`."""
    tables = read_tensors(folder / "step_sizes.safetensors")
    return StepSizes(users=tables["users"], step=tables["step"], first_step=tables["first_step"])
