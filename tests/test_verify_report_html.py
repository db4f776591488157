"""The contract suite's report for a browser."""

import re
from html.parser import HTMLParser

import pytest
from reports import BROKEN, MODEL, REFUSED, a_case, a_finding, a_report, an_exchange

from contract_tests.case import Finding, Verdict
from contract_tests.report import html


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, attribute: str) -> list[str]:
        return [value for _, each in self.elements if (value := each.get(attribute)) is not None]


def test_the_page_runs_nothing_that_a_target_sent() -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>"
    exchange = an_exchange(
        body=evil.encode(),
        sent=evil.encode(),
        headers=(("x-evil", evil), (evil, "x")),
        path=f"/{evil}",
        method=evil,
    )
    verdicts: tuple[Verdict, ...] = ("refuted", "not proven", "proven")
    findings = [
        a_finding(
            verdict,
            case=a_case(evil, field=evil, rule=f"{verdict}{evil}", model=evil, layer=evil, says=evil),
            message=evil,
            exchange=exchange,
        )
        for verdict in verdicts
    ]
    page = Page(html.render(a_report(*findings, stopped=evil, url=evil)))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "svg", "iframe", "object", "form", "base"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.words


def test_the_page_asks_for_nothing_from_outside() -> None:
    page = html.render(BROKEN)
    assert not {"src", "srcset", "action", "data"} & {
        name for _, each in Page(page).elements for name in each
    }
    assert all(each.startswith("#") for each in Page(page).all("href"))
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_every_link_of_the_page_leads_to_one_place() -> None:
    report = a_report(
        a_finding("refuted", case=a_case(field="size", rule="type")),
        a_finding("not proven", case=a_case(field="seed", rule="type")),
        a_finding(case=a_case(field="seed", rule="minimum")),
        a_finding(case=a_case(field="", rule="media type")),
    )
    page = Page(html.render(report))
    names = page.all("id")
    assert len(set(names)) == len(names)
    assert {each.removeprefix("#") for each in page.all("href")} <= set(names)
    assert len(page.all("href")) == 4


def test_the_page_tells_verdicts_not_by_colour_alone() -> None:
    page = Page(html.render(BROKEN))
    assert "num_images maximum: refuted, 1 of 2" in page.all("aria-label")
    assert "num_images✗ maximum" in page.words


def test_the_page_shows_the_refuted_first() -> None:
    report = a_report(
        a_finding(case=a_case(field="a")),
        a_finding("not proven", case=a_case(field="b")),
        a_finding("refuted", case=a_case(field="c")),
    )
    places = [
        each for each in Page(html.render(report)).all("id") if each in {"refuted", "not-proven", "proven"}
    ]
    assert places == ["refuted", "not-proven", "proven"]


def test_the_page_has_what_replays_a_case() -> None:
    said = Page(html.render(BROKEN)).words
    assert "curl -sS -i" in said
    assert f"wavemock verify http://127.0.0.1:8080 --seed 7 --case '{MODEL} num_images 5'" in said


def test_the_page_has_facts_about_the_run() -> None:
    said = Page(html.render(BROKEN)).words
    for fact in ("http://127.0.0.1:8080", "current", "1 min 12 s", "3,123", "41"):
        assert fact in said


def test_heads_of_the_page_s_tables_have_a_scope() -> None:
    page = Page(html.render(a_report(*BROKEN.findings, a_finding("not proven", case=a_case(field="b")))))
    assert {each.get("scope") for tag, each in page.elements if tag == "th"} == {"col", "row"}


def test_a_rule_of_several_fields_has_a_column() -> None:
    cases = [a_case(field="a", rule="type"), a_case(field="b", rule="type"), a_case(field="b", rule="odd")]
    page = html.render(a_report(*(a_finding(case=each) for each in cases)))
    assert re.findall(r'class="up"><span>([^<]+)', page) == ["type"]


def test_the_page_shows_no_bodies_of_what_is_proven() -> None:
    exchange = an_exchange(body=b"a body", path="/api/v3/proven")
    said = Page(html.render(a_report(a_finding(exchange=exchange)))).words
    assert "POST /api/v3/proven - HTTP 200" in said
    assert "a body" not in said


def test_the_page_shows_earlier_exchanges_in_a_line_each() -> None:
    exchanges = (an_exchange(path="/first"), an_exchange(path="/second"))
    finding = Finding(case=a_case(), verdict="refuted", message=REFUSED, exchanges=exchanges)
    assert "POST /first - HTTP 200" in Page(html.render(a_report(finding))).words


@pytest.mark.parametrize("verdict", ["proven", "refuted", "not proven"])
def test_the_page_of_2500_findings_stays_below_3_mb(verdict: Verdict) -> None:
    large = an_exchange(sent=b'"' * 3_000, body=b"<" * 100_000, headers=(("x", '"' * 9_000),) * 99)
    findings = [
        a_finding(verdict, case=a_case(f"case {number}", field=f"f{number // 5}"), exchange=large)
        for number in range(2_500)
    ]
    page = html.render(a_report(*findings))
    assert len(page.encode()) < 3_000_000
    assert page.count("case 2499") >= 1


def test_a_finding_without_room_says_where_the_rest_is() -> None:
    large = an_exchange(sent=b'"' * 3_000, body=b"<" * 100_000)
    findings = [a_finding("refuted", case=a_case(f"case {number}"), exchange=large) for number in range(200)]
    assert "The rest is in report.json" in html.render(a_report(*findings))


def test_what_is_proven_takes_no_room() -> None:
    large = an_exchange(sent=b'"' * 3_000, body=b"<" * 100_000)
    findings = [a_finding(case=a_case(f"case {number}"), exchange=large) for number in range(200)]
    assert "The rest is" not in html.render(a_report(*findings, a_finding("refuted", case=a_case("6"))))
