"""The score edge: every user with an event, in whole shards that are taken up again."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ContractError, DataError, ModelError
from recsys_core.layout import Layout
from recsys_core.models.own_items import gather_own
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events, request_at
from recsys_core.models.trend import trend_of
from recsys_core.serving.engine import ScoringEngine, TopItems
from recsys_core.serving.shards import read_score_run
from recsys_core.tables import ITEM_VOCABULARY, SCORES, write_events, write_table
from tasks.edges.score import run
from tests.serving_world import (
    HOSTILE,
    MINUTE,
    N_ITEMS,
    export_bundle,
    item_ids,
    make_events,
    make_memory,
    make_model,
    make_workspace,
    random_histories,
    register_bundle,
    score_params,
    scoring_workspace,
    user_ids,
    vocabulary_table,
)

SCORE = score_params(k=5, seen="all", shard_users=4)

# 13 users; the third has no event, the last knows nothing but what the model does not
HISTORIES = [*random_histories([3, 7, 0, 1, 12, 2, 2, 2, 9, 4, 4, 6]), [N_ITEMS + 1, N_ITEMS + 2]]


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    bundles = tmp_path_factory.getbasetemp()
    return scoring_workspace(tmp_path, bundles=bundles, histories=HISTORIES, n_items=N_ITEMS + 2)


@pytest.fixture
def scored_users(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many users each call of the real engine scored."""
    calls: list[int] = []
    top_items = ScoringEngine.top_items

    def counted(
        self: ScoringEngine, known: object, user_idx: list[int], **options: object
    ) -> TopItems:
        calls.append(len(user_idx))
        return top_items(self, known, user_idx, **options)

    monkeypatch.setattr(ScoringEngine, "top_items", counted)
    return calls


def scores_of(layout: Layout) -> pa.Table:
    return pa.concat_tables(pq.read_table(part) for part in read_score_run(layout.scores).parts)


def test_every_user_with_an_event_is_scored(layout: Layout) -> None:
    run(layout=layout, score=SCORE)
    scored = read_score_run(layout.scores)
    assert [shard.users for shard in scored.shards] == [4, 4, 4]
    table = scores_of(layout)
    assert table.schema == SCORES
    everybody = user_ids(len(HISTORIES))
    expected = sorted(set(everybody) - {everybody[2]}, key=str.encode)
    assert table.column("user_id").unique().to_pylist() == expected
    assert table.num_rows + scored.shortfall == 12 * SCORE.k
    assert scored.shortfall == 0
    assert set(HOSTILE) & set(table.column("user_id").to_pylist())


def test_seen_items_are_not_recommended(layout: Layout) -> None:
    run(layout=layout, score=SCORE)
    names, seen = item_ids(N_ITEMS + 2), {}
    for user, history in zip(user_ids(len(HISTORIES)), HISTORIES, strict=True):
        seen[user] = {names[item - 1] for item in history}
    rows = scores_of(layout).to_pylist()
    assert rows
    for row in rows:
        assert row["item_id"] not in seen[row["user_id"]]
        assert row["item_id"] in names[:N_ITEMS]


