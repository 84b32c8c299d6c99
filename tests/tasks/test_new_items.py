"""Items that nobody had yet, from tonight's table of items to the published scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.events import Events
from recsys_core.data.features import FeatureEncoding, encode
from recsys_core.data.splits import Split
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.errors import ContractError
from recsys_core.layout import Layout
from recsys_core.models.item_features import ItemFeatures
from recsys_core.models.new_items import with_new_items
from recsys_core.models.predict import user_vectors
from recsys_core.sections import ExportOnnx
from recsys_core.serving.bundle import read_bundle
from recsys_core.serving.engine import ScoringEngine
from recsys_core.serving.registry import add_version, promote
from recsys_core.serving.shards import read_score_run
from recsys_core.tables import ITEM_VOCABULARY, USER_VOCABULARY, write_events, write_table
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.loop import Fit
from tasks.edges import score
from tasks.edges.score import check_vocabulary, with_items_of
from tasks.item_features import ENCODING, write_encoding
from tasks.memory_files import read_memory, write_memory
from tasks.model_files import read_model, write_model
from tasks.new_items import Exported, grown
from tasks.stages import export_onnx
from tests.core.training.test_item_mixing import embeddings_of
from tests.feature_log import (
    COLD,
    GENRES,
    N_ITEMS,
    WARM,
    genre_log,
    genre_of,
    item_table,
    known_features,
)
from tests.markov_log import CPU, STAGE_TWO
from tests.serving_world import make_events, make_memory, score_params, vocabulary_table

LOG = genre_log(1)
LACKING = 2
"""Of the new items, the first that have no row in the table."""
TABLE = item_table(N_ITEMS).take([*range(WARM), *range(WARM + LACKING, N_ITEMS)])
NEW = COLD - LACKING
EXPORT = ExportOnnx(k=20, new_items=True, step=True)
SCORE = score_params(k=8, seen="all", shard_users=64)


def write_log(layout: Layout, events: Events, item_ids: list[str]) -> None:
    """A log as sessionize leaves it."""
    write_events(layout.events, events)
    write_table(
        layout.item_vocabulary, vocabulary_table(item_ids, ITEM_VOCABULARY), ITEM_VOCABULARY
    )
    users = vocabulary_table([f"u{user}" for user in range(events.n_users)], USER_VOCABULARY)
    write_table(layout.user_vocabulary, users, USER_VOCABULARY)
    as_of = int(events.timestamp.max())
    split = Split(valid_start=as_of - 2, test_start=as_of - 1, end=as_of + 1, as_of=as_of)
    write_json(layout.split, split.to_json())


def ids_of(items: range) -> list[str]:
    return [f"i{item}" for item in items]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A refitted model of the first items, and a table of all but two; exported."""
    layout = Layout(tmp_path_factory.mktemp("new"))
    write_log(layout, LOG.events, ids_of(range(1, WARM + 1)))
    layout.item_features.parent.mkdir(parents=True)
    pq.write_table(TABLE, layout.item_features)
    known = known_features(WARM)
    params = replace(STAGE_TWO, batch=128, loss="softmax", reads=(), ablation="one_rnn")
    trainer = RnnTrainer(
        LOG,
        params,
        embeddings=embeddings_of(LOG, epochs=3),
        seed=1,
        device=CPU,
        validation=None,
        features=known,
    )
    for _ in Fit(trainer, phase="t", max_epochs=4, patience=None, checkpoint=None).run():
        pass
    folder = layout.stage("refit")
    write_model(folder, trainer.finished_model())
    write_encoding(folder, known)
    write_memory(folder, make_memory(n_items=WARM, fitted=False))
    write_json(folder / "training.json", {"epochs": 1, "cut": "end"})
    write_json(layout.report("evaluate"), {"recent_hours": None})
    write_json(layout.session_gap, {"seconds": None})
    export_onnx.run(layout=layout, export_onnx=EXPORT)
    version = add_version(
        layout.registry, layout.bundle, graph="two_time_scale", verdict={"passed": True}
    )
    promote(layout.registry, version, registered_at="2026-01-01T00:00:00+00:00")
    return layout


