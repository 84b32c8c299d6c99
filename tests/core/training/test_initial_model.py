"""What a model is before it learns: the scales that what it reads is standardised by."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_core.data.cuts import Cut
from recsys_core.sections import Read
from recsys_core.training.initial_model import initial_model
from recsys_core.training.log_until import LogUntil
from tests.core.training.test_fit_rnn import embeddings_of
from tests.event_rows import events_of
from tests.markov_log import N_ITEMS, STAGE_TWO

SECOND = 1_000_000
# gaps of 3 and 63 seconds before the cut, of 1,000,000 over it; user 2 has one known event
ROWS = [(1, 1, 0), (1, 2, 3), (1, 3, 66), (1, 4, 1_000_066), (2, 5, 10), (2, 6, 1_000_010)]
EVENTS = events_of([(user, item, time * SECOND) for user, item, time in ROWS])
VALUES = {1: 2.0, 2: np.nan, 3: 6.0, 4: 1e9, 5: np.nan, 6: np.nan}


def scales(reads: tuple[Read, ...], values: dict[int, float]) -> dict[str, list[float]]:
    value = np.array([values[item] for item in EVENTS.item_idx.tolist()], dtype=np.float32)
    events = replace(EVENTS, value=value)
    log = LogUntil(events, Cut.at(events, 100 * SECOND, n_items=N_ITEMS))
    model = initial_model(
        log,
        replace(STAGE_TWO, reads=reads),
        embeddings=embeddings_of(log),
        seed=1,
        together=True,
        features=None,
    )
    found = model.inactive.reader.state_dict()
    return {name: value.tolist() for name, value in found.items() if name.endswith("_scale")}


def test_scales_are_those_of_the_known_events_that_have_something() -> None:
    """No request over the cut, no value that is missing or later."""
    found = scales(("request", "value"), VALUES)
    logs = np.log([4.0, 64.0])
    assert found["request_scale"] == pytest.approx([logs.mean(), logs.std()], rel=1e-6)
    assert found["value_scale"] == pytest.approx([4.0, 2.0], rel=1e-6)


def test_what_is_not_read_has_no_scale() -> None:
    assert scales(("gap", "session", "type"), VALUES) == {}
    assert list(scales(("value",), VALUES)) == ["value_scale"]


@pytest.mark.parametrize(("value", "mean"), [(3.0, 3.0), (np.nan, 0.0)])
def test_a_constant_and_nothing_deviate_by_one(value: float, mean: float) -> None:
    assert scales(("value",), dict.fromkeys(VALUES, value))["value_scale"] == [mean, 1.0]
