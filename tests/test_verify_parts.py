"""The parts of the contract suite by themselves: table, documents, exchanges, laws, judges, values."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports import a_case, a_finding, a_report

from contract_tests import laws
from contract_tests.case import Verdict
from contract_tests.document import BadDocument, read_document
from contract_tests.exchange import Exchange, Request, curl, shown, strict_json
from contract_tests.judges import CORE, RS, Judges, appoint
from contract_tests.layers.boundary import cases as boundary_cases
from contract_tests.layers.values import values
from contract_tests.run import Options, open_session
from contract_tests.session import JSON, smallest
from contract_tests.table import DOCUMENTED, BadTable, Field, read_models

ROWS = DOCUMENTED.read_text().splitlines()
URL = "http://127.0.0.1:8080"


def field(edition: str, model: str, name: str) -> Field:
    found = next(each for each in read_models(edition) if str(each) == model).field(name)
    assert found is not None
    return found


def labels(edition: str, model: str, name: str, *, accepted: bool) -> dict[str, Any]:
    return {
        each.label: each.value
        for each in values(field(edition, model, name))
        if each.accepted == accepted and each.rule == "range"
    }


def test_an_integer_is_tried_at_its_bounds() -> None:
    assert labels("current", "v3/flux-schnell-lora", "num_inference_steps", accepted=True) == {
        "min": 1, "max": 8, "min+1": 2, "max-1": 7,
    }  # fmt: skip


def test_an_integer_is_tried_a_step_and_half_a_step_beyond() -> None:
    beyond = labels("current", "v3/flux-schnell-lora", "num_inference_steps", accepted=False)
    assert {"min-1": 0, "max+1": 9, "min-0.5": 0.5, "max+0.5": 8.5}.items() <= beyond.items()


def test_a_number_is_tried_a_hair_beyond() -> None:
    beyond = labels("current", "v2/flux-dev-lora", "guidance_scale", accepted=False)
    assert 10 < beyond["a hair above max"] < 10.0000001
    assert -0.0000001 < beyond["a hair below min"] < 0


def test_the_step_of_a_number_is_the_last_digit_that_is_printed() -> None:
    beyond = labels("current", "v3/flux-dev-lora-trainer-turbo", "learning_rate", accepted=False)
    assert beyond["max+0.00001"] == 1.00001


def test_a_size_is_tried_at_every_edge_of_both_sides() -> None:
    good = labels("current", "v2/flux-dev-lora", "size", accepted=True).values()
    bad = labels("current", "v2/flux-dev-lora", "size", accepted=False).values()
    assert {"512*512", "512*1536", "1536*512", "1536*1536", "1024*513", "1535*1024"} <= set(good)
    assert {"511*1024", "1024*511", "1537*1024", "1024*1537"} <= set(bad)


def test_a_seed_is_tried_where_integers_of_machines_end() -> None:
    good = labels("current", "v2/flux-dev-lora", "seed", accepted=True).values()
    assert {-1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 9999999999} <= set(good)


@pytest.mark.parametrize("edition", ["current", "flux-lora"])
def test_no_value_is_good_and_bad_at_once(edition: str) -> None:
    for model in read_models(edition):
        for each in model.request:
            sorted_out = {True: set[str](), False: set[str]()}
            for value in values(each):
                sorted_out[value.accepted].add(json.dumps(value.value))
            assert not sorted_out[True] & sorted_out[False]


def table_with(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(f"{ROWS[0]}\n{line}\n")
    return path


BAD_ROWS = {
    "p,current,/api/v3/a/b,request,x,text,no,-,-,-,-,": "'text' is no type",
    "p,current,/api/v3/a/b,request,x,integer,no,-,low,-,-,": "x: is no row of numbers",
    "p,current,/api/v3/a/b,request,x,integer,no,one,-,-,-,": "x: is no row of numbers",
    "p,current,/api/v3/a/b,question,x,integer,no,-,-,-,-,": "part is 'question'",
    "p,current,/api/v3/a/b": "has 3 columns instead of 12",
    "p,other,/api/v3/a/b,request,x,integer,no,-,-,-,-,": "has no edition 'current'; there are: other",
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_a_row_that_makes_no_sense_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadTable, match=BAD_ROWS[line]):
        read_models("current", table_with(tmp_path, line))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="cannot be read"):
        read_models("current", tmp_path / "none.csv")


def test_a_model_of_ones_own_needs_rows_and_a_file_and_no_python(tmp_path: Path) -> None:
    table = table_with(tmp_path, "p,current,/api/v3/acme/sixth,request,seed,integer,no,-1,-1,99,-,")
    (model, other) = read_models("current", table)
    assert (str(model), str(other), smallest(model)) == ("v3/sixth", "v2/sixth", {})


def test_a_reference_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("openapi: 3.0.3\npaths: {/a: {$ref: '#/nowhere'}}\n")
    with pytest.raises(BadDocument, match=r"x.yaml: #/nowhere leads nowhere"):
        read_document("current", tmp_path)


def test_a_reference_that_leads_back_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("openapi: 3.0.3\npaths: {/a: {$ref: '#/paths/~1a'}}\n")
    with pytest.raises(BadDocument, match="leads back into itself"):
        read_document("current", tmp_path)


NOT_JSON = [
    b"NaN", b"[Infinity]", b'{"a":1,"a":2}', b"1e400", b"\xef\xbb\xbf{}", b'"\\ud800"', b"", b"{", b'"\xff"',
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_JSON, ids=lambda text: repr(text[:12]))
def test_what_is_no_json_to_the_letter_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


def test_base64_is_not_shown() -> None:
    assert shown(b'{"image": "' + b"A" * 400 + b'"}') == '{"image": "(400 characters of base64)"}'


def test_a_curl_command_sends_the_request_again() -> None:
    request = Request(method="POST", path="/a b", headers=(("X", "it's"),), body=b'{"a": "\'$HOME"}')
    told = subprocess.run(
        ["sh", "-c", "curl() { printf '%s\\n' \"$@\"; }; WAVESPEED_API_KEY=k; " + curl(request, URL)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-7:] == [
        "-H", "X: it's", "-H", "Authorization: Bearer k", "--data-raw", '{"a": "\'$HOME"}', f"{URL}/a b",
    ]  # fmt: skip


def test_a_curl_command_has_no_secret_in_it() -> None:
    request = Request(method="GET", path="/", headers=(("Authorization", "Bearer sesame"),), keyed=False)
    assert "sesame" not in curl(request, URL)
    assert shlex.split(curl(request, URL))[-2] == "Authorization: $AUTHORIZATION"


GOOD: Mapping[str, Any] = {
    "id": "abc",
    "model": "m",
    "outputs": [],
    "urls": {"get": f"{URL}/api/v3/predictions/abc/result"},
    "has_nsfw_contents": [],
    "status": "processing",
    "created_at": "2026-04-01T12:34:56.789Z",
    "error": "",
}
DONE = {**GOOD, "status": "completed", "outputs": ["http://h/o"], "has_nsfw_contents": [False]}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "an invented status": ({**GOOD, "status": "queued"}, "data.status"),
    "outputs too early": ({**GOOD, "outputs": ["x"], "has_nsfw_contents": [False]}, "data.outputs"),
    "completed without outputs": ({**GOOD, "status": "completed"}, "data.outputs"),
    "a flag too few": ({**DONE, "has_nsfw_contents": []}, "data.has_nsfw_contents"),
    "an error while all is well": ({**GOOD, "error": "no"}, "data.error"),
    "failed without a reason": ({**GOOD, "status": "failed"}, "data.error"),
    "a date that is none": ({**GOOD, "created_at": "yesterday"}, "data.created_at"),
    "a relative address": ({**GOOD, "urls": {"get": "/api/v3/predictions/abc/result"}}, "data.urls.get"),
    "the address of another": (
        {**GOOD, "urls": {"get": f"{URL}/api/v3/predictions/x/result"}},
        "data.urls.get",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_prediction_that_breaks_a_law_is_told_of(name: str) -> None:
    data, where = BROKEN[name]
    assert [fault.field for fault in laws.of_prediction(data)] == [where]


@pytest.mark.parametrize("data", [GOOD, DONE, {**GOOD, "status": "failed", "error": "no"}])
def test_a_prediction_that_keeps_them_is_not(data: dict[str, Any]) -> None:
    assert list(laws.of_prediction(data)) == []


AFTERWARDS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "forward": (dict(GOOD), DONE, []),
    "the same": (DONE, DONE, []),
    "an address on the other version": (
        DONE,
        {**DONE, "urls": {"get": f"{URL}/api/v2/predictions/abc/result"}},
        [],
    ),
    "an output signed anew": (DONE, {**DONE, "outputs": ["http://h/o?signature=2"]}, []),
    "back": (DONE, dict(GOOD), ["order"]),
    "another date": (dict(GOOD), {**GOOD, "created_at": "2026-04-01T12:34:56.790Z"}, ["stays"]),
    "another model": (dict(GOOD), {**GOOD, "model": "n"}, ["stays"]),
    "another output": (DONE, {**DONE, "outputs": ["http://h/p"]}, ["final"]),
    "from failed to completed": ({**GOOD, "status": "failed"}, DONE, ["final"]),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_what_was_said_of_a_task_is_held_against_what_is_said_now(name: str) -> None:
    before, after, rules = AFTERWARDS[name]
    assert [fault.rule for fault in laws.see(laws.see(None, before)[0], after)[1]] == rules


@pytest.fixture(scope="module", params=["current", "flux-lora"])
def judged(request: pytest.FixtureRequest) -> tuple[str, Judges]:
    return request.param, appoint(read_document(request.param))


def exchange_of(request: Request, status: int, body: Any) -> Exchange:
    kind = (("content-type", "application/json"),)
    return Exchange(request=request, status=status, headers=kind, body=json.dumps(body).encode(), seconds=0)


def test_both_judges_and_the_table_agree_on_every_case_of_the_matrix(judged: tuple[str, Judges]) -> None:
    edition, judges = judged
    session = open_session(Options(edition=edition))
    session.target.close()
    session.served = {model.path: True for model in session.models}
    disagreed, count = [], 0
    for case in boundary_cases(session):
        _, body, accepted = getattr(case.check, "args")  # noqa: B009 - a partial; its type does not tell
        model = next(each for each in session.models if str(each) == case.model)
        sent = Request(method="POST", path=model.path, headers=(JSON,), body=json.dumps(body).encode())
        answer = exchange_of(sent, 200, {"code": 200, "message": "success", "data": {}})
        against = {each.judge for each in judges.judge(answer) if not each.rule.startswith("answer")}
        count += 1
        if against != (set() if accepted else {RS, CORE}):
            disagreed.append((case.id, against))
    assert count > 700
    assert disagreed == []


def test_a_judge_tells_of_a_refusal_without_a_reason() -> None:
    judges = appoint(read_document("current"))
    sent = Request(
        method="POST", path="/api/v3/wavespeed-ai/flux-schnell-lora", headers=(JSON,), body=b'{"prompt": "x"}'
    )
    found = judges.judge(exchange_of(sent, 400, {"code": 400, "message": "no"}))
    assert [(each.judge, each.rule) for each in found] == [(RS, "request refused"), (CORE, "request refused")]


UNKNOWN = {(RS, "error status"), (CORE, "error ResponseNotFound")}
ANSWERS: dict[str, tuple[int, Any, set[tuple[str, str]]]] = {
    "an undocumented status": (418, {"code": 418, "message": "x"}, UNKNOWN),
    "no envelope": (404, [], {(RS, "error type"), (CORE, "error type")}),
    "a code of another kind": (
        404, {"code": "404", "message": "x"}, {(RS, "error type"), (CORE, "error type")},
    ),
    "all is well": (404, {"code": 404, "message": "x"}, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_held_against_its_schema(name: str) -> None:
    status, body, wanted = ANSWERS[name]
    judges = appoint(read_document("current"))
    found = judges.judge(
        exchange_of(Request(method="GET", path="/api/v3/predictions/x/result"), status, body)
    )
    assert {(each.judge, each.rule) for each in found} == wanted


EXIT_CODES: dict[str, tuple[list[Verdict], str, int]] = {
    "all proven": (["proven"], "", 0),
    "some not proven": (["proven", "not proven"], "", 0),
    "one refuted": (["proven", "refuted"], "", 1),
    "nothing proven": (["not proven"], "", 2),
    "nothing at all": ([], "", 2),
    "stopped": (["proven", "not proven"], "gone", 2),
    "stopped, and refuted before": (["refuted", "not proven"], "gone", 1),
}


@pytest.mark.parametrize("name", EXIT_CODES)
def test_the_exit_code_says_what_is_known(name: str) -> None:
    verdicts, stopped, code = EXIT_CODES[name]
    assert a_report(*map(a_finding, verdicts), stopped=stopped).exit_code == code


def test_the_name_of_a_case_tells_model_field_and_value() -> None:
    case = a_case("max", model="v3/m", field="f")
    assert (case.id, replace(case, field="").id) == ("v3/m f max", "v3/m max")
