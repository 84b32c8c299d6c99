"""Dropout from a generator."""

import torch
from torch import Tensor

from recsys_core.data.histories import EVENT_NUMBERS, UNKNOWN
from recsys_core.training.dropout import Dropout, hide_fields


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_zeroes_a_share_and_keeps_the_mean() -> None:
    values = torch.ones(100, 1000)
    dropped = Dropout(0.25, draws())(values)
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.01
    assert Dropout(0.0, draws())(values) is values


def test_whole_vectors_go_or_stay() -> None:
    values = torch.ones(50, 200, 7)
    dropped = Dropout(0.25, draws()).whole_vectors(values)
    gone = (dropped == 0).all(dim=-1)
    assert torch.equal(gone, (dropped == 0).any(dim=-1))
    assert abs(float(gone.float().mean()) - 0.25) < 0.02
    torch.testing.assert_close(dropped[~gone], torch.full_like(dropped[~gone], 1 / 0.75))


def test_draws_follow_the_generator_alone() -> None:
    values = torch.ones(1000)
    one = Dropout(0.5, draws())(values)
    torch.manual_seed(99)
    assert torch.equal(one, Dropout(0.5, draws())(values))
    assert not torch.equal(one, Dropout(0.5, draws(2))(values))


def test_what_was_dropped_has_no_gradient() -> None:
    values = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.5, draws())(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach())


READS = ("gap", "request", "session", "type", "value")


def events_numbers(length: int = 2_000) -> Tensor:
    """Numbers of events, all of them known. (1, T, .)"""
    numbers = torch.ones(1, length, len(EVENT_NUMBERS))
    numbers[..., EVENT_NUMBERS.index("value")] = 7.0
    return numbers


def test_requests_and_feedback_are_hidden_each_for_itself_and_gaps_never() -> None:
    numbers = events_numbers()
    hidden = hide_fields(numbers, READS, share=0.3, draws=torch.Generator().manual_seed(1))
    of = {name: hidden[0, :, place] for place, name in enumerate(EVENT_NUMBERS)}
    assert (of["gap_seconds"] == 1.0).all()
    request, feedback = of["request_seconds"] == UNKNOWN, of["event_type"] == UNKNOWN
    assert torch.equal(of["opens_session"] == UNKNOWN, request)
    assert torch.equal(of["has_value"] == 0.0, feedback)
    assert torch.equal(of["value"] == 0.0, feedback)
    for one in (request, feedback):
        assert 0.25 < one.float().mean() < 0.35
    assert 0.06 < (request & feedback).float().mean() < 0.12
    assert (numbers == events_numbers()).all(), "what was given is left alone"


def test_what_is_not_read_is_not_hidden() -> None:
    numbers, draws = events_numbers(), torch.Generator().manual_seed(1)
    assert hide_fields(numbers, ("gap",), share=0.3, draws=draws) is numbers
    assert hide_fields(numbers, READS, share=0.0, draws=draws) is numbers
    only = hide_fields(numbers, ("value",), share=0.3, draws=draws)
    assert (only[..., EVENT_NUMBERS.index("request_seconds")] == 1.0).all()
