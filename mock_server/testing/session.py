"""One test's own world on a server: what the fixture `wavemock` gives."""

import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from mock_server.testing import checks
from mock_server.testing.control import AGENT, Control, WavemockError
from mock_server.testing.records import (
    ArmedFault,
    ClockEvent,
    ReceivedRequest,
    SimulatedTask,
    event_of,
    request_of,
    task_of,
)
from mock_server.testing.starting import WavemockServer

_PAGE = 1000
_LONGEST = 40


class Mover(Protocol):
    """Whoever moves the session's clock and the client's in step."""

    def advance(self, by: float | str) -> tuple[ClockEvent, ...]:
        """Moves both, and tells what that made happen."""
        ...


def session_name(test: str) -> str:
    """A name for the session of a test that no other test has, even of the same name on the same server."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", test)[:_LONGEST].strip("-")
    return f"{readable or 'test'}-{secrets.token_hex(4)}"


class Wavemock:
    """A session on a mock server: its own tasks, journal, faults, account and clock; no other test sees it.

    Give the client under test `url` as its base URL, or `key` as its API key; one of them is enough. All
    methods raise WavemockError with the server's words where the server refuses. Threads may share it.
    """

    def __init__(self, server: WavemockServer, name: str) -> None:
        self.name = name
        self.server = server
        self.url = f"{server.url}/_session/{name}"
        self.key = f"ms_{name}"
        self.mover: Mover | None = None
        self._control = Control(self.url, token=server.token)

    def __repr__(self) -> str:
        return f"Wavemock({self.url!r})"

    @property
    def env(self) -> dict[str, str]:
        """Variables for a client in another process or language; nothing is set in this one.

        The Python SDK 2.0.5 reads WAVESPEED_API_KEY alone, once, at its import; its base_url has to be given
        to `wavespeed.Client`, or set as `wavespeed.config.api.base_url`.
        """
        return {"WAVESPEED_API_KEY": self.key, "WAVESPEED_BASE_URL": self.url}

    # What came in.

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request of the client, oldest first."""
        rows: list[Mapping[str, Any]] = []
        after = 0
        while page := self._get(f"requests?after={after}&limit={_PAGE}"):
            rows += page["requests"]
            if len(page["requests"]) < _PAGE:
                break
            after = page["last"]
        theirs = [each for each in rows if each["agent"] != AGENT]
        models = {each.id: each.model for each in self.predictions} if theirs else {}
        return [request_of(each, models) for each in theirs]

    @property
    def predictions(self) -> list[SimulatedTask]:
        """Every task of the session, oldest first."""
        rows: list[Mapping[str, Any]] = []
        page = self._get(f"predictions?limit={_PAGE}")["predictions"]
        while page:
            rows += page
            full = len(page) == _PAGE
            page = (
                self._get(f"predictions?limit={_PAGE}&before={page[-1]['id']}")["predictions"] if full else []
            )
        return [task_of(each) for each in reversed(rows)]

    @property
    def ledger(self) -> dict[str, Any]:
        """What was accepted, accepted twice, charged, and never fetched."""
        return dict(self._get("ledger"))

    @property
    def audit(self) -> list[dict[str, Any]]:
        """What the client did that it had better not, notes included, the gravest first."""
        return list(self._get("audit")["findings"])

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The webhooks that the server has sent and will send, with every try."""
        return list(self._get("webhooks")["webhooks"])

    def prediction(self, prediction_id: str) -> SimulatedTask:
        """One task from the inside."""
        return task_of(self._get(f"predictions/{quote(prediction_id, safe='')}"))

    # What happens to it.

    def scenario(self, scenario: str, *, model: str = "", times: int | None = None) -> None:
        """How tasks go that are submitted from now on: `slow`, `failed; error="out of memory"`.

        Of one `model` or of all, for so many `times` or until the test ends.
        """
        wanted: dict[str, Any] = {"scenario": scenario}
        if model:
            wanted["model"] = model
        if times is not None:
            wanted["times"] = times
        self._post("scenario", wanted)

    def fault(self, fault: str) -> ArmedFault:
        """Arms a fault: `503; on=poll; times=2`. In a `with` it is disarmed at the end of the block."""
        armed = self._post("faults", {"fault": fault})
        return ArmedFault(fault_id=armed["id"], text=armed["fault"], disarm=self._disarm)

    def account(self, *, level: str | None = None, balance: float | None = None) -> dict[str, Any]:
        """Sets the level (bronze, silver, gold, ultra; empty: no limits) and the credit in US dollars."""
        change = {"level": level, "balance": balance}
        return dict(self._post("account", {name: it for name, it in change.items() if it is not None}))

    def complete(self, prediction_id: str) -> SimulatedTask:
        """Completes a task now, whatever lay ahead of it."""
        return self._end(prediction_id, {"to": "completed"})

    def fail(self, prediction_id: str, error: str = "") -> SimulatedTask:
        """Fails a task now, whatever lay ahead of it."""
        return self._end(prediction_id, {"to": "failed", **({"error": error} if error else {})})

    def reset(self) -> None:
        """Forgets all of the session, and lets its clock run as the machine's. A test's end does it too."""
        self._only_without_virtual_time("reset")
        self._post("reset")

    # Its time.

    def advance(self, by: float | str) -> tuple[ClockEvent, ...]:
        """Moves the session's time ahead, by seconds or by `500ms`, `30s`, `5m`; tells what that made happen.

        In a test with `virtual_time`, the client's time moves with it.
        """
        return self.mover.advance(by) if self.mover else self.move_clock(by)

    def freeze(self) -> None:
        """Lets the session's time stand still until it is advanced or resumed."""
        self._post("clock", {"freeze": True})

    def resume(self) -> None:
        """Lets the session's time run again."""
        self._only_without_virtual_time("resume")
        self._post("clock", {"resume": True})

    def speed(self, factor: float) -> None:
        """Makes the session's time run so many times as fast as the machine's."""
        self._only_without_virtual_time("speed")
        self._post("clock", {"speed": factor})

    def move_clock(self, by: float | str) -> tuple[ClockEvent, ...]:
        """Moves the session's time alone, whatever else is in step with it."""
        return tuple(event_of(each) for each in self._post("clock", {"advance": by})["events"])

    def read_clock(self) -> str:
        """The session's time, as the server writes it."""
        return str(self._get("clock")["now"])

    # What must be so.

    def assert_called(self, *, times: int | None = None, **wanted: Any) -> tuple[ReceivedRequest, ...]:
        """That requests came in, exactly so many `times` where given, and which those were.

        `wanted` are fields of ReceivedRequest: model, kind, method, path, status, prediction, told, others.
        Of a model, the part behind the last slash is enough.
        """
        __tracebackhide__ = True
        unknown = set(wanted) - set(ReceivedRequest.__dataclass_fields__)
        if unknown:
            raise TypeError(
                f"a request has no {sorted(unknown)}; it has {[*ReceivedRequest.__dataclass_fields__]}"
            )
        requests = self.requests
        if said := checks.uncalled(requests, wanted, times):
            raise AssertionError(said)
        return checks.matching(requests, wanted)

    def assert_charged(self, *, times: int = 1) -> None:
        """That exactly so many tasks were accepted: whatever came of them and the answers, they are paid."""
        __tracebackhide__ = True
        if said := checks.uncharged(self.ledger, times):
            raise AssertionError(said)

    def assert_good_citizen(self, *, allow: Collection[str] = ()) -> None:
        """That the audit finds nothing but notes, and what `allow` names: `{"polled-too-fast"}`."""
        __tracebackhide__ = True
        if isinstance(allow, str):
            raise TypeError(f"allow={allow!r}: write a set of rules, {{{allow!r}}}")
        if said := checks.misbehaved(self.audit, set(allow)):
            raise AssertionError(said)

    def close(self) -> None:
        """Forgets all of the session and lets go of the server."""
        try:
            self._post("reset")
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Ends the connection to the server, and leaves the session as it is."""
        self._control.close()

    def webhook_secret(self) -> str:
        """What the session's webhooks are signed with."""
        return str(self._control.call("GET", "/api/v3/webhook/secret", key=self.key)["secret"])

    def _only_without_virtual_time(self, what: str) -> None:
        if self.mover is not None:
            raise WavemockError(
                f"{what}: virtual_time moves the clock in this test; advance it or sleep instead."
            )

    def _end(self, prediction_id: str, how: dict[str, str]) -> SimulatedTask:
        return task_of(self._post(f"predictions/{quote(prediction_id, safe='')}/advance", how))

    def _disarm(self, fault_id: str) -> None:
        armed = self._get("faults")["faults"]
        if any(each["id"] == fault_id for each in armed):
            self._control.call("DELETE", f"/_mock/faults/{quote(fault_id, safe='')}")

    def _get(self, what: str) -> Any:
        return self._control.call("GET", f"/_mock/{what}")

    def _post(self, what: str, body: Any = None) -> Any:
        return self._control.call("POST", f"/_mock/{what}", body)
