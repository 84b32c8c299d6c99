"""`make bench-hrnn ROW=cold`: items that nobody could learn from, told by their features.

    random, popularity_by_genre, ease_by_genre    the required baselines
    popularity_by_features, ease_by_features      carried over by year and pairs of genres as well
                        (`cold_carry.py`): much harder ones
    random_lambda       the sequence model, whose decoder tells cold items (lambda 1); in training
                        lambda ~ U[0, 1], and at its end the regression on the finished rows
    fixed_lambda        the same with lambda .5 in training
    ..._as_trained      the same networks and warm rows, the decoder without the regression, as
                        HRNN-meta has it; that of a fixed lambda is a required baseline
    ids                 the sequence model without features, its rows carried over
    fold_in             stage one's vectors, the history folded in, its rows carried over

The split is drawn once (`SPLIT_SEED`); the seed is that of the training. Powers and ridges are
chosen by the first metric on validation, the same protocol inside what may be learned from.
"""

import hashlib
import json
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
from benchmarks.cold_merge import AS_TRAINED, BY_GENRE, TIES_AGAINST, merged
from benchmarks.cold_model import (
    Asked,
    carried_rows,
    decoded_rows,
    fold_in_scores,
    network_scores,
    read_asked,
)
from benchmarks.cold_split import METRICS, ColdSplit, Level, draw_split, metrics_of, read_log
from benchmarks.hrnn_cases import read_cases, workspace_of_case
from benchmarks.hrnn_results import Experiment
from benchmarks.measure import ROOT
from benchmarks.quality import run_row
from benchmarks.row import Row, log_folder
from recsys_core.artifacts import read_json, sha256, write_json
from recsys_core.layout import Layout
from recsys_core.models.linear_items import LinearItemsSettings, fit_linear_items
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.models.user_items import user_items
from recsys_core.rng import generator
from recsys_core.tables import read_events
from tasks.code import closure
from tasks.embedding_files import UNTIL_TEST, read_embeddings
from tasks.model_files import read_model

SPLIT_SEED = 1
POWERS = (4.0, 8.0, 16.0, 32.0)
EASE_L2 = (100.0, 300.0, 1000.0)
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Setting = tuple[float, ...]
Scores = Callable[[Setting], Float32]


def run(seed: int, *, runs: Path, logs: Path) -> Experiment:
    """Run the row with a seed; returns what all finished seeds found."""
    row = read_cases("cold")
    folder = runs / "cold"
    folder.mkdir(parents=True, exist_ok=True)
    facts_path = folder / f"{seed}.json"
    facts_path.unlink(missing_ok=True)  # until all is there again, this seed has found nothing
    found, chosen = find(row, seed, runs=runs, logs=logs)
    facts = {
        **read_json(_last(row, seed, runs=runs).root / "run.json"),
        "experiment": _code_of_experiment(),
        "cases": row.cases,
        "chosen": chosen,
    }
    pq.write_table(found, folder / f"{seed}.parquet")
    write_json(facts_path, json.loads(json.dumps(facts, default=str)))
    return merged(row, seed, runs=runs)


def find(row: Row, seed: int, *, runs: Path, logs: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The metrics of each test user by model, and what was chosen on validation."""
    chosen: dict[str, Any] = {}
    for name, (scores, settings) in _level(row, "validation", seed, runs=runs, logs=logs).items():
        values = {setting: scores(setting) for setting in settings}
        chosen[name] = max(settings, key=lambda one, of=values: float(np.nanmean(of[one][:, 0])))
    found = {}
    for name, (scores, settings) in _level(row, "test", seed, runs=runs, logs=logs).items():
        # with ties against it a model is what it is otherwise: nothing more is chosen
        chosen[name] = chosen.get(name.removesuffix(TIES_AGAINST), settings[0])
        found[name] = scores(chosen[name])
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
    """Run the cases of the row on what a level may learn from; returns their workspaces.

    On validation those alone of which something is chosen: a decoder has one setting.
    """
    source = log_folder(row, logs=logs)
    split = draw_split(read_log(source), level, seed=SPLIT_SEED)
    prepared = runs / "cold-logs" / level
    write_log_of(split, source, prepared / row.dataset)
    part = replace(row, name=f"{row.name}-{level}")
    cases = [
        case for case, changes in row.cases.items() if level == "test" or "features" not in changes
    ]
    for case in cases:
        run_row(part, seed, change=case, runs=runs, logs=prepared)
    return {case: workspace_of_case(part, case, seed, runs=runs) for case in cases}


def _last(row: Row, seed: int, *, runs: Path) -> Layout:
    """The workspace that is run last."""
    part = replace(row, name=f"{row.name}-test")
    return workspace_of_case(part, list(row.cases)[-1], seed, runs=runs)


def _code_of_experiment() -> str:
    """A digest of this file and of all files that it needs."""
    files = sorted(closure("benchmarks/hrnn_cold.py", root=ROOT))
    text = " ".join(f"{file} {sha256(ROOT / file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


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
        found[name] = (judged(scores, ties=name in BY_GENRE), settings)
        if name in BY_GENRE and level == "test":
            found[name + TIES_AGAINST] = (judged(scores, ties=False), settings)
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
            yield case, partial(_asked_of, model, asked, told_rows), list(told_rows)
            continue
        for ending in ("", AS_TRAINED):
            decoded = {(): decoded_rows(layout, model, split, as_trained=bool(ending))}
            yield case + ending, partial(_asked_of, model, asked, decoded), list(decoded)


def _asked_of(
    model: TwoTimeScale, asked: Asked, rows: Mapping[Setting, Tensor], setting: Setting
) -> Float32:
    return network_scores(model, asked, rows[setting])
