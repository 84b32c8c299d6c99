"""The stage `evaluate` in a workspace of its own: a random model, beside counts that are known."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.events import Events
from recsys_core.data.histories import RequestTimes
from recsys_core.data.oracle import Oracle, write_oracle
from recsys_core.data.splits import Split
from recsys_core.errors import ConfigError, ContractError, DataError
from recsys_core.layout import Layout
from recsys_core.models.baselines import fit_popularity, fit_transitions
from recsys_core.models.predict import user_vectors
from recsys_core.models.requests import known_events
from recsys_core.sections import Evaluate
from recsys_core.tables import (
    ITEM_VOCABULARY,
    METRICS,
    RANKS,
    read_table,
    write_events,
    write_table,
)
from tasks.memory_files import write_memory
from tasks.model_files import write_model
from tasks.stages.evaluate import run
from tests.event_rows import HOUR, events_of, random_rows
from tests.serving_world import make_memory, make_model
from tests.small_logs import contents

N_KNOWN = 20
GAP_HOURS = 9
"""Who has been away so long opens a session."""
CUT = 100 * HOUR
SPLIT = Split(valid_start=80 * HOUR, test_start=CUT, end=120 * HOUR, as_of=120 * HOUR - 1)
PARAMS = Evaluate(
    targets="successive",
    train_only=False,
    baselines=("transitions", "recent_popularity", "popularity"),
    cutoffs=(2, 5),
    seen_filter=False,
    recent_hours=(5.0, 20.0),
    recent_minutes=(),
    streaming=False,
    bootstrap_draws=20,
    batch=16,
)


def small_events() -> Events:
    """Items 1 to 20 from hour 0 on, 21 to 25 from the test period's start on."""
    begin = [(1, item, item) for item in range(1, N_KNOWN + 1)]
    old = random_rows(500, users=40, items=N_KNOWN, end=CUT - HOUR)
    new = random_rows(150, users=45, items=25, end=20 * HOUR, seed=6)
    first = [(2, item, CUT + item) for item in range(21, 26)]
    return events_of(
        [
            *begin,
            *((user, item, HOUR + time) for user, item, time in old),
            *first,
            *((user, item, CUT + 100 + time) for user, item, time in new),
        ]
    )


def workspace(
    root: Path, *, n_items: int = N_KNOWN, events: Events | None = None, time: str = "absolute"
) -> Layout:
    """What evaluate reads, and nothing else."""
    layout = Layout(root)
    events = small_events() if events is None else events
    write_events(layout.events, events)
    write_json(layout.split, SPLIT.to_json())
    write_json(layout.time_kind, {"kind": time})
    write_json(layout.session_gap, {"seconds": GAP_HOURS * 3600.0})
    first = np.array([events.timestamp[events.item_idx == item].min() for item in range(1, 26)])
    vocabulary = pa.table(
        {
            "item_idx": pa.array(range(1, 26), pa.int32()),
            "item_id": [f"i{item}" for item in range(1, 26)],
            "first_timestamp": pa.array(first, pa.int64()).cast(ITEM_VOCABULARY.field(2).type),
        },
        schema=ITEM_VOCABULARY,
    )
    write_table(layout.item_vocabulary, vocabulary, ITEM_VOCABULARY)
    write_model(layout.stage("train_rnn"), make_model(n_items=n_items, reads=("gap",)))
    write_memory(layout.stage("train_memory"), make_memory(n_items=n_items, terms=(), fitted=False))
    return layout


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = workspace(tmp_path_factory.mktemp("evaluated"))
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    return layout


def test_every_model_ranks_every_target(evaluated):
    ranks = read_table(evaluated.ranks, RANKS).to_pandas()
    models = ["two_time_scale", "transitions", "recent_popularity", "popularity"]
    assert ranks["model"].drop_duplicates().tolist() == models
    sizes = ranks.groupby("model").size()
    events = small_events()
    asked = (events.timestamp >= CUT) & (events.position > 0)
    assert sizes.unique().tolist() == [np.count_nonzero(asked)]
    report = read_json(evaluated.report("evaluate"))
    assert report["rows"]["out"] == np.count_nonzero(asked)
    assert report["rows"]["in"] == np.count_nonzero(events.timestamp >= CUT)
    assert report["rows"]["in"] == report["rows"]["out"] + report["rows"]["not_asked"]
    assert report["rows"]["not_asked"] > 0


