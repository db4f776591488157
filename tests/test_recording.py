"""Recordings: what is written down, what is not, and what is read again."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import wavespeed
from test_proxy import StartProxy, start

from conftest import StartServer
from contract_tests import recording
from contract_tests.exchange import Exchange, Request
from contract_tests.judges import Remark
from contract_tests.recording import BadRecording, Entry

__all__ = ["start"]
SECRET = "s3cr3t"
AT = "2026-04-01T00:00:00+00:00"


def exchange(
    *, path: str = "/x", body: bytes | None = None, answer: bytes = b"{}", keyed: bool = False, **headers: str
) -> Exchange:
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Exchange(
        request=Request(method="POST", path=path, headers=given, body=body, keyed=keyed),
        status=200,
        headers=given,
        body=answer,
        seconds=0.25,
    )


def entry(seen: Exchange, **more: Any) -> Entry:
    sizes = {"request_size": len(seen.request.body or b""), "answer_size": len(seen.body)}
    return Entry(at=AT, exchange=seen, **{**sizes, **more})


def written(path: Path, *entries: Entry) -> list[str]:
    with recording.open_to_write(path) as file:
        for each in entries:
            recording.write(file, each)
    return path.read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seen.jsonl"


def test_an_exchange_is_a_line(path: Path) -> None:
    remark = Remark(judge="laws", operation="v3/x", field="code", rule="envelope", message="code is 3")
    lines = written(path, entry(exchange(body=b'{"a":1}', accept="*/*"), remarks=(remark,)))
    assert [json.loads(line) for line in lines] == [
        {
            "at": AT,
            "request": {"method": "POST", "path": "/x", "headers": [["accept", "*/*"]], "body": '{"a":1}'},
            "answer": {"status": 200, "headers": [["accept", "*/*"]], "body": "{}", "seconds": 0.25},
            "remarks": [
                {
                    "judge": "laws",
                    "operation": "v3/x",
                    "field": "code",
                    "rule": "envelope",
                    "message": "code is 3",
                }
            ],
        }
    ]


def test_what_was_written_is_read_again(path: Path) -> None:
    kept = [exchange(body="é".encode(), keyed=True), exchange(body=b"\xff", answer=b""), exchange()]
    written(path, *map(entry, kept))
    assert list(recording.read(path)) == kept


def test_a_line_is_there_as_soon_as_it_is_written(path: Path) -> None:
    with recording.open_to_write(path) as file:
        recording.write(file, entry(exchange()))
        assert len(list(recording.read(path))) == 1


def test_a_recording_goes_on_where_it_ended(path: Path) -> None:
    written(path, entry(exchange()))
    assert len(written(path, entry(exchange()))) == 2


@pytest.mark.parametrize(
    "leaking",
    [
        exchange(authorization=f"Basic {SECRET}"),
        exchange(cookie=SECRET),
        exchange(set_cookie=SECRET),
        exchange(x_api_key=SECRET),
        exchange(x_mock_control_token=SECRET),
        exchange(path=f"/x?a=1&api_key={SECRET}&b=2"),
        exchange(path=f"/x?API%5FKEY={SECRET}"),
        exchange(path=f"/x?key={SECRET}"),
        exchange(path=f"/x?access_token={SECRET}"),
        exchange(body=f'{{"api_key": "{SECRET}"}}'.encode()),
        exchange(body=f'{{"x": {{"clientSecret" : "a\\"{SECRET}"}}}}'.encode()),
        exchange(body=f"api_key={SECRET}&a=1".encode()),
        exchange(answer=f'["https://x/y?X-Amz-Signature={SECRET}&a=1"]'.encode()),
    ],
)
def test_a_secret_is_not_written(path: Path, leaking: Exchange) -> None:
    line = written(path, entry(leaking))[0]
    assert SECRET not in line
    assert "(elided)" in line


def test_what_stands_beside_a_secret_is_written(path: Path) -> None:
    written(path, entry(exchange(path="/x?a=1&api_key=1&b=2", body=b'{"token":"1","prompt":"x"}')))
    request = next(recording.read(path)).request
    assert (request.path, request.body) == (
        "/x?a=1&api_key=(elided)&b=2",
        b'{"token":"(elided)","prompt":"x"}',
    )


def test_that_there_was_a_key_is_written(path: Path) -> None:
    line = json.loads(written(path, entry(exchange(keyed=True)))[0])
    assert line["request"]["headers"] == [["authorization", "Bearer (elided)"]]


@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_base64_is_not_written(path: Path, slash: str) -> None:
    picture = ("A" * 79 + slash) * 4
    written(path, entry(exchange(body=f'{{"image":"{picture}"}}'.encode())))
    assert next(recording.read(path)).request.body == b'{"image":"(320 characters of base64)"}'


def test_a_remark_is_written_without_base64(path: Path) -> None:
    remark = Remark(judge="x", operation="x", field="x", rule="x", message=f'"{"A" * 300}" is wrong')
    assert "A" * 20 not in written(path, entry(exchange(), remarks=(remark,)))[0]


def test_long_binary_bodies_are_counted_only(path: Path) -> None:
    line = json.loads(written(path, entry(exchange(answer=b"\xff" * 5000)))[0])
    assert line["answer"]["body"] == {"bytes": 5000}


def test_a_body_that_was_not_kept_is_counted_only(path: Path) -> None:
    written(path, entry(exchange(answer=b""), answer_size=10**9))
    assert next(recording.entries(path)).answer_size == 10**9


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"request": 1, "answer": 2}',
        "[" * 100_000,
        '{"at":"","request":{"method":1,"path":"/","headers":[],"body":null},"answer":{}}',
        '{"at":"","request":{"method":"GET","path":"/","headers":[],"body":{"base64":"!"}},"answer":{}}',
    ],
)
def test_a_line_that_is_no_exchange_is_named(path: Path, line: str) -> None:
    good = written(path, entry(exchange()))[0]
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(BadRecording, match=rf"^{re.escape(str(path))}:2: is no exchange: [^\n]+$"):
        list(recording.read(path))


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be read: No such file"):
        list(recording.read(path))


def test_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be written: Is a directory"):
        recording.open_to_write(tmp_path)


def test_the_recording_of_a_proxy_has_no_key_and_no_picture(
    serve: StartServer, start: StartProxy, path: Path
) -> None:
    running = start(upstream=serve().url, record=str(path))
    sdk = wavespeed.Client(api_key="a-secret-key", base_url=running.url)
    given = {"prompt": "x", "size": "512*512", "enable_base64_output": True}
    sdk.run("wavespeed-ai/flux-schnell-lora", given, poll_interval=0.1)
    httpx.get(f"{running.url}/nothing?api_key=a-secret-key")
    running.stop()
    text = path.read_text()
    assert "a-secret-key" not in text
    assert not re.search(r"[A-Za-z0-9+/]{160}", text)
    last = [each.data["outputs"] for each in recording.read(path) if each.data.get("status") == "completed"]
    assert re.fullmatch(r"\([0-9]+ characters of base64\)", last[-1][0])


def test_remarks_are_recorded_with_their_exchange(serve: StartServer, start: StartProxy, path: Path) -> None:
    running = start(upstream=serve().url, record=str(path), edition="flux-lora")
    given = {"prompt": "x", "loras": [{"path": "x", "scale": 0.5}]}
    url = f"{running.url}/api/v3/wavespeed-ai/flux-dev-lora"
    httpx.post(url, json=given, headers={"Authorization": "Bearer k"})
    running.stop()
    line = json.loads(path.read_text())
    told = {(each["judge"], each["field"], each["rule"]) for each in line["remarks"]}
    assert ("jsonschema-rs", "loras[].scale", "request type") in told
