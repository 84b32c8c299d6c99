"""The cold protocol: nothing held out is learned from, and lists are judged as defined."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.cold_carry import by_genres, by_ridge
from benchmarks.cold_merge import AGAINST, AS_TRAINED, BY_GENRE, REQUIRED, TIES_AGAINST, merged
from benchmarks.cold_model import carried_rows, fold_in_scores, network_scores, read_asked
from benchmarks.cold_split import METRICS, ColdSplit, draw_split, incidence, metrics_of, read_log
from benchmarks.hrnn_cases import read_cases
from benchmarks.hrnn_cold import find, models_of, write_log_of
from benchmarks.hrnn_results import experiments_page
from benchmarks.quality import workspace_of
from recsys_core.artifacts import write_json
from recsys_core.config import Params, read_params
from recsys_core.data.features import encode, fit_encoding
from recsys_core.errors import DataError
from recsys_core.layout import Layout
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.predict import user_vectors
from recsys_core.rng import generator
from recsys_core.tables import read_events
from tasks.embedding_files import UNTIL_TEST, read_embeddings
from tasks.model_files import read_model
from tests.small_logs import run_stages

USERS, ITEMS = 60, 80
GENRES = ("Drama", "War", "Comedy", "Western")
ROW = read_cases("cold")
TINY = {
    **ROW.params,
    "train_embeddings": {"dim": 8, "max_epochs": 1},
    "train_rnn": {**ROW.params["train_rnn"], "hidden": 8, "max_epochs": 1, "batch": 256},
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of one or two genres; each user takes those of a taste. One row has no place."""
    rng = generator(1, "films")
    genre = rng.integers(len(GENRES), size=ITEMS)
    taste = rng.integers(len(GENRES), size=USERS)
    users, items = [], []
    for user in range(USERS):
        share = np.where(genre == taste[user], 4.0, 1.0)
        taken = rng.choice(ITEMS, 30, replace=False, p=share / share.sum())
        users += [user + 1] * len(taken)
        items += (taken + 1).tolist()
    rank = [place % 30 for place in range(len(users))]
    rank[-1] = None  # type: ignore[call-overload]
    folder = tmp_path_factory.mktemp("logs") / ROW.dataset
    folder.mkdir()
    events = {"user_id": users, "item_id": items, "rating": [4] * len(users)}
    table = pa.table({**events, "time_rank": pa.array(rank, pa.int32())})
    pq.write_table(table, folder / "events.parquet")
    names = [f"{GENRES[one]}|{GENRES[0]}" if one else GENRES[0] for one in genre]
    titles = [f"Film {item} ({1950 + item % 50})" for item in range(ITEMS)]
    films = {"item_id": list(range(1, ITEMS + 1)), "title": titles, "genres": names}
    pq.write_table(pa.table(films), folder / "items.parquet")
    people = {"user_id": list(range(1, USERS + 1)), "gender": "F", "age": 25, "occupation": 1}
    people = {key: value if key == "user_id" else [value] * USERS for key, value in people.items()}
    pq.write_table(pa.table(people), folder / "users.parquet")
    return folder.parent


@pytest.fixture(scope="module")
def log(logs: Path) -> pa.Table:
    return read_log(logs / ROW.dataset)


def ids(array: pa.Array) -> set[str]:
    return set(array.to_pylist())


@pytest.mark.parametrize("level", ["validation", "test"])
def test_no_row_of_what_is_held_out_is_learned_from(
    level: str, log: pa.Table, logs: Path, tmp_path: Path
) -> None:
    split = draw_split(log, level, seed=1)  # type: ignore[arg-type]
    write_log_of(split, logs / ROW.dataset, tmp_path)
    given = pq.read_table(tmp_path / "events.parquet")
    assert len(given) > 0
    assert not ids(given["item_id"]) & ids(split.cold_items)
    assert not ids(given["user_id"]) & ids(split.test_users)
    test = draw_split(log, "test", seed=1)
    assert not ids(given["item_id"]) & ids(test.cold_items), "in validation neither"
    assert not ids(given["user_id"]) & ids(test.test_users)
    assert not ids(split.histories(log)["item_id"]) & ids(split.cold_items)
    assert pq.read_table(tmp_path / "items.parquet")["year"][3].as_py() == 1953.0


