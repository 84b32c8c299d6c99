"""Who gets rows: users with a recent event, users that the table of users alone knows, and nobody
in particular, whose lists are those of naive counting."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.errors import ConfigError, DataError
from recsys_core.layout import Layout
from recsys_core.sections import Score
from recsys_core.sections_of_scoring import Candidates, Cold, Filters, Segments
from recsys_core.serving.shards import RESERVED, read_score_run
from recsys_core.tables import USER_VOCABULARY, write_events, write_table
from tasks.edges.score import run
from tests.serving_world import (
    MINUTE,
    N_ITEMS,
    START,
    item_ids,
    make_events,
    random_histories,
    score_params,
    scoring_workspace,
    user_ids,
    vocabulary_table,
)

K = 5
# the third user has no event; an event a minute, one user after the other
HISTORIES = random_histories([30, 7, 0, 1, 12, 2, 40, 9], seed=5)
USERS = user_ids(len(HISTORIES))
WITH_EVENTS = [user for user, had in zip(USERS, HISTORIES, strict=True) if had]
ITEMS = item_ids(N_ITEMS)
COUNTRY = dict(zip(USERS, ["DE", "FR", "FR", None, "DE", "", "FR", "DE"], strict=True)) | {
    "new-1": "DE",
    "new-2": "AT",
    "new-3": None,
    "a new one": "FR",
}
"""The table of users; nobody of AT has an event."""
NEW = {"new-1", "new-2", "new-3", "a new one", USERS[2]}
NOTHING = Filters(allow=(), deny=(), available=None, rules=(), segments=None)


@pytest.fixture
def layout(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = scoring_workspace(
        tmp_path, bundles=tmp_path_factory.getbasetemp(), histories=HISTORIES
    )
    write_json(layout.time_kind, {"kind": "absolute"})
    layout.user_features.parent.mkdir(parents=True)
    people = sorted(COUNTRY, key=str.encode)
    language = ["en" if place % 2 else "de" for place in range(len(people))]
    pq.write_table(
        pa.table(
            {
                "user_id": people,
                "country": pa.array([COUNTRY[user] for user in people], pa.string()),
                "language": language,
            }
        ),
        layout.user_features,
    )
    return layout


def rows(layout: Layout, score: Score) -> dict[str, list[tuple[str, float]]]:
    """The items and scores of each user_id, best first, in the table's order."""
    run(layout=layout, score=score)
    found: dict[str, list[tuple[str, float]]] = {}
    for part in read_score_run(layout.scores).parts:
        for row in pq.read_table(part).to_pylist():
            found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
    assert list(found) == sorted(found, key=str.encode)
    return found


def shares(country: str | None, *, minutes: int | None) -> np.ndarray:
    """Popularity in the last minutes of a country, backed off by everybody's, and that by ever."""
    end = sum(map(len, HISTORIES))
    whole: Counter[int] = Counter()
    recent: Counter[int] = Counter()
    segment: Counter[int] = Counter()
    place = 0
    for user, had in zip(USERS, HISTORIES, strict=True):
        for item in had:
            whole[item] += 1
            if minutes is None or place >= end - minutes:
                recent[item] += 1
                segment[item] += COUNTRY[user] == country
            place += 1
    share = np.array([whole[item] + 1 for item in range(1, N_ITEMS + 1)]) / (end + N_ITEMS)
    steps = [*([] if minutes is None else [recent]), *([] if country is None else [segment])]
    for counter in steps:
        of = np.array([counter[item] for item in range(1, N_ITEMS + 1)])
        different = max(1, np.count_nonzero(of))
        share = (of + different * share) / (of.sum() + different)
    return share


def best(share: np.ndarray, may: set[str], k: int = K) -> list[str]:
    order = sorted(range(N_ITEMS), key=lambda place: (-round(share[place], 12), place))
    return [ITEMS[place] for place in order if ITEMS[place] in may][:k]


