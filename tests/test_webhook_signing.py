"""Signatures of webhooks: made as documented, and explained where they are wrong."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mock_server.webhooks.cli import webhook
from mock_server.webhooks.signing import Verdict, explain, headers_of, sign

# What follows the prefix is base64 too, so that somebody can decode it by mistake.
KEY = base64.b64encode(b"a key of twenty four bytes").decode()
SECRET = f"whsec_{KEY}"
NOW = 1_700_000_000
BODY = json.dumps({"id": "a1", "status": "completed", "outputs": ["é"]}, ensure_ascii=False).encode()
Mac = Callable[[bytes, bytes], str]


def documented(secret: str, headers: dict[str, str], body: bytes, now: int) -> bool:
    """The documented rule, written from its description with nothing of the mock's."""
    if abs(now - int(headers["webhook-timestamp"])) > 300:
        return False
    key = secret.removeprefix("whsec_")
    inner = hashlib.sha256()
    block = key.encode() if len(key) <= 64 else hashlib.sha256(key.encode()).digest()
    block += bytes(64 - len(block))
    inner.update(bytes(each ^ 0x36 for each in block))
    inner.update(headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body)
    outer = hashlib.sha256(bytes(each ^ 0x5C for each in block) + inner.digest())
    return headers["webhook-signature"] == "v3," + outer.hexdigest()


def signed(
    *,
    key: bytes = KEY.encode(),
    order: str = "{id}.{timestamp}.",
    timestamp: str = str(NOW),
    signed_timestamp: str | None = None,
    body: bytes = BODY,
    write: Callable[[bytes], str] = lambda digest: f"v3,{digest.hex()}",
) -> dict[str, str]:
    """Headers as a sender makes them who follows the rule but for what is given."""
    front = order.format(id="wh-1", timestamp=signed_timestamp or timestamp).encode()
    digest = hmac.new(key, front + body, hashlib.sha256).digest()
    return {"webhook-id": "wh-1", "webhook-timestamp": timestamp, "webhook-signature": write(digest)}


def reason(headers: dict[str, str], *, secret: str = SECRET, body: bytes = BODY, now: int = NOW) -> str:
    """The one thing that is wrong."""
    verdict = explain(secret, headers, body, now=now)
    assert not verdict.ok
    [only] = verdict.reasons
    return only


@pytest.mark.parametrize("secret", [SECRET, KEY, "whsec_x", "whsec_" + "k" * 100, "whsec_é"])
@pytest.mark.parametrize(
    "body", [b"", BODY, b"\x00\xff", b"x" * 100_000], ids=["none", "json", "bytes", "long"]
)
def test_a_signature_is_good_by_the_documented_rule(secret: str, body: bytes) -> None:
    assert documented(secret, headers_of(secret, "wh-1", NOW, body), body, NOW)


@pytest.mark.parametrize("body", [b"", BODY, b"\x00\xff"], ids=["none", "json", "bytes"])
def test_what_is_signed_is_believed(body: bytes) -> None:
    assert explain(SECRET, headers_of(SECRET, "wh-1", NOW, body), body, now=NOW) == Verdict(ok=True)


def test_a_signature_begins_with_its_version_and_goes_on_in_hexadecimal_digits() -> None:
    version, _, digits = sign(SECRET, "wh-1", NOW, BODY).partition(",")
    assert version == "v3"
    assert bytes.fromhex(digits).hex() == digits


def test_names_of_headers_may_have_capitals() -> None:
    headers = {name.title(): value for name, value in headers_of(SECRET, "wh-1", NOW, BODY).items()}
    assert explain(SECRET, headers, BODY, now=NOW).ok


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_named(name: str) -> None:
    headers = signed()
    del headers[name]
    assert reason(headers) == f"{name} is missing."


def test_a_header_that_is_empty_is_missing() -> None:
    assert reason(signed() | {"webhook-id": " "}) == "webhook-id is missing."


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_came_twice_is_named(name: str) -> None:
    headers = signed()
    assert reason(headers | {name: f"{headers[name]}, {headers[name]}"}) == f"{name} is there more than once."
    assert reason(headers | {name.title(): headers[name]}) == f"{name} is there more than once."