def test_every_row_is_in_one_part(log: pa.Table) -> None:
    assert len(log) == USERS * 30 - 1, "a row without a place is left out"
    split = draw_split(log, "test", seed=1)
    assert (len(split.cold_items), len(split.train_users)) == (ITEMS // 2, USERS * 4 // 5)
    cold_of_train = pc.and_(
        pc.is_in(log["user_id"], value_set=split.train_users),
        pc.is_in(log["item_id"], value_set=split.cold_items),
    )
    parts = (len(split.learned(log)), len(split.histories(log)), int(split.wanted(log).sum()))
    assert sum(parts) + pc.sum(cold_of_train).as_py() == len(log)


def test_a_split_is_that_of_its_seed_whatever_the_order_of_rows(log: pa.Table) -> None:
    turned = log.take(np.arange(len(log))[::-1])
    one, same, other = (
        draw_split(rows, "test", seed=seed) for rows, seed in ((log, 1), (turned, 1), (log, 2))
    )
    assert one.cold_items == same.cold_items
    assert one.test_users == same.test_users
    assert one.cold_items != other.cold_items


def test_a_log_that_cannot_be_halved_is_refused() -> None:
    log = pa.table({"user_id": ["1", "2"], "item_id": ["1", "1"], "time_rank": [0, 0]})
    with pytest.raises(DataError, match="leaves 1 warm items, 0 cold ones"):
        draw_split(log, "test", seed=1)


def test_lists_are_judged_as_defined() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 1, 0, 0, 0]], dtype=np.float32)
    wanted = np.array([[False, True, False, False, False, True], [True] + [False] * 5])
    found = dict(zip(METRICS, metrics_of(scores, wanted, rng=None)[0], strict=True))
    assert found["mrr"] == 0.5
    assert found["precision@5"] == 0.2
    assert found["precision@25"] == 2 / 25
    gain = 1 / np.log2(3)
    assert found["ndcg@5"] == pytest.approx(gain / (1 + gain))
    assert found["ndcg@25"] == pytest.approx((gain + 1 / np.log2(7)) / (1 + gain))
    assert metrics_of(scores, wanted, rng=None)[1][0] == pytest.approx(1 / 3), "ties count against"
    drawn = {metrics_of(scores, wanted, rng=np.random.default_rng(s))[1][0] for s in range(20)}
    assert drawn == {1.0, 1 / 2, 1 / 3}, "or come in a drawn order"
    none = metrics_of(scores, np.zeros_like(wanted), rng=None)
    assert np.isnan(none).all()


def films(genres: list[list[str]], years: list[float | None]) -> pa.Table:
    names = [f"i{item}" for item in range(len(genres))]
    lists = pa.array(genres, pa.list_(pa.string()))
    return pa.table({"item_id": names, "genres": lists, "year": pa.array(years, pa.float64())})


def test_what_is_carried_over_follows_the_features() -> None:
    rng = np.random.default_rng(3)
    genres = [[GENRES[one]] for one in rng.integers(4, size=120)]
    table = films(genres, [*rng.uniform(1950, 2000, 119), None])
    kinds = {"genres": "multi_categorical", "year": "numeric"}
    known, new = (table["item_id"].combine_chunks().slice(*part) for part in ((0, 80), (80, 40)))
    encoding = fit_encoding(table, kinds, ids=known, most=9, words=1)  # type: ignore[arg-type]
    warm, cold = encode(encoding, table, known), encode(encoding, table, new)
    year = np.nan_to_num(table["year"].to_numpy() - 1975) / 25
    truth = np.array([GENRES.index(one[0]) for one in genres]) * year  # no field alone tells it
    carried = by_ridge(warm, cold, encoding, l2=0.1) @ truth[:80]
    assert np.corrcoef(carried[:-1], truth[80:-1])[0, 1] > 0.95
    near = by_genres(warm, cold, encoding, power=32.0)
    assert near.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    same = np.array([[one == other for other in genres[:80]] for one in genres[80:]])
    assert near[~same].max() < 1e-6
    assert near[same].min() > 0


