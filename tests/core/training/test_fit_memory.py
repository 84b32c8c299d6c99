"""The numbers of a memory are learned where there is something to remember, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_core.data.cuts import Cut, Period
from recsys_core.data.events import Events
from recsys_core.evaluation.memory_scorer import memory_scorer
from recsys_core.evaluation.ranks import candidates_at, rank_targets
from recsys_core.evaluation.scorers import Trend
from recsys_core.evaluation.targets import Targets, targets_of
from recsys_core.models.memory import TERMS, Memory, MemoryConfig
from recsys_core.models.memory_tables import count_tables
from recsys_core.training.fit_memory import Origin, fit_memory
from tests.event_rows import events_of
from tests.serving_world import N_ITEMS, make_model

USERS, LENGTH, CUT = 60, 24, 16
"""Each user has an event at times 0, 1, ..., 23; the later 8 are asked for."""


def log(kind: str) -> Events:
    """Who `repeats` takes the last item again and again; who `returns` takes the item before the
    last one; of `random` users nobody knows. One more user has had every item before."""
    rng = np.random.default_rng(4)
    rows = [(USERS + 1, item, item % CUT) for item in range(1, N_ITEMS + 1)]
    for user in range(1, USERS + 1):
        items = rng.integers(1, N_ITEMS + 1, LENGTH)
        if kind == "repeats":
            items[1:] = np.where(rng.random(LENGTH - 1) < 0.9, items[0], items[1:])
        if kind == "returns":
            items[2:] = np.where(np.arange(LENGTH - 2) % 2 == 0, items[0], items[1])
        rows += [(user, int(item), time) for time, item in enumerate(items)]
    return events_of(rows)


def config_of(terms: tuple[str, ...]) -> MemoryConfig:
    return MemoryConfig(
        terms,
        (None,),
        N_ITEMS,
        length=8,
        next_length=2,
        similar_length=8,
        neighbours=4,
        hidden=8,
        similar="item_knn",
        factor_dim=4,
        factor_alpha=0.1,
        factor_l2=0.1,
        similar_l2=10.0,
    )


class Fitted:
    """A memory fitted on the later events of a log; the networks say nothing."""

    def __init__(
        self,
        events: Events,
        *,
        terms: tuple[str, ...] = TERMS,
        seed: int = 0,
        seen_filter: bool = False,
        trend: Trend | None = None,
    ) -> None:
        cut, end = (Cut.at(events, time, n_items=N_ITEMS) for time in (CUT, LENGTH))
        self.events, self.model = events, make_model()
        self.targets: Targets = targets_of("successive", events, Period(cut, end), n_items=N_ITEMS)
        self.candidates = candidates_at(events, cut)
        self.memory = Memory(config_of(terms))
        count_tables(self.memory, events, cut)
        with torch.no_grad():
            self.model.item_bias.zero_()
        self.queries = np.zeros((len(self.targets), self.model.config.dim), dtype=np.float32)
        assert self.candidates[1:].all(), "every target is a candidate"
        self.losses = [
            epoch.loss
            for epoch in fit_memory(
                [self.origin(trend)],
                events=events,
                seen_filter=seen_filter,
                steps=400,
                rng=np.random.default_rng(seed),
            )
        ]

    def origin(self, trend: Trend | None = None) -> Origin:
        return Origin(
            self.model,
            self.memory,
            queries=self.queries,
            known=self.events,
            targets=self.targets,
            candidates=self.candidates,
            trend=trend,
        )

    def hits(self) -> float:
        """The share of targets that are ranked first."""
        scorer = memory_scorer(self.model, self.memory, self.queries, self.events, self.targets)
        ranks = rank_targets(
            scorer,
            self.targets,
            events=self.events,
            candidates=self.candidates,
            batch=64,
            seen_filter=False,
        )
        return float((ranks.rank == 1).mean())


@pytest.mark.parametrize("terms", [("own",), TERMS])
def test_who_takes_the_last_item_again_is_known(terms: tuple[str, ...]) -> None:
    fitted = Fitted(log("repeats"), terms=terms)
    assert fitted.losses[-1] < fitted.losses[0]
    assert fitted.losses[-1] < 0.4 * np.log(N_ITEMS)
    assert fitted.hits() > 0.75


def test_who_goes_back_is_known_by_what_came_after_the_last_item() -> None:
    """Between two items the last one is always the wrong one."""
    assert Fitted(log("returns"), terms=("own",)).hits() > 0.95
    assert Fitted(log("returns")).hits() > 0.95
    assert Fitted(log("returns"), terms=("recent",)).hits() < 0.2


def test_where_nothing_is_to_be_known_the_loss_stays_near_that_of_a_guess() -> None:
    fitted = Fitted(log("random"))
    assert fitted.losses[-1] == pytest.approx(np.log(N_ITEMS), rel=0.1)
    assert fitted.hits() < 0.15


def test_items_that_were_seen_are_left_out_where_they_will_be_in_ranking() -> None:
    """A target that the user had before is asked for all the same, and nothing else of theirs."""
    everything = Fitted(log("random"), terms=("recent",))
    unseen = Fitted(log("random"), terms=("recent",), seen_filter=True)
    # some 40 items, of which a user has had about 16 different ones
    assert unseen.losses[-1] < everything.losses[-1] - 0.2


def test_a_trend_counts_by_what_sets_items_apart() -> None:
    """One number for all items is nothing; different numbers are."""
    offset = np.random.default_rng(5).normal(size=N_ITEMS + 1).astype(np.float32)
    without, same, apart = (
        Fitted(log("random"), terms=("recent",), trend=trend)
        for trend in (
            None,
            lambda rows: np.full((len(rows), N_ITEMS + 1), 3.0, dtype=np.float32),
            lambda rows: np.tile(offset, (len(rows), 1)),
        )
    )
    assert same.losses == pytest.approx(without.losses, rel=1e-5)
    assert apart.losses[0] != pytest.approx(without.losses[0])


def test_each_target_has_the_trend_of_its_own_row() -> None:
    """One that names every target leaves nothing to explain, in whatever order it is asked for;
    that of the row before names hardly any."""
    events = log("random")
    cut, end = (Cut.at(events, time, n_items=N_ITEMS) for time in (CUT, LENGTH))
    item = targets_of("successive", events, Period(cut, end), n_items=N_ITEMS).item_idx

    def naming(items: np.ndarray) -> Trend:
        return lambda rows: np.eye(N_ITEMS + 1, dtype=np.float32)[items[rows]] * 20.0

    own, others = (
        Fitted(events, terms=("recent",), trend=naming(items)) for items in (item, np.roll(item, 1))
    )
    assert own.losses[-1] < 0.01
    assert others.losses[-1] > 1.0


def test_same_log_same_numbers() -> None:
    one, again, other = (Fitted(log("repeats"), seed=seed) for seed in (0, 0, 1))
    assert one.losses == again.losses != other.losses
    for name, value in one.memory.state_dict().items():
        assert torch.equal(value, again.memory.state_dict()[name]), name


def test_the_targets_of_a_query_share_its_weight() -> None:
    """One user's basket of item 1 alone, another's of ten other items: the loss of popularity that
    says 1 with half of the weight, since neither has more to say than the other."""
    rows = [(user, item, time) for user in (1, 2) for time, item in enumerate(range(1, 12))]
    rows += [(1, 1, CUT), *((2, item, CUT) for item in range(2, 12))]
    events = events_of(rows)
    cut, end = Cut.at(events, CUT, n_items=11), Cut.at(events, LENGTH, n_items=11)
    memory = Memory(replace(config_of(("recent",)), n_items=11))
    with torch.no_grad():
        memory.log_recent[0, 1] = 1.0  # the only item that anything sets apart
    targets = replace(
        targets_of("successive", events, Period(cut, end), n_items=11),
        position=np.full(11, 11, dtype=np.int32),
        history=np.full(11, 11, dtype=np.int32),
    )
    model = make_model(n_items=11)
    with torch.no_grad():
        model.item_bias.zero_()
    origin = Origin(
        model,
        memory,
        queries=np.zeros((11, model.config.dim), dtype=np.float32),
        known=events,
        targets=targets,
        candidates=np.arange(12) > 0,
    )
    *_, last = fit_memory(
        [origin],
        events=events,
        seen_filter=False,
        steps=400,
        rng=np.random.default_rng(0),
    )
    # half on item 1, half on ten others: the entropy of that
    assert last.loss == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(20), rel=1e-3)


def test_tables_and_networks_are_left_as_they_are() -> None:
    events = log("repeats")
    fitted = Fitted(events)
    fresh = Memory(fitted.memory.config)
    count_tables(fresh, events, Cut.at(events, CUT, n_items=N_ITEMS))
    for name, value in fresh.named_buffers():
        assert torch.equal(value, dict(fitted.memory.named_buffers())[name]), name
    for name, value in fresh.named_parameters():
        # of logits that are 0 for all there is nothing to learn
        stayed = torch.equal(value, dict(fitted.memory.named_parameters())[name])
        assert stayed == (name == "network"), name
    assert all(parameter.grad is None for parameter in fitted.model.parameters())