def test_another_version_is_named() -> None:
    assert "the version 'v1'; it is `v3`" in reason(signed(write=lambda digest: f"v1,{digest.hex()}"))


@pytest.mark.parametrize("prefix", ["", "v3=", "sha256="])
def test_a_signature_without_a_version_is_told(prefix: str) -> None:
    assert "no version in front" in reason(signed(write=lambda digest: prefix + digest.hex()))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_instead_of_hexadecimal_digits_is_told(encode: Callable[[bytes], bytes]) -> None:
    assert "is in base64" in reason(signed(write=lambda digest: f"v3,{encode(digest).decode()}"))


def test_capital_digits_are_told() -> None:
    assert "capital" in reason(signed(write=lambda digest: f"v3,{digest.hex().upper()}"))


def test_several_signatures_are_told() -> None:
    assert "several" in reason(signed(write=lambda digest: f"v3,{digest.hex()} v1"))


@pytest.mark.parametrize("text", ["v3,", "v3,00ff", "v3,nonsense!", "garbage", "v3," + "g" * 64])
def test_a_signature_that_is_no_digest_is_told(text: str) -> None:
    verdict = explain(SECRET, signed(write=lambda _: text), BODY, now=NOW)
    assert "holds no SHA-256" in verdict.reasons[-1]


def test_a_secret_that_was_decoded_from_base64_is_told() -> None:
    assert "decoded from base64" in reason(signed(key=base64.b64decode(KEY)))


def test_a_key_with_the_prefix_in_it_is_told() -> None:
    assert "with whsec_ in the key" in reason(signed(key=SECRET.encode()))


def test_white_space_around_a_secret_is_told() -> None:
    assert "white space" in reason(signed(), secret=SECRET + "\n")


def test_an_empty_secret_is_told() -> None:
    assert "The secret is empty" in reason(signed(), secret="whsec_")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("{timestamp}.{id}.", "wrong order"),
        ("{id}.", "leaves the timestamp out"),
        ("{timestamp}.", "leaves the id out"),
        ("", "over the body alone"),
        ("{id}{timestamp}", "leaves the dots out"),
    ],
)
def test_a_message_put_together_otherwise_is_told(order: str, said: str) -> None:
    assert said in reason(signed(order=order))


def test_a_timestamp_in_milliseconds_is_told() -> None:
    assert "is in milliseconds" in reason(signed(timestamp=f"{NOW}000"))


def test_a_signature_over_milliseconds_is_told() -> None:
    assert "timestamp in milliseconds" in reason(signed(signed_timestamp=f"{NOW}000"))


def test_a_signature_over_seconds_below_a_header_in_milliseconds_is_told() -> None:
    verdict = explain(SECRET, signed(timestamp=f"{NOW}000", signed_timestamp=str(NOW)), BODY, now=NOW)
    assert ["in milliseconds" in verdict.reasons[0], "in seconds, and" in verdict.reasons[1]] == [True, True]


@pytest.mark.parametrize("text", ["soon", "-5", "1.5", "١٢", "9" * 40, "2023-11-14T22:13:20Z"])
def test_a_timestamp_that_is_no_number_is_told(text: str) -> None:
    assert "no number of seconds" in reason(signed(timestamp=text))


def test_a_stale_timestamp_is_told_with_its_age() -> None:
    assert "is 412 s old" in reason(signed(), now=NOW + 412)


def test_a_timestamp_of_the_future_is_told() -> None:
    assert "is 412 s in the future" in reason(signed(), now=NOW - 412)


