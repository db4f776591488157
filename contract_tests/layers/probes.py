"""Bodies, media types, keys, methods and paths as hostile and careless clients send them."""

from collections.abc import Iterator

from contract_tests.layers.raw_bytes import (
    GREETING,
    JSON,
    Address,
    Probe,
    get,
    post,
    request,
    text_field,
    with_field,
)
from contract_tests.table import Field, Model

BAD = frozenset({400, 422})
"""A body that is refused."""
TAKEN = frozenset({200})
EITHER = TAKEN | BAD
"""The standards leave room; but an answer there has to be, and no 5xx."""
_NO_JSON = "what is not JSON to the letter of RFC 8259 is refused, and a request after it is heard"
_NO_BODY_OF_IT = "JSON that is no body of this model is refused, and a request after it is heard"
_NO_CRASH = "it is refused or accepted, but nothing breaks over it"
_DEEP = 100_000


def probes(to: Address, model: Model) -> Iterator[Probe]:
    """What goes to the application itself: the refused first, then what may begin tasks."""
    found = [
        *_texts(to),
        *_values(to, model),
        *_encodings(to, model),
        *_numbers(to, model),
        *_sizes(to, model),
        *_media_types(to),
        *_keys(to),
        *_methods(to),
        *_ids(to),
    ]
    yield from sorted(found, key=lambda probe: probe.paid)


def _refused(to: Address, bodies: dict[str, bytes], says: str, *, field: str = "") -> Iterator[Probe]:
    for label, body in bodies.items():
        yield Probe(label=label, says=says, statuses=BAD, sent=post(to, body), field=field)


def _texts(to: Address) -> Iterator[Probe]:
    good, inside = to.good, to.good[:-1]
    bodies = {
        "no body": b"",
        "white space": b" \r\n\t ",
        "half an object": inside,
        "a text that does not end": good[:-2],
        "two objects": good + good,
        "a comma too many": inside + b",}",
        "a comment": inside + b"/**/}",
        "single quotes": good.replace(b'"', b"'"),
        "a key without quotes": inside + b",u:1}",
        "a value without a key": inside + b",1}",
        "a no-break space": b"\xc2\xa0" + good,
        "a form feed": b"\x0c" + good,
        "NUL behind": good + b"\x00",
        "UTF-16 with a mark": good.decode().encode("utf-16"),
        "UTF-16": good.decode().encode("utf-16-le"),
        "UTF-32": good.decode().encode("utf-32"),
        "undefined": inside + b',"u":undefined}',
        "NaN in an unknown field": inside + b',"u":[NaN]}',
        "Infinity in an unknown field": inside + b',"u":Infinity}',
        "a hexadecimal number": inside + b',"u":0x1}',
        "a number without digits before the point": inside + b',"u":.5}',
        "100 000 arrays that do not end": b"[" * _DEEP,
        "100 000 objects that do not end": b'{"a":' * _DEEP,
        "a form": b"prompt=x&seed=1",
    }
    return _refused(to, bodies, _NO_JSON)


def _values(to: Address, model: Model) -> Iterator[Probe]:
    bodies = {
        "an array": b"[]",
        "an object in an array": b"[" + to.good + b"]",
        "a text": b'"x"',
        "an integer": b"1",
        "a number": b"1.5",
        "true": b"true",
        "null": b"null",
        "100 000 arrays": b"[" * _DEEP + b"]" * _DEEP,
    }
    if any(each.required and "[]" not in each.name for each in model.request):
        bodies["an empty object"] = b"{}"
    yield from _refused(to, bodies, _NO_BODY_OF_IT)
    for label, statuses, text in [
        ("100 000 arrays in an unknown field", EITHER | {413}, b"[" * _DEEP + b"]" * _DEEP),
        ("100 000 brackets in a text", EITHER, b'"' + b"[" * _DEEP + b'"'),
        ("an unknown integer of 5000 digits", EITHER, b"9" * 5000),
        ("an unknown number beyond a double", EITHER, b"1e400"),
        ("names that JavaScript knows", EITHER, b'{"__proto__":{"x":1},"constructor":1}'),
    ]:
        body = to.good[:-1] + b',"u":' + text + b"}"
        yield Probe(label=label, says=_NO_CRASH, statuses=statuses, sent=post(to, body))
    twice = to.good[:-1] + b"," + to.good[1:]
    yield Probe(label="every key twice", says=_NO_CRASH, statuses=EITHER, sent=post(to, twice))


