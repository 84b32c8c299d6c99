"""From champion to table: score and publish as a night runs them."""

import logging
from pathlib import Path

import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Publish
from recsys_core.serving.tables import read_recommendations, read_runs
from tasks.edges import publish, score
from tests.serving_world import (
    HOSTILE,
    random_histories,
    score_params,
    scoring_workspace,
    user_ids,
)

HISTORIES = random_histories([3, 7, 1, 1, 12, 2, 2, 2])


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    bundles = tmp_path_factory.getbasetemp()
    return scoring_workspace(tmp_path, bundles=bundles, histories=HISTORIES)


def night(layout: Layout, *, k: int = 5) -> None:
    score.run(layout=layout, score=score_params(k=k, shard_users=3))
    publish.run(layout=layout, publish=Publish(keep_runs=1))


def test_a_night(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        night(layout, k=20)
    assert "users=8 rows=160 shortfall=0 changed=True" in caplog.text
    for user in user_ids(len(HISTORIES)):
        assert read_recommendations(layout.table, user).num_rows == 20
    recommended = {
        item
        for user in user_ids(len(HISTORIES))
        for item in read_recommendations(layout.table, user).column("item_id").to_pylist()
    }
    assert recommended & set(HOSTILE)


def test_the_same_night_again(layout: Layout) -> None:
    night(layout)
    before = read_runs(layout.table)
    night(layout)
    assert read_runs(layout.table) == before


def test_a_later_log_with_the_same_champion(layout: Layout) -> None:
    night(layout)
    split = read_json(layout.split)
    write_json(layout.split, {**split, "as_of": split["as_of"] + 1})
    night(layout)
    runs = read_runs(layout.table)
    assert runs.column("model_version").unique().to_pylist() == [
        read_json(layout.registry / "champion.json")["version"]
    ]
    assert len(runs) == 2


def test_other_k_is_another_run(layout: Layout) -> None:
    night(layout)
    night(layout, k=3)
    assert read_runs(layout.table).column("rows").to_pylist() == [40, 24]
    assert read_recommendations(layout.table, HOSTILE[0]).num_rows == 3


def test_nothing_scored(layout: Layout) -> None:
    with pytest.raises(ContractError, match="no such file"):
        publish.run(layout=layout, publish=Publish(keep_runs=1))
    assert not layout.table.exists()