def scored(layout: Layout) -> dict[str, list[int]]:
    """The items of each user's table, by the numbers in their names."""
    score.run(layout=layout, score=SCORE)
    table = pa.concat_tables(pq.read_table(part) for part in read_score_run(layout.scores).parts)
    found: dict[str, list[int]] = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append(int(row["item_id"][1:]))
    return found


def liked_genre(events: Events) -> np.ndarray:
    """The genre that each user had most. (U,)"""
    users = range(1, events.n_users + 1)
    histories = [events.item_idx[slice(*events.offsets[user : user + 2])] for user in users]
    return np.array([np.bincount(genre_of(one), minlength=GENRES).argmax() for one in histories])


def test_the_bundle_and_its_report_know_them(layout: Layout) -> None:
    bundle = read_bundle(layout.bundle)
    described = [1 + WARM + LACKING, 1 + N_ITEMS]
    assert bundle.items.ids.to_pylist() == ids_of(range(1, WARM + 1)) + ids_of(range(*described))
    assert (bundle.n_items, bundle.new_items, bundle.logged_items) == (WARM + NEW, NEW, WARM)
    assert (np.diff(bundle.items.first_timestamp) >= 0).all()
    report = read_json(layout.report("export_onnx"))
    assert report["new_items"] == {"recommendable": NEW, "without_feature_row": 0}
    assert report["items"] == WARM + NEW
    assert report["graphs"]["two_time_scale"]["parity_max_difference"] < 1e-4


def test_new_items_of_a_liked_genre_are_recommended_to_who_likes_it(layout: Layout) -> None:
    found, liked = scored(layout), liked_genre(LOG.events)
    new = {user: [item for item in items if item > WARM] for user, items in found.items()}
    assert np.mean([len(items) for items in new.values()]) > 1, "they enter the table"
    hits = [
        genre_of(np.array(item)) == liked[int(user[1:])]
        for user, items in new.items()
        for item in items
    ]
    assert np.mean(hits) > 0.8, f"{1 / GENRES:.2f} by chance"
    assert not {WARM + 1, WARM + LACKING} & {item for items in new.values() for item in items}


def test_scores_are_those_of_the_decoder(layout: Layout) -> None:
    """Of torch, with the rows of features taken up."""
    bundle, model = read_bundle(layout.bundle), read_model(layout.stage("refit"))
    engine = ScoringEngine(
        bundle, graph="two_time_scale", threads=1, providers=("CPUExecutionProvider",)
    )
    users = np.arange(1, 9)
    top = engine.top_items(LOG.events, users, k=20, seen_filter=False)
    history = np.diff(LOG.events.offsets)[users]
    vectors = torch.from_numpy(user_vectors(model, LOG.events, user_idx=users, history=history))
    encoding = FeatureEncoding.from_json(read_json(layout.stage("refit") / ENCODING))
    ids = pa.array(ids_of(range(1 + WARM + LACKING, 1 + N_ITEMS)))
    features = ItemFeatures.of(encode(encoding, TABLE, ids), device=CPU)
    assert model.decoder is not None
    with torch.no_grad():
        rows = features.read_by(model.decoder)[1:]
        expected = with_new_items(model, rows).scores(vectors).numpy()  # (U, V + 1)
    np.testing.assert_allclose(top.scores, -np.sort(-expected, axis=1)[:, :20], rtol=1e-4)
    of_items = np.take_along_axis(expected, top.items, axis=1)
    np.testing.assert_allclose(top.scores, of_items, rtol=1e-4, err_msg="memory adds nothing here")
    assert (top.items > WARM).any()


