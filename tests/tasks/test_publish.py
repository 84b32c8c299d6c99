"""From champion to table: score and publish as a night runs them."""

import logging
from pathlib import Path

import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.sections import Publish
from tasks.edges import publish, score
from tasks.tables import published_table
from tests.serving_world import (
    HOSTILE,
    random_histories,
    score_params,
    scoring_workspace,
    user_ids,
)

DUCKDB = Publish(kind="duckdb", keep_runs=1, layout="rows", schema="twotempo")
HISTORIES = random_histories([3, 7, 1, 1, 12, 2, 2, 2])


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    bundles = tmp_path_factory.getbasetemp()
    return scoring_workspace(tmp_path, bundles=bundles, histories=HISTORIES)


def night(layout: Layout, *, k: int = 5) -> None:
    score.run(layout=layout, score=score_params(k=k, shard_users=3))
    publish.run(layout=layout, publish=DUCKDB)


def test_a_night(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        night(layout, k=20)
    assert "users=8 rows=160 shortfall=0 changed=True" in caplog.text
    for user in user_ids(len(HISTORIES)):
        assert published_table(layout).read(user).num_rows == 20
    recommended = {
        item
        for user in user_ids(len(HISTORIES))
        for item in published_table(layout).read(user).column("item_id").to_pylist()
    }
    assert recommended & set(HOSTILE)


def test_the_same_night_again(layout: Layout) -> None:
    night(layout)
    before = published_table(layout).runs()
    night(layout)
    assert published_table(layout).runs() == before


def test_a_later_log_with_the_same_champion(layout: Layout) -> None:
    night(layout)
    split = read_json(layout.split)
    write_json(layout.split, {**split, "as_of": split["as_of"] + 1})
    night(layout)
    runs = published_table(layout).runs()
    assert runs.column("model_version").unique().to_pylist() == [
        read_json(layout.registry / "champion.json")["version"]
    ]
    assert len(runs) == 2


def test_other_k_is_another_run(layout: Layout) -> None:
    night(layout)
    night(layout, k=3)
    assert published_table(layout).runs().column("rows").to_pylist() == [40, 24]
    assert published_table(layout).read(HOSTILE[0]).num_rows == 3


def test_nothing_scored(layout: Layout) -> None:
    with pytest.raises(ContractError, match="no such file"):
        publish.run(layout=layout, publish=DUCKDB)
    assert not layout.table.exists()
