"""Ranks the targets of the test period by the trained model and by what stands beside it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cuts import Cut, Cuts
from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.data.oracle import read_oracle
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError, DataError
from recsys_core.evaluation.baselines import WITH_LIKELIHOOD, Fits
from recsys_core.evaluation.buckets import bucket_rows, buckets
from recsys_core.evaluation.cohorts import cohorts
from recsys_core.evaluation.memory_scorer import memory_scorer
from recsys_core.evaluation.ranks import Scorer, candidates_at, rank_targets
from recsys_core.evaluation.report import bars, choices, headline, population
from recsys_core.evaluation.scorers import (
    Trend,
    history_scorer,
    trend_at,
    vector_scorer,
)
from recsys_core.evaluation.summary import (
    Ranked,
    differences,
    metric_rows,
    metrics_table,
    ranks_table,
)
from recsys_core.evaluation.targets import (
    Targets,
    events_in_period,
    request_times,
    targets_of,
)
from recsys_core.evaluation.truth import oracle_scorer
from recsys_core.layout import Layout
from recsys_core.models.memory import Memory
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import asked_early, known_events, request_at_scoring
from recsys_core.models.trend import trend_in_period
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
from tasks.baselines import Group, choose_groups, named
from tasks.clock import check_clock, clock_of
from tasks.cuts import read_cuts
from tasks.embedding_files import UNTIL_VALID
from tasks.fields import read_fields, with_fields_of
from tasks.memory_files import read_memory
from tasks.model_files import read_model
from tasks.ratings import ratings_report
from tasks.step import main

logger = logging.getLogger(__name__)

MODEL = "two_time_scale"
NETWORKS = "networks"
AT_SCORING = "two_time_scale_at_scoring"
"""The same model asked when scoring would ask it: not when the target happened, which nobody knows
beforehand, but at the last event of the log, or of the user where that is later."""
WITHOUT_REQUEST = "two_time_scale_without_request"
"""The same model where nobody knows when it is asked."""
FROZEN_TREND = "two_time_scale_frozen_trend"
"""The same model where the trend is as it was when the test period began."""
ORACLE = "oracle"
TRAIN_ONLY = "_train_only"
"""Ends the name of a model that was fitted before the validation period."""

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """The log, and what is asked of it in the test period."""

    events: Events
    cuts: Cuts
    evaluate: Evaluate
    targets: Targets
    session_gap_seconds: float | None

    @classmethod
    def read(cls, layout: Layout, evaluate: Evaluate) -> "Asked":
        events = read_events(layout.events)
        cuts = read_cuts(layout, events)
        targets = _targets(events, cuts, evaluate, cuts.test.n_items)
        asked = cls(events, cuts, evaluate, targets, read_json(layout.session_gap)["seconds"])
        if len(asked.targets) == 0:
            raise DataError(
                f"the test period has no {evaluate.targets} targets (an event with an earlier "
                "event of its user, at least), so nothing can be evaluated; make `split` in "
                "params.yaml longer"
            )
        return asked

    def targets_for(self, n_items: int) -> Targets:
        """The same targets, with histories of the items that a model knows."""
        if n_items == self.cuts.test.n_items:
            return self.targets
        return _targets(self.events, self.cuts, self.evaluate, n_items)


def run(*, layout: Layout, evaluate: Evaluate, first_metric: str, seed: int) -> None:
    """Write ranks, metrics with intervals, and reports: the whole, by cohort, by activity."""
    clock = clock_of(layout)
    check_clock(clock, evaluate=evaluate)
    asked = Asked.read(layout, evaluate)
    networks, remembered = layout.stage("train_rnn"), layout.stage("train_memory")
    model, memory = read_model(networks), read_memory(remembered)
    chosen = choose_groups(
        asked.events,
        asked.cuts,
        evaluate,
        timed=clock.kind != "rank",
        first_metric=first_metric,
        seed=seed,
    )
    log = with_fields_of(layout, read_fields(networks), asked.events)
    ranked = [*_rank_all(model, memory, chosen, asked, log, cut=asked.cuts.test, ending="")]
    if evaluate.train_only:
        networks, remembered = networks / UNTIL_VALID, remembered / UNTIL_VALID
        log_before = with_fields_of(layout, read_fields(networks), asked.events)
        before = read_model(networks), read_memory(remembered)
        ranked += _rank_all(
            *before, chosen, asked, log_before, cut=asked.cuts.valid, ending=TRAIN_ONLY
        )
    ranked += _rank_oracle(layout, asked)
    ours = asked.targets_for(model.input_spec.n_items)
    t_star = model.input_spec.t_star
    candidates = candidates_at(asked.events, asked.cuts.test)
    groups = cohorts(ours, before=asked.cuts.test, candidates=candidates, t_star=t_star)

    draws = evaluate.bootstrap_draws
    rows = metric_rows(
        ranked, asked.targets, groups, cutoffs=evaluate.cutoffs, seed=seed, draws=draws
    )
    by_history = metric_rows(
        ranked,
        asked.targets,
        buckets(ours.history.astype(np.int64)),
        cutoffs=evaluate.cutoffs,
        seed=seed,
        draws=draws,
    )
    compared = differences(
        ranked[0], ranked[1:], asked.targets, metric=first_metric, seed=seed, draws=draws
    )
    write_table(layout.ranks, ranks_table(ranked, asked.targets, groups), RANKS)
    write_table(layout.metrics, metrics_table(rows), METRICS)
    in_period = events_in_period(asked.events, asked.cuts.test_period)
    report = {
        **headline(rows, compared, model=MODEL, metric=first_metric),
        **population(ranked, groups, ours, in_period=in_period),
        "targets_before_their_last_event": asked_early(
            ours.timestamp,
            known_events(asked.events, model.input_spec.n_items),
            user_idx=ours.user_idx.astype(np.int64),
            history=ours.history.astype(np.int64),
        ),
        **choices(named(chosen), evaluate, first_metric=first_metric, t_star=t_star),
    }
    if model.ratings is not None:
        names = (MODEL, WITHOUT_REQUEST)
        cut = asked.cuts.test
        report |= ratings_report(model, log, ours, cut=cut, names=names, seed=seed, draws=draws)
    write_json(layout.report("evaluate"), report)
    write_json(layout.report("cohorts"), bars(rows, metric=first_metric))
    write_json(layout.report("buckets"), bucket_rows(by_history, metric=first_metric))


def _targets(events: Events, cuts: Cuts, evaluate: Evaluate, n_items: int) -> Targets:
    return targets_of(evaluate.targets, events, cuts.test_period, n_items=n_items)


def _rank_all(
    model: TwoTimeScale,
    memory: Memory,
    chosen: list[Group],
    asked: Asked,
    log: Events,
    *,
    cut: Cut,
    ending: str,
) -> Iterator[Ranked]:
    """The model and the baselines, each of what was known at `cut`; `log` are the events with what
    the model reads of them."""
    n_items = model.input_spec.n_items
    if n_items > cut.n_items:
        raise ContractError(
            f"train_rnn: the model{ending} knows {n_items} items, but {cut.n_items} were known "
            "when its period began; run `train_rnn` again"
        )
    everyone = np.ones(len(asked.targets), dtype=bool)
    for name, scorer in _model_scorers(model, memory, asked, log, cut=cut):
        yield _rank(f"{name}{ending}", scorer, everyone, asked, cut=cut)
    known, targets = known_events(asked.events, cut.n_items), asked.targets_for(cut.n_items)
    for group in chosen:
        settings = {name: choice.setting for name, choice in group.chosen.items()}
        fits = Fits(asked.events, cut, settings, streaming=group.streaming)
        for name in group.ranked:
            fitted = fits.model(name, settings[name])
            scorer = history_scorer(fitted, known, targets, likelihood=name in WITH_LIKELIHOOD)
            yield _rank(f"{name}{group.ending}{ending}", scorer, everyone, asked, cut=cut)


def _model_scorers(
    model: TwoTimeScale, memory: Memory, asked: Asked, log: Events, *, cut: Cut
) -> Iterator[tuple[str, Scorer]]:
    """The model; where it reads the request, asked as in scoring, and without; where it streams,
    with the trend of the cut; and the networks in it by themselves where it has a memory too.

    Scoring knows one trend for all, so what is asked as in scoring never streams.
    """
    spec = model.input_spec
    targets, known = asked.targets_for(spec.n_items), known_events(log, spec.n_items)
    user_idx, history = targets.user_idx.astype(np.int64), targets.history.astype(np.int64)

    def queries_at(request: RequestTimes | None) -> Float32:
        return user_vectors(model, known, user_idx=user_idx, history=history, request=request)

    def scorer(queries: Float32, trend: Trend | None) -> Scorer:
        return memory_scorer(model, memory, queries, known, targets, trend=trend)

    def trend_of_period(*, streaming: bool) -> Trend | None:
        index = trend_in_period(model.config, asked.events, cut, streaming=streaming)
        return trend_at(index, targets)

    streaming = asked.evaluate.streaming
    trend, frozen = (trend_of_period(streaming=one) for one in (streaming, False))
    queries = queries_at(request_times(asked.events, targets, n_items=spec.n_items))
    yield MODEL, scorer(queries, trend)
    if spec.reads_request:
        at_scoring = request_at_scoring(
            cut.as_of(asked.events),
            known,
            user_idx=user_idx,
            history=history,
            session_gap_seconds=asked.session_gap_seconds,
        )
        yield AT_SCORING, scorer(queries_at(at_scoring), frozen)
        yield WITHOUT_REQUEST, scorer(queries_at(None), trend)
    if streaming and model.config.trend_hours is not None:
        yield FROZEN_TREND, scorer(queries, frozen)
    if memory.config.terms:
        yield (
            NETWORKS,
            vector_scorer(
                queries,
                item_vectors=model.item_vectors.detach().cpu().numpy(),
                item_bias=model.item_bias.detach().cpu().numpy(),
                trend=trend,
            ),
        )


def _rank_oracle(layout: Layout, asked: Asked) -> Iterator[Ranked]:
    """The simulator's truth on the targets that it covers, where there is one."""
    if not layout.oracle.is_dir():
        return
    oracle = read_oracle(layout.oracle)
    covered = oracle.covers(asked.targets.source_row)
    targets = asked.targets.take(covered)
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    cut = asked.cuts.test
    scorer = oracle_scorer(oracle, targets, items=items, n_items=cut.n_items)
    yield _rank(ORACLE, scorer, covered, asked, cut=cut)


def _rank(name: str, scorer: Scorer, covered: Bool, asked: Asked, *, cut: Cut) -> Ranked:
    """The ranks of the targets that `covered` marks; the scorer was built for exactly those."""
    ranks = rank_targets(
        scorer,
        asked.targets.take(covered),
        events=asked.events,
        candidates=candidates_at(asked.events, cut),
        batch=asked.evaluate.batch,
        seen_filter=asked.evaluate.seen_filter,
    )
    logger.info("event=ranked model=%s targets=%d", name, len(ranks.rank))
    return Ranked(name, ranks, covered)


if __name__ == "__main__":
    main(run)
