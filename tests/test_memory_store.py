import gc
import subprocess
import sys
from pathlib import Path

import pytest
from store_processes import a_prediction, a_request, fill, numbers_of

from mock_server.errors import StoreUnavailable
from mock_server.memory_store import MemoryStore
from mock_server.store import StoreFull, encode

SIZE = len(encode(a_prediction(0))) + len(encode(a_request()))


def memory(keep: int = 10_000, keep_bytes: int = 1 << 30) -> MemoryStore:
    return MemoryStore(keep=keep, keep_bytes=keep_bytes)


def test_the_one_that_finished_longest_ago_makes_room() -> None:
    store = memory(keep=3)
    for number, ends_at in enumerate([300, 100, 200]):
        store.add(a_prediction(number, ends_at=ends_at), a_request(), now=0)
    store.add(a_prediction(3), a_request(), now=250)
    assert numbers_of(store.newest(limit=9)) == [3, 2, 0]


def test_of_those_that_finished_at_the_same_moment_the_one_accepted_first_makes_room() -> None:
    store = memory(keep=3)
    for number in (2, 0, 1):
        store.add(a_prediction(number, ends_at=100), a_request(), now=0)
    store.add(a_prediction(3), a_request(), now=100)
    assert numbers_of(store.newest(limit=9)) == [3, 1, 0]


def test_one_that_has_yet_to_finish_is_never_dropped() -> None:
    store = memory(keep=1)
    store.add(a_prediction(0, ends_at=100), a_request(), now=0)
    with pytest.raises(StoreFull):
        store.add(a_prediction(1), a_request(), now=99)
    assert numbers_of(store.newest(limit=9)) == [0]


def test_one_that_finishes_this_very_moment_may_be_dropped() -> None:
    store = memory(keep=1)
    store.add(a_prediction(0, ends_at=100), a_request(), now=0)
    store.add(a_prediction(1), a_request(), now=100)
    assert numbers_of(store.newest(limit=9)) == [1]


def test_what_was_dropped_takes_no_room() -> None:
    store = memory(keep_bytes=SIZE)
    for _ in range(3):
        fill(store, 0)
        store.drop(a_prediction(0).id)
    assert store.count() == 0


def test_one_that_came_back_with_a_later_end_is_not_taken_for_the_one_that_was_dropped() -> None:
    store = memory(keep=1)
    store.add(a_prediction(0, ends_at=100), a_request(), now=0)
    store.drop(a_prediction(0).id)
    store.add(a_prediction(0, ends_at=300), a_request(), now=0)
    with pytest.raises(StoreFull):
        store.add(a_prediction(1), a_request(), now=200)


def test_what_was_dropped_leaves_no_end_behind_for_ever() -> None:
    store = memory()
    for number in range(5000):
        fill(store, number)
        store.drop(a_prediction(number).id)
    assert len(store._ends) <= 1001


def test_one_without_an_end_is_never_dropped() -> None:
    store = memory(keep=1)
    store.add(a_prediction(0, ends_at=None), a_request(), now=0)
    with pytest.raises(StoreFull):
        store.add(a_prediction(1), a_request(), now=1 << 60)


def test_a_full_store_says_what_to_raise() -> None:
    with pytest.raises(StoreFull, match=r"keeps 0 predictions.*raise --keep,"):
        fill(memory(keep=0), 0)


def test_a_store_full_of_bytes_says_what_to_raise() -> None:
    store = memory(keep_bytes=2 * SIZE - 1)
    fill(store, 0)
    with pytest.raises(StoreFull, match=r"keeps \d+ bytes.*raise --keep-bytes,"):
        fill(store, 1)


def test_a_full_store_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        fill(memory(keep=0), 0)


def test_finished_predictions_make_room_for_bytes() -> None:
    store = memory(keep_bytes=3 * SIZE)
    for number in range(10):
        store.add(a_prediction(number), a_request(), now=2_000)
    assert numbers_of(store.newest(limit=99)) == [9, 8, 7]


def test_a_request_larger_than_the_store_drops_nothing() -> None:
    store = memory(keep_bytes=2 * SIZE)
    fill(store, 0)
    with pytest.raises(StoreFull, match="--keep-bytes"):
        store.add(a_prediction(1), a_request("x" * 10_000), now=2_000)
    assert store.count() == 1


def test_what_was_dropped_is_forgotten_altogether() -> None:
    store = memory(keep=1)
    fill(store, 0)
    store.add(a_prediction(1), a_request(), now=2_000)
    assert (store.get(a_prediction(0).id), store.asked(a_prediction(0).id)) == (None, None)


def test_the_id_of_what_was_dropped_is_free_again() -> None:
    store = memory(keep=1)
    for number in (0, 1, 0):
        store.add(a_prediction(number), a_request(), now=2_000)
    assert numbers_of(store.newest(limit=9)) == [0]


def test_a_cleared_store_has_all_its_room_back() -> None:
    store = memory(keep=1, keep_bytes=SIZE)
    for number in range(3):
        store.clear()
        store.add(a_prediction(number), a_request(), now=2_000)
    store.add(a_prediction(3), a_request(), now=2_000)
    assert numbers_of(store.newest(limit=9)) == [3]


def test_kept_predictions_cost_the_garbage_collector_nothing() -> None:
    store = memory()
    gc.collect()
    before = len(gc.get_objects())
    fill(store, *range(5_000))
    gc.collect()
    assert len(gc.get_objects()) - before < 500


def test_the_plain_store_does_without_a_database() -> None:
    program = "import sys, mock_server.store; sys.exit('sqlalchemy' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def test_there_are_never_many_more_notes_of_a_kind_than_predictions_may_be_kept() -> None:
    store = MemoryStore(keep=1, keep_bytes=1 << 20)
    for number in range(20_500):
        store.change_note("a", f"{number:05d}", lambda _: b"x")
    assert [store.notes("a")[0][0], len(store.notes("a"))] == ["00500", 20_000]


def test_a_note_that_is_still_in_use_is_not_the_one_that_makes_room() -> None:
    store = MemoryStore(keep=1, keep_bytes=1 << 20)
    for number in range(20_500):
        store.change_note("a", f"{number:05d}", lambda _: b"x")
        store.change_note("a", "00000", lambda _: b"x")
    assert store.note("a", "00000") == b"x"


def test_the_notes_about_a_prediction_go_with_it() -> None:
    store = MemoryStore(keep=10, keep_bytes=1 << 20)
    fill(store, 1)
    store.change_note("a", a_prediction(1).id, lambda _: b"x")
    store.drop(a_prediction(1).id)
    assert store.note("a", a_prediction(1).id) is None
