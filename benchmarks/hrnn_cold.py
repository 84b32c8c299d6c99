"""`make bench-hrnn ROW=cold`: items that nobody could learn from, told by their features.

    random, popularity_by_genre, ease_by_genre    the required baselines
    popularity_by_features, ease_by_features      carried over by year and pairs of genres as well
                        (`cold_carry.py`): much harder ones
    random_lambda       the sequence model, whose decoder tells cold items (lambda 1); in training
                        lambda ~ U[0, 1]
    fixed_lambda        the same with lambda .5 in training
    ids                 the sequence model without features, its rows carried over
    fold_in             stage one's vectors, the history folded in, its rows carried over

The split is drawn once (`SPLIT_SEED`); the seed is that of the training. Powers and ridges are
chosen by the first metric on validation, the same protocol inside what may be learned from.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from benchmarks.cold_carry import by_genres, by_ridge
from benchmarks.cold_model import (
    Asked,
    carried_rows,
    decoded_rows,
    fold_in_scores,
    network_scores,
    read_asked,
)
from benchmarks.cold_split import METRICS, ColdSplit, Level, draw_split, metrics_of, read_log
from benchmarks.hrnn_cases import interval_of, read_cases, told, workspace_of_case
from benchmarks.hrnn_results import Experiment, experiment_of
from benchmarks.quality import run_row
from benchmarks.quality_merge import DRAWS
from benchmarks.row import Row, log_folder
from recsys_core.artifacts import read_json, write_json
from recsys_core.evaluation.significance import mean_intervals
from recsys_core.layout import Layout
from recsys_core.models.linear_items import LinearItemsSettings, fit_linear_items
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.models.user_items import user_items
from recsys_core.rng import generator
from recsys_core.tables import read_events
from tasks.embedding_files import UNTIL_TEST, read_embeddings
from tasks.model_files import read_model

SPLIT_SEED = 1
POWERS = (4.0, 8.0, 16.0, 32.0)
EASE_L2 = (100.0, 300.0, 1000.0)
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
AGAINST = "ease_by_genre"
REQUIRED = ("random", "popularity_by_genre", "ease_by_genre")

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Setting = tuple[float, ...]
Scores = Callable[[Setting], Float32]


TITLE = "Items that were held out of all training, in one list for each user that was too"
NOTE = (
    "Half of the items and a fifth of the users were drawn once (seed 1) and are in no training; "
    "ranks are among the held-out items alone, mrr counts the first hit. Powers and ridges are "
    "chosen by mrr on validation: the same protocol once more inside what may be learned from. "
    "Of the required baselines equal scores come in an order drawn once, since by genres most "
    "scores are shared; all else is ranked with ties against it. The paper's P@5 .162, P@25 "
    ".133 and mrr .323 are of another draw; its NDCG is normalised otherwise."
)


def run(seed: int, *, runs: Path, logs: Path) -> Experiment:
    """Run the row with a seed; returns what all finished seeds found."""
    row = read_cases("cold")
    folder = runs / "cold"
    folder.mkdir(parents=True, exist_ok=True)
    found, chosen = find(row, seed, runs=runs, logs=logs)
    facts = read_json(_last(row, seed, runs=runs).root / "run.json")
    pq.write_table(found, folder / f"{seed}.parquet")
    write_json(folder / f"{seed}.json", {**facts, "chosen": chosen})  # last: the seed is finished
    return merged(row, runs=runs)


def merged(row: Row, *, runs: Path) -> Experiment:
    """What the finished seeds found, each model against EASE by genres."""
    seeds = sorted(int(path.stem) for path in (runs / "cold").glob("*.json"))
    facts = [read_json(runs / "cold" / f"{seed}.json") for seed in seeds]
    values = _mean_of([pq.read_table(runs / "cold" / f"{seed}.parquet") for seed in seeds])
    asked = ~np.isnan(values["random"][:, 0])  # who has no held-out item is asked nothing
    cases = []
    for name, of in values.items():
        difference = None if name == AGAINST else of[asked] - values[AGAINST][asked]
        cases.append(
            {
                "name": f"{name} (required)" if name in REQUIRED else name,
                "params": row.cases.get(name, {}),
                "metrics": dict(zip(METRICS, _intervals(of[asked]), strict=True)),
                "against": None if difference is None else AGAINST,
                "difference": None if difference is None else _intervals(difference)[0],
                "without_request": None,
                "numbers": {},
                "chosen": {
                    str(s): one["chosen"][name] for s, one in zip(seeds, facts, strict=True)
                },
            }
        )
    table = {
        "log": "cold-ml1m",
        "title": row.title,
        "asked": "all held-out items of each user who was held out, in one list",
        "population": f"{int(asked.sum()):,} users",
        "first_metric": METRICS[0],
        "seeds": seeds,
        "facts": {"all": [told(one) for one in facts]},
        "cases": cases,
        "params": {key: value for key, value in facts[0]["params"].items() if key != "seed"},
    }
    return experiment_of("cold", title=TITLE, note=NOTE, tables=[table])


def find(row: Row, seed: int, *, runs: Path, logs: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The metrics of each test user by model, and what was chosen on validation."""
    chosen: dict[str, Any] = {}
    for name, (scores, settings) in _level(row, "validation", seed, runs=runs, logs=logs).items():
        values = {setting: scores(setting) for setting in settings}
        chosen[name] = max(settings, key=lambda one, of=values: float(np.nanmean(of[one][:, 0])))
    found = {
        name: scores(chosen[name])
        for name, (scores, _) in _level(row, "test", seed, runs=runs, logs=logs).items()
    }
    told = {
        "model": np.repeat(list(found), [len(values) for values in found.values()]),
        "user": np.concatenate([np.arange(len(values)) for values in found.values()]),
    }
    values = np.concatenate(list(found.values()))
    told |= {metric: values[:, place] for place, metric in enumerate(METRICS)}
    return pa.table(told), {name: list(setting) for name, setting in chosen.items()}