def test_a_model_that_reads_the_request_is_ranked_with_its_time_as_in_scoring_and_without(tmp_path):
    """Of a target the log tells when it was asked for; scoring asks at the last event before the
    test period, or at the user's last one where that is later."""
    layout = workspace(tmp_path)
    model = make_model(n_items=N_KNOWN, reads=("request", "session"))
    write_model(layout.stage("train_rnn"), model)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    names = ranks["model"].drop_duplicates().tolist()[:3]
    assert names == [
        "two_time_scale",
        "two_time_scale_at_scoring",
        "two_time_scale_without_request",
    ]
    by_row = {name: ranks[ranks["model"] == name]["rank"].to_numpy() for name in names}
    events = small_events()
    known = known_events(events, N_KNOWN)
    last_of_log = events.timestamp[events.timestamp < CUT].max()
    ours = ranks[(ranks["model"] == names[1])]
    opened, later = [], []
    for place, row in enumerate(ours.itertuples()):
        start = events.offsets[row.user_idx]
        own = known.offsets[row.user_idx]
        before = np.count_nonzero(events.item_idx[start : start + row.position] <= N_KNOWN)
        last = known.timestamp[own + before - 1] if before else last_of_log
        at = max(last, last_of_log)
        later.append(at > last_of_log)
        opened.append(at - last >= GAP_HOURS * HOUR)
        requests = {
            "two_time_scale_at_scoring": RequestTimes(np.array([at]), np.array(opened[-1:])),
            "two_time_scale_without_request": None,
        }
        if row.target > N_KNOWN:
            continue
        for name, request in requests.items():
            vectors = user_vectors(
                model,
                known,
                user_idx=np.array([row.user_idx]),
                history=np.array([before]),
                request=request,
            )
            scores = model.scores(torch.from_numpy(vectors)).detach().numpy()[0, 1:]
            rank = np.count_nonzero(scores >= scores[row.target - 1] - 1e-5)
            assert by_row[name][place] == rank, name
    assert 0 < np.mean(opened) < 1
    assert 0 < np.mean(later) < 1
    for one, other in itertools.pairwise(names):
        assert (by_row[one] != by_row[other]).any()
    assert read_json(layout.report("evaluate"))["targets_before_their_last_event"] == 0


def test_a_model_with_a_trend_is_ranked_by_what_was_popular_before_the_cut(tmp_path):
    """The same model, whose logits say nothing: what is left is the trend at the cut."""
    layout = workspace(tmp_path)
    model = make_model(n_items=N_KNOWN, reads=(), trend_hours=60.0)
    with torch.no_grad():
        model.item_vectors.zero_()
        model.item_bias.zero_()
    write_model(layout.stage("train_rnn"), model)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    events = small_events()
    # 60 hours in slots of one hour, before the hour of the cut
    seen = (events.timestamp < CUT) & (events.timestamp >= CUT - 60 * HOUR)
    known = seen & (events.item_idx <= N_KNOWN)
    counts = np.bincount(events.item_idx[known], minlength=N_KNOWN + 1)
    ours = ranks[(ranks["model"] == "two_time_scale") & ranks["known"]]
    assert len(ours) > 20
    expected = [(counts[1:] >= counts[item]).sum() for item in ours["target"]]
    assert ours["rank"].tolist() == expected