def _encodings(to: Address, model: Model) -> Iterator[Probe]:
    text = text_field(model)
    if text is None:
        return
    bodies = {
        "bad UTF-8": b'"\xff"',
        "overlong UTF-8": b'"\xc0\xaf"',
        "a surrogate in UTF-8": b'"\xed\xa0\x80"',
        "UTF-8 that breaks off": b'"\xe2\x82"',
        "NUL": b'"\x00"',
        "a line feed in a text": b'"a\nb"',
        "an escape that there is not": b'"\\x41"',
        "half an escape": b'"\\u12"',
    }
    yield from _refused(
        to,
        {label: with_field(to, text.name, value) for label, value in bodies.items()},
        _NO_JSON,
        field=text.name,
    )
    wrong = {
        "100 levels of arrays for a text": b"[" * 100 + b"]" * 100,
        "5000 digits for a text": b"9" * 5000,
    }
    yield from _refused(
        to,
        {label: with_field(to, text.name, value) for label, value in wrong.items()},
        _NO_BODY_OF_IT,
        field=text.name,
    )
    for label, says, statuses, value in [
        ("half a surrogate pair", _NO_CRASH, EITHER, b'"\\ud800"'),
        ("NUL escaped", _NO_CRASH, EITHER, b'"\\u0000"'),
        (
            "a surrogate pair",
            "a character beyond 16 bits is a text like any other",
            TAKEN,
            b'"\\ud83d\\ude00"',
        ),
        (
            "four bytes of UTF-8",
            "a character beyond 16 bits is a text like any other",
            TAKEN,
            b'"\xf0\x9f\x98\x80"',
        ),
    ]:
        body = with_field(to, text.name, value)
        yield Probe(label=label, says=says, statuses=statuses, sent=post(to, body), field=text.name)
    marked = b"\xef\xbb\xbf" + to.good
    yield Probe(label="a byte order mark", says=_NO_CRASH, statuses=EITHER, sent=post(to, marked))


def _first(model: Model, kind: str) -> Field | None:
    fields = (each for each in model.request if each.kind == kind and "[]" not in each.name)
    return next(fields, None)


def _numbers(to: Address, model: Model) -> Iterator[Probe]:
    huge = b"9" * 400
    kinds = {
        "integer": {
            "a leading zero": (BAD, b"01"),
            "a leading plus": (BAD, b"+1"),
            "a minus alone": (BAD, b"-"),
            "NaN for an integer": (BAD, b"NaN"),
            "an integer of 400 digits": (BAD, huge),
            "an integer of 5000 digits": (BAD, b"9" * 5000),
            "an integer of 65 bits": (BAD, b"18446744073709551616"),
            "an integer beyond a double": (BAD, b"1e400"),
        },
        "number": {
            "NaN": (BAD, b"NaN"),
            "Infinity": (BAD, b"Infinity"),
            "-Infinity": (BAD, b"-Infinity"),
            "a number beyond a double": (BAD, b"1e400"),
            "a number below a double": (BAD, b"-1e400"),
            "a number of 400 digits": (BAD, huge),
            "a fraction of 5000 digits": (EITHER, b"0." + b"1" * 5000),
            "a number next to nothing": (EITHER, b"1e-400"),
        },
    }
    for kind, cases in kinds.items():
        if (field := _first(model, kind)) is None:
            continue
        for label, (statuses, text) in cases.items():
            says = (
                _NO_CRASH if statuses == EITHER else f"it is no {kind} that the page allows, and is refused"
            )
            body = with_field(to, field.name, text)
            yield Probe(label=label, says=says, statuses=statuses, sent=post(to, body), field=field.name)


def _sizes(to: Address, model: Model) -> Iterator[Probe]:
    field = next((each for each in model.request if each.is_size), None)
    if field is None:
        return
    texts = {
        "a size and a line feed": b'"1024*1024\\n"',
        "a size in digits of another script": '"١٠٢٤*١٠٢٤"'.encode(),
        "a size of 100 000 digits": b'"' + b"1" * 100_000 + b'"',
        "a size and NUL": b'"1024*1024\\u0000"',
    }
    bodies = {label: with_field(to, field.name, text) for label, text in texts.items()}
    yield from _refused(
        to, bodies, "a size is two numbers with * between them, and nothing else", field=field.name
    )


