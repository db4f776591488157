"""The contract suite's reports: what they say, and what they never do with what a target sent."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from reports import BROKEN, ESCAPE, MIXED, MODEL, REFUSED, a_case, a_finding, a_report, an_exchange, printed

from contract_tests.case import Finding, Report, Verdict
from contract_tests.exchange import Exchange
from contract_tests.report import html, json_file, junit
from contract_tests.report.cells import cells
from contract_tests.report.files import write

RENDERS: dict[str, Callable[[Report], str]] = {
    "terminal": printed,
    "html": html.render,
    "junit": junit.render,
    "json": json_file.render,
}
every_report = pytest.mark.parametrize("render", RENDERS.values(), ids=RENDERS)


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (("proven", "not proven", "refuted"), "refuted"),
        (("proven", "not proven"), "not proven"),
        (("proven", "proven"), "proven"),
    ],
)
def test_a_cell_is_as_good_as_its_worst_finding(verdicts: tuple[Verdict, ...], verdict: Verdict) -> None:
    found = cells(a_report(*(a_finding(each) for each in verdicts)))
    assert found[MODEL, "num_images", "maximum"].verdict == verdict


def test_a_cell_keeps_its_findings() -> None:
    findings = (a_finding(), a_finding("refuted"))
    assert cells(a_report(*findings))[MODEL, "num_images", "maximum"].findings == findings


def test_fields_models_and_rules_have_cells_of_their_own() -> None:
    cases = (a_case(), a_case(field="size"), a_case(rule="type"), a_case(model="v2/flux-schnell-lora"))
    assert len(cells(a_report(*(a_finding(case=each) for each in cases)))) == 4


@every_report
def test_a_report_says_what_a_page_claims_and_what_was_found(render: Callable[[Report], str]) -> None:
    said = render(BROKEN)
    assert "at most 4 images" in said
    assert REFUSED in said


@every_report
@pytest.mark.parametrize(
    "secret",
    [
        an_exchange(request_headers=(("Authorization", "hush-1234"),)),
        an_exchange(request_headers=(("COOKIE", "a=hush-1234"),)),
        an_exchange(headers=(("set-cookie", "a=hush-1234"),)),
        an_exchange(headers=(("x-api-key", "hush-1234"),)),
        an_exchange(body=b'{"message": "no such key: Bearer hush-1234"}'),
        an_exchange(path="/api/v3/x?token=hush-1234&a=b"),
        an_exchange(body=b'{"outputs": ["https://cdn.example/a.png?Policy=x&X-Amz-Signature=hush-1234"]}'),
    ],
    ids=["authorization", "cookie", "set-cookie", "api key", "bearer", "query", "signature"],
)
def test_a_report_tells_no_secret(render: Callable[[Report], str], secret: Exchange) -> None:
    assert "hush" not in render(a_report(a_finding("refuted", exchange=secret)))


@every_report
def test_a_report_does_not_tell_the_password_in_the_address(render: Callable[[Report], str]) -> None:
    report = a_report(a_finding("refuted"), url="http://me:hush@127.0.0.1:8080")
    assert "hush" not in render(report)


@every_report
def test_a_report_does_not_tell_the_key_in_the_command(render: Callable[[Report], str]) -> None:
    report = a_report(a_finding("refuted"), url="http://127.0.0.1:8080 --api-key hush")
    assert "hush" not in render(report)


@every_report
def test_a_report_leaves_base64_out(render: Callable[[Report], str]) -> None:
    picture = an_exchange(
        sent=b'{"image": "' + b"QUJD" * 1_100 + b'"}', body=b'{"outputs": ["' + b"QUJD" * 1_1000 + b'"]}'
    )
    report = a_report(a_finding("refuted", exchange=picture))
    assert "characters of base64" in render(report)
    assert "QUJD" * 20 not in render(report)


@every_report
def test_what_does_not_print_is_shown_by_its_escape(render: Callable[[Report], str]) -> None:
    hostile = an_exchange(body=ESCAPE.encode() + b"\x00\xff \xe2\x80\xae", path=f"/{ESCAPE}", method="G\x9bT")
    said = render(a_report(a_finding("refuted", exchange=hostile, message=f"{ESCAPE}\udcff\ufffe\r")))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff\ufffe]", said)
    assert "x1b" in said
    assert "udcff" in said


@every_report
def test_a_report_of_garbage_can_be_made(render: Callable[[Report], str]) -> None:
    noise = bytes(range(256)).decode("latin-1")
    exchange = an_exchange(
        method=noise,
        path=noise,
        sent=bytes(range(256)),
        body=bytes(range(256)) * 9,
        request_headers=((noise, noise),),
        headers=((noise, noise),),
    )
    case = a_case(noise, field=noise, rule=noise, model=noise, layer=noise, says=noise)
    findings = [
        a_finding(each, case=case, message=noise, exchange=exchange) for each in ("refuted", "not proven")
    ]
    render(a_report(*findings, stopped=noise, url=noise)).encode()


@every_report
def test_a_report_of_nothing_can_be_made(render: Callable[[Report], str]) -> None:
    assert "could not run" in render(a_report()) or render is junit.render


@every_report
def test_a_finding_for_which_nothing_was_sent_is_reported(render: Callable[[Report], str]) -> None:
    finding = Finding(case=a_case(), verdict="refuted", message=REFUSED)
    assert REFUSED in render(a_report(finding))


@every_report
def test_a_report_says_why_a_run_stopped(render: Callable[[Report], str]) -> None:
    assert "does not answer any more" in render(
        a_report(a_finding("refuted"), stopped="it does not answer any more")
    )


def test_all_reports_are_written_into_a_directory_that_is_made(tmp_path: Path) -> None:
    write(BROKEN, tmp_path / "a" / "b")
    found = {each.name: each.read_text(encoding="utf-8") for each in (tmp_path / "a" / "b").iterdir()}
    assert found == {
        "report.html": html.render(BROKEN),
        "junit.xml": junit.render(BROKEN),
        "report.json": json_file.render(BROKEN),
    }


def test_reports_replace_older_ones(tmp_path: Path) -> None:
    write(BROKEN, tmp_path)
    write(MIXED, tmp_path)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == json_file.render(MIXED)


def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write(BROKEN, tmp_path / "file")


def test_a_report_that_cannot_be_put_in_its_place_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match="report"):
        write(BROKEN, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