def write_log_of(split: ColdSplit, source: Path, target: Path) -> None:
    """Write what may be learned from, as a log of its own: no row of a cold item, none of a test
    user. All items keep their features, and have the year of their title's end."""
    target.mkdir(parents=True, exist_ok=True)
    pq.write_table(split.learned(read_log(source)), target / "events.parquet")
    items = pq.read_table(source / "items.parquet")
    year = pc.struct_field(pc.extract_regex(items["title"], r"\((?P<year>\d{4})\)\s*$"), "year")
    with_year = items.append_column("year", year.cast(pa.float64()))
    pq.write_table(with_year, target / "items.parquet")
    pq.write_table(pq.read_table(source / "users.parquet"), target / "users.parquet")


def run_level(row: Row, level: Level, seed: int, *, runs: Path, logs: Path) -> dict[str, Layout]:
    """Run the cases of the row on what a level may learn from; returns their workspaces."""
    source = log_folder(row, logs=logs)
    split = draw_split(read_log(source), level, seed=SPLIT_SEED)
    prepared = runs / "cold-logs" / level
    write_log_of(split, source, prepared / row.dataset)
    part = replace(row, name=f"{row.name}-{level}")
    for case in row.cases:
        run_row(part, seed, change=case, runs=runs, logs=prepared)
    return {case: workspace_of_case(part, case, seed, runs=runs) for case in row.cases}


def _last(row: Row, seed: int, *, runs: Path) -> Layout:
    """The workspace that is run last."""
    part = replace(row, name=f"{row.name}-test")
    return workspace_of_case(part, list(row.cases)[-1], seed, runs=runs)


def _mean_of(tables: list[pa.Table]) -> dict[str, Float64]:
    """Metrics of each user (U, M) by model, the mean over seeds."""
    names = tables[0]["model"].unique().to_pylist()
    found = {}
    for name in names:
        parts = [table.filter(pc.equal(table["model"], name)) for table in tables]
        columns = [[part[metric].to_numpy() for metric in METRICS] for part in parts]
        found[name] = np.mean(columns, axis=0).T
    return found


def _intervals(values: Float64) -> list[dict[str, Any]]:
    """The mean over users of each column, with its interval."""
    rng = generator(0, "hrnn", "bootstrap")
    found = mean_intervals(values, np.arange(len(values)), rng=rng, draws=DRAWS)
    return [interval_of(one) for one in found]


