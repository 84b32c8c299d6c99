"""Fields from the card to the published table: counts, files, refusals, and one path."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.config import Params, check_params, read_yaml
from recsys_core.data.fields import FieldEncoding, FieldKinds
from recsys_core.errors import ConfigError, ContractError
from recsys_core.layout import Layout
from recsys_core.serving.bundle import read_bundle
from recsys_core.serving.shards import read_score_run
from recsys_core.tables import USER_VOCABULARY, read_events, write_table
from recsys_core.training.rewards import Rewards
from tasks.check_fields import check_fields
from tasks.cuts import read_cuts
from tasks.edges import score
from tasks.fields import ENCODING, known_fields, read_fields, with_fields_of, write_fields
from tasks.model_files import read_model
from tasks.step import run_step
from tasks.training import TrainingData
from tests.serving_world import START, register_bundle
from tests.small_logs import contents, run_stages, small_card, small_log, workspace
from tests.tasks.test_training_killed import make_workspace

SOURCE = {"kind": "files", "interactions": "log.parquet", "items": None, "users": "users.parquet"}
CONTEXT = {"device": "categorical", "dwell": "numeric"}
USERS = {"age": "numeric", "job": "categorical"}
READS = ("gap", "context", "user")


def log_with_context() -> pa.Table:
    log = small_log()
    columns = {"device": ["web", "tv"] * 4, "dwell": [float(row) for row in range(len(log))]}
    return pa.table({**{name: log[name] for name in log.schema.names}, **columns})


def people(**changes: list[Any]) -> pa.Table:
    """Every other user of the log, and one whom it lacks."""
    ids = [*(f"u{user}" for user in range(1, 400, 2)), "u999"]
    columns: dict[str, list[Any]] = {
        "age": [float(20 + place % 50) for place in range(len(ids))],
        "job": [f"job {place % 5}" for place in range(len(ids))],
    }
    return pa.table({"user": ids, **columns, **changes})


def ingest_people(layout: Layout, users: pa.Table) -> None:
    """The card and the table of users as ingest writes them."""
    workspace(layout.root, log_with_context(), source=SOURCE, context=CONTEXT, user_features=USERS)
    pq.write_table(users, layout.root / "data" / "users.parquet")
    run_stages(layout, "ingest")


def fields_workspace(root: Path) -> Layout:
    """A log of 400 users with context, half of them described, as sessionize leaves it."""
    layout = make_workspace(root)
    ingest_people(layout, people())
    events = read_events(layout.events)
    n = len(events)
    interactions = pa.table(
        {
            "source_row": np.arange(n),
            "device": pa.array(["web", "tv", None] * (n // 3) + ["tv"] * (n % 3), pa.string()),
            "dwell": np.random.default_rng(1).normal(size=n),
        }
    )
    layout.valid_interactions.parent.mkdir(parents=True)
    pq.write_table(interactions, layout.valid_interactions)
    first = pa.array(np.full(events.n_users, START), pa.int64()).cast(USER_VOCABULARY.field(2).type)
    ids = [f"u{user}" for user in range(1, events.n_users + 1)]
    idx = pa.array(range(1, events.n_users + 1), pa.int32())
    table = pa.table([idx, pa.array(ids), first], schema=USER_VOCABULARY)
    write_table(layout.user_vocabulary, table, USER_VOCABULARY)
    write_json(layout.session_gap, {"seconds": 1800.0})
    return layout


def params_with(layout: Layout, *reads: str) -> Params:
    value = read_yaml(layout.params)
    for stage in ("train_embeddings", "train_rnn"):
        value[stage] |= {"max_epochs": 1, "patience": 1}
    value["train_rnn"] |= {"max_epochs_apart": 1, "reads": list(reads)}
    value["train_memory"] |= {"terms": []}
    value["evaluate"] |= {"bootstrap_draws": 10, "train_only": True}
    return check_params(value, where="params")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A workspace up to a registered bundle, in which all fields are read."""
    layout = fields_workspace(tmp_path_factory.mktemp("fields"))
    params = params_with(layout, *READS)
    stages = ("train_embeddings", "train_rnn", "train_memory", "evaluate", "refit", "export_onnx")
    run_stages(layout, *stages, params=params)
    register_bundle(layout, layout.bundle)
    return layout


