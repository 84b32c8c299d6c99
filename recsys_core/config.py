"""Reads params.yaml into frozen sections; an unknown key, a wrong type or a missing section is
refused."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys_core.errors import ConfigError
from recsys_core.sections import (
    Backtest,
    Evaluate,
    ExportOnnx,
    Features,
    Gate,
    Publish,
    Refit,
    Register,
    Score,
    TrainEmbeddings,
    TrainMemory,
    TrainRnn,
)
from recsys_core.sections_of_data import (
    DaysSplit,
    EventsSplit,
    FrameSplit,
    Ingest,
    LeaveOneOutSplit,
    QuantileSplit,
    Sessionize,
    Snapshot,
    Validate,
)


class Params(BaseModel):
    """The whole of params.yaml: a section for each stage and edge, and the shared ones.

    `first_metric` decides wherever one number must: it ends training, picks windows, and is judged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    first_metric: str
    split: Annotated[
        DaysSplit | QuantileSplit | FrameSplit | EventsSplit | LeaveOneOutSplit,
        Field(discriminator="kind"),
    ]
    features: Features
    snapshot: Snapshot
    ingest: Ingest
    validate_: Validate = Field(alias="validate")
    sessionize: Sessionize
    train_embeddings: TrainEmbeddings
    train_rnn: TrainRnn
    train_memory: TrainMemory
    evaluate: Evaluate
    refit: Refit
    export_onnx: ExportOnnx
    gate: Gate
    register_: Register = Field(alias="register")
    score: Score
    publish: Publish
    backtest: Backtest

    @model_validator(mode="after")
    def _first_metric_is_evaluated(self) -> "Params":
        name, _, cutoff = self.first_metric.partition("@")
        known = name in ("recall", "mrr", "ndcg") and cutoff.isdigit()
        at_a_cutoff = known and int(cutoff) in self.evaluate.cutoffs
        if not at_a_cutoff and self.first_metric != "mrr":
            raise ValueError(
                f"first_metric is {self.first_metric!r}, it must be recall@k, mrr@k or ndcg@k "
                f"with k one of {self.evaluate.cutoffs}, or mrr"
            )
        return self

    @model_validator(mode="after")
    def _the_graph_gives_what_is_published(self) -> "Params":
        if self.score.k > self.export_onnx.k:
            raise ValueError(
                f"score.k is {self.score.k}, it must be at most export_onnx.k, which is "
                f"{self.export_onnx.k}"
            )
        return self

    @model_validator(mode="after")
    def _new_items_have_features(self) -> "Params":
        if self.export_onnx.new_items and not self.features.items:
            raise ValueError(
                "export_onnx.new_items is true, but features.items is empty, so that nothing tells "
                "an item without an event; name columns there, or set export_onnx.new_items to "
                "false"
            )
        return self

    @model_validator(mode="after")
    def _the_trend_is_as_old_as_it_is_asked(self) -> "Params":
        hours = self.train_rnn.trend_refresh_hours
        if self.evaluate.streaming and hours is not None:
            raise ValueError(
                f"train_rnn.trend_refresh_hours is {hours:g}, so that training sees a trend as old "
                "as a published table's, but evaluate.streaming asks with one that is never old; "
                "set one of them to null or false"
            )
        return self

    @model_validator(mode="after")
    def _the_floor_is_evaluated(self) -> "Params":
        if self.gate.floor == "recent_popularity" and not self.evaluate.windows:
            raise ValueError(
                "gate.floor is recent_popularity, but evaluate.recent_hours is empty; "
                "set gate.floor to popularity, or name hours"
            )
        if self.gate.floor not in self.evaluate.baselines:
            raise ValueError(
                f"gate.floor is {self.gate.floor}, which evaluate.baselines does not name; name "
                "it there, or set gate.floor to one that stands there"
            )
        return self

    def section(self, name: str) -> Any:
        """A section by its name in params.yaml."""
        for field, info in type(self).model_fields.items():
            if name in (info.alias or field,):
                return getattr(self, field)
        raise ConfigError(f"params.yaml has no section {name!r}; it has {section_names()}")


NOT_YAML = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What PyYAML raises: also whatever a date like 2023-99-99 or a tag like `!!bool x` makes of it."""

SHARED_SECTIONS = ("seed", "first_metric", "split", "features")


def section_names() -> list[str]:
    """Names of all sections, as in params.yaml."""
    return [info.alias or field for field, info in Params.model_fields.items()]


def read_params(path: Path) -> Params:
    """The parameters in `path`.

    Raises `ConfigError`, one line for each thing that is wrong.
    """
    return check_params(read_yaml(path), where=str(path))


def check_params(value: Any, *, where: str) -> Params:
    """Parameters from the parsed YAML `value`; `where` is named in errors."""
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, where=where)) from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; run inside a twotempo project or name the workspace"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); write it as UTF-8 text") from error
    try:
        return yaml.load(text, Loader=_Loader)
    except (*NOT_YAML, RecursionError) as error:
        summary = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML ({summary}); correct it there") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key stands twice: PyYAML takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def describe_errors(error: ValidationError, *, where: str) -> str:
    """One line: where, what was found, and what is wrong with it."""
    parts = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        # of the whole file there is nothing to show
        known = problem["type"] == "missing" or not problem["loc"]
        found = "" if known else f" (found {problem['input']!r:.80})"
        parts.append(f"{place}: {problem['msg']}{found}")
    return f"{where}: " + "; ".join(parts)
