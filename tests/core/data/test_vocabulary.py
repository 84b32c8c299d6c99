"""Vocabularies: ids cross without loss, and what was known at a time is a prefix."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.data.vocabulary import Vocabulary
from recsys_core.tables import ITEM_VOCABULARY


def vocabulary(ids: list[str], first: list[int]) -> Vocabulary:
    table = pa.table(
        [
            pa.array(range(1, len(ids) + 1), pa.int32()),
            pa.array(ids, pa.string()),
            pa.array(first, pa.timestamp("us", tz="UTC")),
        ],
        schema=ITEM_VOCABULARY,
    )
    return Vocabulary.from_table(table)


def test_ids_cross_and_come_back() -> None:
    known = vocabulary(["b", "a", "07"], [5, 5, 9])
    assert len(known) == 3
    assert [known.to_idx(name) for name in ("b", "a", "07")] == [1, 2, 3]
    assert known.to_ids(np.array([3, 1, 1], dtype=np.int32)).to_pylist() == ["07", "b", "b"]
    assert known.to_ids(np.array([], dtype=np.int32)).to_pylist() == []


def test_an_unknown_id_has_no_idx() -> None:
    assert vocabulary(["a"], [1]).to_idx("7") is None
    assert vocabulary([], []).to_idx("7") is None


def test_pad_has_no_id() -> None:
    with pytest.raises(AssertionError, match="PAD"):
        vocabulary(["a"], [1]).to_ids(np.array([1, 0]))


def test_what_was_known_before_a_time_is_a_prefix() -> None:
    known = vocabulary(["a", "b", "c"], [5, 5, 9])
    assert [known.known_before(time) for time in (4, 5, 6, 9, 10)] == [0, 0, 2, 2, 3]


def test_a_table_in_pieces_is_one_vocabulary() -> None:
    one = pa.table(
        {
            "item_idx": pa.array([1], pa.int32()),
            "item_id": ["a"],
            "first_timestamp": pa.array([1], pa.timestamp("us", tz="UTC")),
        }
    )
    two = one.set_column(1, "item_id", pa.array(["b"]))
    known = Vocabulary.from_table(pa.concat_tables([one, two]))
    assert known.to_ids(np.array([1, 2])).to_pylist() == ["a", "b"]