def test_what_is_left_out_of_histories_is_counted(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(layout=layout, score=SCORE)
    assert "unknown_item_events_left_out=2 users_without_known_events=1" in caplog.text
    assert "provider=" in caplog.text
    assert "users_per_second=" in caplog.text


def test_requests_before_a_users_last_event_are_counted(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    """`as_of` is the latest event, so that there are none; unless the split is of an earlier log,
    here of one that ended half an hour before."""
    split = read_json(layout.split)
    for minutes in (0, 30):
        write_json(layout.split, {**split, "as_of": split["as_of"] - minutes * MINUTE})
        with caplog.at_level(logging.INFO):
            run(layout=layout, score=SCORE)
        known = [np.flatnonzero(np.array(history) <= N_ITEMS) for history in HISTORIES]
        first = np.concatenate([[0], np.cumsum([len(history) for history in HISTORIES])])
        end = first[-1] - 1 - minutes  # an event a minute
        early = [len(of) > 0 and first[user] + of[-1] > end for user, of in enumerate(known)]
        assert (sum(early) > 0) == (minutes > 0)
        assert f"users_asked_before_their_last_event={sum(early)}" in caplog.text
        caplog.clear()


def test_a_user_of_unknown_items_alone_gets_the_prior(layout: Layout) -> None:
    run(layout=layout, score=score_params(k=5, shard_users=100))
    before = {row["user_id"]: [] for row in scores_of(layout).to_pylist()}
    for row in scores_of(layout).to_pylist():
        before[row["user_id"]].append(row["item_id"])
    stranger = user_ids(len(HISTORIES))[-1]
    assert len(before[stranger]) == 5
    assert sum(items == before[stranger] for items in before.values()) == 1


def test_a_second_run_scores_nothing(layout: Layout, scored_users: list[int]) -> None:
    run(layout=layout, score=SCORE)
    before = {path: path.read_bytes() for path in layout.scores.rglob("*") if path.is_file()}
    assert scored_users == [4, 4, 4]
    run(layout=layout, score=SCORE)
    assert scored_users == [4, 4, 4]
    assert {
        path: path.read_bytes() for path in layout.scores.rglob("*") if path.is_file()
    } == before


def test_a_stopped_run_goes_on(
    layout: Layout, scored_users: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ScoringEngine.run
    batches = 0

    def stopped(self: ScoringEngine, inputs: dict[str, object]) -> object:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise ModelError("stopped here")
        return whole(self, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(ScoringEngine, "run", stopped)
        with pytest.raises(ModelError, match="stopped here"):
            run(layout=layout, score=SCORE)
    with pytest.raises(ContractError):
        read_score_run(layout.scores)
    scored_users.clear()
    run(layout=layout, score=SCORE)
    assert scored_users == [4]
    assert scores_of(layout).num_rows == 12 * SCORE.k


def test_a_late_row_scores_all_again(layout: Layout, scored_users: list[int]) -> None:
    run(layout=layout, score=SCORE)
    late = [list(history) for history in HISTORIES]
    late[0][0] = late[0][0] % N_ITEMS + 1  # another item, the same times
    write_events(layout.events, make_events(late))
    scored_users.clear()
    run(layout=layout, score=SCORE)
    assert scored_users == [4, 4, 4]


@pytest.mark.parametrize("what", ["code", "provider"])
def test_other_code_and_another_provider_score_all_again(
    layout: Layout, scored_users: list[int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run(layout=layout, score=SCORE)
    scored_users.clear()
    if what == "code":
        monkeypatch.setattr("tasks.edges.score.code_digest", lambda *_, **__: "changed")
    else:
        opened = ScoringEngine.__init__

        def elsewhere(self: ScoringEngine, *values: object, **options: object) -> None:
            opened(self, *values, **options)
            self.provider = "AnotherExecutionProvider"

        monkeypatch.setattr(ScoringEngine, "__init__", elsewhere)
    run(layout=layout, score=SCORE)
    assert scored_users == [4, 4, 4]


def test_two_workspaces_give_the_same_bytes(
    layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = scoring_workspace(
        tmp_path_factory.mktemp("other"),
        bundles=tmp_path_factory.getbasetemp(),
        histories=HISTORIES,
        n_items=N_ITEMS + 2,
    )
    for workspace in (layout, other):
        run(layout=workspace, score=SCORE)
    first, second = (
        {
            path.relative_to(workspace.scores): path.read_bytes()
            for path in workspace.scores.rglob("*")
            if path.is_file()
        }
        for workspace in (layout, other)
    )
    assert first == second


def test_the_request_and_the_trend_of_the_moment_reach_the_table(tmp_path: Path) -> None:
    """Whoever reads when they are asked and follows a trend: each user's items are those that the
    model in torch names at the latest event, with the trend as it was then."""
    layout = make_workspace(tmp_path, histories=HISTORIES, n_items=N_ITEMS + 2)
    model, memory = make_model(trend_hours=0.5), make_memory()
    folder = tmp_path / "trending"
    folder.mkdir()
    export_bundle(folder, model=model, memory=memory)
    register_bundle(layout, folder)
    run(layout=layout, score=score_params(k=5, shard_users=100))
    found: dict[str, list[str]] = {}
    for row in scores_of(layout).to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    known, as_of = known_events(make_events(HISTORIES), N_ITEMS), read_json(layout.split)["as_of"]
    trend = trend_of(model.config, known, until=None)
    assert trend is not None
    offset = trend.offset(np.array([as_of + 1]), None)[0]
    assert np.ptp(offset[1:]) > 0.5, "something is in fashion"
    for user, user_id in enumerate(user_ids(len(HISTORIES)), start=1):
        if not HISTORIES[user - 1]:
            continue
        history = np.diff(known.offsets)[[user]]
        asked = {"user_idx": np.array([user]), "history": history}
        request = request_at(as_of, known, **asked, session_gap_seconds=1800.0)
        query = torch.from_numpy(user_vectors(model, known, **asked, request=request))
        own = gather_own(known, **asked, most=memory.config.length)
        with torch.inference_mode():
            both = memory(
                query @ model.item_vectors.T + model.item_bias,
                torch.from_numpy(model.input_spec.is_active(history)),
                *map(torch.from_numpy, (own.items, own.numbers, own.user_numbers)),
            )
        best = np.argsort(-(both[0].numpy() + offset)[1:], kind="stable")[:5]
        assert found[user_id] == [item_ids(N_ITEMS)[item] for item in best], user_id


def test_without_a_champion(tmp_path: Path) -> None:
    layout = make_workspace(tmp_path, histories=[[1]])
    with pytest.raises(ContractError, match="no champion; run the register edge first"):
        run(layout=layout, score=SCORE)


def test_a_champion_of_another_log_is_refused(layout: Layout) -> None:
    other = vocabulary_table(item_ids(N_ITEMS + 2)[::-1], ITEM_VOCABULARY)
    write_table(layout.item_vocabulary, other, ITEM_VOCABULARY)
    with pytest.raises(ContractError, match="first 40 items are not those of champion"):
        run(layout=layout, score=SCORE)


def test_nobody_to_score(layout: Layout) -> None:
    write_events(layout.events, make_events([[] for _ in HISTORIES]))
    write_json(layout.split, {"valid_start": 0, "test_start": 1, "end": 2, "as_of": 1})
    with pytest.raises(DataError, match="nobody to score"):
        run(layout=layout, score=SCORE)
