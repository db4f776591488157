"""The server's clock: frozen, advanced, sped up; and what moving it made happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Client
from mock_server.clock import ClockState

REAL = 1_700_000_000_000


def test_time_that_is_sped_up_goes_on_from_where_it_stood() -> None:
    state = ClockState(offset=50).hurry(REAL, 60)
    assert (state.at(REAL), state.at(REAL + 1000)) == (REAL + 50, REAL + 60_050)


def test_time_that_is_slowed_down_never_goes_back() -> None:
    state = ClockState().hurry(REAL, 60).hurry(REAL + 1000, 0.5)
    assert (state.at(REAL + 1000), state.at(REAL + 3000)) == (REAL + 60_000, REAL + 61_000)


def test_frozen_time_keeps_its_speed_for_later() -> None:
    state = ClockState().hurry(REAL, 60).freeze(REAL + 1000).run(REAL + 5000)
    assert state.at(REAL + 6000) == REAL + 120_000


def test_a_speed_that_is_set_while_time_is_frozen_counts_when_it_runs() -> None:
    state = ClockState().freeze(REAL).hurry(REAL, 60)
    assert (state.at(REAL + 1000), state.run(REAL + 1000).at(REAL + 2000)) == (REAL, REAL + 60_000)


changes = st.one_of(
    st.tuples(st.just("freeze"), st.just(0.0)),
    st.tuples(st.just("run"), st.just(0.0)),
    st.tuples(st.just("hurry"), st.floats(0.001, 1000)),
    st.tuples(st.just("advance"), st.floats(0, 1e6)),
)


@given(st.lists(st.tuples(st.integers(0, 10_000), changes)))
def test_whatever_is_done_to_it_time_never_goes_back(history: list[tuple[int, tuple[str, float]]]) -> None:
    state, real, last = ClockState(), REAL, REAL
    for passed, (change, value) in history:
        real += passed
        assert state.at(real) >= last
        last = state.at(real)
        if change == "freeze":
            state = state.freeze(real)
        elif change == "run":
            state = state.run(real)
        elif change == "hurry":
            state = state.hurry(real, value)
        else:
            state = state.advance(round(value))
        assert state.at(real) >= last
        last = state.at(real)


def test_moving_the_clock_tells_in_order_what_that_made_happen(client: Client) -> None:
    first = client.submit(scenario="created=1s; processing=5s")
    second = client.submit(scenario="created=2s; processing=1s")
    events = client.clock(advance="10s")["events"]
    assert [(each["subject"], each["text"]) for each in events] == [
        (first, "created -> processing"),
        (second, "created -> processing"),
        (second, "processing -> completed"),
        (first, "processing -> completed"),
    ]


def test_what_happened_is_told_once(client: Client) -> None:
    client.submit(scenario="created=1s; processing=1s")
    client.clock(advance="10s")
    assert client.clock(advance="10s")["events"] == []


def test_outputs_expire_on_the_clock(client: Client) -> None:
    task = client.submit(scenario="created=1s; processing=1s")
    client.clock(advance="10s")
    url = client.result(task)["outputs"][0]
    events = client.clock(advance="7d")["events"]
    assert [(each["what"], each["subject"]) for each in events] == [("expired", task)]
    assert client.get(url).status_code == 410


def test_a_fault_that_disarms_itself_is_told(client: Client) -> None:
    client.post("/_mock/faults", {"fault": "503; for=5s"})
    assert [each["what"] for each in client.clock(advance="10s")["events"]] == ["disarmed"]


@pytest.mark.parametrize("speed", [0, -1, 100_001])
def test_a_speed_that_cannot_be_is_refused(client: Client, speed: float) -> None:
    assert client.post("/_mock/clock", {"speed": speed}).status_code == 400


def test_the_speed_is_told(client: Client) -> None:
    assert client.clock(speed=60)["speed"] == 60


def test_latency_is_waited_for_on_the_clock(client: Client) -> None:
    client.clock(resume=True, speed=100_000)
    client.post("/_mock/faults", {"fault": "latency; on=submit; seconds=5m"})
    client.submit()
    entry = client.get("/_mock/requests").json()["data"]["requests"][0]
    assert entry["ended"][:16] > entry["at"][:16]