@pytest.mark.parametrize("off", [-300, 300])
def test_five_minutes_are_not_too_much(off: int) -> None:
    assert explain(SECRET, signed(), BODY, now=NOW + off).ok


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"separators": (",", ":"), "ensure_ascii": False}, "compact"),
        ({"separators": (",", ":")}, "compact"),
        ({}, "spaced"),
        ({"sort_keys": True}, "spaced, keys sorted"),
        ({"indent": 2}, "indented"),
        ({"indent": 4, "ensure_ascii": False}, "indented"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_body_that_was_written_again_is_told(layout: dict[str, object], said: str, end: str) -> None:
    text = json.dumps(json.loads(BODY), **layout) + end  # type: ignore[arg-type]
    assert f"other JSON ({said})" in reason(signed(body=text.encode()))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_end_behind_the_body_is_told(end: bytes) -> None:
    assert "without a line end" in reason(signed(), body=BODY + end)
    assert "with a line end" in reason(signed(body=BODY + end))


def test_other_line_ends_in_the_body_are_told() -> None:
    assert "other line ends" in reason(signed(body=b"one\r\ntwo"), body=b"one\ntwo")


def test_two_mistakes_are_both_told() -> None:
    verdict = explain(SECRET, signed(key=SECRET.encode(), order="{id}."), BODY, now=NOW)
    assert ["in the key" in verdict.reasons[0], "timestamp out" in verdict.reasons[1]] == [True, True]


@pytest.mark.parametrize(
    "headers", [signed(key=b"another"), signed(body=b"{}"), signed() | {"webhook-id": "wh-2"}]
)
def test_what_fits_nothing_is_told_so(headers: dict[str, str]) -> None:
    assert "fits nothing made of this secret" in reason(headers)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"\xff" * 70_000, b"9" * 10_000, b" " * 5_000_000],
    ids=["deep", "bytes", "digits", "long"],
)
def test_a_hostile_body_is_only_refused(body: bytes) -> None:
    assert "fits nothing" in reason(signed(), body=body)


def test_a_very_large_body_is_not_tried_in_other_forms() -> None:
    body = b"x" * 2_000_000
    assert "fits nothing" in reason(signed(body=body), body=body + b"\n")


def test_no_reason_says_the_secret() -> None:
    for headers in (signed(key=b"other"), signed(key=SECRET.encode()), signed(key=base64.b64decode(KEY))):
        assert KEY not in str(explain(SECRET, headers, BODY, now=NOW))


def kept(*, end: str = "\r\n", first: str = "", body: bytes = BODY) -> bytes:
    fields = signed() | {"content-type": "application/json"}
    lines = [*([first] if first else []), *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return end.join(lines).encode() + body


def verify(raw: bytes, *flags: str) -> Result:
    return CliRunner().invoke(webhook, ["verify", "--secret", SECRET, "--now", str(NOW), *flags], input=raw)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("first", ["", "POST /hook?x=1 HTTP/1.1", "POST /hook HTTP/2"])
def test_a_good_request_is_called_good(end: str, first: str) -> None:
    told = verify(kept(end=end, first=first))
    assert (told.exit_code, told.output) == (0, "The signature is good.\n")


def test_a_bad_request_is_explained() -> None:
    told = verify(kept(body=BODY + b"\n"))
    assert told.exit_code == 1
    assert "without a line end" in told.output


def test_a_request_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "raw.http").write_bytes(kept())
    assert verify(b"", str(tmp_path / "raw.http")).exit_code == 0


def test_a_header_that_stands_twice_in_a_file_is_told() -> None:
    assert "webhook-id is there more than once." in verify(b"webhook-id: wh-1\n" + kept(end="\n")).output


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no blank line"),
        (b"webhook-id: 1", "no blank line"),
        (b"\x00\xff\n\nbody", "is no header"),
        (b"webhook-id 1\n\nbody", "is no header"),
        (b"HTTP/1.1 200 OK\n\nbody", "is no header"),
        (b"transfer-encoding: chunked\r\n" + kept(), "in chunks"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(raw: bytes, said: str) -> None:
    told = verify(raw)
    assert told.exit_code == 2
    assert said in told.output
    assert told.output.count("\n") == 1


def test_a_file_that_is_not_there_is_refused() -> None:
    assert verify(b"", "/nowhere/raw.http").exit_code == 2


def test_without_now_the_machine_tells_the_time_and_says_how_to_give_it() -> None:
    told = CliRunner().invoke(webhook, ["verify", "--secret", SECRET], input=kept())
    assert told.exit_code == 1
    assert "--now SECONDS" in told.output


def test_the_secret_can_come_from_the_environment() -> None:
    told = CliRunner().invoke(
        webhook, ["verify", "--now", str(NOW)], input=kept(), env={"WAVEMOCK_WEBHOOK_SECRET": SECRET}
    )
    assert told.exit_code == 0


def test_the_command_imports_nothing_heavy() -> None:
    heavy = "('httpx', 'msgspec', 'asyncio')"
    code = f"import sys, mock_server.webhooks.cli; print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
