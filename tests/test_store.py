import tracemalloc
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_processes import a_prediction, a_request, fill, in_eight_threads, numbers_of

from mock_server.clock import ClockState
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.store import Store

pytest_plugins = ("postgres",)

HOSTILE_IDS = [
    "",
    "\0",
    "a\0b",
    "\ud800",
    "é" * 32,
    "%",
    "0' OR '1'='1",
    "x" * 10_000_000,
    " " + a_prediction(0).id,
    a_prediction(0).id + "\0",
]


def test_a_prediction_is_found_by_its_id(store: Store) -> None:
    fill(store, 1, 2)
    assert store.get(a_prediction(1).id) == a_prediction(1)


def test_the_request_behind_a_prediction_is_found_by_its_id(store: Store) -> None:
    fill(store, 1)
    assert store.asked(a_prediction(1).id) == a_request()


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False)
values = (
    st.none()
    | st.booleans()
    | numbers
    | texts
    | st.lists(st.dictionaries(texts, numbers, max_size=2), max_size=2)
)
events = st.builds(
    Event,
    at=st.integers(0, 1 << 53),
    status=st.sampled_from(Status),
    error=texts,
    outputs=st.lists(texts, max_size=2).map(tuple),
    nsfw=st.lists(st.booleans(), max_size=2).map(tuple),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prediction=st.builds(
        Prediction,
        id=st.uuids().map(lambda uuid: uuid.hex),
        model=texts,
        edition=texts,
        version=texts,
        scenario=texts,
        created_at=st.integers(0, 1 << 53),
        inline=st.booleans(),
        events=st.lists(events, min_size=1, max_size=3).map(tuple),
    ),
    asked=st.builds(
        Asked,
        received=texts,
        defaults=st.dictionaries(texts, values, max_size=3),
        warnings=st.lists(texts, max_size=2).map(tuple),
    ),
)
def test_whatever_goes_in_comes_out(store: Store, prediction: Prediction, asked: Asked) -> None:
    store.clear()
    store.add(prediction, asked, now=0)
    assert (store.get(prediction.id), store.asked(prediction.id)) == (prediction, asked)


