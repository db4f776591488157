"""The contract suite's reports for machines: JUnit and JSON."""

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

from reports import BROKEN, MIXED, MODEL, REFUSED, a_case, a_finding, a_report, an_exchange

from contract_tests.case import Report
from contract_tests.exchange import Exchange
from contract_tests.report import json_file, junit


def parsed(report: Report) -> ET.Element:
    return ET.fromstring(junit.render(report))


def test_junit_has_a_suite_for_each_layer_with_the_numbers_of_its_cases() -> None:
    for suite in (root := parsed(MIXED)):
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
        assert suite.get("errors") == "0"
        assert suite.get("time") == f"{0.25 * len(cases):.3f}"
    assert [suite.get("name") for suite in root] == ["boundary", "raw"]


def test_layers_stand_in_the_order_in_which_they_run() -> None:
    root = parsed(a_report(*(a_finding(case=a_case(layer=each)) for each in ("judges", "new", "raw"))))
    assert [suite.get("name") for suite in root] == ["raw", "judges", "new"]


def test_junit_sums_up_the_suites() -> None:
    root = parsed(MIXED)
    assert root.tag == "testsuites"
    numbers = [root.get(name) for name in ("tests", "failures", "errors", "skipped", "time")]
    assert numbers == ["3", "1", "0", "1", "72.300"]


def test_junit_names_a_case_by_its_model_and_id() -> None:
    first, last = parsed(MIXED).findall("testsuite/testcase")[:: len(MIXED.findings) - 1]
    assert (first.get("classname"), first.get("name")) == (MODEL, f"{MODEL} num_images 5")
    assert first.get("time") == "0.250"
    assert last.get("classname") == "the target"


def test_junit_tells_in_a_failure_how_to_see_it_again() -> None:
    failure = parsed(MIXED).find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == REFUSED
    assert "the page says: at most 4 images" in (failure.text or "")
    assert "--case" in (failure.text or "")


def test_what_cannot_be_run_alone_is_repeated_with_all_the_rest() -> None:
    report = replace(MIXED, alone="", again="wavemock proxy --upstream http://h")
    assert {each["again"] for each in json.loads(json_file.render(report))["findings"]} == {report.again}


def test_the_command_of_a_run_of_many_cases_is_told_in_full() -> None:
    report = replace(
        BROKEN, again=" --case ".join(["wavemock verify", *[f"'{'x' * 80} {each}'" for each in range(40)]])
    )
    assert json.loads(json_file.render(report))["again"] == report.again


def test_junit_skips_what_is_not_proven_and_says_why() -> None:
    skipped = parsed(MIXED).find("testsuite/testcase/skipped")
    assert skipped is not None
    assert skipped.get("message") == "no clock"


def test_junit_has_an_error_where_the_run_stopped() -> None:
    root = parsed(a_report(a_finding(), stopped="gone"))
    assert (root.get("tests"), root.get("errors")) == ("2", "1")
    assert [each.get("message") for each in root.findall("testsuite[@name='run']/testcase/error")] == ["gone"]


def test_json_has_the_keys_that_it_documents() -> None:
    value = json.loads(json_file.render(BROKEN))
    assert " ".join(value) == (
        "verdict exit_code url edition seed stopped again sent begun seconds counts cells findings"
    )
    assert " ".join(value["findings"][0]) == (
        "id layer model field rule source says verdict message seconds again exchanges"
    )
    assert {name: value[name] for name in ("verdict", "exit_code", "seed", "sent", "begun", "seconds")} == {
        "verdict": "broken",
        "exit_code": 1,
        "seed": 7,
        "sent": 3123,
        "begun": 41,
        "seconds": 72.3,
    }


def test_json_counts_and_lists_cells() -> None:
    value = json.loads(json_file.render(BROKEN))
    numbers = {"proven": 1, "refuted": 1, "not proven": 0}
    assert value["counts"] == numbers
    assert value["cells"] == [
        {
            "model": MODEL,
            "field": "num_images",
            "rule": "maximum",
            "verdict": "refuted",
            "counts": numbers,
            "findings": [f"{MODEL} num_images 5", f"{MODEL} num_images 4"],
        }
    ]


def exchange_in_json(exchange: Exchange) -> Any:
    return json.loads(json_file.render(a_report(a_finding(exchange=exchange))))["findings"][0]["exchanges"][0]


def test_json_has_exchanges() -> None:
    exchange = an_exchange(request_headers=(("Cookie", "a"), ("X", "b")), headers=(("y", "c"),))
    assert exchange_in_json(exchange) == {
        "request": {
            "method": "POST",
            "path": "/api/v3/x",
            "headers": [["Cookie", "(elided)"], ["X", "b"]],
            "body": '{"num_images": 5}',
        },
        "answer": {"status": 200, "headers": [["y", "c"]], "body": '{"code": 200}'},
        "curl": exchange_in_json(exchange)["curl"],
    }
    assert exchange_in_json(exchange)["curl"].startswith("curl -sS -i")


def test_json_does_not_list_headers_without_end() -> None:
    assert len(exchange_in_json(an_exchange(headers=(("x", "y"),) * 99))["answer"]["headers"]) == 40


def test_json_tells_no_body_from_an_empty_one() -> None:
    assert exchange_in_json(an_exchange(sent=None))["request"]["body"] is None
    assert exchange_in_json(an_exchange(sent=b""))["request"]["body"] == ""


def test_json_is_the_same_for_the_same_report() -> None:
    assert json_file.render(MIXED) == json_file.render(MIXED)