def _level(
    row: Row, level: Level, seed: int, *, runs: Path, logs: Path
) -> Mapping[str, tuple[Callable[[Setting], Float64], list[Setting]]]:
    """By model: its metrics of each user with a setting, and the settings to choose from."""
    layouts = run_level(row, level, seed, runs=runs, logs=logs)
    log = read_log(log_folder(row, logs=logs))
    split = draw_split(log, level, seed=SPLIT_SEED)
    wanted = split.wanted(log)
    shared = read_asked(next(iter(layouts.values())), split, log)
    drawn = generator(SPLIT_SEED, "cold", level, "random")

    def judged(scores: Scores, *, ties: bool) -> Callable[[Setting], Float64]:
        def metrics(setting: Setting) -> Float64:
            rng = generator(SPLIT_SEED, "cold", level, "ties") if ties else None
            return metrics_of(scores(setting), wanted, rng=rng)

        return metrics

    noise = drawn.random(wanted.shape).astype(np.float32)
    found = {"random": (judged(lambda _: noise, ties=False), [()])}
    for name, scores, settings in models_of(layouts, split, shared):
        found[name] = (judged(scores, ties=name in REQUIRED), settings)
    return found


def models_of(
    layouts: Mapping[str, Layout], split: ColdSplit, asked: Asked
) -> Iterator[tuple[str, Scores, list[Setting]]]:
    """Every model but chance: its name, its scores (U, C) by setting, and the settings.

    `layouts` are the workspaces of the cases, which all learned from the split.
    """
    one = next(iter(layouts.values()))
    events = read_events(one.events)
    n_items = asked.n_items
    counts = np.diff(events.offsets)
    popularity = np.bincount(events.item_idx, minlength=n_items + 1)[1:].astype(np.float32)
    own = user_items(
        asked.histories, np.diff(asked.histories.offsets), n_items=n_items, latest=1024
    )
    users = len(asked.counts)

    @cache
    def genres(power: float) -> Float32:
        return by_genres(asked.warm, asked.cold, asked.encoding, power=power)

    @cache
    def ridge(l2: float) -> Float32:
        return by_ridge(asked.warm, asked.cold, asked.encoding, l2=l2)

    @cache
    def ease(l2: float) -> Float32:
        settings = LinearItemsSettings(l2=l2, recency=0.0, latest=1024)
        weight = fit_linear_items(events, counts, n_items=n_items, settings=settings).weight
        scores: Float32 = (own @ weight)[1:, 1:]
        return scores

    def popular(setting: Setting) -> Float32:
        return np.tile(genres(setting[0]) @ popularity, (users, 1))

    def popular_by_ridge(setting: Setting) -> Float32:
        return np.tile(ridge(setting[0]) @ np.log1p(popularity), (users, 1))

    pairs = [(l2, power) for l2 in EASE_L2 for power in POWERS]
    ridges = [(l2, by) for l2 in EASE_L2 for by in RIDGES]
    yield "popularity_by_genre", popular, [(power,) for power in POWERS]
    yield "ease_by_genre", lambda setting: ease(setting[0]) @ genres(setting[1]).T, pairs
    yield "popularity_by_features", popular_by_ridge, [(l2,) for l2 in RIDGES]
    yield "ease_by_features", lambda setting: ease(setting[0]) @ ridge(setting[1]).T, ridges
    embeddings = read_embeddings(one.stage("train_embeddings") / UNTIL_TEST)

    def folded(setting: Setting) -> Float32:
        rows = carried_rows(ridge(setting[0]), embeddings.items, embeddings.item_bias)
        return fold_in_scores(embeddings, asked, rows)

    yield "fold_in", folded, [(l2,) for l2 in RIDGES]
    for case, layout in layouts.items():
        model = read_model(layout.stage("train_rnn"))
        vectors, bias = (one.detach().numpy() for one in (model.item_vectors, model.item_bias))
        if model.decoder is None:
            told_rows = {(l2,): carried_rows(ridge(l2), vectors, bias) for l2 in RIDGES}
        else:
            told_rows = {(): decoded_rows(layout, model, split)}
        yield case, partial(_asked_of, model, asked, told_rows), list(told_rows)


def _asked_of(
    model: TwoTimeScale, asked: Asked, rows: Mapping[Setting, Tensor], setting: Setting
) -> Float32:
    return network_scores(model, asked, rows[setting])