@pytest.mark.parametrize("unknown", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_any_text_may_be_asked_for(store: Store, unknown: str) -> None:
    fill(store, 0)
    assert (store.get(unknown), store.asked(unknown), store.newest(limit=9, before=unknown)) == (
        None,
        None,
        [],
    )


def test_an_id_is_taken_once(store: Store) -> None:
    fill(store, 1)
    with pytest.raises(KeyError, match=a_prediction(1).id):
        fill(store, 1)


def test_a_refused_prediction_leaves_the_first_of_its_id(store: Store) -> None:
    fill(store, 1)
    with pytest.raises(KeyError):
        store.add(a_prediction(1, ends_at=None), a_request("another"), now=0)
    assert (store.get(a_prediction(1).id), store.asked(a_prediction(1).id)) == (a_prediction(1), a_request())


def test_a_dropped_prediction_is_gone_and_the_others_stay(store: Store) -> None:
    fill(store, 1, 2, 3)
    assert [store.drop(a_prediction(2).id) for _ in range(2)] == [True, False]
    assert (store.get(a_prediction(2).id), store.asked(a_prediction(2).id)) == (None, None)
    assert (numbers_of(store.newest(limit=9)), store.count()) == ([3, 1], 2)


def test_the_id_of_a_dropped_prediction_is_free_again(store: Store) -> None:
    fill(store, 1)
    store.drop(a_prediction(1).id)
    fill(store, 1)
    assert store.get(a_prediction(1).id) == a_prediction(1)


@pytest.mark.parametrize("unknown", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_any_text_may_be_dropped(store: Store, unknown: str) -> None:
    fill(store, 0)
    assert (store.drop(unknown), store.count()) == (False, 1)


def test_a_session_cannot_drop_what_is_in_another(store: Store) -> None:
    fill(store, 1)
    assert (store.session("one").drop(a_prediction(1).id), store.count()) == (False, 1)


def test_reading_a_prediction_does_not_load_its_request(store: Store) -> None:
    store.add(a_prediction(1), a_request("x" * 20_000_000), now=0)
    tracemalloc.start()
    try:
        store.get(a_prediction(1).id)
        store.newest(limit=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("unknown", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_any_text_may_be_changed_dropped_or_looked_up(store: Store, unknown: str) -> None:
    fill(store, 0)
    store.change_note("a", a_prediction(0).id, lambda _: b"x")
    assert store.update(unknown, lambda found: found) is None
    assert store.drop(unknown) is False
    assert store.note("a", unknown) is None


def test_the_newest_come_first_in_the_order_of_acceptance(store: Store) -> None:
    fill(store, 5, 9, 1, 7)
    assert numbers_of(store.newest(limit=3)) == [7, 1, 9]


def test_paging_shows_everything_once(store: Store) -> None:
    fill(store, *range(10))
    seen: list[int] = []
    page = store.newest(limit=3)
    while page and len(seen) < 20:
        seen += numbers_of(page)
        page = store.newest(limit=3, before=page[-1].id)
    assert seen == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_page_goes_on_where_the_last_ended_whatever_came_in_meanwhile(store: Store) -> None:
    fill(store, 1, 2, 3)
    (newest,) = store.newest(limit=1)
    fill(store, 4)
    assert numbers_of(store.newest(limit=9, before=newest.id)) == [2, 1]


def test_there_is_nothing_before_the_oldest(store: Store) -> None:
    fill(store, 1, 2)
    assert store.newest(limit=9, before=a_prediction(1).id) == []


def test_there_is_nothing_before_an_unknown_prediction(store: Store) -> None:
    fill(store, 1, 2)
    assert store.newest(limit=9, before=a_prediction(3).id) == []


def test_predictions_are_counted(store: Store) -> None:
    fill(store, 1, 2, 3)
    assert store.count() == 3


def test_numbers_count_up_from_zero(store: Store) -> None:
    assert [store.next_number() for _ in range(3)] == [0, 1, 2]


def test_threads_never_draw_the_same_number(store: Store) -> None:
    drawn = in_eight_threads(lambda _: [store.next_number() for _ in range(50)])
    assert sorted(number for numbers in drawn for number in numbers) == list(range(400))


def test_everything_that_threads_add_is_there(store: Store) -> None:
    in_eight_threads(lambda thread: fill(store, *range(thread * 50, thread * 50 + 50)))
    assert sorted(numbers_of(store.newest(limit=1_000))) == list(range(400))


def test_one_of_many_threads_gets_an_id(store: Store) -> None:
    def try_to_add(_: int) -> bool:
        try:
            fill(store, 1)
        except KeyError:
            return False
        return True

    assert sum(in_eight_threads(try_to_add)) == 1


def test_threads_may_read_while_others_write(store: Store) -> None:
    fill(store, *range(300))

    def read_and_write(thread: int) -> None:
        for number in range(20):
            fill(store, 1_000 * thread + 1_000 + number)
            assert numbers_of(store.newest(limit=500))[-300:] == list(reversed(range(300)))

    in_eight_threads(read_and_write)


def test_time_runs_with_the_machine_at_first(store: Store) -> None:
    assert store.clock_state() == ClockState()


@pytest.mark.parametrize("state", [ClockState(offset=5), ClockState(offset=-7, frozen_at=1_700_000_000_000)])
def test_a_changed_clock_stays_changed(store: Store, state: ClockState) -> None:
    changed = store.change_clock(lambda _: state)
    assert (changed, store.clock_state()) == (state, state)


def test_a_change_of_the_clock_starts_from_where_it_stands(store: Store) -> None:
    store.change_clock(lambda state: state.advance(10))
    assert store.change_clock(lambda state: state.advance(5)) == ClockState(offset=15)


def test_no_change_of_the_clock_is_lost_among_threads(store: Store) -> None:
    in_eight_threads(lambda _: [store.change_clock(lambda state: state.advance(1)) for _ in range(25)])
    assert store.clock_state() == ClockState(offset=200)


def test_a_change_of_the_clock_lets_no_other_come_between(store: Store) -> None:
    with ThreadPoolExecutor(1) as pool:

        def change(state: ClockState) -> ClockState:
            other = pool.submit(store.change_clock, lambda state: state.advance(1))
            wait([other], timeout=0.1)
            return state.advance(10)

        store.change_clock(change)
    assert store.clock_state() == ClockState(offset=11)


def test_a_change_of_the_clock_that_fails_changes_nothing(store: Store) -> None:
    store.change_clock(lambda state: state.advance(10))
    with pytest.raises(ValueError, match="ahead"):
        store.change_clock(lambda state: state.advance(-1))
    assert store.clock_state() == ClockState(offset=10)


def test_a_cleared_store_knows_nothing(store: Store) -> None:
    fill(store, 1, 2)
    store.next_number()
    store.change_clock(lambda state: state.freeze(5))
    store.clear()
    assert (store.get(a_prediction(1).id), store.asked(a_prediction(1).id)) == (None, None)
    assert (store.count(), store.newest(limit=9)) == (0, [])
    assert (store.next_number(), store.clock_state()) == (0, ClockState())


def test_a_cleared_store_takes_the_same_ids_again(store: Store) -> None:
    fill(store, 1)
    store.clear()
    fill(store, 1)
    assert store.count() == 1
