"""Webhooks on their way: when they are sent, to which address, and what becomes of them."""

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from certificates import certificate_for

from mock_server.addresses import Allowed, Lookup, look_up
from mock_server.clock import ManualClock
from mock_server.errors import StoreUnavailable
from mock_server.faults import read_fault
from mock_server.memory_store import MemoryStore
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.sql_store import SqlStore
from mock_server.store import Store
from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier, Office, run_due, send
from mock_server.webhooks.deliveries import Attempt, Delivery
from mock_server.webhooks.service import Bell, serve_forever

T = TypeVar("T")

START = 1_700_000_000_000
END = START + 5_000
SECRET = "whsec_c2VjcmV0"
THIS_MACHINE = Allowed(option="--webhook-to", this_machine=True)
OK = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FAILED = "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nno\x07!"
WAIT = 20


@dataclass(frozen=True, slots=True)
class Got:
    """A request as a receiver read it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def prediction(self) -> str:
        told: str = json.loads(self.body)["id"]
        return told

    def believed(self, secret: str = SECRET) -> bool:
        """Whether it is signed by the documented rule."""
        message = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.new(secret[6:].encode(), message, hashlib.sha256).hexdigest()
        return self.headers["webhook-signature"] == f"v3,{digest}"


@dataclass(slots=True)
class Receiver:
    """A server that notes what comes, and answers what it is told to, and OK when it was told no more."""

    answers: list[str | None]
    port: int = 0
    got: list[Got] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    endless: bool = False
    serving: set["asyncio.Task[Any]"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self.serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in head[1:])
            }
            if "webhook-id" not in fields:
                raise ConnectionError("somebody else, who looks for a server that had this port before")
            self.got.append(Got(head[0], fields, await reader.readexactly(int(fields["content-length"]))))
            self.more.set()
            answer = self.answers.pop(0) if self.answers else OK
            if answer is not None:
                writer.write(answer.encode())
                await writer.drain()
            if answer is None or self.endless:
                await reader.read()  # until the other side gives up
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(WAIT):
            while len(self.got) < count:
                self.more.clear()
                await self.more.wait()


@asynccontextmanager
async def receiver(*answers: str | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(list(answers))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await asyncio.gather(*made.serving)


class Standing:
    """The machine's clock, where nothing may depend on it."""

    def now(self) -> int:
        return START


def payload(prediction: Prediction, delivery: Delivery) -> bytes:
    return json.dumps({"id": prediction.id, "base": delivery.base, "webhook": prediction.webhook}).encode()


@cache
def trust() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass(slots=True)
class Bench:
    """One session with a clock that stands still."""

    store: Store = field(default_factory=lambda: MemoryStore(keep=1000, keep_bytes=1 << 30))
    allowed: Allowed = THIS_MACHINE
    lookup: Lookup = look_up
    seconds: float = 10.0
    payload: Callable[[Prediction, Delivery], bytes] = payload
    trust: Callable[[], ssl.SSLContext] = trust
    clock: ManualClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = ManualClock(real=Standing(), shelf=self.store)
        self.clock.freeze()

    @property
    def office(self) -> Office:
        return Office(
            name="", store=self.store, now=self.clock.now, secret=lambda: SECRET, payload=self.payload
        )

    @property
    def courier(self) -> Courier:
        return Courier(allowed=self.allowed, lookup=self.lookup, seconds=self.seconds, trust=self.trust)

    def add(self, number: int, url: str, *, fault: str = "", ends_at: int | None = END) -> Delivery | None:
        """Accepts a prediction, and keeps the delivery that it asks for."""
        prediction = ended(number, url, fault=fault, ends_at=ends_at)
        self.store.add(prediction, Asked(received="{}"), now=START)
        delivery = deliveries.scheduled(prediction, "http://mock.test", prediction.fault, now=START)
        if delivery is not None:
            deliveries.keep(self.store, delivery)
        return delivery

    def now(self, number: int) -> Delivery:
        found = deliveries.find(self.store, f"{number:032x}")
        assert found is not None
        return found

    async def run(self, until: int) -> list[Delivery]:
        return await run_due(self.courier, self.office, until=until)


