"""Item features on their way into stage two: what a cut may know, counts, files, and errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_core.artifacts import read_json
from recsys_core.config import Params, check_params, read_yaml
from recsys_core.data.features import FeatureEncoding, encode
from recsys_core.errors import ConfigError, ContractError
from recsys_core.layout import Layout
from recsys_core.models.item_features import ItemFeatures, new_item_rows
from recsys_core.models.new_items import with_new_items
from recsys_core.sections import Features, Refit
from recsys_core.tables import read_events
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.rewards import Rewards
from tasks.cuts import read_cuts
from tasks.item_features import ENCODING, known_features, write_encoding
from tasks.memory_files import write_memory
from tasks.model_files import read_model
from tasks.stages import refit, train_embeddings, train_rnn
from tasks.training import TrainingData
from tests.markov_log import N_ITEMS
from tests.serving_world import make_memory
from tests.small_logs import contents, run_stages, small_log, workspace
from tests.tasks.test_training_killed import make_workspace

SOURCE = {
    "kind": "files",
    "interactions": "log.parquet",
    "items": "items.parquet",
    "users": None,
}
DECLARED = {"genre": "categorical", "price": "numeric", "title": "text"}
DESCRIBED = N_ITEMS - 2
READ = Features(
    items=("genre", "price"),
    categories=100,
    words=100,
    decoder_hidden=8,
    training_share=None,
    warm_share=0.5,
    share_events=None,
    cold_ridges=(3.0, 30.0),
)
OFF = replace(READ, items=())


def described(**changes: object) -> pa.Table:
    """Of all items but the last two, and of one that the log lacks; `changes` are genres."""
    ids = [*(f"i{item}" for item in range(1, DESCRIBED + 1)), "i99"]
    genres: list[Any] = [f"genre {item % 4}" for item in range(len(ids))]
    genres[2] = None
    for item, genre in changes.items():
        genres[ids.index(item)] = genre
    columns = {"genre": genres, "price": [float(item) for item in range(len(ids))]}
    return pa.table({"item": ids, **columns, "title": ["a title"] * len(ids)})


def ingest_items(layout: Layout, items: pa.Table) -> None:
    """The table of items as ingest writes it, beside a log of no further use."""
    workspace(layout.root, small_log(), source=SOURCE, item_features=DECLARED)
    pq.write_table(items, layout.root / "data" / "items.parquet")
    run_stages(layout, "ingest")


def params_with(layout: Layout, features: Features) -> Params:
    value = read_yaml(layout.params)
    for stage in ("train_embeddings", "train_rnn"):
        value[stage] |= {"max_epochs": 1, "patience": 1}
    value["train_rnn"]["max_epochs_apart"] = 1
    value["features"] = {**vars(features), "items": list(features.items)}
    return check_params(value, where="params")


def run_train_rnn(layout: Layout, params: Params) -> None:
    train_rnn.run(
        layout=layout,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        features=params.features,
        evaluate=params.evaluate,
        first_metric=params.first_metric,
        seed=params.seed,
    )


def run_refit(layout: Layout, params: Params) -> None:
    refit.run(
        layout=layout,
        refit=params.refit,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        features=params.features,
        seed=params.seed,
    )


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A workspace with items, the sessionized log and stage one's output."""
    layout = make_workspace(tmp_path_factory.mktemp("features"))
    ingest_items(layout, described())
    params = params_with(layout, OFF)
    train_embeddings.run(
        layout=layout,
        train_embeddings=params.train_embeddings,
        train_rnn=params.train_rnn,
        train_memory=params.train_memory,
        evaluate=params.evaluate,
        first_metric=params.first_metric,
        seed=params.seed,
    )
    write_memory(layout.stage("train_memory"), make_memory(n_items=N_ITEMS, terms=()))
    return layout


def known_at(layout: Layout, features: Features = READ, *, n_items: int = N_ITEMS) -> KnownFeatures:
    cut = read_cuts(layout, read_events(layout.events)).valid
    known = known_features(layout, features, replace(cut, n_items=n_items))
    assert known is not None
    return known


