"""Each mechanism of the simulator must be seen in its log, and order must go when shuffled."""

import io
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_core.data.cards import read_card
from recsys_core.data.simulator import SimulatedLog, SimulatorConfig, simulate
from recsys_core.data.simulator_choices import EVENT_TYPES
from recsys_core.data.simulator_config import MICROSECONDS_PER_DAY, read_words
from recsys_core.data.simulator_people import make_people
from recsys_core.errors import ConfigError

DATASETS = Path(__file__).resolve().parents[3] / "datasets"
WORDS = DATASETS / "simulator"
SECOND = 1_000_000

TINY = SimulatorConfig(
    users=300,
    items=200,
    topics=8,
    days=21,
    start="2024-03-01",
    events_per_user=34.0,
    oracle_days=3,
    shuffle=False,
    seed=11,
)
LONG = replace(TINY, users=3000, days=84, events_per_user=80.0, oracle_days=0)


@dataclass(frozen=True)
class Log:
    """A simulated log as arrays, ordered by user and time."""

    simulated: SimulatedLog

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        return np.lexsort((np.arange(len(self.row_user)), self.row_user))

    @cached_property
    def row_user(self) -> npt.NDArray[np.int64]:
        return self._position("users", "user_id")

    @cached_property
    def user(self) -> npt.NDArray[np.int64]:
        return self.row_user[self.order]

    @cached_property
    def item(self) -> npt.NDArray[np.int64]:
        return self._position("items", "item_id")[self.order]

    @cached_property
    def timestamp(self) -> npt.NDArray[np.int64]:
        times = self.simulated.interactions["timestamp"].cast(pa.int64())
        return times.to_numpy()[self.order]

    @cached_property
    def kind(self) -> npt.NDArray[np.int64]:
        kinds = self.simulated.interactions["event_type"]
        found = pc.index_in(kinds, value_set=pa.array(EVENT_TYPES))
        return found.to_numpy().astype(np.int64)[self.order]

    @cached_property
    def follows(self) -> npt.NDArray[np.bool_]:
        """Events with an earlier one of their user."""
        return np.concatenate([[False], self.user[1:] == self.user[:-1]])

    def _position(self, table: str, key: str) -> npt.NDArray[np.int64]:
        ids = getattr(self.simulated, table)[key].combine_chunks()
        found = pc.index_in(self.simulated.interactions[key], value_set=ids)
        assert found.null_count == 0
        return found.to_numpy().astype(np.int64)


@pytest.fixture(scope="module")
def tiny() -> Log:
    return Log(simulate(TINY, words=WORDS))


@pytest.fixture(scope="module")
def long() -> Log:
    return Log(simulate(LONG, words=WORDS))


def table_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_the_same_configuration_gives_the_same_bytes(tiny: Log) -> None:
    again = simulate(TINY, words=WORDS)
    for name in ("interactions", "items", "users"):
        first = table_bytes(getattr(tiny.simulated, name))
        assert table_bytes(getattr(again, name)) == first
    for name, value in vars(tiny.simulated.oracle).items():
        np.testing.assert_array_equal(getattr(again.oracle, name), value)


def test_another_seed_gives_another_log(tiny: Log) -> None:
    other = simulate(replace(TINY, seed=12), words=WORDS)
    assert not other.interactions.equals(tiny.simulated.interactions)
    assert not other.items.equals(tiny.simulated.items)


def test_tables_have_their_columns_and_order(tiny: Log) -> None:
    log = tiny.simulated
    utc = pa.timestamp("us", tz="UTC")
    assert log.interactions.schema == pa.schema(
        {
            "user_id": pa.string(),
            "item_id": pa.string(),
            "timestamp": utc,
            "event_type": pa.string(),
            "value": pa.float32(),
            "device": pa.string(),
            "dwell_seconds": pa.float32(),
        }
    )
    assert log.items.schema == pa.schema(
        {
            "item_id": pa.string(),
            "title": pa.string(),
            "genres": pa.string(),
            "brand": pa.string(),
            "price_level": pa.int32(),
            "launch": utc,
        }
    )
    assert log.users.column_names == ["user_id", "country", "age_band"]
    assert (log.items.num_rows, log.users.num_rows) == (TINY.items, TINY.users)
    for table, key in ((log.items, "item_id"), (log.users, "user_id")):
        ids = table[key].to_pylist()
        assert ids == sorted(set(ids))
    times = log.interactions["timestamp"].cast(pa.int64()).to_numpy()
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= TINY.start_timestamp
    assert times[-1] < TINY.end_timestamp


