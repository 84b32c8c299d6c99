"""Trained models as files: safetensors and JSON, nothing pickled."""

from pathlib import Path

from recsys_core.artifacts import read_json, read_tensors, write_json, write_tensors
from recsys_core.models.two_time_scale import TwoTimeScale


def write_model(folder: Path, model: TwoTimeScale) -> None:
    """Write a trained model into `folder`."""
    write_tensors(folder / "model.safetensors", model.to_arrays())
    write_json(folder / "model.json", model.to_json())


def read_model(folder: Path) -> TwoTimeScale:
    """The model of `write_model`, ready to predict."""
    return TwoTimeScale.from_arrays(
        read_json(folder / "model.json"), read_tensors(folder / "model.safetensors")
    )
