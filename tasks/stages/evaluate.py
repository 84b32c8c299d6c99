"""Ranks the targets of the test period by the trained model and by what stands beside it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.events import Events
from recsys_core.data.oracle import read_oracle
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError, DataError
from recsys_core.evaluation.cohorts import cohorts
from recsys_core.evaluation.ranks import Scorer, rank_targets
from recsys_core.evaluation.report import bars, choices, headline, population
from recsys_core.evaluation.scorers import baseline_scorer, vector_scorer
from recsys_core.evaluation.summary import (
    Ranked,
    differences,
    metric_rows,
    metrics_table,
    ranks_table,
)
from recsys_core.evaluation.targets import Targets, events_in_period, successive_targets
from recsys_core.evaluation.truth import oracle_scorer
from recsys_core.evaluation.windows import Windows, choose_windows
from recsys_core.layout import Layout
from recsys_core.models.baselines import fit_popularity, fit_popularity_within, fit_transitions
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Evaluate
from recsys_core.tables import (
    ITEM_VOCABULARY,
    METRICS,
    RANKS,
    read_events,
    read_table,
    write_table,
)
from tasks.clock import check_clock, time_kind
from tasks.model_files import read_model
from tasks.step import main

logger = logging.getLogger(__name__)

MODEL = "two_time_scale"
ORACLE = "oracle"

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Period:
    """The log, and what is asked of it."""

    events: Events
    split: Split
    items: Vocabulary
    n_items: int  # known when the test period began
    targets: Targets

    @classmethod
    def read(cls, layout: Layout) -> "Period":
        events, split = read_events(layout.events), Split(**read_json(layout.split))
        items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
        n_items = items.known_before(split.test_start)
        targets = successive_targets(events, split.test_start, end=split.end, n_items=n_items)
        if len(targets) == 0:
            raise DataError(
                "no event of the test period has an earlier event of its user, so nothing can be "
                "evaluated; make `split` in params.yaml longer"
            )
        return cls(events, split, items, n_items, targets)


def run(*, layout: Layout, evaluate: Evaluate, first_metric: str, seed: int) -> None:
    """Write ranks, metrics with intervals, and both reports."""
    check_clock(time_kind(layout), evaluate=evaluate)
    period = Period.read(layout)
    model = read_model(layout.stage("train_rnn"))
    ours = _targets_of(model, period)
    windows = _windows(period, evaluate, first_metric=first_metric)
    everyone = np.ones(len(ours), dtype=bool)
    scorers = [(MODEL, _model_scorer(model, ours, period)), *_baselines(period, windows)]
    ranked = [
        *(_rank(name, scorer, everyone, period, evaluate) for name, scorer in scorers),
        *_rank_oracle(layout, period, evaluate),
    ]
    t_star = model.input_spec.t_star
    start = period.split.test_start
    groups = cohorts(ours, period.events, start=start, t_star=t_star, n_items=period.n_items)

    draws = evaluate.bootstrap_draws
    rows = metric_rows(
        ranked, period.targets, groups, cutoffs=evaluate.cutoffs, seed=seed, draws=draws
    )
    compared = differences(
        ranked[0], ranked[1:], period.targets, metric=first_metric, seed=seed, draws=draws
    )
    write_table(layout.ranks, ranks_table(ranked, period.targets, groups), RANKS)
    write_table(layout.metrics, metrics_table(rows), METRICS)
    in_period = events_in_period(period.events, start, end=period.split.end)
    report = {
        **headline(rows, compared, model=MODEL, metric=first_metric),
        **population(ranked, groups, ours, in_period=in_period),
        **choices(windows, evaluate, first_metric=first_metric, t_star=t_star),
    }
    write_json(layout.report("evaluate"), report)
    write_json(layout.report("cohorts"), bars(rows, metric=first_metric))


def _windows(period: Period, evaluate: Evaluate, *, first_metric: str) -> Windows:
    """The baselines' windows, chosen on validation."""
    split = period.split
    windows = choose_windows(
        period.events,
        split,
        n_items=period.items.known_before(split.valid_start),
        hours=evaluate.recent_hours,
        metric=first_metric,
        seen_filter=evaluate.seen_filter,
        batch=evaluate.batch,
    )
    logger.info(
        "event=windows recent_hours=%s transition_hours=%s",
        windows.recent_hours,
        windows.transition_hours,
    )
    return windows


def _targets_of(model: TwoTimeScale, period: Period) -> Targets:
    """The same targets, with histories of the items that the model knows."""
    n_items = model.input_spec.n_items
    if n_items > period.n_items:
        raise ContractError(
            f"train_rnn: the model knows {n_items} items, but {period.n_items} were known when "
            "the test period began; run `train_rnn` again"
        )
    split = period.split
    return successive_targets(period.events, split.test_start, end=split.end, n_items=n_items)


def _model_scorer(model: TwoTimeScale, targets: Targets, period: Period) -> Scorer:
    vectors = user_vectors(
        model,
        known_events(period.events, model.input_spec.n_items),
        user_idx=targets.user_idx.astype(np.int64),
        history=targets.history.astype(np.int64),
    )
    return vector_scorer(
        vectors,
        item_vectors=model.item_vectors.detach().cpu().numpy(),
        item_bias=model.item_bias.detach().cpu().numpy(),
    )


def _baselines(period: Period, windows: Windows) -> Iterator[tuple[str, Scorer]]:
    """What was known when the test period began, and no more."""
    events, cut, n_items = period.events, period.split.test_start, period.n_items
    recent = fit_popularity_within(events, cut, n_items=n_items, hours=windows.recent_hours)
    transitions = fit_transitions(events, cut, backoff=recent, hours=windows.transition_hours)
    popularity = fit_popularity(events, cut, n_items=n_items)
    yield "transitions", baseline_scorer(transitions, period.targets)
    if windows.recent_hours is not None:
        yield "recent_popularity", baseline_scorer(recent, period.targets)
    yield "popularity", baseline_scorer(popularity, period.targets)


def _rank_oracle(layout: Layout, period: Period, evaluate: Evaluate) -> Iterator[Ranked]:
    """The simulator's truth on the targets that it covers, where there is one."""
    if not layout.oracle.is_dir():
        return
    oracle = read_oracle(layout.oracle)
    covered = oracle.covers(period.targets.source_row)
    targets = period.targets.take(covered)
    scorer = oracle_scorer(oracle, targets, items=period.items, n_items=period.n_items)
    yield _rank(ORACLE, scorer, covered, period, evaluate)


def _rank(name: str, scorer: Scorer, covered: Bool, period: Period, evaluate: Evaluate) -> Ranked:
    """The ranks of the targets that `covered` marks; the scorer was built for exactly those."""
    ranks = rank_targets(
        scorer,
        period.targets.take(covered),
        events=period.events,
        batch=evaluate.batch,
        seen_filter=evaluate.seen_filter,
    )
    logger.info("event=ranked model=%s targets=%d", name, len(ranks.rank))
    return Ranked(name, ranks, covered)


if __name__ == "__main__":
    main(run)