def test_a_user_does_one_thing_at_a_time(tiny: Log) -> None:
    gaps = np.diff(tiny.timestamp)[tiny.follows[1:]]
    assert gaps.min() >= SECOND


def test_features_are_readable(tiny: Log) -> None:
    words = read_words(WORDS)
    items = tiny.simulated.items.to_pylist()
    assert len({item["title"] for item in items}) == len(items)
    assert {item["price_level"] for item in items} == set(range(1, 8))
    counts = set()
    for item in items:
        genres = item["genres"].split("|")
        counts.add(len(genres))
        assert len(set(genres)) == len(genres)
        assert set(genres) <= set(words.genres[: TINY.topics])
        nouns = words.nouns[words.genres.index(genres[0])]
        assert item["title"].startswith(item["brand"])
        assert item["title"].lower().endswith(tuple(nouns))
    assert counts == {1, 2, 3}


def test_activity_has_a_long_tail(tiny: Log) -> None:
    events = np.bincount(tiny.user, minlength=TINY.users)
    assert abs(events.mean() / TINY.events_per_user - 1.0) < 0.15
    assert np.mean((events >= 1) & (events <= 9)) > 0.3
    assert np.median(events) < 0.6 * events.mean()
    assert events.max() > 200


def test_users_arrive_to_the_last_day(tiny: Log) -> None:
    first = tiny.timestamp[~tiny.follows]
    day = (first - TINY.start_timestamp) // MICROSECONDS_PER_DAY
    assert np.count_nonzero(day == TINY.days - 1) >= 5
    assert np.all(np.bincount(day // 7, minlength=3) > 20)


def test_no_item_is_seen_before_its_launch(tiny: Log) -> None:
    launch = tiny.simulated.items["launch"].cast(pa.int64()).to_numpy()
    during = launch >= TINY.start_timestamp
    assert 0.15 < np.mean(during) < 0.45
    assert np.all(tiny.timestamp >= launch[tiny.item])
    seen = np.bincount(tiny.item[during[tiny.item]], minlength=TINY.items)
    assert np.count_nonzero(seen) > 0.7 * np.count_nonzero(during)


def test_new_items_rise_and_fade_and_some_are_evergreen(long: Log) -> None:
    launch = long.simulated.items["launch"].cast(pa.int64()).to_numpy()
    age = (long.timestamp - launch[long.item]) / MICROSECONDS_PER_DAY
    launched = (launch >= LONG.start_timestamp) & (
        launch < LONG.end_timestamp - 40 * MICROSECONDS_PER_DAY
    )
    of_launched = launched[long.item]
    young = np.bincount(long.item[of_launched & (age >= 1) & (age < 6)], minlength=LONG.items)
    grown = np.bincount(long.item[of_launched & (age >= 30) & (age < 35)], minlength=LONG.items)
    assert young[launched].sum() > 2 * grown[launched].sum()
    sturdy = grown[launched] > 0.5 * young[launched]
    assert 0.1 < sturdy.mean() < 0.7


def test_some_items_are_off_the_shelf(tiny: Log) -> None:
    appeal = tiny.simulated.oracle.appeal
    assert 0.1 < np.mean(np.isneginf(appeal)) < 0.5
    # the last day's four periods differ in launches at most
    last_day = np.isneginf(appeal[-4:]).all(axis=0)
    ids = np.array(tiny.simulated.oracle.item_ids)
    today = tiny.simulated.interactions.filter(
        pc.greater_equal(
            tiny.simulated.interactions["timestamp"].cast(pa.int64()),
            # a session that begins before midnight may still take its item down the funnel
            TINY.end_timestamp - MICROSECONDS_PER_DAY + 1800 * SECOND,
        )
    )
    assert not set(today["item_id"].to_pylist()) & set(ids[last_day].tolist())


def test_the_funnel_goes_step_by_step_on_one_item(tiny: Log) -> None:
    shares = np.bincount(tiny.kind, minlength=3) / len(tiny.kind)
    assert 0.05 < shares[1] + shares[2] < 0.2
    assert shares[1] > shares[2] > 0.01
    later = np.flatnonzero(tiny.kind > 0)
    assert np.all(tiny.follows[later])
    assert np.all(tiny.kind[later - 1] == tiny.kind[later] - 1)
    assert np.all(tiny.item[later - 1] == tiny.item[later])


def test_cheap_items_are_bought_more(long: Log) -> None:
    price = long.simulated.items["price_level"].to_numpy()[long.item]
    next_is_cart = np.append(long.kind[1:] == 1, False)
    viewed = long.kind == 0
    cheap, dear = viewed & (price <= 2), viewed & (price >= 6)
    assert next_is_cart[cheap].mean() > 1.5 * next_is_cart[dear].mean()


def test_ratings_and_dwell_stand_where_they_belong(tiny: Log) -> None:
    table = tiny.simulated.interactions
    value, dwell = table["value"], table["dwell_seconds"]
    purchase = pc.equal(table["event_type"], "purchase")
    rated = pc.is_valid(value)
    assert not pc.any(pc.and_not(rated, purchase)).as_py()
    share = pc.sum(rated).as_py() / pc.sum(purchase).as_py()
    assert 0.35 < share < 0.65
    assert set(value.drop_null().to_pylist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert pc.is_valid(dwell).equals(pc.equal(table["event_type"], "view"))
    assert pc.min(dwell).as_py() >= 1.0


def test_ratings_carry_the_bias_of_their_user(long: Log) -> None:
    bias = make_people(LONG, read_words(WORDS))
    known = dict(zip(bias.user_ids, bias.rating_bias.tolist(), strict=True))
    rated = long.simulated.interactions.filter(pc.is_valid(long.simulated.interactions["value"]))
    truth = [known[user] for user in rated["user_id"].to_pylist()]
    assert np.corrcoef(truth, rated["value"].to_numpy())[0, 1] > 0.3


def test_gaps_are_minutes_within_a_session_and_hours_between(tiny: Log) -> None:
    gaps = np.diff(tiny.timestamp)[tiny.follows[1:]] / SECOND
    within = gaps < 1800
    assert 0.6 < within.mean() < 0.95
    assert np.median(gaps[within]) < 300
    # nothing near the 30 minutes that cut sessions, so that a rule on gaps finds them all
    assert gaps[~within].min() >= 3600
    assert np.median(gaps[~within]) > 8 * 3600


def test_a_user_has_a_usual_device(tiny: Log) -> None:
    device = tiny.simulated.interactions["device"].to_numpy(zero_copy_only=False)[tiny.order]
    active = np.flatnonzero(np.bincount(tiny.user) >= 50)
    shares = [
        np.unique(device[tiny.user == user], return_counts=True)[1].max()
        / np.count_nonzero(tiny.user == user)
        for user in active
    ]
    assert np.mean(shares) > 0.75
    assert len(set(device.tolist())) == 3


def test_taste_drifts(long: Log) -> None:
    """A user's weekly mix of genres is closer to that of two weeks on than of five and more."""
    genres = long.simulated.items["genres"].to_pylist()
    main = [text.split("|")[0] for text in genres]
    genre = np.unique(main, return_inverse=True)[1][long.item]
    week = (long.timestamp - LONG.start_timestamp) // (7 * MICROSECONDS_PER_DAY)
    mix = np.zeros((LONG.users, LONG.days // 7, LONG.topics))
    np.add.at(mix, (long.user, week, genre), 1.0)
    enough = mix.sum(axis=2) >= 10
    unit = mix / np.maximum(np.linalg.norm(mix, axis=2, keepdims=True), 1.0)
    likeness = np.einsum("uvg,uwg->uvw", unit, unit)
    both = enough[:, :, None] & enough[:, None, :]
    lag = np.subtract.outer(np.arange(mix.shape[1]), np.arange(mix.shape[1]))
    near, far = both & (lag == 2), both & (lag >= 5)
    users = near.any(axis=(1, 2)) & far.any(axis=(1, 2))
    assert np.count_nonzero(users) > 100
    mean = [
        np.sum(likeness * pairs, axis=(1, 2))[users] / np.sum(pairs, axis=(1, 2))[users]
        for pairs in (near, far)
    ]
    difference = mean[0] - mean[1]
    assert difference.mean() > 3 * difference.std() / np.sqrt(len(difference))
    strangers = np.sum(unit[users][:-1, -1] * unit[users][1:, -1], axis=1)
    assert mean[1].mean() > strangers.mean()


def order_gain(log: Log) -> tuple[float, float]:
    """Recall@10 of transitions from the last item less that from a random earlier one; its error.

    Counts come from the first two thirds of the events; both rank the same targets. The random item
    is drawn from the user's events before the target, the last among them.
    """
    rng = np.random.default_rng(5)
    start = np.maximum.accumulate(np.where(log.follows, 0, np.arange(len(log.user))))
    target = np.flatnonzero(log.follows)
    last = target - 1
    random = start[target] + (rng.random(len(target)) * (target - start[target])).astype(np.int64)
    learn = log.timestamp[target] < np.quantile(log.timestamp, 2 / 3)
    hits = []
    for source in (last, random):
        n_items = int(log.item.max()) + 1
        counts = np.zeros((n_items, n_items))
        np.add.at(counts, (log.item[source[learn]], log.item[target[learn]]), 1.0)
        scores = counts[log.item[source[~learn]]]
        own = scores[np.arange(len(scores)), log.item[target[~learn]]]
        hits.append(np.count_nonzero(scores >= own[:, None], axis=1) <= 10)
    gain = hits[0].astype(np.float64) - hits[1]
    return float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))


def test_order_matters_until_it_is_shuffled(tiny: Log) -> None:
    gain, _ = order_gain(tiny)
    assert gain > 0.1
    shuffled = Log(simulate(replace(TINY, shuffle=True), words=WORDS))
    gain, error = order_gain(shuffled)
    assert abs(gain) < 3 * error
    assert error < 0.02


def test_shuffling_keeps_who_saw_what_and_when(tiny: Log) -> None:
    shuffled = Log(simulate(replace(TINY, shuffle=True), words=WORDS))
    kept = ["user_id", "timestamp", "event_type", "value", "device", "dwell_seconds"]
    before, after = tiny.simulated.interactions, shuffled.simulated.interactions
    assert after.select(kept).equals(before.select(kept))
    assert not after["item_id"].equals(before["item_id"])
    pairs = [("user_id", "ascending"), ("item_id", "ascending")]
    sets = [table.select(["user_id", "item_id"]).sort_by(pairs) for table in (before, after)]
    assert sets[0].equals(sets[1])


def test_sessions_in_several_blocks_keep_their_users(
    tiny: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks once moved rows that the block itself still needed."""
    monkeypatch.setattr("recsys_core.data.simulator.BLOCK_SESSIONS", 500)
    blocks = Log(simulate(TINY, words=WORDS))
    n_rows = blocks.simulated.interactions.num_rows
    assert abs(n_rows / tiny.simulated.interactions.num_rows - 1.0) < 0.02
    first = [log.timestamp[~log.follows].tolist() for log in (tiny, blocks)]
    assert first[0] == first[1]


@pytest.mark.parametrize("name", ["simulator", "simulator-tiny", "simulator-large"])
def test_cards_are_valid(name: str) -> None:
    card = read_card(DATASETS / f"{name}.yaml")
    assert card.name == name
    assert isinstance(card.source, SimulatorConfig)
    assert not card.source.shuffle


def test_tiny_is_the_card(tiny: Log) -> None:
    source = yaml.safe_load((DATASETS / "simulator-tiny.yaml").read_text())["source"]
    assert source == {"kind": "simulator", **asdict(TINY)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": 31}, "at least 4 for each of 8 topics"),
        ({"topics": 2}, "at least 3"),
        ({"users": 0}, "at least 1"),
        ({"events_per_user": 0.5}, "at least 1"),
        ({"oracle_days": 22}, "from 0 to days"),
        ({"start": "1 March"}, "a date like"),
        ({"start": "2024-02-30"}, "day"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topics": 41}, "topics is 41, but the word lists have 40 genres"),
        ({"events_per_user": 400.0}, "21 days allow no more than"),
    ],
)
def test_what_the_world_cannot_hold_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(replace(TINY, **change), words=WORDS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("adjectives.yaml", "[calm, calm]", "different words"),
        ("adjectives.yaml", "[]", "different words"),
        ("countries.yaml", "{NO: 3}", "quote names like NO"),
        ("age_bands.yaml", "{16-24: -1}", "above 0"),
        ("genres.yaml", "{tea: [pot], coffee: [pot]}", "all nouns"),
    ],
)
def test_broken_word_lists_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    for file in WORDS.iterdir():
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_words(tmp_path)


def test_the_smallest_world_runs() -> None:
    config = replace(TINY, users=1, items=12, topics=3, days=1, events_per_user=1.0, oracle_days=1)
    log = simulate(config, words=WORDS)
    assert log.items.num_rows == 12
    assert log.oracle.covers(np.arange(log.interactions.num_rows)).all()
