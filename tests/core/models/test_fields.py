"""Fields in the networks: what is read of them, by whom, and from when on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_core.data.events import Events
from recsys_core.data.features import FeatureEncoding
from recsys_core.data.field_rows import FieldRows, FieldSizes, FieldTable
from recsys_core.models.field_reader import EMBEDDING, FieldReader
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from tests.serving_world import make_events, make_model, random_histories

CONTEXT = FieldSizes((4,), (1,), (True,), 2)
USERS = FieldSizes((3, 5), (1, 64), (True, False), 2)
LENGTHS = [0, 1, 2, 3, 5, 9]
PEOPLE, HISTORY = np.arange(1, len(LENGTHS) + 1), np.array(LENGTHS)


def table_of(sizes: FieldSizes, rows: int, *, seed: int = 1) -> FieldTable:
    """Rows 0 (PAD) to `rows`, any codes, three of them in the wide bags."""
    rng = np.random.default_rng(seed)
    codes, weights = [], []
    for n_codes, width in zip(sizes.n_codes, sizes.widths, strict=True):
        shape = (rows + 1, min(3, width))
        codes.append(rng.integers(0, n_codes, shape).astype(np.int32))
        weights.append(np.full(shape, shape[1] ** -0.5, dtype=np.float32))
    numbers = rng.normal(size=(rows + 1, sizes.n_numbers)).astype(np.float32)
    return FieldTable(sizes, tuple(codes), tuple(weights), numbers)


def with_rows(events: Events, *, context: int = 1, users: int = 1) -> Events:
    """The events with random fields, drawn anew by other seeds."""
    rows = FieldRows(
        table_of(CONTEXT, len(events), seed=context),
        np.arange(1, len(events) + 1),
        table_of(USERS, events.n_users, seed=users),
    )
    return replace(events, field_rows=rows)


EVENTS = make_events(random_histories(LENGTHS))


def answers(model: TwoTimeScale, events: Events) -> np.ndarray:
    return user_vectors(model, events, user_idx=PEOPLE, history=HISTORY)


def differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Which rows differ by more than rounding."""
    return np.asarray((np.abs(one - two) > 1e-5).any(axis=1))


def test_a_bag_is_the_weighted_sum_of_its_embeddings_and_numbers_stay() -> None:
    reader = FieldReader(USERS)
    assert reader.size == 2 * EMBEDDING + 2
    table = table_of(USERS, 4)
    with torch.no_grad():
        category, bag, numbers = reader(torch.from_numpy(table.rows(np.arange(5))))
        one, many = (embedding.weight.numpy() for embedding in reader.tables)
    np.testing.assert_allclose(category.numpy(), one[table.codes[0][:, 0]], rtol=1e-6)
    expected = (many[table.codes[1]] * table.weights[1][:, :, None]).sum(axis=1)
    np.testing.assert_allclose(bag.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(numbers.numpy(), table.numbers)


def test_an_unknown_text_is_no_word_and_an_unknown_category_is_one() -> None:
    reader = FieldReader(USERS)
    with torch.no_grad():
        category, bag, numbers = reader(torch.from_numpy(USERS.unknown))
        embedding = reader.tables[0].weight
        assert torch.equal(category, embedding[0])
        assert not bag.any()
        assert not numbers.any()
        reader.forget_unknown()
        assert not reader(torch.from_numpy(USERS.unknown))[0].any()


def test_the_context_of_an_event_counts_once_it_is_read() -> None:
    """Of a window of 6, and of nobody's who has no event."""
    model = make_model(reads=(), context=CONTEXT, users=USERS)
    events = with_rows(EVENTS)
    assert events.field_rows is not None
    oldest = events.field_rows.context_row.copy()
    oldest[EVENTS.offsets[PEOPLE[HISTORY > 0]]] = 0  # the first of each user reads another row
    changed = replace(events, field_rows=replace(events.field_rows, context_row=oldest))
    np.testing.assert_array_equal(
        differ(answers(model, events), answers(model, changed)), (HISTORY > 0) & (HISTORY < 7)
    )
    other = with_rows(EVENTS, context=2)
    np.testing.assert_array_equal(
        differ(answers(model, events), answers(model, other)), HISTORY > 0
    )


def test_the_fields_of_a_user_count_before_any_event() -> None:
    model = make_model(reads=(), context=CONTEXT, users=USERS)
    one, two = (answers(model, with_rows(EVENTS, users=seed)) for seed in (1, 2))
    assert differ(one, two).all()


def test_later_events_change_nothing() -> None:
    model = make_model(context=CONTEXT, users=USERS)
    events = with_rows(EVENTS)
    assert events.field_rows is not None
    shorter = np.maximum(HISTORY - 1, 0)
    before = user_vectors(model, events, user_idx=PEOPLE, history=shorter)
    rows = events.field_rows.context_row.copy()
    rows[EVENTS.offsets[PEOPLE + 1][HISTORY > 0] - 1] = 0
    later = replace(events, field_rows=replace(events.field_rows, context_row=rows))
    np.testing.assert_array_equal(
        before, user_vectors(model, later, user_idx=PEOPLE, history=shorter)
    )


def test_a_model_of_fields_is_not_asked_without_them() -> None:
    for model, events in (
        (make_model(context=CONTEXT), EVENTS),
        (make_model(users=USERS), EVENTS),
        (make_model(), with_rows(EVENTS)),
    ):
        with pytest.raises(AssertionError, match=r"the fields|the context"):
            answers(model, events)


def test_the_sizes_survive_files() -> None:
    model = make_model(context=CONTEXT, users=USERS)
    again = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    assert again.config == model.config
    np.testing.assert_array_equal(
        answers(model, with_rows(EVENTS)), answers(again, with_rows(EVENTS))
    )


def test_without_fields_a_network_has_no_weight_of_them() -> None:
    assert not [name for name in make_model().state_dict() if "fields" in name or "context" in name]
    assert FeatureEncoding((), ()).n_numbers == FieldReader(FieldSizes()).size == 0
