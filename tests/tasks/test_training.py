"""What training stages may see: at a time, what had arrived by then."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_core.data.cuts import cuts_of
from recsys_core.data.events import Events
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.training.rewards import Rewards
from tasks.training import TrainingData, rows_trained
from tests.event_rows import events_of

SPLIT = Split(valid_start=5, test_start=8, end=10, as_of=9)


def training_data(events: Events, first_timestamp: list[int], root: Path) -> TrainingData:
    ids = pa.array([f"i{number}" for number in range(len(first_timestamp))])
    items = Vocabulary(ids=ids, first_timestamp=np.array(first_timestamp))
    return TrainingData(
        events=events,
        cuts=cuts_of(events, SPLIT, items),
        type_weights=np.ones(1, dtype=np.float32),
        type_names=("view",),
        reward_rule=Rewards(),
        device=torch.device("cpu"),
        checkpoints=root,
        fingerprint="",
    )


# item 3 has an event at time 1 that was delivered at time 7
LATE = events_of([(1, 1, 0), (1, 3, 1), (1, 2, 4), (2, 2, 6), (2, 3, 9)])


def test_what_arrived_later_is_not_in_the_log_whatever_its_time(tmp_path: Path) -> None:
    data = training_data(LATE, [0, 4, 7], tmp_path)
    log = data.log_until(data.cuts.valid)
    assert log.n_items == 2
    assert log.events.item_idx[log.rows].tolist() == [1, 2]
    assert log.counts.tolist() == [0, 2, 0]
    assert log.item_frequency(log.weights(None)).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("cut", "first"), [("test", [0, 4, 7]), ("valid", [0, 1, 4])])
def test_a_log_without_late_rows_is_not_copied(tmp_path: Path, cut: str, first: list[int]) -> None:
    data = training_data(LATE, first, tmp_path)
    log = data.log_until(getattr(data.cuts, cut))
    assert log.events is data.events
    assert log.n_items == 3


def test_each_row_is_learned_from_or_counted(tmp_path: Path) -> None:
    rows = rows_trained(training_data(LATE, [0, 4, 9], tmp_path), unwanted=True)["rows"]
    assert rows == {"in": 5, "out": 3, "test": 1, "late": 1}


def test_unwanted_events_are_counted_where_they_teach_nothing(tmp_path: Path) -> None:
    """Of the three events before the test period the second was sent back."""
    types = np.zeros(len(LATE), dtype=np.int8)
    types[LATE.timestamp == 4] = 1
    data = replace(
        training_data(replace(LATE, event_type=types), [0, 4, 9], tmp_path),
        type_names=("view", "return"),
        reward_rule=Rewards({"return": 0.0}),
    )
    taught = {"in": 5, "out": 3, "test": 1, "late": 1}
    assert rows_trained(data, unwanted=True)["rows"] == taught
    assert rows_trained(data, unwanted=False)["rows"] == {**taught, "out": 2, "unwanted": 1}
