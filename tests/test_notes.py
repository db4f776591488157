"""Notes, changes of predictions, and sessions, in every kind of store."""

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from store_processes import a_prediction, a_request, fill

from mock_server.clock import ClockState
from mock_server.memory_store import MemoryStore
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.sql_store import SqlStore
from mock_server.store import Store

pytest_plugins = ("postgres",)


def test_a_note_is_found_by_kind_and_key(store: Store) -> None:
    store.change_note("a", "k", lambda _: b"1")
    assert (store.note("a", "k"), store.note("b", "k"), store.note("a", "l")) == (b"1", None, None)


def test_a_change_of_a_note_starts_from_what_it_was(store: Store) -> None:
    store.change_note("a", "k", lambda _: b"1")
    assert store.change_note("a", "k", lambda found: (found or b"") + b"2") == b"12"


def test_a_note_that_becomes_nothing_is_gone(store: Store) -> None:
    store.change_note("a", "k", lambda _: b"1")
    store.change_note("a", "k", lambda _: None)
    assert (store.note("a", "k"), store.notes("a")) == (None, [])


def test_no_change_of_a_note_is_lost_among_threads(store: Store) -> None:
    def count(_: int) -> None:
        store.change_note("a", "k", lambda found: b"%d" % (int(found or b"0") + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(200)))
    assert store.note("a", "k") == b"200"


def test_a_change_of_a_note_that_is_new_lets_no_other_come_between(store: Store) -> None:
    def count(found: bytes | None) -> bytes:
        return b"%d" % (int(found or b"0") + 1)

    with ThreadPoolExecutor(1) as pool:

        def change(found: bytes | None) -> bytes:
            wait([pool.submit(store.change_note, "a", "k", count)], timeout=0.2)
            return count(found)

        store.change_note("a", "k", change)
    assert store.note("a", "k") == b"2"


def test_notes_come_in_the_order_of_their_keys(store: Store) -> None:
    for key in ("b", "c", "a"):
        store.change_note("a", key, lambda _: b"x")
    assert [key for key, _ in store.notes("a")] == ["a", "b", "c"]


def test_the_order_of_notes_is_that_of_code_points(store: Store) -> None:
    keys = ["é", "b", "B", "a b", "a", "Z", "_", "10", "9", "\U0001f600", "\uffee"]
    for key in keys:
        store.change_note("a", key, lambda _: b"x")
    assert [key for key, _ in store.notes("a")] == sorted(keys)
    assert [key for key, _ in store.notes("a", after="a")] == sorted(keys)[sorted(keys).index("a") + 1 :]


def test_notes_can_be_had_from_a_key_on_and_by_the_few(store: Store) -> None:
    for key in "abcd":
        store.change_note("a", key, lambda _: b"x")
    assert [key for key, _ in store.notes("a", after="a", limit=2)] == ["b", "c"]


def test_appended_notes_have_growing_keys(store: Store) -> None:
    keys = [store.append("a", b"%d" % number, keep=10) for number in range(3)]
    assert keys == sorted(set(keys))
    assert [value for _, value in store.notes("a")] == [b"0", b"1", b"2"]


def test_of_appended_notes_the_newest_are_kept(store: Store) -> None:
    for number in range(5):
        store.append("a", b"%d" % number, keep=2)
    assert [value for _, value in store.notes("a")] == [b"3", b"4"]


def test_what_is_appended_to_one_kind_takes_nothing_from_another(store: Store) -> None:
    store.append("a", b"first", keep=3)
    for _ in range(10):
        store.append("b", b"x", keep=3)
    store.append("a", b"second", keep=3)
    assert [value for _, value in store.notes("a")] == [b"first", b"second"]


def test_threads_never_append_under_the_same_key(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: store.append("a", b"x", keep=1000), range(200)))
    assert len(set(keys)) == len(store.notes("a")) == 200


def test_notes_come_in_beside_a_prediction(store: Store) -> None:
    store.add(a_prediction(1), a_request(), now=0, beside={"a": b"1", "b": b"2"})
    assert [store.note(kind, a_prediction(1).id) for kind in "abc"] == [b"1", b"2", None]


def test_a_prediction_that_is_refused_leaves_no_note(store: Store) -> None:
    fill(store, 1)
    with pytest.raises(KeyError):
        store.add(a_prediction(1), a_request(), now=0, beside={"a": b"1"})
    assert store.note("a", a_prediction(1).id) is None