def ended(number: int, url: str, *, fault: str = "", ends_at: int | None = END) -> Prediction:
    begin = Event(at=START, status=Status.CREATED)
    end = () if ends_at is None else (Event(at=ends_at, status=Status.COMPLETED),)
    return Prediction(
        id=f"{number:032x}",
        model="wavespeed-ai/flux-dev-lora",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=START,
        events=(begin, *end),
        fault=read_fault(fault, what="test") if fault else None,
        webhook=url,
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(WAIT):
            return await work

    return asyncio.run(bounded())


def planned(fault: str = "", **more: Any) -> Delivery:
    prediction = ended(1, "http://127.0.0.1/", fault=fault, **more)
    delivery = deliveries.scheduled(prediction, "http://mock.test", prediction.fault, now=START)
    assert delivery is not None
    return delivery


def tried(status: int, at: int = END, **more: Any) -> Attempt:
    return Attempt(at=at, status=status, webhook_id="w", timestamp=at // 1000, **more)


# When something is due


def test_nothing_is_scheduled_without_a_webhook() -> None:
    assert deliveries.scheduled(ended(1, ""), "http://mock.test", now=START) is None


def test_nothing_is_scheduled_while_no_end_is_in_sight() -> None:
    endless = ended(1, "http://127.0.0.1/", ends_at=None)
    assert deliveries.scheduled(endless, "http://mock.test", now=START) is None


def test_the_end_of_a_prediction_is_when_it_is_reported() -> None:
    delivery = planned()
    assert (delivery.due, delivery.state, delivery.base) == (END, "pending", "http://mock.test")


@pytest.mark.parametrize(
    ("fault", "due"),
    [
        ("late", END + 60_000),
        ("late; seconds=90s", END + 90_000),
        ("out-of-order", END + 60_000),
        ("lost", None),
    ],
)
def test_a_fault_moves_the_date(fault: str, due: int | None) -> None:
    assert planned(fault).due == due


def test_another_end_is_reported_with_the_same_delay() -> None:
    late = planned("late; seconds=5s")
    moved = deliveries.rescheduled(late, ended(1, "http://127.0.0.1/", ends_at=END + 1000))
    assert moved is not None
    assert (moved.ended_at, moved.due) == (END + 1000, END + 6000)


def test_a_delivery_of_what_will_not_end_is_taken_back(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.take_back(store, planned().prediction)
    assert deliveries.find(store, planned().prediction) is None


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_the_end(status: int) -> None:
    after = deliveries.attempted(planned(), tried(status))
    assert (after.state, after.due, len(after.attempts)) == ("delivered", None, 1)


@pytest.mark.parametrize("status", [0, 100, 301, 302, 307, 400, 401, 404, 410, 429, 500, 503])
def test_anything_else_is_tried_three_times_more_after_longer_and_longer_pauses(status: int) -> None:
    delivery, pauses = planned(), []
    for _ in range(3):
        at = delivery.due or 0
        delivery = deliveries.attempted(delivery, tried(status, at))
        pauses.append((delivery.due or 0) - at)
    assert pauses == [1000, 2000, 4000]
    given_up = deliveries.attempted(delivery, tried(status, delivery.due or 0))
    assert (given_up.state, given_up.due, len(given_up.attempts)) == ("failed", None, 4)


def test_what_may_not_be_called_is_not_tried_again() -> None:
    assert deliveries.attempted(planned(), tried(0, refused=True)).state == "refused"


def test_a_duplicate_comes_twice_and_each_time_has_its_retries() -> None:
    delivery = planned("duplicate")
    for status in (500, 500, 500, 200, 500, 500, 500):
        delivery = deliveries.attempted(delivery, tried(status, delivery.due or 0))
        assert delivery.state == "pending"
    assert deliveries.attempted(delivery, tried(200, delivery.due or 0)).state == "delivered"


@pytest.mark.parametrize("fault", ["lost", "stale", "bad-signature", "late", "duplicate", "out-of-order", ""])
def test_a_redelivery_has_the_same_id_and_no_fault(fault: str) -> None:
    before = planned(fault)
    after = deliveries.redelivered(before, END + 7)
    assert (after.webhook_id, after.due, after.state) == (before.webhook_id, END + 7, "pending")
    assert (after.fault, after.held, after.copies, after.failures) == ("", False, 1, 0)


# What is kept


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: Store = (
        MemoryStore(keep=1000, keep_bytes=1 << 30)
        if request.param == "memory"
        else SqlStore(f"sqlite:///{tmp_path}/mock.db")
    )
    yield made
    made.close()


def test_what_is_kept_is_found_and_equal(store: Store) -> None:
    delivery = deliveries.attempted(planned("duplicate"), tried(500, note="é"))
    deliveries.keep(store, delivery)
    assert deliveries.find(store, delivery.prediction) == delivery
    assert deliveries.find(store, "0" * 32) is None


def test_what_is_due_first_comes_first(store: Store) -> None:
    bench = Bench(store=store)
    for number, ends_at in ((1, END + 10), (2, END + 9), (3, END + 100)):
        bench.add(number, "http://127.0.0.1/", ends_at=ends_at)
    first = deliveries.due(store, END + 50)
    assert first is not None
    assert first.due == END + 9
    assert [delivery.ended_at - END for delivery in deliveries.all_of(store)] == [9, 10, 100]


def test_what_is_due_later_is_not_due(store: Store) -> None:
    Bench(store=store).add(1, "http://127.0.0.1/")
    assert deliveries.due(store, END - 1) is None
    assert deliveries.due(store, END) is not None
    assert deliveries.due(store) is not None


def test_a_prediction_whose_end_was_moved_is_reported_then(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.keep(store, planned(ends_at=END + 500))
    assert deliveries.due(store, END + 499) is None
    assert deliveries.due(store, END + 500) == planned(ends_at=END + 500)


def test_what_has_been_tried_is_not_scheduled_anew(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.settle(store, planned(), tried(200))
    deliveries.keep(store, planned(ends_at=END + 500))
    assert deliveries.due(store) is None


def test_only_one_can_take_a_delivery(store: Store) -> None:
    deliveries.keep(store, planned())
    taken = deliveries.take(store, planned(), now=1000, until=2000)
    assert taken is not None
    assert deliveries.take(store, planned(), now=1999, until=3000) is None
    assert deliveries.take(store, planned(), now=2000, until=3000) is not None


def test_what_is_given_back_can_be_taken(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.take(store, planned(), now=1000, until=2000)
    deliveries.give_back(store, planned().prediction)
    assert deliveries.take(store, planned(), now=1000, until=2000) is not None


def test_what_has_been_settled_meanwhile_cannot_be_taken(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.settle(store, planned(), tried(500))
    assert deliveries.take(store, planned(), now=1000, until=2000) is None


def test_a_redelivery_at_the_very_moment_of_the_first_is_in_the_queue(store: Store) -> None:
    deliveries.keep(store, planned())
    deliveries.settle(store, planned(), tried(200))
    assert deliveries.due(store) is None
    deliveries.redeliver(store, planned().prediction, END)
    assert deliveries.due(store, END) is not None


def test_a_redelivery_is_not_swept_away_with_what_went_before() -> None:
    class Interrupted(MemoryStore):
        armed = False

        def note(self, kind: str, key: str) -> bytes | None:
            found = super().note(kind, key)
            if self.armed:
                self.armed = False
                deliveries.redeliver(self, key, END)
            return found

    store = Interrupted(keep=10, keep_bytes=1 << 20)
    deliveries.keep(store, planned())
    deliveries.settle(store, planned(), tried(200))
    store.armed = True
    assert deliveries.due(store, END) is not None


def test_there_is_no_redelivery_of_nothing(store: Store) -> None:
    assert deliveries.redeliver(store, "0" * 32, END) is None


def test_after_a_stop_what_was_overdue_is_due_now_and_the_rest_when_it_was(store: Store) -> None:
    bench = Bench(store=store)
    bench.add(1, "http://127.0.0.1/")
    bench.add(2, "http://127.0.0.1/", ends_at=END + 90_000)
    bench.add(3, "http://127.0.0.1/", fault="lost")
    for key, _ in store.notes("delivery-due"):  # as if the process had ended before it wrote these
        store.change_note("delivery-due", key, lambda _: None)
    deliveries.recover(store, END + 60_000)
    assert [bench.now(number).due for number in (1, 2, 3)] == [END + 60_000, END + 90_000, None]
    first = deliveries.due(store)
    assert first is not None
    assert first.prediction == bench.now(1).prediction


# What is sent


def test_a_webhook_is_the_payload_signed_by_the_documented_rule() -> None:
    async def story() -> None:
        async with receiver() as there:
            bench = Bench()
            url = f"http://127.0.0.1:{there.port}/hook?x=1"
            bench.add(1, url)
            [sent] = await bench.run(END)
            [got] = there.got
            assert got.line == "POST /hook?x=1 HTTP/1.1"
            assert json.loads(got.body) == {"id": sent.prediction, "base": "http://mock.test", "webhook": url}
            assert got.headers["content-type"] == "application/json"
            assert got.headers["webhook-timestamp"] == str(END // 1000)
            assert got.headers["webhook-id"] == sent.webhook_id
            assert got.believed()
            assert sent.state == bench.now(1).state == "delivered"
            assert sent.attempts[-1].signature == got.headers["webhook-signature"]

    run(story())


def test_a_receiver_that_fails_twice_is_tried_again_on_the_clock() -> None:
    async def story() -> None:
        async with receiver(FAILED, FAILED) as there:
            bench = Bench()
            bench.add(1, f"http://127.0.0.1:{there.port}/")
            assert await bench.run(END - 1) == []
            assert [each.state for each in await bench.run(END + 999)] == ["pending"]
            assert [each.state for each in await bench.run(END + 3000)] == ["pending", "delivered"]
            assert [each.headers["webhook-timestamp"] for each in there.got] == [
                str((END + pause) // 1000) for pause in (0, 1000, 3000)
            ]
            assert len({each.headers["webhook-id"] for each in there.got}) == 1
            assert len({each.headers["webhook-signature"] for each in there.got}) == 3
            assert all(each.believed() for each in there.got)
            assert [each.status for each in bench.now(1).attempts] == [500, 500, 200]
            assert bench.now(1).attempts[0].note == "The receiver answered 500: no !"

    run(story())


def test_a_receiver_that_always_fails_is_given_up_after_four_attempts() -> None:
    async def story() -> None:
        async with receiver(*[FAILED] * 9) as there:
            bench = Bench()
            bench.add(1, f"http://127.0.0.1:{there.port}/")
            assert len(await bench.run(END + 10**9)) == len(there.got) == 4
            assert bench.now(1).state == "failed"

    run(story())


def test_all_are_sent_in_the_order_of_their_dates_with_retries_between_them() -> None:
    async def story() -> None:
        async with receiver(FAILED) as there:
            bench = Bench()
            for number, ends_at in ((1, END), (3, END + 1500), (2, END + 500)):
                bench.add(number, f"http://127.0.0.1:{there.port}/", ends_at=ends_at)
            await bench.run(END + 5000)
            assert [int(each.prediction, 16) for each in there.got] == [1, 2, 1, 3]

    run(story())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_nothing_else_is_connected_to(status: int) -> None:
    async def story() -> None:
        asked = []

        async def lookup(host: str, _port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        async with receiver() as elsewhere:
            redirect = f"HTTP/1.1 {status} Go\r\nContent-Length: 0\r\nLocation: "
            answers = [
                f"{redirect}http://{target}\r\n\r\n"
                for target in (
                    "169.254.169.254/latest/meta-data/",
                    f"127.0.0.1:{elsewhere.port}/",
                    "other.test/",
                )
            ]
            async with receiver(*answers) as there:
                bench = Bench(lookup=lookup)
                bench.add(1, f"http://hook.test:{there.port}/")
                sent = await bench.run(END + 3000)
                assert [each.attempts[-1].status for each in sent] == [status] * 3
                assert "redirects are not followed" in sent[0].attempts[-1].note
                assert elsewhere.got == []
                assert asked == ["hook.test"] * 3

    run(story())


def test_a_name_is_looked_up_once_for_each_attempt_and_that_address_is_connected_to() -> None:
    async def story() -> None:
        asked = []

        async def lookup(host: str, port: int) -> list[str]:
            asked.append((host, port))
            return ["127.0.0.1"] if len(asked) < 3 else ["10.0.0.1"]

        async with receiver(FAILED) as there:
            bench = Bench(lookup=lookup)
            bench.add(1, f"http://rebound.test:{there.port}/")
            await bench.run(END + 1000)
            assert asked == [("rebound.test", there.port)] * 2
            assert [each.headers["host"] for each in there.got] == [f"rebound.test:{there.port}"] * 2
            deliveries.redeliver(bench.store, bench.now(1).prediction, END + 2000)
            [sent] = await bench.run(END + 2000)
            assert (sent.state, len(there.got)) == ("refused", 2)

    run(story())


def test_a_name_that_is_public_and_private_at_once_is_not_called() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.1"]

    async def story() -> None:
        async with receiver() as there:
            bench = Bench(lookup=lookup, allowed=replace(THIS_MACHINE, hosts=frozenset({"two.test"})))
            bench.add(1, f"http://two.test:{there.port}/")
            [sent] = await bench.run(END)
            assert (sent.state, there.got) == ("refused", [])
            assert "--webhook-to 10.0.0.1" in sent.attempts[-1].note
            assert sent.attempts[-1].signature == ""

    run(story())


def test_of_two_addresses_the_one_that_listens_is_used() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return ["127.66.66.66", "127.0.0.1"]

    async def story() -> None:
        async with receiver() as there:
            bench = Bench(lookup=lookup)
            bench.add(1, f"http://localhost:{there.port}/")
            [sent] = await bench.run(END)
            assert (sent.state, len(there.got)) == ("delivered", 1)

    run(story())


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with receiver() as proxy, receiver() as there:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            bench = Bench()
            bench.add(1, f"http://127.0.0.1:{there.port}/")
            await bench.run(END)
            assert (len(proxy.got), len(there.got)) == (0, 1)

    run(story())


async def attempt(bench: Bench, url: str) -> Attempt:
    return await send(bench.courier, bench.office, replace(planned(), url=url), ended(1, url))


@pytest.mark.parametrize("answer", [None, OK[:20], "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nno"])
def test_an_answer_that_does_not_end_does_not_hold_anybody_up(answer: str | None) -> None:
    async def story() -> None:
        async with receiver(answer) as there:
            made = await attempt(Bench(seconds=0.5), f"http://127.0.0.1:{there.port}/")
            assert (made.status, made.note[:25]) == (0, "There was no whole answer")

    run(story())


def test_a_lookup_that_hangs_does_not_hold_anybody_up() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    made = run(attempt(Bench(seconds=0.05, lookup=lookup), "http://slow.test/"))
    assert (made.status, made.note) == (0, "There was no whole answer within 0.05 s.")


def test_an_endless_answer_is_read_to_a_limit() -> None:
    async def story() -> None:
        async with receiver("HTTP/1.1 500 Oh\r\n\r\n" + "x" * 100_000) as there:
            there.endless = True
            made = await attempt(Bench(seconds=5), f"http://127.0.0.1:{there.port}/")
            assert made.note == f"The receiver answered 500: {'x' * 200}"

    run(story())


@pytest.mark.parametrize(
    "answer", ["garbage\r\n\r\n", "HTTP/1.1 999999 No\r\n\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n", ""]
)
def test_an_answer_that_is_none_is_told_in_one_line(answer: str) -> None:
    async def story() -> None:
        async with receiver(answer) as there:
            made = await attempt(Bench(), f"http://127.0.0.1:{there.port}/")
            assert made.status == 0
            assert made.note.startswith("There was no whole answer: ")
            assert made.note.count("\n") == 0

    run(story())


def test_a_receiver_that_is_not_there_is_told() -> None:
    async def story() -> None:
        with socket.socket() as nobody:  # it keeps others from the port, and does not listen
            nobody.bind(("127.0.0.1", 0))
            made = await attempt(Bench(), f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        assert (made.status, made.note[:26]) == (0, "There was no whole answer:")

    run(story())


def test_a_name_without_an_address_is_told_and_tried_again() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return []

    async def story() -> None:
        bench = Bench(lookup=lookup)
        bench.add(1, "http://nowhere.test/")
        [sent] = await bench.run(END)
        assert sent.state == "pending"
        assert "nowhere.test has no address" in sent.attempts[-1].note

    run(story())


def test_a_receiver_that_does_not_speak_tls_does_not_hold_anybody_up() -> None:
    async def story() -> None:
        async with receiver("nothing") as there:
            made = await attempt(Bench(seconds=0.6), f"https://127.0.0.1:{there.port}/")
            assert (made.status, made.note[:26]) == (0, "There was no whole answer:")

    run(story())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for("hook.test", tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(("host", "state"), [("hook.test", "delivered"), ("other.test", "pending")])
def test_tls_is_checked_by_the_name_though_the_address_is_pinned(
    certificate: Path, host: str, state: str
) -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async def story() -> None:
        names: list[str | None] = []
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        tls.sni_callback = lambda _socket, name, _context: names.append(name)
        async with receiver(tls=tls) as there:
            bench = Bench(
                lookup=lookup, trust=lambda: ssl.create_default_context(cafile=f"{certificate}.crt")
            )
            bench.add(1, f"https://{host}:{there.port}/")
            [sent] = await bench.run(END)
            assert (sent.state, names) == (state, [host])

    run(story())


def test_a_body_that_cannot_be_made_is_a_failed_attempt() -> None:
    def broken(_prediction: Prediction, _delivery: Delivery) -> bytes:
        raise KeyError("outputs")

    made = run(attempt(Bench(payload=broken), "http://127.0.0.1:9/"))
    assert (made.status, made.note) == (0, "The body could not be made: KeyError: 'outputs'.")


def test_a_prediction_that_is_no_more_is_not_reported() -> None:
    async def story() -> None:
        bench = Bench()
        deliveries.keep(bench.store, planned())
        assert await bench.run(END) == []
        assert deliveries.all_of(bench.store) == []

    run(story())


def test_a_prediction_that_has_not_ended_after_all_is_reported_when_it_does() -> None:
    async def story() -> None:
        async with receiver() as there:
            bench = Bench()
            bench.add(1, f"http://127.0.0.1:{there.port}/", ends_at=END + 900)
            deliveries.keep(bench.store, replace(bench.now(1), due=END, ended_at=END))
            assert await bench.run(END + 899) == []
            assert len(await bench.run(END + 900)) == 1

    run(story())


# Faults


async def faulty(there: Receiver, fault: str, until: int = END) -> Bench:
    bench = Bench()
    bench.add(1, f"http://127.0.0.1:{there.port}/", fault=fault)
    await bench.run(until)
    return bench


def story_of(work: Callable[[Receiver], Awaitable[None]], *answers: str) -> None:
    async def story() -> None:
        async with receiver(*answers) as there:
            await work(there)

    run(story())


def test_a_duplicate_is_sent_twice_with_one_id() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "duplicate")
        assert len(there.got) == 2
        assert there.got[0] == there.got[1]
        assert bench.now(1).state == "delivered"

    story_of(work)


def test_a_late_one_is_sent_late_and_dated_then() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "late; seconds=90s", END + 89_999)
        assert there.got == []
        await bench.run(END + 90_000)
        assert there.got[0].headers["webhook-timestamp"] == str(END // 1000 + 90)
        assert there.got[0].believed()

    story_of(work)


def test_a_stale_one_is_ten_minutes_old_and_signed() -> None:
    async def work(there: Receiver) -> None:
        await faulty(there, "stale")
        assert there.got[0].headers["webhook-timestamp"] == str(END // 1000 - 600)
        assert there.got[0].believed()

    story_of(work)


def test_a_bad_signature_is_another_secrets_at_every_attempt() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "bad-signature", END + 1000)
        assert [each.believed() for each in there.got] == [False, False]
        assert {each.headers["webhook-signature"][:3] for each in there.got} == {"v3,"}
        assert [each.fault for each in bench.now(1).attempts] == ["bad-signature"] * 2

    story_of(work, FAILED)


def test_a_lost_one_is_never_sent_until_it_is_redelivered() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "lost", END + 10**9)
        assert (there.got, bench.now(1).state) == ([], "lost")
        deliveries.redeliver(bench.store, bench.now(1).prediction, END)
        await bench.run(END)
        assert there.got[0].believed()

    story_of(work)


def test_one_out_of_order_waits_for_a_later_one() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "out-of-order", END)
        for number, later in ((2, -1000), (3, 2000), (4, 3000)):
            bench.add(number, f"http://127.0.0.1:{there.port}/", ends_at=END + later)
        await bench.run(END + 10_000)
        assert [int(each.prediction, 16) for each in there.got] == [2, 3, 1, 4]
        assert there.got[2].headers["webhook-timestamp"] == str((END + 2000) // 1000)

    story_of(work)


def test_one_out_of_order_waits_for_one_that_was_received() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "out-of-order", END)
        bench.add(2, f"http://127.0.0.1:{there.port}/", ends_at=END + 2000)
        await bench.run(END + 10_000)
        assert [int(each.prediction, 16) for each in there.got] == [2, 2, 1]

    story_of(work, FAILED)


def test_one_out_of_order_waits_a_minute_where_nothing_follows() -> None:
    async def work(there: Receiver) -> None:
        bench = await faulty(there, "out-of-order", END + 59_999)
        assert there.got == []
        await bench.run(END + 60_000)
        assert len(there.got) == 1

    story_of(work)


# In the background


@asynccontextmanager
async def background(bench: Bench, bell: Bell) -> AsyncIterator[list[Office]]:
    """Runs the loop; what it gives grows with every look for sessions."""
    looks: list[Office] = []

    def offices() -> list[Office]:
        looks.append(bench.office)
        return looks[-1:]

    task = asyncio.create_task(serve_forever(bench.courier, offices, bell))
    try:
        yield looks
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) <= 2  # this one, and that of the time limit around it


async def delivered(bench: Bench) -> None:
    """Waits until the delivery of the first prediction has been received."""
    while bench.now(1).state != "delivered":  # noqa: ASYNC110 - a store has no events
        await asyncio.sleep(0.01)


def test_what_falls_due_is_sent_as_the_clock_runs() -> None:
    async def work(there: Receiver) -> None:
        bench, bell = Bench(), Bell()
        async with background(bench, bell):
            bench.add(1, f"http://127.0.0.1:{there.port}/")
            threading.Thread(target=bell.wake).start()
            for _ in range(5):
                await asyncio.sleep(0)
            assert there.got == []
            bench.clock.advance(END - START)  # nobody rings for that
            await there.wait(1)
            await delivered(bench)

    story_of(work)


def test_what_rang_before_anybody_listened_is_heard() -> None:
    async def work(there: Receiver) -> None:
        bench, bell = Bench(), Bell()
        bench.clock.advance(END - START)
        bench.add(1, f"http://127.0.0.1:{there.port}/")
        bell.wake()
        async with background(bench, bell):
            await there.wait(1)

    story_of(work)


def test_a_bell_of_a_loop_that_is_closed_does_no_harm() -> None:
    bell = Bell()

    async def listen() -> None:
        bell.wake()
        await bell.wait()

    run(listen())
    bell.wake()


def test_nobody_is_at_work_while_nothing_is_pending() -> None:
    async def work(there: Receiver) -> None:
        bench, bell = Bench(), Bell()
        bench.clock.advance(END - START)
        bench.add(1, f"http://127.0.0.1:{there.port}/")
        async with background(bench, bell):
            await there.wait(1)
            while len(asyncio.all_tasks()) > 2:  # noqa: ASYNC110 - this one, and the one that listens to the bell
                await asyncio.sleep(0.01)
            bench.add(2, f"http://127.0.0.1:{there.port}/")
            bell.wake()
            await there.wait(2)

    story_of(work)


def test_a_failure_of_the_store_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_server.webhooks.service._PAUSE_SECONDS", 0)

    class Locked(MemoryStore):
        failures = 3

        def notes(self, kind: str, *, after: str = "", limit: int | None = None) -> list[tuple[str, bytes]]:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("locked")
            return super().notes(kind, after=after, limit=limit)

    async def work(there: Receiver) -> None:
        bench, bell = Bench(store=Locked(keep=10, keep_bytes=1 << 20)), Bell()
        bench.clock.advance(END - START)
        bench.add(1, f"http://127.0.0.1:{there.port}/")
        async with background(bench, bell):
            await there.wait(1)

    story_of(work)


def test_it_ends_in_the_middle_of_a_request_and_gives_the_delivery_back() -> None:
    async def story() -> None:
        async with receiver(None) as there:
            bench, bell = Bench(), Bell()
            bench.clock.advance(END - START)
            bench.add(1, f"http://127.0.0.1:{there.port}/")
            async with background(bench, bell) as looks:
                await there.wait(1)
                bell.wake()
                while len(looks) < 3:  # noqa: ASYNC110 - at the start, for what is due, and for the bell
                    await asyncio.sleep(0.01)
                for _ in range(5):
                    await asyncio.sleep(0)
                assert bench.now(1).taken > 0
            assert (bench.now(1).taken, bench.now(1).attempts, bench.now(1).state) == (0, (), "pending")

    run(story())


def test_two_who_send_at_once_send_each_only_once() -> None:
    async def work(there: Receiver) -> None:
        bench = Bench()
        for number in range(1, 6):
            bench.add(number, f"http://127.0.0.1:{there.port}/", ends_at=END + number)
        await asyncio.gather(*(bench.run(END + 10) for _ in range(3)))
        assert [int(each.prediction, 16) for each in there.got] == [1, 2, 3, 4, 5]

    story_of(work)


def test_a_receiver_that_hangs_holds_up_its_own_session_only() -> None:
    async def story() -> None:
        async with receiver(None) as hanging, receiver() as there:
            bench, other, bell = Bench(), Bench(), Bell()
            for each, port in ((bench, hanging.port), (other, there.port)):
                each.clock.advance(END - START)
                each.add(1, f"http://127.0.0.1:{port}/")
            offices = [bench.office, replace(other.office, name="other")]
            task = asyncio.create_task(serve_forever(bench.courier, lambda: offices, bell))
            await hanging.wait(1)
            await there.wait(1)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    run(story())
