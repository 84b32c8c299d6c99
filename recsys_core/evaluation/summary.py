"""From ranks to the table of metrics: every model, cohort and metric, with its interval.

A value is the mean over queries: over targets where each is one, over users where a basket is. All
models of a cohort see the same draws of users. A metric has its own population: perplexity the
targets that the model knows, the simulator's truth the targets that it covers. A metric that has no
target in a cohort has no row.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_core.columns import (
    COHORT,
    HIGH,
    HISTORY,
    LOW,
    METRIC,
    MODEL,
    NLL,
    POSITION,
    RANK,
    TARGET,
    TARGETS,
    TIES,
    USER_IDX,
    USERS,
    VALUE,
)
from recsys_core.evaluation.metrics import metric_names, metric_of, perplexity
from recsys_core.evaluation.ranks import Ranks
from recsys_core.evaluation.significance import Interval, mean_intervals, paired_difference
from recsys_core.evaluation.targets import Targets
from recsys_core.rng import generator
from recsys_core.tables import METRICS, RANKS

PERPLEXITY = "perplexity"

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """A model's ranks of the targets that `covered` marks."""

    model: str
    ranks: Ranks  # (C,)
    covered: Bool  # (N,) with C marked


@dataclass(frozen=True)
class Row:
    """One metric of one model on one cohort."""

    model: str
    cohort: str
    metric: str
    interval: Interval
    targets: int
    users: int


@dataclass(frozen=True)
class _Measure:
    """A metric of a model, and the targets that it is defined on."""

    model: str
    metric: str
    of_target: npt.NDArray[np.int32] | Float64  # (N,) ranks, or negative log-likelihoods
    defined: Bool  # (N,)


def metric_rows(
    ranked: list[Ranked],
    targets: Targets,
    cohorts: dict[str, Bool],
    *,
    cutoffs: tuple[int, ...],
    seed: int,
    draws: int,
) -> list[Row]:
    """Rows ordered by cohort, then model, then metric, each in the order given."""
    measures = [measure for model in ranked for measure in _measures(model, cutoffs)]
    rows = []
    for cohort, members in cohorts.items():
        found: dict[int, Row] = {}
        for population, group in _by_population(measures, members):
            asked = targets.take(population)
            query = asked.query
            values = np.stack(
                [_of_queries(measures[place], population, query) for place in group], axis=1
            )
            users = asked.user_idx[np.unique(query, return_index=True)[1]]
            intervals = mean_intervals(
                values, users, rng=generator(seed, "bootstrap", cohort), draws=draws
            )
            n_users = len(np.unique(users))
            for place, interval in zip(group, intervals, strict=True):
                measure = measures[place]
                found[place] = Row(
                    model=measure.model,
                    cohort=cohort,
                    metric=measure.metric,
                    interval=_exponential(interval) if measure.metric == PERPLEXITY else interval,
                    targets=len(asked),
                    users=n_users,
                )
        rows += [found[place] for place in sorted(found)]
    return rows


def differences(
    ours: Ranked, others: list[Ranked], targets: Targets, *, metric: str, seed: int, draws: int
) -> dict[str, Interval]:
    """`ours` minus each other model by `metric`, paired on the targets that the other covers."""
    assert ours.covered.all(), "the model itself is ranked on all targets"
    found = {}
    for other in others:
        if other.covered.any():
            asked = targets.take(other.covered)
            query = asked.query
            mine = metric_of(ours.ranks.rank[other.covered], metric, query=query)
            found[other.model] = paired_difference(
                mine,
                metric_of(other.ranks.rank, metric, query=query),
                asked.user_idx[np.unique(query, return_index=True)[1]],
                rng=generator(seed, "bootstrap", "difference"),
                draws=draws,
            )
    return found


def ranks_table(ranked: list[Ranked], targets: Targets, cohorts: dict[str, Bool]) -> pa.Table:
    """All ranks as RANKS: the models in the order given, each ordered by user and position.

    `history` is that of `targets`: how many events of known items the user had before.
    """
    parts = []
    for one in ranked:
        of = targets.take(one.covered)
        columns = {
            MODEL: pa.array([one.model]).take(pa.array(np.zeros(len(of), dtype=np.int32))),
            USER_IDX: of.user_idx,
            POSITION: of.position,
            TARGET: of.item_idx,
            RANK: one.ranks.rank,
            TIES: one.ranks.ties,
            NLL: pa.array(one.ranks.nll, mask=np.isnan(one.ranks.nll))
            if one.ranks.nll is not None
            else pa.nulls(len(of), pa.float32()),
            **{name: cohorts[name][one.covered] for name in ("active", "new_user", "known")},
            HISTORY: of.history,
        }
        parts.append(pa.table(columns, schema=RANKS))
    return pa.concat_tables(parts)


def metrics_table(rows: list[Row]) -> pa.Table:
    """Rows as METRICS."""
    columns = {
        MODEL: [row.model for row in rows],
        COHORT: [row.cohort for row in rows],
        METRIC: [row.metric for row in rows],
        VALUE: [row.interval.value for row in rows],
        LOW: [row.interval.low for row in rows],
        HIGH: [row.interval.high for row in rows],
        TARGETS: [row.targets for row in rows],
        USERS: [row.users for row in rows],
    }
    return pa.table(columns, schema=METRICS)


def _measures(ranked: Ranked, cutoffs: tuple[int, ...]) -> list[_Measure]:
    rank = np.zeros(len(ranked.covered), dtype=np.int32)
    rank[ranked.covered] = ranked.ranks.rank
    measures = [
        _Measure(ranked.model, metric, rank, ranked.covered) for metric in metric_names(cutoffs)
    ]
    if ranked.ranks.nll is not None:
        nll = np.full(len(ranked.covered), np.nan)
        nll[ranked.covered] = ranked.ranks.nll
        measures.append(_Measure(ranked.model, PERPLEXITY, nll, ~np.isnan(nll)))
    return measures


def _of_queries(measure: _Measure, population: Bool, query: npt.NDArray[np.int64]) -> Float64:
    """The metric of each query; a likelihood is the mean of its targets'. (Q,)"""
    values = measure.of_target[population]
    if measure.metric != PERPLEXITY:
        return metric_of(values.astype(np.int32), measure.metric, query=query)
    return np.asarray(np.bincount(query, weights=values) / np.bincount(query))


def _by_population(measures: list[_Measure], members: Bool) -> list[tuple[Bool, list[int]]]:
    """Measures, by their places, that are defined on the same targets of a cohort; none empty."""
    groups: dict[bytes, tuple[Bool, list[int]]] = {}
    for place, measure in enumerate(measures):
        population = measure.defined & members
        if population.any():
            groups.setdefault(population.tobytes(), (population, []))[1].append(place)
    return list(groups.values())


def _exponential(mean_nll: Interval) -> Interval:
    """The perplexity of a mean negative log-likelihood: exp keeps the order of the draws."""
    return Interval(perplexity(mean_nll.value), perplexity(mean_nll.low), perplexity(mean_nll.high))
