"""params.yaml: read whole, refused with everything that is wrong, one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_core.config import (
    SHARED_SECTIONS,
    Params,
    check_params,
    read_params,
    read_yaml,
    section_names,
)
from recsys_core.errors import ConfigError
from recsys_core.layout import BESIDE, EDGES, STAGES
from recsys_core.sections_of_data import DaysSplit, QuantileSplit
from tests.small_logs import REPOSITORY


@pytest.fixture
def value() -> dict[str, Any]:
    read: dict[str, Any] = read_yaml(REPOSITORY / "params.yaml")
    return read


def test_the_projects_own_parameters_are_read() -> None:
    params = read_params(REPOSITORY / "params.yaml")
    assert params.seed == 7
    assert params.section("validate") is params.validate_
    assert isinstance(params.split, DaysSplit)


def test_sections_are_the_stages_and_edges_and_the_shared_ones() -> None:
    assert set(section_names()) == {*STAGES, *EDGES, *BESIDE, *SHARED_SECTIONS}


def test_parameters_survive_the_round_trip(value: dict[str, Any]) -> None:
    params = check_params(value, where="params.yaml")
    again = check_params(
        yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json", by_alias=True))), where="again"
    )
    assert again == params


def test_the_kind_of_split_decides_its_keys(value: dict[str, Any]) -> None:
    value["split"] = {"kind": "quantile", "share": 0.1}
    assert check_params(value, where="p").split == QuantileSplit(kind="quantile", share=0.1)
    value["split"] = {"kind": "quantile", "days": 1}
    with pytest.raises(ConfigError, match=r"split\.quantile\.share"):
        check_params(value, where="p")


@pytest.mark.parametrize(
    ("section", "key", "bad", "says"),
    [
        ("train_rnn", "colour", "red", "train_rnn.colour: Unexpected keyword"),
        ("train_rnn", "dropout", 1.0, "at least 0 and less than 1"),
        ("train_rnn", "hidden", "wide", "train_rnn.hidden"),
        ("validate", "batch_rows", 0, "batch_rows is 0, it must be greater than 0"),
        (None, "first_metric", "mrr@7", "first_metric is 'mrr@7'"),
        ("evaluate", "recent_hours", [0.0], "recent_hours and cutoffs"),
        ("evaluate", "recent_hours", [], "gate.floor is recent_popularity, but evaluate.recent"),
        ("evaluate", "cutoffs", [], "cutoffs is empty"),
        ("evaluate", "baselines", ["popularity"], "evaluate.baselines does not name"),
        ("evaluate", "baselines", ["luck"], "evaluate.baselines.0"),
        ("evaluate", "baselines", ["popularity"] * 2, "it must name each once"),
        ("evaluate", "targets", "all", "evaluate.targets"),
        ("sessionize", "ties", "random", "sessionize.ties"),
        ("train_rnn", "time_dim", 0, "time_dim is 0, it must be greater than 0"),
        ("features", "items", ["genre"] * 2, "it must name each once"),
        ("features", "categories", 0, "categories is 0, it must be greater than 0"),
        ("features", "training_share", 1.1, "training_share is 1.1, it must be from 0 to 1"),
        ("features", "warm_share", float("nan"), "warm_share is nan, it must be from 0 to 1"),
        ("features", "share_events", 0.0, "share_events is 0.0, it must be greater than 0"),
        ("features", "cold_ridges", [3.0, 0.0], "cold_ridges must be ridges greater than 0"),
        ("features", "cold_ridges", [3.0, 3.0], "cold_ridges is [3.0, 3.0], it must name each"),
        ("export_onnx", "new_items", True, "export_onnx.new_items is true, but features.items is"),
        ("train_rnn", "rating_weight", -1.0, "rating_weight is -1.0, it must be at least 0"),
        ("train_rnn", "rating_pull", -1.0, "rating_pull is -1.0, it must be at least 0"),
        ("refit", "kind", "sometimes", "refit.kind"),
        ("score", "k", 101, "score.k is 101, it must be at most export_onnx.k, which is 100"),
        ("score", "seen", [], "seen is an empty list, it must be none, all or name event types"),
        ("score", "seen", "purchase", "score.seen"),
        ("score", "active_within", 0, "active_within is 0.0, it must be greater than 0"),
        ("score", "cold", {"segment": None, "hours": -1}, "hours is -1.0, it must be greater"),
        ("score", "cold", {"segment": None}, "score.cold.hours: Field required"),
        (
            "score",
            "filters",
            {
                "allow": [],
                "deny": [],
                "available": {"since": None, "until": None},
                "rules": [],
                "segments": {"by": "x", "sets": {"DE": {"rule": "true"}}, "default": {}},
            },
            "sets.DE.rule: Unexpected keyword",
        ),
        ("publish", "keep_runs", -1, "keep_runs is -1, it must be at least 0"),
        ("publish", "kind", "mysql", "publish.kind"),
        ("publish", "layout", "columns", "publish.layout"),
        ("publish", "schema", "x; DROP TABLE y", "schema is 'x; DROP TABLE y', it must be at most"),
        ("publish", "schema", "pg_mine", "schema is 'pg_mine', it must be at most 63 lower case"),
        ("gate", "min_targets", -1, "min_targets is -1, it must be at least 0"),
        ("gate", "margin", -0.1, "margin is -0.1, it must be at least 0"),
        ("train_embeddings", "l2", -1.0, "l2 is -1.0, it must be at least 0"),
        ("train_rnn", "item_pull", -1.0, "item_pull is -1.0, it must be at least 0"),
        ("train_rnn", "gamma", -1.0, "gamma is -1.0, it must be at least 0"),
        ("train_rnn", "window", 0, "window is 0, it must be greater than 0"),
        ("train_rnn", "gamma", float("nan"), "gamma is nan, it must be a finite number"),
        ("evaluate", "recent_minutes", [0], "recent_minutes"),
        ("backtest", "frames", 0, "frames is 0, it must be greater than 0"),
        ("backtest", "frame_hours", 0.01, "frame_hours is 0.01, it must be at least a minute"),
        ("backtest", "retrain", "sometimes", "backtest.retrain"),
        ("backtest", "retrain", 0, "retrain is 0, it must be greater than 0"),
        ("split", "days", float("inf"), "days is inf, it must be a finite number"),
        ("train_embeddings", "sampling_power", float("nan"), "sampling_power is nan"),
        ("evaluate", "recent_hours", [float("nan")], "recent_hours and cutoffs"),
        ("validate", "batch_rows", 10**30, "it must be at most 2147483647"),
        ("validate", "memory_mb", 2**63, "it must be at most 2147483647"),
    ],
)
def test_what_is_wrong_is_named(
    value: dict[str, Any], section: str | None, key: str, bad: object, says: str
) -> None:
    (value if section is None else value[section])[key] = bad
    with pytest.raises(ConfigError) as caught:
        check_params(value, where="params.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trend_is_not_old_in_training_and_new_in_evaluation(value: dict[str, Any]) -> None:
    value["train_rnn"].update(trend_hours=1, trend_refresh_hours=24)
    check_params(value, where="params.yaml")
    value["evaluate"]["streaming"] = True
    with pytest.raises(ConfigError, match="asks with one that is never old"):
        check_params(value, where="params.yaml")


def test_all_that_is_wrong_is_named_at_once(value: dict[str, Any]) -> None:
    del value["seed"]
    value["gate"]["min_targets"] = "many"
    with pytest.raises(ConfigError, match=r"seed: Field required; .*gate\.min_targets"):
        check_params(value, where="params.yaml")


def test_no_section_has_a_default(value: dict[str, Any]) -> None:
    for name in section_names():
        left = {key: part for key, part in value.items() if key != name}
        with pytest.raises(ConfigError, match=f"{name}: Field required"):
            check_params(left, where="params.yaml")


def test_an_unknown_section_is_an_error(value: dict[str, Any]) -> None:
    params: Params = check_params(value, where="params.yaml")
    with pytest.raises(ConfigError, match="no section 'train'"):
        params.section("train")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"caf\xe9: 1")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_params(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a: 2023-99-99",
        "a: !!bool maybe",
        "a: !!float x",
        "a: !!timestamp x",
        "a: !!int ''",
        "a: " + "9" * 5_000,
        "[" * 3_000,
        "? [1]\n: 2",
        "seed: 7\nsplit: {kind: days, days: 1, kind: quantile}",
    ],
    ids=lambda text: text[:18],
)
def test_what_yaml_cannot_make_a_value_of_is_one_line(text: str, tmp_path: Path) -> None:
    """PyYAML raises whatever a broken date or tag makes of it, not its own error."""
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match="not YAML") as caught:
        read_yaml(tmp_path / "params.yaml")
    assert str(caught.value).isprintable()
