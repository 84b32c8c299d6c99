"""Shards: whole or absent, taken up again, worthless for another log or model."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.serving.engine import TopItems
from recsys_core.serving.shards import (
    RunFacts,
    RunFolder,
    read_score_run,
    recommendation_rows,
    time_of,
)
from recsys_core.tables import ITEM_VOCABULARY, SCORES
from tests.conftest import CHECKOUT
from tests.serving_world import HOSTILE, START, item_ids, vocabulary_table

FACTS = RunFacts(
    model_version="0123456789ab",
    graph="popularity",
    as_of=START,
    k=2,
    seen_filter=False,
    shard_users=2,
    users=5,
    log="digest",
    code="code",
    provider="CPUExecutionProvider",
)


def rows_of(number: int) -> pa.Table:
    """Two users with two items each; users are in the order of shards."""
    users = [f"user-{2 * number}", f"user-{2 * number + 1}"]
    return pa.table(
        [
            pa.array(np.repeat(users, 2).tolist(), pa.string()),
            pa.array([1, 2, 1, 2], pa.int32()),
            pa.array(["a", "b", "b", "a"], pa.string()),
            pa.array([2.0, 1.0, 3.0, 0.5], pa.float32()),
            pa.nulls(4, pa.float32()),
        ],
        schema=SCORES,
    )


def test_reading_a_table_loads_no_engine() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tasks.lookup\nprint('onnxruntime' in sys.modules)",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_rows_of_top_items() -> None:
    items = Vocabulary.from_table(vocabulary_table(item_ids(), ITEM_VOCABULARY))
    top = TopItems(
        items=np.array([[3, 1], [2, 0], [0, 0]]),
        scores=np.array([[2.0, 1.0], [0.5, -np.inf], [-np.inf, -np.inf]], dtype=np.float32),
        ratings=np.array([[4.5, np.nan], [3.0, np.nan], [np.nan, np.nan]], dtype=np.float32),
    )
    table, shortfall = recommendation_rows(
        top, user_ids=pa.array(["a'", "b", "c"], pa.string()), items=items
    )
    assert table.schema == SCORES
    assert table.to_pydict() == {
        "user_id": ["a'", "a'", "b"],
        "rank": [1, 2, 1],
        "item_id": [HOSTILE[2], HOSTILE[0], HOSTILE[1]],
        "score": [2.0, 1.0, 0.5],
        "rating": [4.5, None, 3.0],
    }
    assert shortfall == 3
    assert table.num_rows + shortfall == top.items.size


def test_a_run_is_seen_only_when_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, FACTS)
    assert folder.missing() == [0, 1, 2]
    with pytest.raises(ContractError, match="no such file"):
        read_score_run(tmp_path)
    for number in (1, 0, 2):
        folder.write(number, rows_of(number), users=2, shortfall=1)
    with pytest.raises(ContractError, match="no such file"):
        read_score_run(tmp_path)
    finished = folder.finish()
    assert (finished.rows, finished.shortfall) == (12, 3)
    read = read_score_run(tmp_path)
    assert read == finished
    assert [part.name for part in read.parts] == [
        f"part-0000{number}.parquet" for number in range(3)
    ]
    assert pq.read_table(read.parts[1]) == rows_of(1)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    RunFolder(tmp_path, FACTS).write(1, rows_of(1), users=2, shortfall=0)
    again = RunFolder(tmp_path, FACTS)
    assert again.missing() == [0, 2]
    for number in again.missing():
        again.write(number, rows_of(number), users=2, shortfall=0)
    assert len(again.finish().shards) == 3


def test_a_run_opened_twice_before_its_next_shard_loses_nothing(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, FACTS)
    for number in (0, 1):
        first.write(number, rows_of(number), users=2, shortfall=0)
    assert RunFolder(tmp_path, FACTS).missing() == [2]
    assert RunFolder(tmp_path, FACTS).missing() == [2]


def test_a_broken_shard_is_scored_again(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, FACTS)
    for number in range(3):
        first.write(number, rows_of(number), users=2, shortfall=0)
    first.finish()
    part = first.folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(ContractError, match=r"shards \[1\] are missing or changed"):
        read_score_run(tmp_path)
    again = RunFolder(tmp_path, FACTS)
    assert again.missing() == [1]
    assert not part.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"k": 3},
        {"log": "another"},
        {"seen_filter": True},
        {"shard_users": 3},
        {"graph": "x"},
        {"code": "changed"},
        {"provider": "CUDAExecutionProvider"},
    ],
)
def test_shards_of_other_facts_are_worthless(tmp_path: Path, change: dict[str, object]) -> None:
    RunFolder(tmp_path, FACTS).write(0, rows_of(0), users=2, shortfall=0)
    other = replace(FACTS, **change)
    folder = RunFolder(tmp_path, other)
    assert folder.missing() == list(range(other.n_shards))
    assert [entry.name for entry in folder.folder.iterdir()] == ["shards.json"]
    assert read_json(folder.folder / "shards.json")["shards"] == {}


def test_other_runs_are_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path, FACTS).write(0, rows_of(0), users=2, shortfall=0)
    folder = RunFolder(tmp_path, replace(FACTS, as_of=START + 1))
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.folder.name]


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, FACTS)
    with pytest.raises(ContractError, match="breaks the order"):
        folder.write(0, rows_of(0).take([2, 3, 0, 1]), users=2, shortfall=0)
    with pytest.raises(ContractError, match="repeats the key"):
        folder.write(0, rows_of(0).take([0, 0, 1]), users=2, shortfall=0)
    assert folder.missing() == [0, 1, 2]


def test_a_shard_missing_from_the_list_is_noticed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, FACTS)
    for number in range(3):
        folder.write(number, rows_of(number), users=2, shortfall=0)
    folder.finish()
    listed = read_json(folder.folder / "shards.json")
    del listed["shards"]["2"]
    write_json(folder.folder / "shards.json", listed)
    with pytest.raises(ContractError, match=r"shards \[2\]"):
        read_score_run(tmp_path)


def test_times_are_exact_to_the_microsecond() -> None:
    assert time_of(1_508_198_399_999_999).isoformat() == "2017-10-16T23:59:59.999999+00:00"
    assert FACTS.name == "0123456789ab-20231114T221320.000000Z"
