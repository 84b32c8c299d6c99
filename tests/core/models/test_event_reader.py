"""What a network reads of an event beside its item."""

from typing import get_args

import pytest
import torch

from recsys_core.data.histories import EVENT_NUMBERS, UNKNOWN
from recsys_core.models.event_reader import EventReader
from recsys_core.sections import Read

READS: tuple[Read, ...] = get_args(Read)


def numbers_of(**columns: list[float]) -> torch.Tensor:
    """One history (1, T, .) with these numbers; the others are 0."""
    length = len(next(iter(columns.values())))
    numbers = torch.zeros(1, length, len(EVENT_NUMBERS))
    for name, values in columns.items():
        numbers[0, :, EVENT_NUMBERS.index(name)] = torch.tensor(values)
    return numbers


def read(reader: EventReader, numbers: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(reader(numbers), dim=-1)[0]  # (T, size)


@pytest.mark.parametrize("reads", [*((one,) for one in READS), READS])
def test_the_size_is_what_comes_out(reads: tuple[Read, ...]) -> None:
    reader = EventReader(reads, time_dim=4, n_types=3)
    assert read(reader, torch.zeros(1, 5, len(EVENT_NUMBERS))).shape == (5, reader.size)


def test_nothing_is_read_where_nothing_is_asked_for() -> None:
    reader = EventReader((), time_dim=4, n_types=3)
    assert reader.size == 0
    assert reader(torch.zeros(1, 5, len(EVENT_NUMBERS))) == []
    assert not reader.state_dict()


def test_buckets_double_and_what_is_not_known_has_its_own() -> None:
    reader = EventReader(("gap",), time_dim=1, n_types=1)
    assert reader.gap_embedding is not None
    with torch.no_grad():
        reader.gap_embedding.weight.copy_(torch.arange(31.0).unsqueeze(1))
    gaps = [UNKNOWN, 0.0, 0.9, 1.0, 2.9, 3.0, 6.9, 7.0, 1e9, 1e12]
    found = read(reader, numbers_of(gap_seconds=gaps))
    assert found[:, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 30, 30]


def test_a_request_is_a_bucket_and_its_standardised_logarithm() -> None:
    reader = EventReader(("request",), time_dim=2, n_types=1)
    reader.request_scale.copy_(torch.tensor([2.0, 4.0]))
    found = read(reader, numbers_of(request_seconds=[UNKNOWN, 0.0, 59.0]))
    expected = [0.0, (0.0 - 2.0) / 4.0, (torch.log(torch.tensor(60.0)).item() - 2.0) / 4.0]
    torch.testing.assert_close(found[:, 2], torch.tensor(expected))


def test_types_are_told_apart_and_one_that_is_not_known_is_none_of_them() -> None:
    reader = EventReader(("type",), time_dim=1, n_types=3)
    found = read(reader, numbers_of(event_type=[0.0, 2.0, UNKNOWN, 3.0]))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_a_missing_value_is_not_a_value_of_zero() -> None:
    reader = EventReader(("value",), time_dim=1, n_types=1)
    reader.value_scale.copy_(torch.tensor([3.0, 2.0]))
    found = read(reader, numbers_of(value=[0.0, 5.0, 0.0], has_value=[1.0, 1.0, 0.0]))
    assert found.tolist() == [[-1.5, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_one_wild_number_counts_as_far_and_no_farther() -> None:
    reader = EventReader(("value",), time_dim=1, n_types=1)
    found = read(reader, numbers_of(value=[1e9, -1e9], has_value=[1.0, 1.0]))
    assert found.tolist() == [[5.0, 1.0], [-5.0, 1.0]]


def test_nobody_knows_is_neither_a_new_session_nor_one_that_goes_on() -> None:
    reader = EventReader(("session",), time_dim=1, n_types=1)
    found = read(reader, numbers_of(opens_session=[1.0, 0.0, UNKNOWN]))
    assert found.tolist() == [[1, 0], [0, 0], [0, 1]]