def known_at_validation(layout: Layout, *reads: str) -> Any:
    events = read_events(layout.events)
    features = params_with(layout, "gap").features
    cut = read_cuts(layout, events).valid
    return known_fields(layout, reads, features, events=events, cut=cut)


def test_every_event_and_user_has_fields_and_what_they_lack_is_counted(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    counts = known_at_validation(layout, *READS).counts
    n = len(read_events(layout.events))
    assert counts["context"]["ids"] == n
    assert counts["context"]["fields"]["device"]["missing"] == n // 3
    assert counts["users"]["ids"] == 400
    assert counts["users"]["without_row"] == 200
    assert counts["users"]["rows_unused"] == 1
    assert "event=fields of=users rows=400 without_row=200 rows_unused=1" in caplog.text


def test_one_column_may_be_read_alone_and_nothing_where_none_is_named(layout: Layout) -> None:
    assert known_at_validation(layout, "gap", "type") is None
    one = known_at_validation(layout, "user.age", "context.device")
    assert one.encoding.kinds == FieldKinds({"device": "categorical"}, {"age": "numeric"})
    assert set(known_at_validation(layout, "user").counts) == {"users"}


def test_each_model_lies_beside_what_it_reads_fields_by(layout: Layout) -> None:
    folders = [layout.stage("train_rnn"), layout.stage("refit")]
    for folder in (folders[0] / "until_valid", *folders):
        encoding, config = read_fields(folder), read_model(folder).config
        assert encoding is not None
        assert (config.context, config.users) == encoding.sizes
        assert config.reads == ("gap",)
    for stage in ("train_rnn", "refit"):
        assert read_json(layout.report(stage))["fields"]["users"]["without_row"] == 200
    bundle = read_bundle(layout.bundle)
    assert bundle.fields == read_fields(folders[1])
    assert (layout.stage("evaluate") / "ranks.parquet").exists()


def test_training_with_fields_gives_the_same_bytes_again(layout: Layout) -> None:
    before = contents(layout.stage("train_rnn"))
    run_stages(layout, "train_rnn", params=params_with(layout, *READS))
    assert contents(layout.stage("train_rnn")) == before


def test_an_encoding_of_an_earlier_run_does_not_stay(layout: Layout, tmp_path: Path) -> None:
    write_fields(tmp_path, known_at_validation(layout, "user"))
    assert (tmp_path / ENCODING).exists()
    write_fields(tmp_path, None)
    write_fields(tmp_path, None)
    assert read_fields(tmp_path) is None


def scores_of(layout: Layout) -> pa.Table:
    run_step(score.run, layout, params_with(layout, *READS))
    table = pa.concat_tables(pq.read_table(part) for part in read_score_run(layout.scores).parts)
    shutil.rmtree(layout.scores)
    return table


def test_tonights_table_of_users_is_what_scoring_reads(layout: Layout, tmp_path: Path) -> None:
    """With the encoding of the bundle: a job that it never met is unknown, as no row is."""
    night = Layout(Path(shutil.copytree(layout.root, tmp_path / "night", symlinks=True)))
    before = scores_of(night)
    assert scores_of(night).equals(before)
    digests = {score.log_digest(night, read_bundle(night.bundle).fields)}
    first = {"age": [60.0, *people()["age"].to_pylist()[1:]]}
    ingest_people(night, people(**first))
    after = scores_of(night)
    digests.add(score.log_digest(night, read_bundle(night.bundle).fields))
    assert len(digests) == 2
    changed = {
        user
        for user in before["user_id"].unique().to_pylist()
        if not before.filter(pa.compute.equal(before["user_id"], user)).equals(
            after.filter(pa.compute.equal(after["user_id"], user))
        )
    }
    assert changed == {"u1"}
    tables = []
    for job in ("astronaut", None):
        jobs = [job, *people()["job"].to_pylist()[1:]]
        ingest_people(night, people(job=pa.array(jobs, pa.string())))
        tables.append(scores_of(night))
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(before)


def test_a_table_or_column_that_is_gone_since_training_is_an_error(
    layout: Layout, tmp_path: Path
) -> None:
    night = Layout(Path(shutil.copytree(layout.root, tmp_path / "night", symlinks=True)))
    events, encoding = read_events(night.events), read_bundle(night.bundle).fields
    table = pq.read_table(night.user_features).drop_columns(["job"])
    pq.write_table(table, night.user_features)
    with pytest.raises(ContractError, match=r"the networks read job, but its columns are user_id"):
        with_fields_of(night, encoding, events)
    night.user_features.unlink()
    with pytest.raises(ContractError, match=r"read age, job, but its columns are none; restore"):
        with_fields_of(night, encoding, events)
    table = pq.read_table(night.valid_interactions).drop_columns(["dwell"])
    pq.write_table(table, night.valid_interactions)
    with pytest.raises(ContractError, match=r"read dwell, but its columns are source_row, device"):
        with_fields_of(night, encoding, events)


def test_fields_that_the_card_lacks_are_refused(layout: Layout) -> None:
    params = params_with(layout, "gap", "user.shoe", "user", "context.colour")
    card = small_card(context=CONTEXT)
    with pytest.raises(ConfigError) as caught:
        check_fields(params.train_rnn, card)
    said = str(caught.value)
    assert "names context.colour, but the card's context are device, dwell;" in said
    assert "-S 'train_rnn.reads=[gap, user.shoe, user]'" in said
    assert "\n" not in said
    with pytest.raises(
        ConfigError, match=r"names user\.shoe, user, but the card's user_features a"
    ):
        check_fields(params_with(layout, "user.shoe", "user").train_rnn, card)
    with pytest.raises(ConfigError, match="the card's context are none"):
        check_fields(params_with(layout, "context").train_rnn, small_card())
    check_fields(params_with(layout, "context", "context.device").train_rnn, card)


def test_a_stage_refuses_them_too(tmp_path: Path) -> None:
    layout = make_workspace(tmp_path)
    workspace(layout.root, small_log())
    run_stages(layout, "ingest")
    events = read_events(layout.events)
    cut = read_cuts(layout, events).valid
    features = params_with(layout, "gap").features
    with pytest.raises(ConfigError, match="the card's user_features are none"):
        known_fields(layout, ("user",), features, events=events, cut=cut)


@pytest.mark.parametrize("name", ["gapp", "user.", "gap.seconds", "", "users"])
def test_what_cannot_be_read_is_refused_by_name(layout: Layout, name: str) -> None:
    with pytest.raises(ConfigError, match=f"reads has '{name}', it must name some of gap, request"):
        params_with(layout, "gap", name)


def test_a_context_column_that_the_file_lacks_ends_ingest(tmp_path: Path) -> None:
    layout = workspace(tmp_path, small_log(), context={"device": "categorical"})
    with pytest.raises(ConfigError, match="device"):
        run_stages(layout, "ingest")


def test_a_checkpoint_belongs_to_the_fields_that_it_read(layout: Layout, tmp_path: Path) -> None:
    def fingerprint(layout: Layout, *reads: str) -> str:
        params = params_with(layout, *reads).train_rnn
        rule = Rewards.of(params)
        return TrainingData.read(layout, "train_rnn", params, reward_rule=rule).fingerprint

    other = Layout(Path(shutil.copytree(layout.root, tmp_path / "other", symlinks=True)))
    assert fingerprint(layout, *READS) == fingerprint(other, *READS)
    ingest_people(other, people(age=[1.0] * 201))
    assert fingerprint(layout, "gap") == fingerprint(other, "gap")
    assert fingerprint(layout, *READS) != fingerprint(other, *READS)


def test_no_field_is_read_by_a_model_without_an_encoding(layout: Layout) -> None:
    events = read_events(layout.events)
    assert with_fields_of(layout, None, events) is events
    encoding = read_fields(layout.stage("refit"))
    assert encoding == FieldEncoding.from_json(read_json(layout.stage("refit") / ENCODING))
    rows = with_fields_of(layout, encoding, events).field_rows
    assert rows is not None
    assert replace(events, field_rows=rows).where(events.item_idx > 3).field_rows is not None
