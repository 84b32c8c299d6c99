"""Fields in training: an answer that only they know, what is hidden of them, and the future."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_core.data.fields import FieldKinds
from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.training.dropout import hide_fields, hide_users
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.initial_model import initial_model
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Fit
from tests.core.training.test_fit_rnn import embeddings_of
from tests.field_log import CUT, KINDS, By, field_events, reading
from tests.markov_log import CPU, STAGE_TWO

NOTHING = FieldKinds({}, {})
PARAMS = replace(STAGE_TWO, hidden=48, reads=(), ablation="one_rnn", loss="softmax", batch=256)
FIRST = len(EVENT_NUMBERS)


def trained(log: LogUntil, *, epochs: int, params=PARAMS) -> TwoTimeScale:
    trainer = RnnTrainer(
        log, params, embeddings=embeddings_of(log), seed=1, device=CPU, validation=None
    )
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass
    return trainer.finished_model()


def perplexity(log: LogUntil, *, epochs: int) -> float:
    """Of the events after the cut that have one before them."""
    model, events = trained(log, epochs=epochs), log.events
    rows = np.flatnonzero((events.timestamp >= CUT) & (events.position > 0))
    users = events.user_idx[rows].astype(np.int64)
    vectors = user_vectors(model, events, user_idx=users, history=events.position[rows])
    with torch.no_grad():
        logits = model.scores(torch.from_numpy(vectors))
    targets = torch.from_numpy(events.item_idx[rows].astype(np.int64))
    return float(torch.nn.functional.cross_entropy(logits, targets).exp())


@pytest.mark.parametrize("by", ["user", "context"])
def test_what_only_a_field_knows_is_learned_from_it(by: By) -> None:
    """Three items may follow each, and the numbers beside the field say nothing."""
    events, tables = field_events(by)
    without = perplexity(reading(events, tables, NOTHING), epochs=10)
    told = perplexity(reading(events, tables, KINDS[by]), epochs=10)
    assert without > 2.8
    assert told < 1.3


def test_a_share_of_contexts_and_users_is_hidden_whole() -> None:
    draws = torch.Generator().manual_seed(1)
    numbers = torch.ones(2, 1_000, FIRST + 3)
    hidden = hide_fields(numbers, ("gap",), share=0.3, draws=draws)
    assert (hidden[..., :FIRST] == 1.0).all()
    gone = (hidden[..., FIRST:] == 0.0).all(dim=-1)
    assert torch.equal(gone, (hidden[..., FIRST:] == 0.0).any(dim=-1))
    assert 0.25 < gone.float().mean() < 0.35
    assert (numbers == 1.0).all(), "what was given is left alone"
    fields, unknown = torch.ones(1_000, 3), torch.tensor([0.0, 7.0, 0.0])
    shown = hide_users(fields, unknown, share=0.3, draws=draws)
    strange = (shown == unknown).all(dim=1)
    assert torch.equal(~strange, (shown == 1.0).all(dim=1))
    assert 0.25 < strange.float().mean() < 0.35
    assert hide_users(fields, unknown, share=0.0, draws=draws) is fields
    assert hide_fields(numbers, (), share=0.0, draws=draws) is numbers


def test_code_zero_begins_by_saying_nothing_and_other_weights_as_without_it() -> None:
    events, tables = field_events("user")
    logs = [reading(events, tables, kinds) for kinds in (NOTHING, KINDS["user"])]
    stage_one = embeddings_of(logs[0])
    plain, told = (
        initial_model(log, PARAMS, embeddings=stage_one, seed=1, together=True, features=None)
        for log in logs
    )
    assert told.config.users.width == 3
    assert not told.inactive.user_reader.tables[0].weight[0].any()
    assert told.inactive.user_reader.tables[0].weight[1].any()
    before = plain.state_dict()
    assert set(before) < set(told.state_dict())


def test_another_future_trains_the_same_model() -> None:
    """Of the context of later events."""
    events, tables = field_events("context")
    kinds = FieldKinds(KINDS["context"].context, KINDS["user"].users)
    assert tables.interactions is not None
    assert tables.users is not None
    later = events.source_row[events.timestamp >= CUT]
    device = tables.interactions["device"].to_pylist()
    for row in later:
        device[row] = f"device of the future {row % 9}"
    column = tables.interactions.schema.get_field_index("device")
    changed = replace(
        tables, interactions=tables.interactions.set_column(column, "device", [device])
    )
    params = replace(PARAMS, hidden=16)
    one, two = (
        trained(reading(events, each, kinds), epochs=1, params=params).to_arrays()
        for each in (tables, changed)
    )
    assert set(one) == set(two)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
