"""The session bit and the request time: acceptance behaviours 2.7.1 to 2.7.3 of HRNN-meta."""

import itertools
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import make_requests
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Read
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.initial_model import initial_model
from recsys_core.training.loop import Fit
from tests.core.training.test_fit_rnn import embeddings_of
from tests.markov_log import CPU, CUT, N_ITEMS, STAGE_TWO, START, log_of
from tests.serving_world import MINUTE, make_events, make_model, random_histories

LENGTHS = [0, 1, 3, 5, 9, 25]
EVENTS = make_events(random_histories(LENGTHS))
USERS, HISTORY = np.arange(1, len(LENGTHS) + 1), np.array(LENGTHS)


def without_column(hrnn: TwoTimeScale) -> TwoTimeScale:
    """The same weights without the column that reads the session bit."""
    weights = {
        name: value[:, :-2] if name.endswith("read.weight") else value
        for name, value in hrnn.state_dict().items()
    }
    gru = make_model(reads=())
    gru.load_state_dict(weights)
    return gru


def test_without_a_session_bit_hrnn_is_the_plain_gru() -> None:
    hrnn = make_model(reads=("session",))
    gru = without_column(hrnn)
    never = replace(EVENTS, session_start=np.zeros(len(EVENTS), dtype=bool))
    goes_on = RequestTimes(np.zeros(len(USERS), dtype=np.int64), np.zeros(len(USERS), dtype=bool))
    answers = [
        user_vectors(model, never, user_idx=USERS, history=HISTORY, request=goes_on)
        for model in (hrnn, gru)
    ]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)
    often = replace(EVENTS, session_start=np.ones(len(EVENTS), dtype=bool))
    other = user_vectors(hrnn, often, user_idx=USERS, history=HISTORY, request=goes_on)
    np.testing.assert_array_equal((other != answers[0]).any(axis=1), HISTORY > 1)


def test_the_request_time_alone_changes_the_scores_and_padding_does_not() -> None:
    model = make_model(reads=("request",))
    latest = EVENTS.timestamp[np.maximum(EVENTS.offsets[USERS + 1] - 1, 0)]

    def vectors(seconds: int) -> np.ndarray:
        request = RequestTimes(latest + seconds * 1_000_000, np.zeros(len(USERS), dtype=bool))
        return user_vectors(model, EVENTS, user_idx=USERS, history=HISTORY, request=request)

    asked = [vectors(seconds) for seconds in (0, 60, 3_600, 86_400)]
    for one, two in itertools.pairwise(asked):
        np.testing.assert_array_equal((one != two).any(axis=1), HISTORY > 0)
    requests = make_requests(
        model.input_spec, model.fold_in, EVENTS, user_idx=USERS, history=HISTORY
    )
    names = ("items", "event_numbers", "length", "user_vector", "active")
    inputs = {name: torch.from_numpy(getattr(requests, name)) for name in names}
    wider = {
        **inputs,
        "items": torch.nn.functional.pad(inputs["items"], (0, 4), value=7),
        "event_numbers": torch.nn.functional.pad(inputs["event_numbers"], (0, 0, 0, 4), value=99.0),
    }
    with torch.no_grad():
        torch.testing.assert_close(model(**wider), model(**inputs), rtol=1e-5, atol=1e-6)


def regime_events(users: int = 250, length: int = 20, seed: int = 1) -> Events:
    """Half of the items follow one another in a ring, the other half in another; where a session
    begins, and only there, it goes on at a random item of the other half."""
    rng = np.random.default_rng(seed)
    half = N_ITEMS // 2
    starts = rng.random((users, length)) < 0.3
    starts[:, 0] = True
    items = np.zeros((users, length), dtype=np.int64)
    items[:, 0] = rng.integers(0, N_ITEMS, users)
    for step in range(1, length):
        before = items[:, step - 1]
        ring = before // half
        on = half * ring + (before + 1) % half
        other = half * (1 - ring) + rng.integers(0, half, users)
        items[:, step] = np.where(starts[:, step], other, on)
    times = START + MINUTE * np.sort(rng.integers(0, 10_000, (users, length)), axis=1)
    n = users * length
    return Events(
        offsets=np.concatenate([[0], length * np.arange(users + 1)]),
        item_idx=(items + 1).ravel().astype(np.int32),
        timestamp=times.ravel().astype(np.int64),
        session_idx=np.cumsum(starts.ravel()),
        session_start=starts.ravel(),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )


