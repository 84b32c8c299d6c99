"""The rows of the quality bench can be run, and say what they may."""

import doctest
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from benchmarks import row
from benchmarks.measure import RESULTS, ROOT
from benchmarks.quality import run_row
from benchmarks.quality_stages import key_of_peer
from benchmarks.row import changes_of, merged, read_row, row_names
from recsys_core.artifacts import write_json
from recsys_core.config import check_params, read_yaml
from recsys_core.errors import ConfigError, TwotempoError
from recsys_core.evaluation.baselines import ranked_name
from recsys_core.layout import Layout
from recsys_core.sections import BaselineName
from tasks.clock import Clock, check_clock
from tests.benchmarks.ranks import ROW


def test_doctests() -> None:
    assert doctest.testmod(row).failed == 0


@pytest.mark.parametrize("name", row_names())
def test_a_row_can_be_run(name: str) -> None:
    """Its params are whole, its card is there, its times can give what it asks for, and every
    baseline that it requires is ranked; with each of its changes too."""
    one = read_row(name)
    whole = merged(read_yaml(ROOT / "params.yaml"), one.params)
    card = read_yaml(ROOT / "datasets" / f"{one.dataset}.yaml")
    for change in (None, *one.ablations, *one.variants):
        params = check_params(merged(whole, changes_of(one, change)), where=name)
        check_clock(
            Clock(card["time"]["kind"], one_time=params.split.kind != "leave_one_out"),
            split=params.split,
            train_embeddings=params.train_embeddings,
            train_rnn=params.train_rnn,
            train_memory=params.train_memory,
            evaluate=params.evaluate,
            gate=params.gate,
        )
    params = check_params(whole, where=name)
    streaming = params.evaluate.streaming
    ranked = {ranked_name(name, streaming=streaming) for name in params.evaluate.baselines}
    assert set(one.required) <= {*ranked, *one.peers}
    assert set(params.evaluate.baselines) <= set(get_args(BaselineName))
    assert one.metrics[0] == params.first_metric
    assert len(one.metrics) == 2
    assert not one.peers or "als" in one.peers
    assert "als" not in one.required or "bpr" in one.peers


def test_no_row_takes_the_name_of_another_benchmark() -> None:
    others = {path.stem for path in RESULTS.glob("*.json")} - set(row_names())
    assert {"pipeline", "sessionize"} <= others


def test_no_such_row_is_said() -> None:
    with pytest.raises(ConfigError, match="'gts-mars' is no row of the quality bench"):
        read_row("gts-mars")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"floor": {"value": 0.1, "what": "a table"}}, "floor is"),
        ({"floor": {"train_only": {"value": 0.1, "what": "a table"}}}, "floor is"),
        ({"floor": {"refit": {"value": 0.1}}}, "floor is"),
        ({"peers": ["svd"]}, "peers is"),
        ({"ablations": ["none"]}, "ablations is"),
        ({"ablations": ["inductive"], "params": {}}, "ablations is"),
        ({"variants": {"swap": {"evaluate": {}}}}, "the variant 'swap'"),
        ({"variants": {"wide": {"train_rnn": {"window": 9}}}}, "the variant 'wide'"),
        ({"baselines": []}, "its keys must be"),
    ],
)
def test_a_row_that_says_what_none_may_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    good = read_yaml(ROOT / "benchmarks" / "rows" / "gts-beauty.yaml")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(good))
    read_row("mine", folder=tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**good, **changes}))
    with pytest.raises(ConfigError, match=said):
        read_row("mine", folder=tmp_path)


def test_the_inductive_model_has_one_network_and_no_vector_of_the_user() -> None:
    row = read_row("gts-yelp")
    changes = changes_of(row, "inductive")
    assert changes["train_rnn"] == {"ablation": "one_rnn"}
    terms = row.params["train_memory"]["terms"]
    assert changes["train_memory"]["terms"] == [term for term in terms if term != "factors"]
    assert len(changes["train_memory"]["terms"]) == len(terms) - 1


def test_a_change_that_the_row_does_not_name_is_refused() -> None:
    assert changes_of(ROW, None) == {}
    assert changes_of(ROW, "one_rnn")["train_rnn"] == {"ablation": "one_rnn"}
    with pytest.raises(ConfigError, match="'swap' is no ablation, variant or case"):
        changes_of(ROW, "swap")


def test_a_required_baseline_that_nobody_ranks_is_said_before_anything_runs(tmp_path: Path) -> None:
    """It was said after hours of training."""
    one = replace(ROW, required=["als", "popularity"])
    with pytest.raises(TwotempoError, match=r"required baselines \['als'\] are missing"):
        run_row(one, 1, runs=tmp_path, logs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("implicit") is not None, reason="this Python has the extra peers")
def test_peers_that_cannot_be_fitted_are_said_before_anything_runs(tmp_path: Path) -> None:
    one = replace(ROW, peers=["als"])
    params = {"evaluate": {"baselines": ["popularity", "recent_popularity"]}}
    with pytest.raises(TwotempoError, match=r"cannot import benchmarks\.peers .*--peers-python"):
        run_row(replace(one, params=params), 1, runs=tmp_path, logs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_peer_goes_stale_with_what_it_reads(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    params = read_yaml(ROOT / "params.yaml")

    def key(t_star: int = 10, sessionize: str = "a", **changes: dict[str, Any]) -> str:
        layout.params.write_text(yaml.safe_dump(merged(params, changes)))
        write_json(layout.stage("train_rnn") / "model.json", {"t_star": t_star})
        write_json(tmp_path / "done.json", {"sessionize": {"key": sessionize}})
        return key_of_peer("als", layout)

    first = key()
    assert key() == first
    assert key(train_rnn={"hidden": 7}) == first, "ALS does not read the networks"
    assert len({first, key(t_star=11), key(sessionize="b"), key(evaluate={"batch": 7})}) == 4