@pytest.fixture(scope="module")
def split(log: pa.Table) -> ColdSplit:
    return draw_split(log, "test", seed=1)


@pytest.fixture(scope="module")
def trained(logs: Path, split: ColdSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the case `ids`, in which two stages of training were run."""
    folder = tmp_path_factory.mktemp("cold")
    write_log_of(split, logs / ROW.dataset, folder / "logs" / ROW.dataset)
    row = replace(ROW, params=TINY)
    layout = workspace_of(row, 1, change="ids", runs=folder, logs=folder / "logs")
    stages = ("ingest", "validate", "sessionize", "train_embeddings", "train_rnn")
    run_stages(layout, *stages, params=_at(layout.root, read_params(layout.params)))
    return layout.root


def _at(root: Path, params: Params) -> Params:
    """The params for stages that are run from another folder."""
    path = str((root / params.ingest.path).resolve())
    return params.model_copy(update={"ingest": replace(params.ingest, path=path)})


def test_scores_are_the_mean_over_the_places_of_a_history(
    trained: Path, split: ColdSplit, log: pa.Table
) -> None:
    layout = Layout(trained)
    assert not ids(pq.read_table(layout.item_vocabulary)["item_id"]) & ids(split.cold_items)
    assert len(read_events(layout.events)) == len(split.learned(log))
    asked = read_asked(layout, split, log)
    model = read_model(layout.stage("train_rnn"))
    carry = by_ridge(asked.warm, asked.cold, asked.encoding, l2=1.0)
    vectors, bias = (one.detach().numpy() for one in (model.item_vectors, model.item_bias))
    rows = carried_rows(carry, vectors, bias)
    found = network_scores(model, asked, rows)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)), abs=1e-4)
    history = np.arange(1, asked.counts[2] + 1)
    # places within the window: the model reads at most so many events at once
    assert history[-1] <= model.config.window
    queries = user_vectors(
        model, asked.histories, user_idx=np.full_like(history, 3), history=history
    )
    scores = torch.from_numpy(queries) @ rows[:, :-1].T + rows[:, -1]
    naive = torch.softmax(scores, dim=1).mean(dim=0).numpy()
    assert found[2] == pytest.approx(naive, abs=1e-5)

    embeddings = read_embeddings(layout.stage("train_embeddings") / UNTIL_TEST)
    rows = carried_rows(carry, embeddings.items, embeddings.item_bias)
    one = FoldIn.of(embeddings).vectors(
        asked.histories, np.array([3]), count=np.array([asked.counts[2]])
    )
    naive = one @ rows[:, :-1].numpy().T + rows[:, -1].numpy()
    assert fold_in_scores(embeddings, asked, rows)[2] == pytest.approx(naive[0], abs=1e-5)
    own = incidence(split.histories(log), split.test_users, split.warm_items)
    assert asked.counts.sum() == own.sum(), "every warm item of a test user is known here"


def test_every_model_scores_every_cold_item(trained: Path, split: ColdSplit, log: pa.Table) -> None:
    layout = Layout(trained)
    asked = read_asked(layout, split, log)
    found = {}
    for name, scores, settings in models_of({"ids": layout}, split, asked):
        found[name] = scores(settings[0])
        assert found[name].shape == (len(split.test_users), len(split.cold_items)), name
        assert np.isfinite(found[name]).all(), name
        alike = np.ptp(found[name], axis=0).max() == 0
        assert alike == name.startswith("popularity"), name
    assert {AGAINST, "popularity_by_genre", "ease_by_features", "fold_in", "ids"} <= set(found)


NAMES = (*REQUIRED, "fold_in")


def write_seeds(folder: Path, *, seeds: tuple[int, ...], **changes: object) -> None:
    """What is written down of finished seeds: those of models by their place, and the facts."""
    folder.mkdir(exist_ok=True)
    values = {name: 0.1 * (place + 1) for place, name in enumerate(NAMES)}
    told = {
        "changed_since": False,
        "device": "cpu",
        "commit": "c" * 40,
        "machine": {"cpus": 2, "cpu": "a CPU"},
        "seconds": {"ingest": 1},
        "code": "a",
        "experiment": "b",
        "versions": {"torch": "2"},
        "cases": {"ids": {}},
    }
    for seed in seeds:
        rows = [
            {"model": name, "user": user, **dict.fromkeys(METRICS, value + 0.01 * seed)}
            for name, value in values.items()
            for user in range(5)
        ]
        rows[4] |= dict.fromkeys(METRICS, np.nan)  # of `random`: a user without a held-out item
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{seed}.parquet")
        facts = {**told, "params": {"seed": seed}, "chosen": {name: [1.0] for name in NAMES}}
        write_json(folder / f"{seed}.json", {**facts, **changes})


def test_the_page_tells_what_the_seeds_found(tmp_path: Path) -> None:
    write_seeds(tmp_path / "cold", seeds=(1, 2))
    found = merged(ROW, 2, runs=tmp_path)
    json.dumps(found)
    (table,) = found["tables"]
    assert table["seeds"] == [1, 2]
    assert table["left_aside"] == {}
    assert table["population"] == "4 users"
    by_name = {case["name"].partition(" ")[0]: case for case in table["cases"]}
    assert by_name["fold_in"]["metrics"]["mrr"]["value"] == pytest.approx(0.515)
    assert by_name["fold_in"]["difference"]["value"] == pytest.approx(0.2)
    assert by_name[AGAINST]["difference"] is None
    as_trained = by_name["fixed_lambda" + AS_TRAINED]["params"]["features"]
    assert (as_trained["training_share"], as_trained["cold_ridges"]) == (0.5, [])
    text = experiments_page({"cold": found})
    assert "| fold_in | 0.5150 [0.5150, 0.5150] |" in text
    assert all(f"| {name} (required) |" in text for name in REQUIRED)
    assert "| ease_by_genre | +0.2000 [+0.2000, +0.2000] | ahead |" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "of another day"}, ["code"]),
        ({"experiment": "c", "cases": {}}, ["experiment", "cases"]),
        ({"params": {"seed": 1, "split": "days"}}, ["params"]),
        ({"code": None, "experiment": None, "versions": None}, ["code", "experiment", "versions"]),
    ],
)
def test_seeds_that_are_no_repetitions_are_left_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: list[str]
) -> None:
    """Once the mean was over seeds of any code."""
    write_seeds(tmp_path / "cold", seeds=(1,), **changes)
    write_seeds(tmp_path / "cold", seeds=(2, 3))
    (table,) = merged(ROW, 2, runs=tmp_path)["tables"]
    assert table["seeds"] == [2, 3]
    assert table["left_aside"] == {"1": said}
    assert capsys.readouterr().out.startswith(
        f"event=left_aside seed=1 differs_in={','.join(said)};"
    )
    (table,) = merged(ROW, 1, runs=tmp_path)["tables"]
    assert table["seeds"] == [1]


@pytest.mark.slow  # two levels, four cases, each of eight stages in a process of its own
def test_the_row_from_its_log_to_what_is_found(logs: Path, tmp_path: Path) -> None:
    row = replace(ROW, params=TINY)
    found, chosen = find(row, 1, runs=tmp_path, logs=logs)
    models = found["model"].unique().to_pylist()
    assert set(models) == {*REQUIRED, *ROW.cases, "fold_in", "ease_by_features"} | {
        "popularity_by_features",
        "random_lambda" + AS_TRAINED,
        *(name + TIES_AGAINST for name in BY_GENRE),
    }
    assert len(found) == len(models) * USERS // 5
    assert len(chosen["ease_by_genre"]) == 2
    assert chosen["ease_by_genre" + TIES_AGAINST] == chosen["ease_by_genre"]
    assert chosen["random_lambda"] == []
    on_validation = {path.name for path in (tmp_path / "cold-validation").iterdir()}
    assert on_validation == {"1-ids"}, "of the others nothing is chosen"