def test_what_histories_lack_is_counted(evaluated, tmp_path):
    """Against a walk over the log, for a model of all items known at the cut, and of fewer."""
    fewer = workspace(tmp_path, n_items=12)
    run(layout=fewer, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    events = small_events()
    asked = np.flatnonzero((events.timestamp >= CUT) & (events.position > 0))
    before = [events.item_idx[row - events.position[row] : row] for row in asked]
    for layout, n_items in ((evaluated, N_KNOWN), (fewer, 12)):
        report = read_json(layout.report("evaluate"))
        unknown = [np.count_nonzero(history > n_items) for history in before]
        nothing = [not (history <= n_items).any() for history in before]
        assert report["history_events_left_out"] == sum(unknown) > 0
        assert report["targets_without_known_history"] == sum(nothing)
        scales = report["two_time_scales"]
        of_all = report["targets"]["all"]
        assert scales["active_share"] == pytest.approx(report["targets"]["active"] / of_all)
        assert scales["inactive_share"] == pytest.approx(report["targets"]["inactive"] / of_all)
    assert read_json(fewer.report("evaluate"))["targets_without_known_history"] > 0


def test_the_model_is_ranked_by_its_own_scores(evaluated):
    events, model = small_events(), make_model(n_items=N_KNOWN, reads=("gap",))
    ranks = read_table(evaluated.ranks, RANKS).to_pandas()
    ours = ranks[ranks["model"] == "two_time_scale"].iloc[::7]
    known = known_events(events, N_KNOWN)
    for row in ours.itertuples():
        start = events.offsets[row.user_idx]
        history = np.count_nonzero(events.item_idx[start : start + row.position] <= N_KNOWN)
        assert row.active == (history >= model.input_spec.t_star)
        vectors = user_vectors(
            model, known, user_idx=np.array([row.user_idx]), history=np.array([history])
        )
        scores = model.scores(torch.from_numpy(vectors)).detach().numpy()[0, 1:]
        if row.target > N_KNOWN:
            assert (row.rank, row.known) == (0, False)
            continue
        assert row.rank == np.count_nonzero(scores >= scores[row.target - 1] - 1e-5)
        log_sum = np.log(np.exp(scores.astype(float)).sum())
        assert row.nll == pytest.approx(log_sum - scores[row.target - 1], rel=1e-3, abs=1e-4)
    assert ours["active"].any()
    assert not ours["known"].all()


def test_report_and_tables_say_the_same(evaluated):
    report = read_json(evaluated.report("evaluate"))
    ranks = read_table(evaluated.ranks, RANKS).to_pandas()
    ranks["mrr@5"] = np.where(ranks["rank"].between(1, 5), 1 / np.maximum(ranks["rank"], 1), 0)
    of_all = ranks.groupby("model")["mrr@5"].mean()
    assert report["two_time_scale"]["all"]["mrr@5"] == pytest.approx(
        of_all["two_time_scale"], rel=1e-5
    )
    for model, metrics in report["baselines"].items():
        assert metrics["mrr@5"] == pytest.approx(of_all[model], rel=1e-5)
        assert report["difference"][model]["value"] == pytest.approx(
            of_all["two_time_scale"] - of_all[model], rel=1e-4, abs=1e-7
        )
        interval = report["interval"][model]
        assert interval["low"] <= interval["value"] <= interval["high"]
    active = ranks[(ranks["model"] == "two_time_scale") & ranks["active"]]
    assert report["targets"]["active"] == len(active)
    assert report["two_time_scale"]["active"]["mrr@5"] == pytest.approx(
        active["mrr@5"].mean(), rel=1e-5
    )
    table = read_table(evaluated.metrics, METRICS).to_pandas()
    row = table[(table["model"] == "popularity") & (table["cohort"] == "inactive")]
    bars = read_json(evaluated.report("cohorts"))
    bar = next(bar for bar in bars if bar["bar"] == "inactive: popularity")
    assert bar["value"] == pytest.approx(row[row["metric"] == "mrr@5"]["value"].item(), rel=1e-5)


def test_a_second_run_writes_the_same_bytes(evaluated, tmp_path):
    layout = workspace(tmp_path)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    for folder in ("artifacts/evaluate", "reports"):
        assert contents(layout.root / folder) == contents(evaluated.root / folder)


def test_the_seen_filter_turns_repeats_into_misses(evaluated, tmp_path):
    layout = workspace(tmp_path)
    with_filter = Evaluate(**{**vars(PARAMS), "seen_filter": True})
    run(layout=layout, evaluate=with_filter, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    events = small_events()
    for row in ranks.iloc[::5].itertuples():
        start = events.offsets[row.user_idx]
        seen = row.target in events.item_idx[start : start + row.position]
        assert (row.rank == 0) == (seen or not row.known)
    assert read_json(layout.report("evaluate"))["seen_filter"] is True


def test_a_model_with_a_smaller_vocabulary_misses_what_it_does_not_know(tmp_path):
    layout = workspace(tmp_path, n_items=12)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    ours = ranks[ranks["model"] == "two_time_scale"]
    assert ((ours["rank"] == 0) == (ours["target"] > 12)).all()
    assert (ours["known"] == (ours["target"] <= N_KNOWN)).all()


def test_the_truth_stands_beside_the_model_where_it_is_known(tmp_path):
    layout = workspace(tmp_path)
    events = small_events()
    asked = np.flatnonzero((events.timestamp >= CUT) & (events.position > 0))[::2]
    asked = asked[np.argsort(events.source_row[asked])]
    items = events.item_idx[asked] - 1
    query = np.zeros((len(asked), 25), dtype=np.float32)
    query[np.arange(len(asked)), items] = 5.0  # the truth all but names the item
    oracle = Oracle(
        item_ids=[f"i{item}" for item in range(1, 26)],
        topic_offsets=np.array([0, 25]),
        factors=np.eye(25, dtype=np.float32),
        appeal=np.zeros((1, 25), dtype=np.float32),
        source_row=events.source_row[asked],
        period=np.zeros(len(asked), dtype=np.int64),
        query=query,
        topic_log_probability=np.zeros((len(asked), 1), dtype=np.float32),
        previous_item=np.full(len(asked), -1, dtype=np.int32),
        repeat_probability=np.zeros(len(asked), dtype=np.float32),
    )
    write_oracle(layout.oracle, oracle)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    report = read_json(layout.report("evaluate"))
    assert report["not_covered"] == {
        "two_time_scale": 0,
        "transitions": 0,
        "recent_popularity": 0,
        "popularity": 0,
        "oracle": report["targets"]["all"] - len(asked),
    }
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    truth = ranks[ranks["model"] == "oracle"]
    assert truth["rank"].tolist() == [int(known) for known in truth["known"]]
    expected = (np.exp(5) + N_KNOWN - 1) / np.exp(5)
    assert report["baselines"]["oracle"]["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert report["difference"]["oracle"]["high"] < 0


def test_without_hours_nothing_is_called_recent(evaluated, tmp_path):
    """Transitions are those of the whole log, and the rest is as with hours."""
    layout = workspace(tmp_path, time="rank")
    without = replace(PARAMS, recent_hours=())
    run(layout=layout, evaluate=without, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    models = ["two_time_scale", "transitions", "popularity"]
    assert ranks["model"].drop_duplicates().tolist() == models
    report = read_json(layout.report("evaluate"))
    assert (report["recent_hours"], report["transition_hours"]) == (None, None)
    assert report["validation"]["recent_popularity"] == {}
    assert report["validation"]["transitions"] == {}, "there is nothing to choose from"
    with_hours = read_table(evaluated.ranks, RANKS).to_pandas()
    for model in ("two_time_scale", "popularity"):
        np.testing.assert_array_equal(
            ranks[ranks["model"] == model]["rank"], with_hours[with_hours["model"] == model]["rank"]
        )
    events = small_events()
    counts = events.counts_before(CUT)
    whole = fit_transitions(
        events, counts, backoff=fit_popularity(events, counts, n_items=N_KNOWN), since=None
    )
    row = next(ranks[(ranks["model"] == "transitions") & ranks["known"]].itertuples())
    start = events.offsets[row.user_idx]
    known = [item for item in events.item_idx[start : start + row.position] if item <= N_KNOWN]
    room = np.zeros((1, N_KNOWN + 1), dtype=np.float32)
    scores = whole.scores(np.array([known[-1]], dtype=np.int32), out=room)[0, 1:]
    assert row.rank == np.count_nonzero(scores >= scores[row.target - 1])


def test_hours_of_a_log_without_clock_times_are_refused(tmp_path):
    layout = workspace(tmp_path, time="rank")
    with pytest.raises(ConfigError, match=r"-S 'evaluate\.recent_hours=\[\]'"):
        run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)


def test_a_model_that_knows_the_test_period_is_refused(tmp_path):
    layout = workspace(tmp_path, n_items=25)
    with pytest.raises(ContractError, match="knows 25 items, but 20 were known"):
        run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)


def test_no_targets_are_said(tmp_path):
    events = events_of([(item, item, (99 if item <= 20 else 110) * HOUR) for item in range(1, 26)])
    layout = workspace(tmp_path, events=events)
    with pytest.raises(DataError, match="the test period has no successive targets"):
        run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)


def test_train_only_ranks_the_same_targets_by_what_was_fitted_before_validation(tmp_path):
    layout = workspace(tmp_path)
    write_model(
        layout.stage("train_rnn") / "until_valid",
        make_model(n_items=N_KNOWN, seed=2, reads=("gap",)),
    )
    nothing = make_memory(n_items=N_KNOWN, terms=(), fitted=False)
    write_memory(layout.stage("train_memory") / "until_valid", nothing)
    run(layout=layout, evaluate=replace(PARAMS, train_only=True), first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    names = ["two_time_scale", "transitions", "recent_popularity", "popularity"]
    assert ranks["model"].drop_duplicates().tolist() == [
        *names,
        *(f"{name}_train_only" for name in names),
    ]
    events = small_events()
    share = fit_popularity(events, events.counts_before(SPLIT.valid_start), n_items=N_KNOWN).share
    of_popularity = ranks[(ranks["model"] == "popularity_train_only") & ranks["known"]]
    for row in of_popularity.iloc[::9].itertuples():
        assert row.rank == np.count_nonzero(share[1:] >= share[row.target])
    ours, before = (
        ranks[ranks["model"] == name]["rank"].to_numpy()
        for name in ("two_time_scale", "two_time_scale_train_only")
    )
    assert not np.array_equal(ours, before), "another model"
    compared = read_json(layout.report("evaluate"))["difference"]
    assert "two_time_scale_train_only" in compared


def test_leave_one_out_asks_each_user_for_their_last_event(tmp_path):
    """Item 25 has no event but last ones: no candidate, and its targets are misses."""
    rows = [(user, (user + step) % 24 + 1, HOUR * step) for user in range(1, 31) for step in (1, 2)]
    last = [(user, 25 if user > 27 else user % 24 + 1, 3 * HOUR) for user in range(1, 31)]
    layout = workspace(tmp_path, n_items=25, events=events_of([*rows, *last]))
    end = 3 * HOUR + 1
    split = Split(valid_start=None, test_start=None, end=end, as_of=end - 1)
    write_json(layout.split, split.to_json())
    with pytest.raises(ConfigError, match="leave_one_out"):
        run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    asked = replace(
        PARAMS,
        targets="last",
        seen_filter=True,
        recent_hours=(),
        baselines=("popularity", "item_knn", "ease_transitions"),
    )
    run(layout=layout, evaluate=asked, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    models = ["two_time_scale", "popularity", "item_knn", "ease_transitions"]
    assert ranks["model"].drop_duplicates().tolist() == models
    for _, of_model in ranks.groupby("model"):
        assert of_model["user_idx"].tolist() == list(range(1, 31))
        assert of_model["position"].tolist() == [2] * 30
        assert (of_model[of_model["target"] == 25]["rank"] == 0).all()
        assert (of_model[of_model["target"] != 25]["rank"] > 0).all()
    assert read_json(layout.report("evaluate"))["targets"]["unknown"] == 3


def test_streaming_counts_up_to_each_target(evaluated, tmp_path):
    """The trend of a model that says nothing else, and popularity, against a walk over the log."""
    layout = workspace(tmp_path)
    model = make_model(n_items=N_KNOWN, reads=(), trend_hours=5.0)
    with torch.no_grad():
        model.item_vectors.zero_()
        model.item_bias.zero_()
    write_model(layout.stage("train_rnn"), model)
    params = replace(
        PARAMS,
        streaming=True,
        recent_hours=(2.0,),
        recent_minutes=(6.0,),
        baselines=("popularity", "recent_popularity", "transitions", "item_knn"),
    )
    run(layout=layout, evaluate=params, first_metric="mrr@5", seed=7)
    ranks = read_table(layout.ranks, RANKS).to_pandas()
    assert ranks["model"].drop_duplicates().tolist() == [
        "two_time_scale",
        "two_time_scale_frozen_trend",
        "popularity",
        "recent_popularity",
        "transitions",
        "item_knn_frozen",
    ]
    report = read_json(layout.report("evaluate"))
    assert report["streaming"] is True
    assert report["recent_hours"] in (0.1, 2.0)
    assert set(report["validation"]["recent_popularity"]) == {"0.1", "2"}
    events = small_events()
    slot = 5 * HOUR // 60

    def times(row) -> int:
        return int(events.timestamp[events.offsets[row.user_idx] + row.position])

    def rank_of(target: int, begin: int, end: int) -> int:
        seen = (events.timestamp >= begin) & (events.timestamp < end)
        seen &= events.item_idx <= N_KNOWN
        counts = np.bincount(events.item_idx[seen], minlength=N_KNOWN + 1)
        return int((counts[1:] >= counts[target]).sum())

    known = ranks[ranks["known"]]
    of = {name: known[known["model"] == name] for name in ranks["model"].unique()}
    for row in of["popularity"].itertuples():
        assert row.rank == rank_of(row.target, 0, times(row))
    for row in of["two_time_scale"].itertuples():
        end = times(row) // slot * slot
        assert row.rank == rank_of(row.target, end - 60 * slot, end)
    for row in of["two_time_scale_frozen_trend"].itertuples():
        end = CUT // slot * slot
        assert row.rank == rank_of(row.target, end - 60 * slot, end)
    # what is frozen is as it is without streaming
    frozen = workspace(tmp_path / "frozen")
    still = replace(params, streaming=False)
    run(layout=frozen, evaluate=still, first_metric="mrr@5", seed=7)
    other = read_table(frozen.ranks, RANKS).to_pandas()
    np.testing.assert_array_equal(
        ranks[ranks["model"] == "item_knn_frozen"]["rank"],
        other[other["model"] == "item_knn"]["rank"],
    )


def test_streaming_needs_one_clock_for_everybody(tmp_path):
    layout = workspace(tmp_path, time="rank")
    asked = replace(PARAMS, recent_hours=(), streaming=True)
    with pytest.raises(ConfigError, match=r"-S evaluate\.streaming=false"):
        run(layout=layout, evaluate=asked, first_metric="mrr@5", seed=7)


def test_ratings_are_measured_beside_averages(tmp_path: Path) -> None:
    """On targets with a value whose item the model knows; the others are counted."""
    events = small_events()
    draws = np.random.default_rng(3)
    value = draws.integers(1, 6, len(events)).astype(np.float32)
    value[draws.random(len(events)) < 0.2] = np.nan
    events = replace(events, value=value)
    layout = workspace(tmp_path, events=events)
    model = make_model(n_items=N_KNOWN, reads=("request", "value"), rating=True)
    assert model.ratings is not None
    model.ratings.scale.copy_(torch.tensor([3.0, 1.4, 1.0, 5.0]))
    write_model(layout.stage("train_rnn"), model)
    run(layout=layout, evaluate=PARAMS, first_metric="mrr@5", seed=7)
    report = read_json(layout.report("evaluate"))["ratings"]
    asked = (events.timestamp >= CUT) & (events.position > 0)
    there, known = ~np.isnan(events.value), events.item_idx <= N_KNOWN
    assert report["rows"] == {
        "in": np.count_nonzero(asked),
        "out": np.count_nonzero(asked & there & known),
        "without_value": np.count_nonzero(asked & ~there),
        "unknown_item": np.count_nonzero(asked & there & ~known),
    }
    assert min(report["rows"].values()) > 0
    names = ["two_time_scale", "two_time_scale_without_request"]
    assert sorted(report["rmse"]) == sorted([*names, "rolling_average", "item_average"])
    errors = []
    for row in np.flatnonzero(asked & there & known):
        of_item = (events.item_idx == events.item_idx[row]) & (events.timestamp < CUT)
        errors.append(np.nanmean(events.value[of_item]) - events.value[row])
    item_average = np.sqrt(np.mean(np.square(errors)))
    assert report["rmse"]["item_average"]["value"] == pytest.approx(item_average, rel=1e-4)
    for interval in report["rmse"].values():
        assert interval["low"] <= interval["value"] <= interval["high"]
    ours, theirs = (report["rmse"][name]["value"] for name in (names[0], "rolling_average"))
    difference = report["difference"]["rolling_average"]["value"]
    assert difference == pytest.approx(ours - theirs, abs=1e-5)


def test_a_model_without_ratings_reports_none(evaluated: Layout) -> None:
    assert "ratings" not in read_json(evaluated.report("evaluate"))
