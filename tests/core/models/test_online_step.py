"""One event at a time comes to what the whole history gives."""

import numpy as np
import pytest
import torch

from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models.backbones import BackboneName
from recsys_core.models.online_step import state_size, step
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.serving.parity import OF_NETWORKS, example_inputs
from tests.serving_world import make_model, make_spec


def inputs_of(seed: int) -> dict[str, torch.Tensor]:
    """Every length from 0 to the longest, of active and inactive users."""
    inputs = next(example_inputs(make_spec(), rng=np.random.default_rng(seed)))
    assert len(set(inputs["active"].tolist())) == 2
    return {name: torch.from_numpy(inputs[name]) for name in OF_NETWORKS}


@torch.inference_mode()
def stepped(model: TwoTimeScale, inputs: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    """Queries, what is asked of ratings where they are predicted, and the state, after the start
    and after each event of the longest history."""
    rows, longest = inputs["items"].shape
    # what a row has before it begins is not read
    state = torch.full((rows, state_size(model)), torch.nan)
    item = torch.zeros(rows, dtype=torch.int64)
    numbers = torch.zeros_like(inputs["event_numbers"][:, 0])
    user = (inputs["user_vector"], inputs["active"], inputs["user_fields"])
    found = []
    for t in range(longest + 1):
        query, asked, state = step(model, state, item, numbers, *user)
        found.append((query, state) if asked is None else (query, asked, state))
        if t < longest:
            item, numbers = inputs["items"][:, t], inputs["event_numbers"][:, t]
    return found


@pytest.mark.parametrize("backbone", ["gru", "lstm", "lru", "hgru"])
@pytest.mark.parametrize("rating", [False, True])
def test_after_each_event_the_answer_is_that_to_the_history_so_far(
    backbone: BackboneName, rating: bool
) -> None:
    model = make_model(backbone=backbone, score="cosine", rating=rating)
    inputs = inputs_of(0)
    found = stepped(model, inputs)
    answered = 0
    for t, (*answers, state) in enumerate(found):
        there = inputs["length"] >= t  # those who have t events
        with torch.inference_mode():
            whole = model.answers(**{**inputs, "length": inputs["length"].clamp_max(t)})
        expected = [one for one in whole if one is not None]
        assert len(answers) == len(expected) == (2 if rating else 1)
        for one, other in zip(answers, expected, strict=True):
            torch.testing.assert_close(one[there], other[there], rtol=1e-5, atol=1e-5)
        assert state[there].isfinite().all()
        answered += int(there.sum())
    assert answered == sum(int(n) + 1 for n in inputs["length"])


def test_a_hierarchy_carries_whether_a_session_was_opened() -> None:
    model, inputs = make_model(backbone="hgru"), inputs_of(1)
    opens = EVENT_NUMBERS.index("opens_session")
    before = stepped(model, inputs)
    told = {**inputs, "event_numbers": inputs["event_numbers"].clone()}
    told["event_numbers"][:, 0, opens] = 1.0 - (told["event_numbers"][:, 0, opens] > 0).float()
    after = stepped(model, told)
    torch.testing.assert_close(before[0][0], after[0][0], rtol=0, atol=0)
    # two events later the answer is another one, though these two events say the same
    assert not torch.allclose(before[3][0], after[3][0])


def test_a_step_begins_anew_with_item_0() -> None:
    model, inputs = make_model(), inputs_of(2)
    user = (inputs["user_vector"], inputs["active"], inputs["user_fields"])
    numbers = torch.zeros_like(inputs["event_numbers"][:, 0])
    nothing = torch.zeros(len(numbers), dtype=torch.int64)
    used = stepped(model, inputs)[-1][-1]
    with torch.inference_mode():
        one = step(model, used, nothing, numbers, *user)
        other = step(model, torch.zeros_like(used), nothing, numbers, *user)
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    torch.testing.assert_close(one[2], other[2], rtol=0, atol=0)
