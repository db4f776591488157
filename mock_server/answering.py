"""Sends answers: as usual, or cut off, dripping, late, never."""

from typing import NoReturn

from starlette.types import Receive, Scope, Send

from mock_server.desk import Answer, Desk, visit_of, wait, wait_until

END_CONNECTION = "wavemock.end-connection"
"""The extension of a scope that holds, weakly, what ends its connection: with `reset`, by resetting it."""
_PIECES = 20


async def send_answer(send: Send, answer: Answer) -> None:
    """Sends an answer as usual."""
    await _begin(send, answer)
    await send({"type": "http.response.body", "body": answer.body})


async def send_in_a_manner(desk: Desk, scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    """Sends an answer as its manner has it, on the desk's clock."""
    manner = answer.manner
    kind = manner.kind if manner is not None else ""
    span = manner.span if manner is not None else 0
    if kind == "hang":
        await wait(desk, span, receive)
    if kind in {"hang", "reset"}:
        visit_of(scope).told = ""
        end_connection(scope, reset=True)
        return
    if kind == "truncate":
        visit_of(scope).told = ""
        await _begin(send, answer)
        await send(
            {
                "type": "http.response.body",
                "body": answer.body[: len(answer.body) // 2],
                "more_body": True,
            }
        )
        end_connection(scope, reset=False)
        return
    if kind == "slow":
        await _begin(send, answer)
        await _drip(desk, receive, send, answer.body, span)
        return
    await send_answer(send, answer)


async def _begin(send: Send, answer: Answer) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    headers = [(b"content-type", answer.media_type), length, *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})


async def _drip(desk: Desk, receive: Receive, send: Send, body: bytes, span: int) -> None:
    size = -(-len(body) // _PIECES)
    began: int = await desk.run(desk.clock.now)
    for number in range(_PIECES):
        moment = began + span * (number + 1) // _PIECES
        if not await wait_until(desk, moment, receive, since=began):
            return
        piece = body[number * size : (number + 1) * size]
        await send({"type": "http.response.body", "body": piece, "more_body": number < _PIECES - 1})


def end_connection(scope: Scope, *, reset: bool) -> None:
    """Closes or resets the connection; raises ConnectionError where a client in this process has none."""
    held = scope.get("extensions", {}).get(END_CONNECTION)
    if held is None:
        _without_a_connection(reset=reset)
    end = held()
    if end is not None:  # else it has gone already
        end(reset=reset)


def _without_a_connection(*, reset: bool) -> NoReturn:
    """What a client in the same process meets with, since there is no socket to close."""
    raise ConnectionResetError("reset by a fault") if reset else ConnectionError("closed by a fault")