def perplexity(events: Events, *reads: Read, backbone: Literal["gru", "hgru"] = "gru") -> float:
    """Of the events after the cut, by one network that has learned from those before it."""
    log = log_of(events)
    params = replace(
        STAGE_TWO,
        backbone=backbone,
        reads=reads,
        ablation="one_rnn",
        loss="softmax",
        field_dropout=0.0,
    )
    trainer = RnnTrainer(
        log, params, embeddings=embeddings_of(log), seed=1, device=CPU, validation=None
    )
    fit = Fit(trainer, phase="t", max_epochs=12, patience=None, checkpoint=None)
    for _ in fit.run():
        pass
    model = trainer.finished_model()
    targets = np.flatnonzero((events.timestamp >= CUT) & (events.position > 0))
    vectors = user_vectors(
        model,
        events,
        user_idx=events.user_idx[targets].astype(np.int64),
        history=events.position[targets],
        request=RequestTimes(events.timestamp[targets], events.session_start[targets]),
    )
    with torch.no_grad():
        logits = model.scores(torch.from_numpy(vectors))
        nll = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(events.item_idx[targets].astype(np.int64))
        )
    return float(nll.exp())


def test_where_sessions_change_everything_the_bit_is_worth_a_fifth_and_more() -> None:
    events = regime_events()
    hrnn, gru = perplexity(events, "session"), perplexity(events)
    assert hrnn < 0.8 * gru


def differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Which rows differ by more than rounding."""
    return np.asarray((np.abs(one - two) > 1e-4).any(axis=1))


def test_hgru_carries_sessions_through_the_whole_model() -> None:
    """What is asked in a new session is answered otherwise, and so is what follows an old one."""
    model = make_model(reads=("session",), backbone="hgru")
    once = replace(EVENTS, session_start=np.isin(np.arange(len(EVENTS)), EVENTS.offsets))
    twice = replace(once, session_start=once.session_start | (EVENTS.position == 2))
    answers = [user_vectors(model, log, user_idx=USERS, history=HISTORY) for log in (once, twice)]
    # a window of 6 no longer holds the third event of who has 9
    np.testing.assert_array_equal(differ(*answers), np.isin(HISTORY, [3, 5]))
    new, going_on = (
        user_vectors(
            model,
            once,
            user_idx=USERS,
            history=HISTORY,
            request=RequestTimes(np.zeros(len(USERS), dtype=np.int64), np.full(len(USERS), opens)),
        )
        for opens in (True, False)
    )
    np.testing.assert_array_equal(differ(new, going_on), HISTORY > 0)


def test_where_sessions_change_everything_hgru_learns_it_too() -> None:
    hgru = perplexity(regime_events(), "session", backbone="hgru")
    assert hgru < 0.8 * perplexity(regime_events())


@pytest.mark.parametrize("backbone", ["gru", "lstm", "hgru"])
def test_recurrent_matrices_begin_orthogonal_gate_by_gate(
    backbone: Literal["gru", "lstm", "hgru"],
) -> None:
    log = log_of(regime_events(users=20))
    params = replace(STAGE_TWO, backbone=backbone, reads=("session",))
    model = initial_model(
        log, params, embeddings=embeddings_of(log), seed=1, together=True, features=None
    )
    found = [
        gate
        for name, value in model.inactive.named_parameters()
        if "weight_hh" in name
        for gate in value.detach().split(value.shape[1])
    ]
    assert len(found) == {"gru": 3, "lstm": 4, "hgru": 6}[backbone]
    for gate in found:
        torch.testing.assert_close(gate @ gate.T, torch.eye(len(gate)), rtol=0.0, atol=1e-5)