@pytest.mark.parametrize("minutes", [None, 60])
def test_who_has_no_event_gets_the_list_of_the_segment(layout: Layout, minutes: int | None) -> None:
    cold = Cold(segment="country", hours=10_000.0 if minutes is None else minutes / 60)
    alone = rows(layout, score_params(k=K, shard_users=3))
    assert list(alone) == sorted(WITH_EVENTS, key=str.encode)
    found = rows(layout, score_params(k=K, shard_users=3, cold=cold))
    lists = {RESERVED: None, **{f"{RESERVED}{one}": one for one in ("AT", "DE", "FR")}}
    assert set(found) == {*WITH_EVENTS, *NEW, *lists}
    for name, country in lists.items():
        # a window longer than the log counts what ever counts twice over: the order is the same
        share = shares(country, minutes=10_000 if minutes is None else minutes)
        assert [item for item, _ in found[name]] == best(share, set(ITEMS)), name
        place = {item: number for number, item in enumerate(ITEMS)}
        expected = [np.log(share[place[item]]) for item, _ in found[name]]
        np.testing.assert_allclose([value for _, value in found[name]], expected, rtol=1e-5)
    for user in NEW:
        assert found[user] == found[f"{RESERVED}{COUNTRY[user] or ''}"], user
    assert found[f"{RESERVED}DE"] != found[f"{RESERVED}FR"] != found[RESERVED]
    for user in WITH_EVENTS:
        assert [item for item, _ in found[user]] == [item for item, _ in alone[user]]
    users = read_json(layout.report("score"))["users"]
    assert users["with_an_event"] == len(WITH_EVENTS)
    assert users["without_an_event"] == len(NEW)
    assert users["cold_lists"] == len(lists)
    assert read_score_run(layout.scores).facts.users == len(found)


def test_without_a_segment_there_is_one_list_in_the_window_of_the_bundle(layout: Layout) -> None:
    """Whose popularity counts 24 hours: all of this log."""
    found = rows(layout, score_params(k=K, shard_users=100, cold=Cold(None, None)))
    assert set(found) == {*WITH_EVENTS, *NEW, RESERVED}
    assert [item for item, _ in found[RESERVED]] == best(shares(None, minutes=1440), set(ITEMS))
    assert all(found[user] == found[RESERVED] for user in NEW)


@pytest.mark.parametrize("by", ["country", "language"])
def test_filters_and_candidates_hold_for_cold_lists(layout: Layout, by: str) -> None:
    """By the same column the list of a value has its candidates, by another one the default's;
    a user's list has those of the user in any case."""
    (layout.root / "low.csv").write_text("item_id\n" + "\n".join(ITEMS[10:25]) + "\n")
    (layout.root / "high.csv").write_text("item_id\n" + "\n".join(ITEMS[20:37]) + "\n")
    (layout.root / "old.csv").write_text(f"item_id\n{ITEMS[22]}\n{ITEMS[12]}\n{ITEMS[35]}\n")
    special = "DE" if by == "country" else "de"
    segments = Segments(
        by, {special: Candidates(allow=("low.csv",))}, Candidates(allow=("high.csv",))
    )
    filters = replace(NOTHING, deny=("old.csv",), segments=segments)
    cold = Cold("country", 1.0)
    found = rows(layout, score_params(k=K, shard_users=3, filters=filters, cold=cold))
    old = {ITEMS[22], ITEMS[12], ITEMS[35]}
    low, high = set(ITEMS[10:25]) - old, set(ITEMS[20:37]) - old
    for name in ("", "DE", "FR", "AT"):
        may = low if name == special else high
        share = shares(name or None, minutes=60)
        assert [item for item, _ in found[f"{RESERVED}{name}"]] == best(share, may), name
    table = {row["user_id"]: row[by] for row in pq.read_table(layout.user_features).to_pylist()}
    for user in NEW:
        share = shares(COUNTRY[user], minutes=60)
        may = low if table[user] == special else high
        assert [item for item, _ in found[user]] == best(share, may), user
    assert read_score_run(layout.scores).shortfall == 0


