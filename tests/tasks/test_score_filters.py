"""What is filtered from the table of scores: what a naive reading of the filters leaves, in the
order of the same model without them, and k rows wherever k are left."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ConfigError, ModelError
from recsys_core.layout import Layout
from recsys_core.sections import Score
from recsys_core.sections_of_scoring import Available, Candidates, Cold, Filters, Segments
from recsys_core.serving.engine import ScoringEngine
from recsys_core.serving.shards import read_score_run
from recsys_core.tables import UTC_MICROSECONDS, write_events
from tasks.edges.score import run
from tests.serving_world import (
    MINUTE,
    N_ITEMS,
    START,
    item_ids,
    make_events,
    random_histories,
    register_bundle,
    score_params,
    scoring_workspace,
    tiny_bundle,
    user_ids,
)

K = 6
# 9 users; the third has no event, the last knows nothing but what the model does not
HISTORIES = [*random_histories([3, 7, 0, 1, 12, 2, 30, 9]), [N_ITEMS + 1, N_ITEMS + 2]]
USERS = user_ids(len(HISTORIES))
WITH_EVENTS = [user for user, had in zip(USERS, HISTORIES, strict=True) if had]
ITEMS = item_ids(N_ITEMS)
AS_OF = START + MINUTE * (sum(map(len, HISTORIES)) - 1)
NEW = ["new-1", "new-2", "new-3"]
"""Users whom the table of users alone knows."""

NOTHING = Filters(allow=(), deny=(), available=None, rules=(), segments=None)


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = scoring_workspace(
        tmp_path,
        bundles=tmp_path_factory.getbasetemp(),
        histories=HISTORIES,
        n_items=N_ITEMS + 2,
    )
    write_json(layout.time_kind, {"kind": "absolute"})
    write_json(layout.event_types, {"names": ["view", "buy"], "weights": [1.0, 1.0]})
    write_features(layout)
    return layout


def write_features(layout: Layout) -> None:
    """A table of items, of which item-10 has no row, and one of users without the first of them."""
    described = sorted({*ITEMS, "never met"} - {"item-10"})
    layout.item_features.parent.mkdir(parents=True, exist_ok=True)
    number = [sum(item.encode()) for item in described]
    since = [None if n % 3 == 0 else AS_OF + (n % 5 - 2) for n in number]
    pq.write_table(
        pa.table(
            {
                "item_id": described,
                "price": pa.array([None if n % 7 == 0 else float(n % 40) for n in number]),
                "category": ["x" if n % 2 else "y" for n in number],
                "launch": pa.array(since, pa.int64()).cast(UTC_MICROSECONDS),
            }
        ),
        layout.item_features,
    )
    people = sorted([*USERS[1:], *NEW], key=str.encode)
    country = ["DE", "FR", None, "AT", "DE"] * 3
    pq.write_table(
        pa.table(
            {"user_id": people, "country": country[: len(people)], "age": [1.0] * len(people)}
        ),
        layout.user_features,
    )


def filtered(**filters: object) -> Score:
    return score_params(k=K, shard_users=4, filters=replace(NOTHING, **filters))


def rows(layout: Layout, score: Score) -> dict[str, list[tuple[str, float]]]:
    """The items and scores of each user, best first."""
    run(layout=layout, score=score)
    found: dict[str, list[tuple[str, float]]] = {}
    for part in read_score_run(layout.scores).parts:
        for row in pq.read_table(part).to_pylist():
            found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
            assert row["rank"] == len(found[row["user_id"]])
    return found


def ranking(layout: Layout) -> dict[str, list[tuple[str, float]]]:
    """All items of each user by the model alone, best first."""
    return rows(layout, score_params(k=N_ITEMS, shard_users=100))


def check(
    layout: Layout,
    score: Score,
    *,
    may: dict[str, set[str]],
    had: dict[str, set[str]] | None = None,
) -> None:
    """The first k of the whole ranking that a user may have, with the very scores; and what is
    missing is counted."""
    whole = ranking(layout)
    found = rows(layout, score)
    missing = 0
    for user in WITH_EVENTS:
        left = may[user] - (had or {}).get(user, set())
        expected = [(item, value) for item, value in whole[user] if item in left][: score.k]
        assert [item for item, _ in found.get(user, [])] == [item for item, _ in expected], user
        np.testing.assert_allclose(
            [value for _, value in found.get(user, [])], [value for _, value in expected], rtol=1e-5
        )
        missing += score.k - len(expected)
    scored = read_score_run(layout.scores)
    assert scored.shortfall == missing
    report = read_json(layout.report("score"))
    assert sum(report["shortfall"].values()) == missing
    assert report["rows"] == scored.rows == sum(map(len, found.values()))


def of_everybody(items: set[str]) -> dict[str, set[str]]:
    return dict.fromkeys(WITH_EVENTS, items)


def item_rows(layout: Layout) -> dict[str, dict[str, object]]:
    return {row["item_id"]: row for row in pq.read_table(layout.item_features).to_pylist()}


def test_rules_over_the_table_of_items(layout: Layout) -> None:
    """Seven items: without what was seen, some users have fewer than k left."""
    table = item_rows(layout)
    may = {
        item
        for item in ITEMS
        if item in table
        and table[item]["price"] is not None
        and table[item]["price"] < 17
        and table[item]["category"] != "x"
    }
    assert len(may) == K + 1
    score = replace(filtered(rules=("price < 17", "category != 'x'")), seen="all")
    had = {
        user: {item_ids(N_ITEMS + 2)[i - 1] for i in HISTORIES[USERS.index(user)]} for user in USERS
    }
    check(layout, score, may=of_everybody(may), had=had)
    report = read_json(layout.report("score"))
    assert report["shortfall"]["seen"] > 0
    assert report["shortfall"]["filters"] == report["shortfall"]["catalogue"] == 0
    null = sum(item not in table or table[item]["price"] is None for item in ITEMS)
    assert report["filters"]["rule price < 17"]["null"] == null > 1
    assert report["items_without_row"] == 1


def test_lists_allow_and_deny(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    allowed = [*ITEMS[:9], "unknown-1", "unknown-2"]
    quoted = ['"' + item.replace('"', '""') + '"' for item in allowed]
    (layout.root / "lists").mkdir()
    (layout.root / "lists" / "top.csv").write_text(
        "why,item_id\n" + "".join(f"x,{item}\n" for item in quoted)
    )
    pq.write_table(
        pa.table({"item_id": [ITEMS[0], ITEMS[8], None, "unknown-3"]}), layout.root / "old.parquet"
    )
    (layout.root / "none.csv").write_text("item_id\n")
    score = filtered(allow=("lists/top.csv",), deny=("old.parquet", "none.csv"))
    with caplog.at_level(logging.INFO):
        check(layout, score, may=of_everybody(set(ITEMS[1:8])))
    report = read_json(layout.report("score"))["filters"]
    assert report["allow lists/top.csv"] == {
        "left_out": N_ITEMS - 9,
        "alone": N_ITEMS - 9,
        "ids": 11,
        "unknown": 2,
        "without_id": 0,
    }
    assert report["deny old.parquet"] == {
        "left_out": 2,
        "alone": 2,
        "ids": 3,
        "unknown": 1,
        "without_id": 1,
    }
    assert report["deny none.csv"]["left_out"] == 0
    assert "filter='deny old.parquet' left_out=2 alone=2" in caplog.text
    assert not list(layout.root.glob(".duckdb-*"))


def test_fewer_items_than_k_is_a_shortfall_of_the_filters(layout: Layout) -> None:
    (layout.root / "few.csv").write_text("item_id\nitem-20\nitem-21\n")
    check(layout, filtered(allow=("few.csv",)), may=of_everybody({"item-20", "item-21"}))
    lacking = read_json(layout.report("score"))["shortfall"]
    assert lacking == {"catalogue": 0, "filters": (K - 2) * len(WITH_EVENTS), "seen": 0}


def test_items_are_recommended_within_their_time(layout: Layout) -> None:
    table = item_rows(layout)
    launch = {
        item: None if row["launch"] is None else round(row["launch"].timestamp() * 1e6)
        for item, row in table.items()
    }
    begun = {item for item in ITEMS if (launch.get(item) or 0) <= AS_OF}
    score = filtered(available=Available(since="launch", until=None))
    assert AS_OF in launch.values()
    check(layout, score, may=of_everybody(begun))
    still = {item for item in ITEMS if (launch.get(item) or AS_OF + 1) > AS_OF}
    check(
        layout, filtered(available=Available(since=None, until="launch")), may=of_everybody(still)
    )
    assert begun != still


def test_candidates_by_segment(layout: Layout) -> None:
    """Users of different segments lie in the same shards, and nobody has the set of another."""
    country = {
        row["user_id"]: row["country"] for row in pq.read_table(layout.user_features).to_pylist()
    }
    (layout.root / "fr.csv").write_text("item_id\n" + "\n".join(ITEMS[20:30]) + "\n")
    sets = {
        "DE": Candidates(rules=("category = 'x'",)),
        "FR": Candidates(allow=("fr.csv",)),
        "nobody": Candidates(deny=("fr.csv",)),
    }
    segments = Segments(by="country", sets=sets, default=Candidates(deny=("fr.csv",)))
    table = item_rows(layout)
    of = {
        "DE": {item for item in ITEMS if table.get(item, {}).get("category") == "x"},
        "FR": set(ITEMS[20:30]),
    }
    default = set(ITEMS) - set(ITEMS[20:30])
    cheap = {item for item in ITEMS if (table.get(item, {}).get("price") or 0) < 30}
    may = {user: of.get(country.get(user), default) & cheap for user in WITH_EVENTS}
    assert len({frozenset(items) for items in may.values()}) == 3
    score = filtered(rules=("coalesce(price, 0) < 30",), segments=segments)
    check(layout, score, may=may)
    found = read_json(layout.report("score"))["candidates"]
    assert found["sets"]["nobody"]["users"] == 0
    of_sets = [found["default"], *found["sets"].values()]
    assert sum(one["users"] for one in of_sets) == len(USERS)
    assert found["sets"]["FR"]["eligible"] == len(of["FR"] & cheap)


def test_seen_items_by_type_of_event(layout: Layout) -> None:
    events = make_events(HISTORIES)
    types = (np.arange(len(events)) % 3 == 0).astype(np.int8)
    write_events(layout.events, replace(events, event_type=types))
    names, bought, had = item_ids(N_ITEMS + 2), {}, {}
    for user, first, last in zip(USERS, events.offsets[1:-1], events.offsets[2:], strict=True):
        of = range(first, last)
        bought[user] = {names[events.item_idx[place] - 1] for place in of if types[place]}
        had[user] = {names[events.item_idx[place] - 1] for place in of}
    for seen, left_out in ((("buy",), bought), (("view", "buy"), had), ("all", had), ("none", {})):
        score = score_params(k=20, shard_users=4, seen=seen)
        check(layout, score, may=of_everybody(set(ITEMS)), had=left_out)
    with pytest.raises(
        ConfigError, match=r"score\.seen names sold, but the log keeps the event types view, buy"
    ):
        run(layout=layout, score=score_params(k=K, shard_users=4, seen=("buy", "sold")))


def test_the_popularity_graph_is_filtered_too(
    layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = tiny_bundle(tmp_path_factory.getbasetemp())
    register_bundle(layout, bundle, graph="popularity")
    table = item_rows(layout)
    may = {item for item in ITEMS if table.get(item, {}).get("category") == "x"}
    check(layout, filtered(rules=("category = 'x'",)), may=of_everybody(may))


def test_more_than_the_catalogue(layout: Layout) -> None:
    score = score_params(k=N_ITEMS + 3, shard_users=4)
    check(layout, score, may=of_everybody(set(ITEMS)))
    lacking = read_json(layout.report("score"))["shortfall"]
    assert lacking == {"catalogue": 3 * len(WITH_EVENTS), "filters": 0, "seen": 0}


def test_other_filters_score_all_again(layout: Layout) -> None:
    def modified() -> dict[str, int]:
        return {part.name: part.stat().st_mtime_ns for part in read_score_run(layout.scores).parts}

    score = filtered(rules=("price < 30",))
    run(layout=layout, score=score)
    first, when = read_score_run(layout.scores), modified()
    run(layout=layout, score=score)
    assert modified() == when
    same = filtered(rules=("NOT price >= 30",))
    run(layout=layout, score=same)
    assert modified() == when, "what may be recommended is the same"
    for other in (
        filtered(rules=("price < 31",)),
        replace(score, seen=("buy",)),
        replace(score, cold=Cold(None, None)),
    ):
        run(layout=layout, score=other)
        assert read_score_run(layout.scores).facts.filters != first.facts.filters


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"rules": ("prise < 3",)}, "there is no column prise"),
        ({"rules": ("true; DROP TABLE items",)}, "it must be one expression"),
        ({"rules": ("false",)}, r"leave none of 40 items to recommend \(rule false: 40 left out\)"),
        ({"deny": ("../old.csv",)}, "lies outside of the workspace"),
        ({"deny": ("/etc/passwd",)}, "lies outside of the workspace"),
        ({"deny": ("out/secret.csv",)}, "lies outside of the workspace"),
        ({"deny": ("params.yaml",)}, "name ends in one of"),
        ({"allow": ("none.csv",)}, "is no file; put the list there"),
        ({"allow": ("wrong.csv",)}, "columns id, but a list has its ids in a column item_id"),
        (
            {"available": Available("price", None)},
            "since is 'price', but the table of items has the timestamps launch",
        ),
        ({"available": Available(None, "end")}, "until is 'end', but"),
        (
            {"segments": Segments("age", {}, Candidates())},
            "by is 'age', but the table of users has the categories country",
        ),
        ({"segments": Segments("town", {}, Candidates())}, "by is 'town', but"),
    ],
)
def test_what_is_not_there_is_refused(
    layout: Layout, tmp_path_factory: pytest.TempPathFactory, filters: dict[str, object], said: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.csv").write_text("item_id\na\n")
    (layout.root / "out").symlink_to(outside)
    (layout.root / "wrong.csv").write_text("id\na\n")
    with pytest.raises(ConfigError, match=said):
        run(layout=layout, score=filtered(**filters))
    assert not layout.scores.exists()


def test_times_are_refused_where_the_log_has_none(layout: Layout) -> None:
    write_json(layout.time_kind, {"kind": "rank"})
    score = replace(
        filtered(available=Available("launch", None)), active_within=3.0, cold=Cold(None, 24.0)
    )
    with pytest.raises(
        ConfigError, match=r"score.active_within=null .*available=null .*cold.hours=null"
    ):
        run(layout=layout, score=score)


def test_an_item_without_a_score_is_no_shortfall(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diverged model may give -inf to items that could be recommended: that is not silent."""
    whole = ScoringEngine.run

    def lacking(self: ScoringEngine, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        items, scores, ratings = whole(self, inputs)
        scores[0, K - 1 :] = -np.inf
        return items, scores, ratings

    monkeypatch.setattr(ScoringEngine, "run", lacking)
    with pytest.raises(ModelError, match="the model gives items no score"):
        run(layout=layout, score=filtered())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_publish_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    from recsys_core.serving.filters import Eligible

    scores = Eligible.scores

    def broken(self: Eligible, group: int, trend: np.ndarray) -> np.ndarray:
        added = scores(self, group, trend)
        added[7] = bad
        return added

    monkeypatch.setattr(Eligible, "scores", broken)
    with pytest.raises(ModelError, match="added to the scores of 1 items is NaN or infinite"):
        run(layout=layout, score=filtered())
    assert not (layout.scores / "current.json").exists()
