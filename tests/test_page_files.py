"""The page's files, as they are served; what they do is seen in test_page."""

import re
from pathlib import Path

import pytest

from conftest import Client, MakeClient
from mock_server.control import page

FOLDER = Path(page.__file__).with_name("page")
NAMES = sorted(path.name for path in FOLDER.iterdir())
PARTS = [name for name in NAMES if name != "index.html"]


def test_the_page_is_html(client: Client) -> None:
    answer = client.get("/_mock/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_every_file_of_the_folder_is_served_as_it_is(client: Client) -> None:
    served = {name: client.get(f"/_mock/page/{name}").content for name in PARTS}
    assert served == {name: (FOLDER / name).read_bytes() for name in PARTS}


def test_a_file_says_what_it_is(client: Client) -> None:
    names = ("app.js", "base.css", "favicon.svg")
    headers = [client.get(f"/_mock/page/{name}").headers for name in names]
    assert [each["x-content-type-options"] for each in headers] == ["nosniff"] * 3
    assert [each["content-type"] for each in headers] == [
        "text/javascript; charset=utf-8",
        "text/css; charset=utf-8",
        "image/svg+xml",
    ]


def test_without_its_slash_the_page_is_pointed_to(client: Client) -> None:
    answer = client.get("/_mock")
    assert (answer.status_code, answer.headers["location"]) == (307, "_mock/")


def test_the_pointer_keeps_the_session(client: Client) -> None:
    answer = client.get("/_session/one/_mock")
    assert answer.next_request is not None
    assert answer.next_request.url.path == "/_session/one/_mock/"


def test_a_file_is_asked_about_each_time_and_sent_once(client: Client) -> None:
    first = client.get("/_mock/page/app.js")
    again = client.get("/_mock/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.headers["cache-control"], again.status_code, again.content) == ("no-cache", 304, b"")


def test_a_weak_name_among_others_will_do(client: Client) -> None:
    etag = client.get("/_mock/").headers["etag"]
    assert client.get("/_mock/", headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304


def test_another_name_is_answered_in_full(client: Client) -> None:
    assert client.get("/_mock/", headers={"If-None-Match": '"x"'}).status_code == 200


def test_head_has_the_length_and_no_body(client: Client) -> None:
    answer = client.request("HEAD", "/_mock/")
    length = str((FOLDER / "index.html").stat().st_size)
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", length)


def test_the_page_can_be_read_and_no_more(client: Client) -> None:
    answers = [
        client.request(method, path)
        for path in ("/_mock", "/_mock/", "/_mock/page/app.js")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")
    ]
    assert {(each.status_code, each.headers["allow"]) for each in answers} == {(405, "GET, HEAD")}


def test_what_is_not_in_the_table_is_not_there(client: Client) -> None:
    paths = (
        "/_mock/nope",
        "/_mock/page/",
        "/_mock/page/nope.js",
        "/_mock/page/../page.py",
        "/_mock/page/%2e%2e/page.py",
        "/_mock/page/index.html",
        "/_mockery",
    )
    answers = {path: client.get(path) for path in paths}
    assert {path: answer.json()["code"] for path, answer in answers.items()} == dict.fromkeys(paths, 404)


def test_the_policy_lets_nothing_in_from_outside_and_nothing_inline(client: Client) -> None:
    policy = client.get("/_mock/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert not re.search("unsafe|http|\\*|data:", policy)


def test_the_policy_keeps_text_from_becoming_markup(client: Client) -> None:
    policy = client.get("/_mock/").headers["content-security-policy"]
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy


def test_the_page_holds_to_its_policy() -> None:
    text = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script>|//", text.replace("<!doctype", ""))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_no_script_makes_markup_of_text(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function", text
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_long_and_none_asks_the_outside(name: str) -> None:
    text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert len(text.splitlines()) <= 300
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


def test_an_output_is_shown_without_being_fetched(client: Client) -> None:
    prediction = client.submit(scenario="instant", prompt="x")
    seen = client.get(f"/_mock/outputs/{prediction}/0.png")
    journal = client.get("/_mock/requests").json()["data"]["requests"]
    assert (seen.headers["content-type"], [each["kind"] for each in journal]) == ("image/png", ["submit"])


def test_an_output_that_is_shown_meets_no_fault(client: Client) -> None:
    prediction = client.submit(scenario="corrupt", prompt="x")
    client.clock(advance="1h")
    assert client.get(f"/_mock/outputs/{prediction}/0.png").content.startswith(b"\x89PNG")


def test_an_output_is_shown_as_nothing_but_itself(client: Client) -> None:
    prediction = client.submit(scenario="instant", prompt="x")
    headers = client.get(f"/_mock/outputs/{prediction}/0.png").headers
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_an_output_that_is_not_there_yet_is_404(client: Client) -> None:
    assert client.get(f"/_mock/outputs/{client.submit()}/0.png").status_code == 404


def test_an_output_that_is_no_longer_kept_is_410(client: Client) -> None:
    prediction = client.submit(scenario="instant", prompt="x")
    client.clock(advance="8d")
    assert client.get(f"/_mock/outputs/{prediction}/0.png").status_code == 410


def test_outputs_are_for_whoever_may_look_inside(make_client: MakeClient) -> None:
    client = make_client(control_token="secret")
    assert client.get(f"/_mock/outputs/{'0' * 32}/0.png").status_code == 401


@pytest.mark.parametrize("path", ["/_mock", "/_mock/", "/_mock/page/app.js"])
def test_the_page_is_what_asks_for_the_token(path: str) -> None:
    assert page.is_page(path)


@pytest.mark.parametrize("path", ["/_mock/health", "/_mock/page/", f"/_mock/outputs/{'0' * 32}/0.png"])
def test_what_tells_something_is_not_the_page(path: str) -> None:
    assert not page.is_page(path)