def test_a_list_shorter_than_k_is_a_shortfall(layout: Layout) -> None:
    (layout.root / "two.csv").write_text("item_id\nitem-20\nitem-21\n")
    score = score_params(
        k=K, shard_users=4, filters=replace(NOTHING, allow=("two.csv",)), cold=Cold(None, None)
    )
    found = rows(layout, score)
    assert {len(one) for one in found.values()} == {2}
    lacking = read_json(layout.report("score"))["shortfall"]
    assert lacking == {"catalogue": 0, "filters": (K - 2) * len(found), "seen": 0}


def test_a_reserved_id_of_a_user_is_left_out_and_counted(layout: Layout) -> None:
    names = [*USERS[:-1], f"{RESERVED}DE"]
    write_table(layout.user_vocabulary, vocabulary_table(names, USER_VOCABULARY), USER_VOCABULARY)
    score = score_params(k=K, shard_users=4, cold=Cold("country", 1.0))
    found = rows(layout, score)
    assert len(found[f"{RESERVED}DE"]) == K
    users = read_json(layout.report("score"))["users"]
    assert users["left_out_with_a_reserved_id"] == 1
    assert users["with_an_event"] == len(WITH_EVENTS) - 1
    without = rows(layout, replace(score, cold=None))
    assert f"{RESERVED}DE" in without, "without lists nothing is reserved"


def test_only_who_was_there_lately_gets_rows(layout: Layout) -> None:
    """An event a minute: the last ones of the users lie at the ends of their histories."""
    ends = np.cumsum([len(had) for had in HISTORIES])
    everybody = rows(layout, score_params(k=K, shard_users=3))
    for minutes in (0, 8, 9, 10, 60, 10_000):
        within = {
            user
            for user, had, end in zip(USERS, HISTORIES, ends, strict=True)
            if had and ends[-1] - end <= minutes
        }
        days = max(minutes, 0.001) / 1440
        found = rows(layout, score_params(k=K, shard_users=3, active_within=days))
        assert found.keys() == within
        for user in within:
            assert [item for item, _ in found[user]] == [item for item, _ in everybody[user]]
        users = read_json(layout.report("score"))["users"]
        assert users["inactive_left_out"] == len(WITH_EVENTS) - len(within)
        assert users["with_an_event"] + users["inactive_left_out"] == len(WITH_EVENTS)
    with_cold = score_params(k=K, shard_users=3, active_within=8 / 1440, cold=Cold(None, None))
    assert rows(layout, with_cold).keys() >= NEW, "a new user is not inactive"


def test_nobody_is_active_enough(layout: Layout) -> None:
    split = read_json(layout.split)
    write_json(layout.split, {**split, "as_of": START + 100_000 * MINUTE})
    with pytest.raises(
        DataError, match=r"none of 7 users has an event .* nobody to score; raise it"
    ):
        run(layout=layout, score=score_params(k=K, shard_users=4, active_within=1.0))


def test_zero_users(layout: Layout) -> None:
    write_events(layout.events, make_events([[] for _ in HISTORIES]))
    with pytest.raises(DataError, match="nobody to score"):
        run(layout=layout, score=score_params(k=K, shard_users=4, cold=Cold(None, None)))
    assert not layout.scores.exists()


def test_without_a_table_of_users_there_is_the_list_of_nobody_alone(layout: Layout) -> None:
    layout.user_features.unlink()
    found = rows(layout, score_params(k=K, shard_users=4, cold=Cold(None, None)))
    assert set(found) == {*WITH_EVENTS, RESERVED}
    with pytest.raises(ConfigError, match=r"cold\.segment is 'country', .* the categories none"):
        run(layout=layout, score=score_params(k=K, shard_users=4, cold=Cold("country", None)))


def test_users_and_items_that_the_model_does_not_know_are_counted(layout: Layout) -> None:
    """The bundle has seen the log until START, when the first user came; all others came later, and
    are told by their events."""
    found = rows(layout, score_params(k=K, shard_users=4))
    report = read_json(layout.report("score"))
    assert report["users"]["new_to_the_model"] == len(USERS) - 1
    assert report["items"] == {
        "of_the_model": N_ITEMS,
        "unknown_to_the_model": 0,
        "events_left_out": 0,
    }
    assert found.keys() == set(WITH_EVENTS)
