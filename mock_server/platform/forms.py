"""Request bodies that are no JSON: raw bytes, and forms with one file in them, read as they come in."""

import logging
from collections.abc import AsyncIterator

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.types import Receive, Scope

from mock_server.body import ClientGone, header
from mock_server.errors import Refusal

_NOBODY = logging.Logger("nobody", logging.CRITICAL)  # noqa: LOG001 - one that nobody else gets hold of
_MOST_PARTS = 20
_ROOM_FOR_FORM = 64 * 1024


async def pieces(scope: Scope, receive: Receive, *, limit: int) -> AsyncIterator[bytes]:
    """A body as it comes in.

    Raises Refusal 413 as soon as it is known to be longer than `limit` bytes, ClientGone when the client
    left.
    """
    too_large = Refusal(413, f"The body is larger than the {limit} bytes that may come here.")
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(body)
        if size > limit:
            raise too_large
        if body:
            yield body


class FormFile:
    """The one part named `file` of a form: its bytes as they come in, and, once they have, its `filename`.

    Raises Refusal 415 where the body is said to be something else, and 400 where the form has no boundary.
    """

    def __init__(self, scope: Scope) -> None:
        self.filename = ""
        kind, options = parse_options_header(header(scope, b"content-type"))
        if kind.strip() != b"multipart/form-data" or header(scope, b"content-encoding").strip():
            said = repr(header(scope, b"content-type").decode("latin-1")[:80])
            raise Refusal(
                415, f"The body has to be multipart/form-data, uncompressed; Content-Type says {said}."
            )
        self._files = self._parts = 0
        self._inside = self._complete = False
        self._field = self._value = self._disposition = b""
        self._held: list[bytes] = []
        try:
            self._parser = MultipartParser(
                options.get(b"boundary") or _refuse("it names no boundary"),
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_field,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            _refuse(str(error), error)
        # It warns of each bad form, which the client is told about anyway.
        self._parser.logger = _NOBODY

    async def content(self, scope: Scope, receive: Receive, *, limit: int) -> AsyncIterator[bytes]:
        """The file's bytes. Raises Refusal 400 where the form is not one, or has no file or several."""
        size = 0
        async for piece in pieces(scope, receive, limit=limit + _ROOM_FOR_FORM):
            try:
                self._parser.write(piece)
            except FormParserError as error:
                _refuse(str(error), error)
            for each in self._held:
                size += len(each)
                if size > limit:
                    raise Refusal(413, f"The file is larger than the {limit} bytes that this server takes.")
                yield each
            self._held.clear()
        if not self._complete:
            _refuse("it breaks off before its last boundary")
        if not self._files:
            _refuse("it has no part named file")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            _refuse(f"it has more than {_MOST_PARTS} parts")
        self._inside, self._disposition = False, b""

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.strip().lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._inside = options.get(b"name") == b"file"
        if not self._inside:
            return
        self._files += 1
        if self._files > 1:
            _refuse("it has two parts named file; one file is taken at a time")
        self.filename = options.get(b"filename", b"").decode(errors="replace")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._held.append(data[start:end])

    def _end(self) -> None:
        self._complete = True


def _refuse(what: str, cause: Exception | None = None) -> bytes:
    raise Refusal(400, f"The form cannot be read: {what}.") from cause
