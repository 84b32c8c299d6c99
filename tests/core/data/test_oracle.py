"""The oracle must be a distribution, be the one that the log was drawn from, and stay ahead."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys_core.data.oracle import Oracle, read_oracle, write_oracle
from recsys_core.data.simulator import SimulatedLog, SimulatorConfig, simulate
from recsys_core.data.simulator_config import MICROSECONDS_PER_DAY
from recsys_core.errors import ContractError

WORDS = Path(__file__).resolve().parents[3] / "datasets" / "simulator"

CONFIG = SimulatorConfig(
    users=600,
    items=200,
    topics=8,
    days=21,
    start="2024-03-01",
    events_per_user=34.0,
    oracle_days=4,
    shuffle=False,
    seed=3,
)
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

HAND = Oracle(
    item_ids=["a", "b", "c", "d", "e"],
    topic_offsets=np.array([0, 3, 5]),
    factors=np.array([[0.0], [1.0], [2.0], [0.0], [0.0]], dtype=np.float32),
    appeal=np.array([[0, 0, -np.inf, 0, 0], [0, 0, 0, 0, 0]], dtype=np.float32),
    source_row=np.array([4, 7, 9]),
    period=np.array([0, 1, 1]),
    query=np.log(np.array([[3.0], [2.0], [1.0]], dtype=np.float32)),
    topic_log_probability=np.log(np.array([[0.8, 0.2]] * 3, dtype=np.float32)),
    previous_item=np.array([-1, 1, 3], dtype=np.int32),
    repeat_probability=np.array([0.0, 0.25, 0.0], dtype=np.float32),
)
"""Two topics (a, b, c) and (d, e), small enough to work out by hand."""


@pytest.fixture(scope="module")
def log() -> SimulatedLog:
    return simulate(CONFIG, words=WORDS)


def items_of(log: SimulatedLog) -> Int64:
    """The position of each interaction's item in the oracle's order."""
    ids = pa.array(log.oracle.item_ids)
    return pc.index_in(log.interactions["item_id"], value_set=ids).to_numpy().astype(np.int64)


def test_the_distribution_is_the_one_worked_out_by_hand() -> None:
    probability = np.exp(HAND.log_probability(np.array([7, 4, 9])))
    # the repeat, else by topic; b is the item before, and 2 ** factor weighs a and c as 1 and 4
    by_hand_7 = [0.75 * 0.8 / 5, 0.25, 0.75 * 0.8 * 4 / 5, 0.75 * 0.1, 0.75 * 0.1]
    # c is not on the shelf; 3 ** factor weighs a and b as 1 and 3
    by_hand_4 = [0.8 / 4, 0.8 * 3 / 4, 0.0, 0.1, 0.1]
    # d is the item before and cannot be viewed again at once
    by_hand_9 = [0.8 / 3, 0.8 / 3, 0.8 / 3, 0.0, 0.2]
    np.testing.assert_allclose(probability, [by_hand_7, by_hand_4, by_hand_9], rtol=1e-6)


def test_rows_that_are_not_covered_are_refused() -> None:
    np.testing.assert_array_equal(HAND.covers(np.array([9, 8, 4])), [True, False, True])
    with pytest.raises(ContractError, match="1 of 2 events are not covered"):
        HAND.log_probability(np.array([4, 5]))


def test_no_rows_give_no_rows() -> None:
    assert HAND.log_probability(np.array([], dtype=np.int64)).shape == (0, 5)


def test_the_last_days_are_covered_and_nothing_before(log: SimulatedLog) -> None:
    times = log.interactions["timestamp"].cast(pa.int64()).to_numpy()
    start = CONFIG.end_timestamp - CONFIG.oracle_days * MICROSECONDS_PER_DAY
    np.testing.assert_array_equal(log.oracle.covers(np.arange(len(times))), times >= start)


def test_probabilities_of_an_event_sum_to_one(log: SimulatedLog) -> None:
    logs = log.oracle.log_probability(log.oracle.source_row)
    assert logs.dtype == np.float32
    np.testing.assert_allclose(np.exp(logs.astype(np.float64)).sum(axis=1), 1.0, atol=1e-5)
    assert np.isneginf(logs).any(axis=1).all()


def test_what_happened_was_possible_and_as_likely_as_the_oracle_says(log: SimulatedLog) -> None:
    """On average -log p of what was drawn is the entropy, or p is not the truth."""
    rows = log.oracle.source_row
    logs = log.oracle.log_probability(rows).astype(np.float64)
    probability = np.exp(logs)
    surprise = -logs[np.arange(len(rows)), items_of(log)[rows]]
    assert np.all(np.isfinite(surprise))
    entropy = -np.sum(probability * np.where(probability > 0, logs, 0.0), axis=1)
    difference = surprise - entropy
    error = difference.std() / np.sqrt(len(rows))
    assert error < 0.04
    assert abs(difference.mean()) < 3 * error


def test_each_probability_is_met_by_its_frequency(log: SimulatedLog) -> None:
    """Among all pairs of event and item with probability near p, a share near p happened."""
    rows = log.oracle.source_row
    probability = np.exp(log.oracle.log_probability(rows).astype(np.float64))
    happened = np.zeros(probability.shape)
    happened[np.arange(len(rows)), items_of(log)[rows]] = 1.0
    edges = [0.001, 0.01, 0.03, 0.1, 0.2, 0.4, 1.0]
    for low, high in pairwise(edges):
        near = (probability >= low) & (probability < high)
        expected = probability[near].sum()
        spread = np.sqrt((probability[near] * (1 - probability[near])).sum())
        assert expected > 100
        assert abs(happened[near].sum() - expected) < 4 * spread


def mrr_at_20(scores: Float64, target: Int64) -> float:
    own = scores[np.arange(len(target)), target]
    rank = np.count_nonzero(scores >= own[:, None], axis=1)
    return float(np.mean(np.where(rank <= 20, 1.0 / rank, 0.0)))


def test_oracle_is_ahead_of_transitions_and_they_of_popularity(log: SimulatedLog) -> None:
    item = items_of(log)
    user = log.interactions["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    by_user = np.lexsort((np.arange(len(user)), user))
    previous = np.full(len(user), -1)
    same = user[by_user][1:] == user[by_user][:-1]
    previous[by_user[1:][same]] = item[by_user[:-1][same]]
    times = log.interactions["timestamp"].cast(pa.int64()).to_numpy()
    learn = times < CONFIG.end_timestamp - MICROSECONDS_PER_DAY
    target = np.flatnonzero(~learn & (previous >= 0))

    popularity = np.bincount(item[learn], minlength=CONFIG.items).astype(np.float64)
    counts = np.zeros((CONFIG.items, CONFIG.items))
    pairs = np.flatnonzero(learn & (previous >= 0))
    np.add.at(counts, (previous[pairs], item[pairs]), 1.0)
    flat = np.broadcast_to(popularity, (len(target), CONFIG.items))
    by_popularity = mrr_at_20(flat, item[target])
    by_transitions = mrr_at_20(counts[previous[target]] + 1e-6 * popularity, item[target])
    by_oracle = mrr_at_20(log.oracle.log_probability(target), item[target])
    assert by_oracle > 1.5 * by_transitions
    assert by_transitions > 2.0 * by_popularity


def test_a_shuffled_log_has_no_oracle() -> None:
    log = simulate(replace(CONFIG, users=50, shuffle=True), words=WORDS)
    assert not log.oracle.covers(np.arange(log.interactions.num_rows)).any()


def test_what_is_written_is_read_and_the_bytes_are_the_same(
    log: SimulatedLog, tmp_path: Path
) -> None:
    write_oracle(tmp_path / "one", log.oracle)
    back = read_oracle(tmp_path / "one")
    rows = log.oracle.source_row[::7]
    np.testing.assert_array_equal(back.log_probability(rows), log.oracle.log_probability(rows))
    assert back.item_ids == log.oracle.item_ids
    write_oracle(tmp_path / "two", back)
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()


def test_an_empty_oracle_is_read_back(tmp_path: Path) -> None:
    log = simulate(replace(CONFIG, users=20, shuffle=True), words=WORDS)
    write_oracle(tmp_path, log.oracle)
    assert not read_oracle(tmp_path).covers(np.array([0, 1])).any()


def test_a_missing_or_foreign_part_is_refused(tmp_path: Path) -> None:
    write_oracle(tmp_path, HAND)
    np.save(tmp_path / "period.npy", np.array([0, 1]))
    with pytest.raises(ContractError, match="period has 2 rows, source_row has 3"):
        read_oracle(tmp_path)
    write_oracle(tmp_path, HAND)
    np.save(tmp_path / "factors.npy", np.zeros((4, 1), dtype=np.float32))
    with pytest.raises(ContractError, match="do not fit 5 items"):
        read_oracle(tmp_path)
    (tmp_path / "query.npy").unlink()
    with pytest.raises(ContractError, match="no such part"):
        read_oracle(tmp_path)
