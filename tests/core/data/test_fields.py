"""Fields of events and users: what a cut knows of them, rows by events, and what is counted."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.cuts import Cut
from recsys_core.data.events import Events
from recsys_core.data.field_rows import NO_FIELDS, FieldSizes
from recsys_core.data.fields import (
    FieldEncoding,
    FieldKinds,
    FieldTables,
    encode_fields,
    fit_fields,
    sizes_of,
)
from recsys_core.data.histories import EVENT_NUMBERS, gather_histories
from recsys_core.errors import ContractError
from tests.serving_world import make_events

CONTEXT = FieldKinds(context={"device": "categorical", "dwell": "numeric"}, users={})
USERS = FieldKinds(
    context={}, users={"age": "numeric", "tags": "multi_categorical", "about": "text"}
)
BOTH = FieldKinds(CONTEXT.context, USERS.users)
IDS = pa.array(["a", "b", "c"])
FIRST = len(EVENT_NUMBERS)


def log(*, rows: tuple[int, ...] = (40, 10, 20, 30)) -> Events:
    """Two events of user 1, one each of users 2 and 3, of these rows of the log."""
    return replace(make_events([[1, 2], [3], [4]]), source_row=np.array(rows))


def tables(**changes: list[object]) -> FieldTables:
    """A log with a row more than there are events, and users of whom the last has no row."""
    columns: dict[str, list[object]] = {
        "device": ["web", "phone", "web", None, "tv"],
        "dwell": [9.0, 2.0, None, 6.0, 4.0],
        "age": [30.0, 50.0],
        "tags": [["x"], ["y", "x"]],
        "about": ["likes likes art", "likes war"],
        **changes,
    }
    interactions = pa.table(
        {
            "source_row": [5, 10, 20, 30, 40],
            "device": pa.array(columns["device"], pa.string()),
            "dwell": pa.array(columns["dwell"], pa.float64()),
        }
    )
    users = pa.table(
        {
            "user_id": ["a", "b"],
            "age": pa.array(columns["age"], pa.float64()),
            "tags": pa.array(columns["tags"], pa.list_(pa.string())),
            "about": pa.array(columns["about"], pa.string()),
        }
    )
    return FieldTables(interactions, users, IDS)


def whole(events: Events) -> Cut:
    return Cut(np.diff(events.offsets), 9, None)


def fitted(kinds: FieldKinds, given: FieldTables | None = None, cut: Cut | None = None):
    events = log()
    known = whole(events) if cut is None else cut
    return fit_fields(given or tables(), kinds, events=events, cut=known, most=9, words=9)


def test_each_event_reads_the_row_of_the_log_that_it_is_of() -> None:
    encoding = fitted(CONTEXT)
    found = encode_fields(encoding, tables(), events=log())
    rows = found.rows.of_events(np.arange(4))
    # by falling frequency, then by text: of the rows 10 to 40 alone
    assert encoding.context.bags[0].values == ("phone", "tv", "web")
    assert rows[:, 0].tolist() == [2, 1, 3, 0], "row 40 is of a tv; a null is unknown"
    assert rows[:, 2].tolist() == [1, 1, 0, 1], "whether there is a dwell"
    np.testing.assert_allclose(rows[:, 1] * np.sqrt(8 / 3), [0, -2, 0, 2], atol=1e-6)
    assert found.counts == {
        "context": {
            "ids": 4,
            "without_row": 0,
            "rows_unused": 0,
            "fields": {
                "device": {"missing": 1, "unseen": 0, "cut": 0},
                "dwell": {"missing": 1, "clipped": 0},
            },
        }
    }


def test_a_history_holds_the_context_of_its_events_and_the_fields_of_its_user() -> None:
    events = log()
    found = encode_fields(fitted(BOTH), tables(), events=events)
    batch = gather_histories(
        replace(events, field_rows=found.rows),
        np.array([1, 3]),
        start=np.array([0, 0]),
        stop=np.array([2, 1]),
        reads=(),
    )
    assert batch.numbers.shape == (2, 2, FIRST + 3)
    assert batch.numbers[:, :, FIRST].tolist() == [[2, 1], [0, 0]]
    assert not batch.numbers[1, 1].any(), "PAD"
    sizes = sizes_of(fitted(BOTH).users)
    np.testing.assert_array_equal(batch.user_fields[1], sizes.unknown)
    assert (batch.user_fields[0] != sizes.unknown).any()


def test_without_fields_histories_have_none() -> None:
    batch = gather_histories(
        log(), np.array([1]), start=np.array([0]), stop=np.array([2]), reads=()
    )
    assert batch.numbers.shape == (1, 2, FIRST)
    assert batch.user_fields.tolist() == [[0.0]]


def test_the_events_that_are_kept_keep_their_context() -> None:
    events = log()
    events = replace(
        events, field_rows=encode_fields(fitted(CONTEXT), tables(), events=events).rows
    )
    keep = np.array([False, True, False, True])
    kept = events.where(keep)
    assert kept.field_rows is not None
    assert events.field_rows is not None
    np.testing.assert_array_equal(
        kept.field_rows.of_events(np.arange(2)), events.field_rows.of_events(np.flatnonzero(keep))
    )


def test_rows_of_users_hold_bags_as_codes_and_weights() -> None:
    found = encode_fields(fitted(USERS), tables(), events=log())
    a, b, c = found.rows.of_users(np.array([1, 2, 3]))
    assert found.rows.users.sizes.width == 2 * (64 + 64) + 2
    # in the order of names: about, tags, then age
    assert [field.name for field in found.encoding.users.bags] == ["about", "tags"]
    assert found.encoding.users.bags[0].values == ("likes",), "the only word of two users"
    assert (a[0], a[64]) == (1, 1)
    tags = slice(128, 128 + 128)
    assert found.encoding.users.bags[1].values == ("x", "y")
    np.testing.assert_allclose(b[tags][[0, 1, 2, 64, 65, 66]], [1, 2, 0, 0.5**0.5, 0.5**0.5, 0])
    np.testing.assert_allclose([a[-2], b[-2]], [-1, 1])
    np.testing.assert_array_equal(c, found.rows.users.sizes.unknown)
    assert c.sum() == 1, "the weight of an unknown tag; a text tells nothing"
    counts = found.counts["users"]
    assert (counts["ids"], counts["without_row"], counts["rows_unused"]) == (3, 1, 0)


def test_what_comes_after_the_cut_changes_nothing() -> None:
    """Neither later rows of the log nor who comes with them."""
    cut = Cut(np.array([0, 1, 1, 0]), 9, None)  # rows 40 and 20, users a and b
    one = fitted(BOTH, cut=cut)
    later = tables(device=["x", "new", "web", "newer", "tv"], dwell=[1e9, 7.0, None, -4.0, 4.0])
    assert fitted(BOTH, later, cut) == one != fitted(BOTH, later)
    only_a = Cut(np.array([0, 2, 0, 0]), 9, None)
    other = tables(age=[30.0, 99.0], tags=[["x"], ["new"]])
    assert fitted(USERS, other, only_a) == fitted(USERS, cut=only_a)
    assert fitted(USERS, other) != fitted(USERS)


def test_values_never_seen_are_unknown_and_counted() -> None:
    encoding = fitted(BOTH)
    night = tables(device=["web", "watch", "watch", None, "tv"], tags=[["z"], ["x", "z"]])
    found = encode_fields(encoding, night, events=log())
    assert found.rows.of_events(np.arange(4))[:, 0].tolist() == [2, 0, 0, 0]
    assert found.counts["context"]["fields"]["device"] == {"missing": 1, "unseen": 2, "cut": 0}
    assert found.counts["users"]["fields"]["tags"] == {"missing": 0, "unseen": 2, "cut": 0}


def test_columns_of_nulls_alone_are_read_as_unknown() -> None:
    empty = tables(device=[None] * 5, dwell=[None] * 5, age=[None] * 2, tags=[None] * 2)
    encoding = fitted(BOTH, empty)
    assert encoding.sizes[0].n_codes == (1,)
    found = encode_fields(encoding, empty, events=log())
    assert not found.rows.of_events(np.arange(4)).any()
    assert found.counts["context"]["fields"]["dwell"]["missing"] == 4
    # and where the next night brings some
    assert (
        not encode_fields(encoding, tables(), events=log()).rows.of_events(np.arange(4))[:, 0].any()
    )


def test_an_encoding_survives_json(tmp_path) -> None:
    encoding = fitted(BOTH)
    write_json(tmp_path / "fields.json", encoding.to_json())
    again = FieldEncoding.from_json(read_json(tmp_path / "fields.json"))
    assert again == encoding
    assert again.sizes == encoding.sizes
    one, two = (encode_fields(each, tables(), events=log()) for each in (encoding, again))
    np.testing.assert_array_equal(one.rows.of_users(np.arange(4)), two.rows.of_users(np.arange(4)))


def test_events_of_no_row_are_refused() -> None:
    for rows in ((40, 10, 20, 31), (40, 10, 20, 99)):
        with pytest.raises(ContractError, match="1 of 4 events are of no valid interaction"):
            fit_fields(tables(), CONTEXT, events=log(rows=rows), cut=whole(log()), most=9, words=9)


def test_a_column_that_is_gone_is_an_error() -> None:
    encoding = fitted(CONTEXT)
    given = tables()
    assert given.interactions is not None
    without = replace(given, interactions=given.interactions.drop_columns(["device"]))
    with pytest.raises(ContractError, match=r"no columns \['device'\]"):
        encode_fields(encoding, without, events=log())


def test_a_log_without_events() -> None:
    nobody = make_events([])
    given = tables()
    assert given.interactions is not None
    none = FieldTables(given.interactions.slice(0, 0), given.users, pa.array([], pa.string()))
    encoding = fit_fields(none, BOTH, events=nobody, cut=whole(nobody), most=9, words=9)
    found = encode_fields(encoding, none, events=nobody)
    assert found.counts["context"]["ids"] == found.counts["users"]["ids"] == 0


def test_texts_in_many_chunks_are_read_row_by_row() -> None:
    given = tables()
    assert given.interactions is not None
    pieces = [given.interactions.slice(row, 1) for row in range(5)]
    chunked = replace(given, interactions=pa.concat_tables(pieces))
    one, two = (
        encode_fields(fitted(CONTEXT), each, events=log()).rows.of_events(np.arange(4))
        for each in (given, chunked)
    )
    np.testing.assert_array_equal(one, two)


def test_nothing_has_no_width() -> None:
    assert NO_FIELDS.width == 0
    assert NO_FIELDS.unknown.shape == (0,)
    sizes = FieldSizes((5, 4), (1, 64), (True, True), 2)
    assert sizes.width == 1 + 128 + 2
    assert np.flatnonzero(sizes.unknown).tolist() == [1 + 64]