def test_an_item_that_has_since_been_had_is_known_by_its_other_number(
    layout: Layout, tmp_path: Path
) -> None:
    """The log numbers what arrives: to the bundle the same item has another number."""
    bundle = read_bundle(layout.bundle)
    later = ["i62", "i100", "i999", "i70"]  # one without a row, one that no table has
    ids = ids_of(range(1, WARM + 1)) + later
    events = make_events([[1, WARM + 2], [WARM + 1, WARM + 3, WARM + 4]])
    write_log(Layout(tmp_path), events, ids)
    vocabulary = Layout(tmp_path).item_vocabulary
    check_vocabulary(bundle, vocabulary)
    numbered = with_items_of(bundle, events, vocabulary)
    unknown = bundle.n_items + 1
    names = bundle.items.ids.to_pylist()
    expected = [1, 1 + names.index("i100"), unknown, unknown, 1 + names.index("i70")]
    assert numbered.item_idx.tolist() == expected
    assert numbered.item_idx.dtype == np.int32
    without = replace(bundle, new_items=0)
    assert with_items_of(without, events, vocabulary) is events


def test_what_was_new_last_night_and_was_had_since_is_seen(layout: Layout, tmp_path: Path) -> None:
    """Another night, the same champion: it goes on, and leaves out what its user has had."""
    before = scored(layout)
    user = next(name for name, items in before.items() if max(items) > WARM)
    had = next(item for item in before[user] if item > WARM)
    other = Layout(tmp_path)
    idx = int(user[1:]) + 1
    histories = [
        LOG.events.item_idx[slice(*LOG.events.offsets[one : one + 2])].tolist()
        for one in range(1, LOG.events.n_users + 1)
    ]
    histories[idx - 1].append(WARM + 2)
    ids = [*ids_of(range(1, WARM + 1)), "i1000", f"i{had}"]
    write_log(other, make_events(histories), ids)
    other.registry.parent.mkdir(parents=True, exist_ok=True)
    other.registry.symlink_to(layout.registry.resolve())
    after = scored(other)
    assert had not in after[user]
    assert after.keys() == before.keys()
    assert any(item > WARM for item in after[user])


def test_a_log_that_was_rewritten_is_refused(layout: Layout, tmp_path: Path) -> None:
    bundle = read_bundle(layout.bundle)
    write_log(Layout(tmp_path), make_events([[1]]), ids_of(range(2, WARM + 2)))
    with pytest.raises(ContractError, match="its first 60 items are not those"):
        check_vocabulary(bundle, Layout(tmp_path).item_vocabulary)


def test_items_of_the_log_without_a_row_are_counted(layout: Layout, tmp_path: Path) -> None:
    """They have events, but not before the model's cut; without a row nothing tells them."""
    other = Layout(tmp_path)
    write_log(other, make_events([[1]]), [*ids_of(range(1, WARM + 1)), "i100", "i62", "i61"])
    for path in (other.item_features, other.stage("refit")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to((layout.root / path.relative_to(other.root)).resolve())
    vocabulary = vocabulary_table(ids_of(range(1, WARM + 1)), ITEM_VOCABULARY)
    model, memory = read_model(other.stage("refit")), read_memory(other.stage("refit"))
    popularity = np.concatenate([[-np.inf], np.linspace(-3, -1, WARM)]).astype(np.float32)
    found = grown(Exported(model, memory, popularity, vocabulary), other, as_of=5)
    assert (found.new_items, found.without_row) == (NEW, 2)
    assert (found.popularity[WARM + 1 :] == -3.0).all()
    since = Vocabulary.from_table(vocabulary).first_timestamp[-1]
    assert Vocabulary.from_table(found.items).first_timestamp[-1] == since, "never earlier"


def test_a_model_without_features_is_refused(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path)
    write_model(other.stage("refit"), read_model(layout.stage("refit")))
    assert not (other.stage("refit") / ENCODING).exists()
    model, memory = read_model(other.stage("refit")), make_memory(n_items=WARM)
    with pytest.raises(ContractError, match="reads no item features"):
        grown(Exported(model, memory, np.zeros(61, np.float32), pa.table({})), other, as_of=5)
