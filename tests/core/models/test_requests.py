"""What the model reads for a user."""

from dataclasses import replace

import numpy as np

from recsys_core.models.requests import InputSpec, known_events, make_requests
from recsys_core.serving.bundle import INPUTS
from tests.serving_world import make_events, make_model

SPEC = InputSpec(n_items=40, dim=8, t_star=10, window=32, remembered=8, ablation="none", reads=())


def test_routing_is_inclusive_active() -> None:
    assert SPEC.is_active(np.array([0, 9, 10, 11])).tolist() == [False, False, True, True]


def test_the_window_is_bounded_and_never_empty_for_active_users() -> None:
    history = np.arange(10_001)
    length = history - SPEC.window_start(history)
    assert length[:10].tolist() == list(range(10))
    assert length[10:].tolist() == np.minimum(history[10:], 32).tolist()
    folded = SPEC.folded(history)
    assert folded[:10].tolist() == [0] * 10
    assert folded[10:].tolist() == history[10:].tolist()
    assert SPEC.max_length == 32


def test_an_active_users_vector_comes_from_all_events_up_to_the_request() -> None:
    model = make_model()
    spec, fold_in = model.input_spec, model.fold_in  # t* = 4, window 6
    events = make_events([list(range(1, 13))])
    one = np.array([1])
    requests = make_requests(spec, fold_in, events, user_idx=one, history=np.array([12]))
    assert requests.items.tolist() == [[7, 8, 9, 10, 11, 12]]
    np.testing.assert_array_equal(
        requests.user_vector, fold_in.vectors(events, one, count=np.array([12]))
    )
    later = make_events([[*range(1, 13), 40, 39]])
    again = make_requests(spec, fold_in, later, user_idx=one, history=np.array([12]))
    np.testing.assert_array_equal(again.user_vector, requests.user_vector)


def test_a_request_has_the_own_items_where_a_memory_reads_them() -> None:
    model = make_model()
    events = make_events([[*range(1, 13), 9], [5], []])
    arguments = {"user_idx": np.array([1, 2, 3]), "history": np.array([13, 1, 0])}
    for remembered, own_items in (
        (4, [[9, 12, 11, 10], [5, 0, 0, 0], [0, 0, 0, 0]]),
        (0, [[], [], []]),
    ):
        spec = replace(model.input_spec, remembered=remembered)
        requests = make_requests(spec, model.fold_in, events, **arguments)
        assert requests.own.items.tolist() == own_items
        assert requests.active.tolist() == [True, False, False]
        assert set(requests.inputs()) < set(INPUTS)


def test_an_inactive_user_has_no_vector() -> None:
    model = make_model()
    events = make_events([[1, 2, 3], []])
    requests = make_requests(
        model.input_spec, model.fold_in, events, user_idx=np.array([1, 2]), history=np.array([3, 0])
    )
    assert not requests.user_vector.any()
    assert requests.active.tolist() == [False, False]
    assert requests.items.tolist() == [[1, 2, 3], [0, 0, 0]]


def test_known_events_leave_unknown_items_out_of_the_history() -> None:
    events = make_events([[1, 9, 2], [9], [3, 3]])
    known = known_events(events, 8)
    assert known.offsets.tolist() == [0, 0, 2, 2, 4]
    assert known.item_idx.tolist() == [1, 2, 3, 3]
    assert known.source_row.tolist() == [0, 2, 4, 5]
    assert known_events(events, 9) is events