def test_a_note_beside_a_prediction_takes_the_place_of_one_that_was_left(store: Store) -> None:
    store.change_note("a", a_prediction(1).id, lambda _: b"old")
    store.add(a_prediction(1), a_request(), now=0, beside={"a": b"new"})
    assert store.note("a", a_prediction(1).id) == b"new"


def ended(prediction: Prediction) -> Prediction:
    return replace(prediction, events=(*prediction.events[:1], Event(at=9, status=Status.FAILED, error="x")))


def test_a_prediction_can_be_changed(store: Store) -> None:
    fill(store, 1, 2)
    assert store.update(a_prediction(1).id, ended) == store.get(a_prediction(1).id) == ended(a_prediction(1))
    assert store.get(a_prediction(2).id) == a_prediction(2)


def test_what_is_not_there_cannot_be_changed(store: Store) -> None:
    assert store.update("0" * 32, ended) is None


def test_no_change_of_a_prediction_is_lost_among_threads(store: Store) -> None:
    fill(store, 1)

    def poll(_: int) -> None:
        store.update(a_prediction(1).id, lambda found: replace(found, polls=found.polls + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(poll, range(200)))
    found = store.get(a_prediction(1).id)
    assert found is not None
    assert found.polls == 200


def test_a_prediction_that_was_ended_makes_room_in_memory() -> None:
    small = MemoryStore(keep=1, keep_bytes=1 << 20)
    first = replace(a_prediction(1), events=(Event(at=0, status=Status.CREATED),))
    small.add(first, fill_request(), now=0)
    small.update(first.id, ended)
    small.add(a_prediction(2), fill_request(), now=10)
    assert small.get(first.id) is None


def fill_request() -> Asked:
    return Asked(received="{}")


def test_sessions_share_nothing(store: Store) -> None:
    one, other = store.session("one"), store.session("other")
    fill(one, 1)
    one.change_note("a", "k", lambda _: b"1")
    one.change_clock(lambda state: state.advance(5))
    one.next_number()
    assert (other.count(), other.note("a", "k"), other.clock_state(), other.next_number()) == (
        0,
        None,
        ClockState(),
        0,
    )


def test_the_same_id_can_be_in_two_sessions(store: Store) -> None:
    fill(store.session("one"), 1)
    fill(store.session("other"), 1)
    assert store.session("one").count() == store.session("other").count() == 1


def test_a_session_is_found_again_by_its_name(store: Store) -> None:
    fill(store.session("one"), 1)
    assert store.session("one").get(a_prediction(1).id) == a_prediction(1)


def test_sessions_are_listed_by_name(store: Store) -> None:
    for name in ("b", "a"):
        store.session(name)
    assert store.sessions() == ["a", "b"]


def test_a_session_that_is_only_looked_at_does_not_begin(store: Store) -> None:
    assert (store.session("a", begin=False).count(), store.sessions()) == (0, [])
    fill(store.session("a"), 1)
    assert store.session("a", begin=False).count() == 1


def test_those_sessions_can_be_listed_that_hold_notes_of_some_kind(store: Store) -> None:
    for name, kind in (("c", "x"), ("b", "y"), ("a", "z"), ("", "x")):
        store.session(name).change_note(kind, "k", lambda _: b"")
    store.session("d").change_note("x", "k", lambda _: b"")
    store.session("d").change_note("x", "k", lambda _: None)
    assert (store.sessions("x", "y"), store.sessions("x"), store.sessions("w")) == (["b", "c"], ["c"], [])


def test_a_cleared_session_is_no_more(store: Store) -> None:
    fill(store.session("a"), 1)
    store.session("b")
    store.session("a").clear()
    assert (store.sessions(), store.session("a").count()) == (["b"], 0)


def test_clearing_the_first_session_leaves_the_others(store: Store) -> None:
    fill(store, 1)
    fill(store.session("a"), 1)
    store.clear()
    assert (store.count(), store.session("a").count()) == (0, 1)


def test_a_session_whose_row_is_gone_goes_on(store: Store) -> None:
    session = store.session("a")
    session.clear()
    session.change_clock(lambda state: state.advance(5))
    assert session.append("a", b"x", keep=5)
    if isinstance(session, SqlStore):
        assert session.clock_state() == ClockState(offset=5)