def _media_types(to: Address) -> Iterator[Probe]:
    refused = BAD | {415}
    wrong = {
        "text/plain": b"text/plain",
        "a form by its type": b"application/x-www-form-urlencoded",
        "half a multipart form": b"multipart/form-data",
        "XML": b"application/xml",
        "a media type beyond ASCII": b"\xd0\xba",
    }
    for label, kind in wrong.items():
        sent = post(to, to.good, kind=b"Content-Type: " + kind)
        yield Probe(label=label, says="what is not declared as JSON is refused", statuses=refused, sent=sent)
    for label, line in {"gzip that is none": b"gzip", "a coding that nobody knows": b"x-none"}.items():
        sent = post(to, to.good, b"Content-Encoding: " + line)
        yield Probe(label=label, says="a body that cannot be decoded is refused", statuses=refused, sent=sent)
    for label, kind in {
        "no media type": b"",
        "an empty media type": b"Content-Type:",
        "the charset UTF-16 over UTF-8": JSON + b"; charset=utf-16",
        "a media type of 20 kB": b"Content-Type: " + b"x" * 20_000,
    }.items():
        statuses = EITHER | {413, 415, 431}
        yield Probe(label=label, says=_NO_CRASH, statuses=statuses, sent=post(to, to.good, kind=kind))
    for label, kind in {
        "the media type in capitals": JSON.upper(),
        "a charset": JSON + b"; charset=utf-8",
        "a charset in quotes": JSON + b';charset="UTF-8"',
    }.items():
        says = "application/json is JSON however it is written"
        yield Probe(label=label, says=says, statuses=TAKEN, sent=post(to, to.good, kind=kind))


def _keys(to: Address) -> Iterator[Probe]:
    length = b"Content-Length: %d" % len(to.good)
    for label, lines in {
        "no key": [],
        "an empty key": [b"Authorization:"],
        "a scheme without a key": [b"Authorization: Bearer"],
        "a scheme and blanks": [b"Authorization: Bearer  "],
        "the scheme Basic": [b"Authorization: Basic azpr"],
    }.items():
        sent = request(b"POST", to.submit, to.host, JSON, *lines, length, body=to.good)
        says = "without a key nothing is accepted, and the answer names the scheme"
        yield Probe(label=label, says=says, statuses=frozenset({401, 403}), sent=sent)
    known = to.key.partition(b"Bearer ")[2]
    for label, statuses, lines in [
        ("the scheme in lower case", {GREETING}, [b"Authorization: bearer " + known]),
        ("two keys", {GREETING, 400, 401, 403}, [to.key, b"Authorization: Bearer other"]),
        ("a key beyond ASCII", {GREETING, 400, 401, 403}, [b"Authorization: Bearer \xd0\xba\xff"]),
    ]:
        sent = request(b"GET", to.result, to.host, *lines)
        says = "the name of a scheme has no case" if len(statuses) == 1 else _NO_CRASH
        yield Probe(label=label, says=says, statuses=frozenset(statuses), sent=sent)


def _methods(to: Address) -> Iterator[Probe]:
    wrong = frozenset({400, 403, 404, 405, 501})
    for method in (b"PUT", b"DELETE", b"PATCH", b"GET"):
        sent = get(to, method=method, target=to.submit)
        says = "a method that a path does not have is refused, and a 405 names those that it has"
        yield Probe(label=f"{method.decode()} where one submits", says=says, statuses=wrong, sent=sent)
    for method in (b"TRACE", b"BREW", b"get", b"CONNECT"):
        sent = get(to, method=method, target=to.submit)
        says = "a method that the API does not have is refused"
        label = f"the method {method.decode()}"
        yield Probe(label=label, says=says, statuses=wrong, sent=sent, envelope=False)
    says = "HEAD is answered without a body, or refused"
    head = get(to, method=b"HEAD")
    yield Probe(label="HEAD of a result", says=says, statuses=frozenset({GREETING, 404, 405, 501}), sent=head)
    options = get(to, method=b"OPTIONS", target=to.submit)
    statuses = wrong | {200, 204}
    yield Probe(label="OPTIONS", says=_NO_CRASH, statuses=statuses, sent=options, envelope=False)


def _ids(to: Address) -> Iterator[Probe]:
    moved = frozenset({GREETING, 301, 307, 308, 400, 403, 404, 414})
    ids = b"%2e%2e %2F..%2F..%2Fetc%2Fpasswd %0A %00 %20 %zz %FF %ED%A0%80 a\\b {id} ' ;--".split()
    where, _, end = to.result.rpartition(b"/0/")
    for text in (*ids, b"..", b"a" * 5000):
        sent = get(to, target=where + b"/" + text + b"/" + end)
        label = f"the id {text[:24].decode()}"
        says = "an id that names nothing is told so, whatever it looks like"
        yield Probe(label=label, says=says, statuses=moved, sent=sent, envelope=False)