def test_every_known_item_has_a_row_and_what_it_lacks_is_counted(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    known = known_at(layout)
    assert [field.name for field in known.encoding.bags] == ["genre"]
    assert [field.name for field in known.encoding.numbers] == ["price"]
    assert len(known.encoded.numbers) == N_ITEMS + 1
    codes = known.encoded.codes[0][:, 0]
    assert codes[1] == codes[5] != codes[2]
    assert codes[3] == codes[N_ITEMS] == 0, "null, and without a row"
    counts = known.encoded.counts
    assert (counts.ids, counts.without_row, counts.rows_unused) == (N_ITEMS, 2, 1)
    assert counts.fields["genre"] == {"missing": 1, "unseen": 0, "cut": 0}
    assert "event=item_features items=30 without_row=2 rows_unused=1 genre.missing=1" in caplog.text


def test_items_that_are_not_known_yet_change_nothing(layout: Layout, tmp_path: Path) -> None:
    """Neither their rows nor how many there are."""
    other = make_workspace(tmp_path)
    ingest_items(other, described(i20="a later genre", i28="another"))
    one, two = (known_at(each, n_items=10) for each in (layout, other))
    assert one.encoding == two.encoding != known_at(other).encoding
    assert (one.encoded.codes[0] == two.encoded.codes[0]).all()
    assert len(one.encoded.numbers) == 11


def test_without_a_column_nothing_is_read(tmp_path: Path) -> None:
    """There need not be a card, or a table of items."""
    layout = make_workspace(tmp_path)
    cut = read_cuts(layout, read_events(layout.events)).valid
    assert known_features(layout, OFF, cut) is None


def test_no_encoding_of_an_earlier_run_is_left(layout: Layout, tmp_path: Path) -> None:
    write_encoding(tmp_path, known_at(layout))
    assert (tmp_path / ENCODING).exists()
    write_encoding(tmp_path, None)
    write_encoding(tmp_path, None)
    assert not (tmp_path / ENCODING).exists()


def test_a_column_that_the_card_lacks_is_an_error(layout: Layout) -> None:
    params = params_with(layout, replace(READ, items=("genre", "colour")))
    with pytest.raises(ConfigError) as caught:
        run_train_rnn(layout, params)
    said = str(caught.value)
    assert "features.items names colour, but the card's item_features are genre, price" in said
    assert "-S 'features.items=[genre]'" in said
    assert "\n" not in said


def test_a_log_without_items_is_an_error(tmp_path: Path) -> None:
    layout = make_workspace(tmp_path)
    workspace(layout.root, small_log())
    run_stages(layout, "ingest")
    with pytest.raises(ConfigError, match="the card's item_features are none"):
        known_at(layout)


def test_a_table_that_is_gone_is_an_error(layout: Layout, tmp_path: Path) -> None:
    other = make_workspace(tmp_path)
    ingest_items(other, described())
    other.item_features.unlink()
    with pytest.raises(ContractError, match="run the stage that writes it"):
        known_at(other)


def test_a_column_that_the_card_names_and_the_file_lacks_ends_ingest(tmp_path: Path) -> None:
    layout = make_workspace(tmp_path)
    with pytest.raises(ConfigError, match="price"):
        ingest_items(layout, described().drop_columns(["price"]))


def test_both_stages_write_a_model_that_reads_features_and_their_encoding(layout: Layout) -> None:
    params = params_with(layout, READ)
    run_train_rnn(layout, params)
    run_refit(layout, params)
    folders = [layout.stage("train_rnn"), layout.stage("refit")]
    for folder in (folders[0] / "until_valid", *folders):
        model = read_model(folder)
        encoding = FeatureEncoding.from_json(read_json(folder / "features.json"))
        assert model.decoder is not None
        assert model.config.features is not None
        assert model.config.features.n_codes == encoding.n_codes == (5,)
        assert model.config.n_items == N_ITEMS
        # an item that the log lacks is told by what lies in the folder and its own row
        table = pa.table({"item_id": ["i99"], "genre": ["genre 1"], "price": [3.0]})
        new = encode(encoding, table, pa.array(["i99"]))
        assert model.config.features.columns > 5, "one, codes, bumps"
        rows = new_item_rows(model.decoder, ItemFeatures.of(new, device=torch.device("cpu")))
        grown = with_new_items(model, rows[1:])
        assert torch.isfinite(grown.item_vectors).all()
        assert grown.item_vectors[-1].any()
        assert not model.item_vectors[0].any(), "PAD"
    cold_rows = read_json(layout.report("train_rnn"))["cold_rows"]
    assert cold_rows["ridge"] in READ.cold_ridges
    assert cold_rows["items"] > DESCRIBED // 2
    for stage in ("train_rnn", "refit"):
        counts = read_json(layout.report(stage))["item_features"]
        assert counts["without_row"] == 2
        assert counts["fields"]["price"] == {"missing": 0, "clipped": 0}
    before = {stage: contents(layout.stage(stage)) for stage in ("train_rnn", "refit")}
    run_train_rnn(layout, params)
    run_refit(layout, params)
    assert {stage: contents(layout.stage(stage)) for stage in before} == before
    kept = params.model_copy(update={"refit": Refit(kind="none")})
    run_refit(layout, kept)
    assert (folders[1] / "features.json").read_bytes() == (
        folders[0] / "features.json"
    ).read_bytes()


def test_a_checkpoint_belongs_to_the_features_that_it_read(layout: Layout, tmp_path: Path) -> None:
    def fingerprint(layout: Layout, features: Features) -> str:
        return TrainingData.read(layout, "train_rnn", features, reward_rule=Rewards()).fingerprint

    other = make_workspace(tmp_path)
    ingest_items(other, described(i20="another"))
    (other.root / "artifacts" / "train_embeddings").symlink_to(layout.stage("train_embeddings"))
    assert fingerprint(layout, OFF) == fingerprint(other, OFF)
    assert fingerprint(layout, READ) != fingerprint(other, READ)
    assert fingerprint(layout, READ) != fingerprint(layout, replace(READ, warm_share=0.4))
