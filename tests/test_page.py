"""The page at /_mock/ in a real browser: what it shows, and what its controls do."""

import datetime as dt
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from conftest import KEY, Server, StartServer

pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
pytest.register_assert_rewrite("page_bench")
from page_bench import SCHNELL, TABS, Bench, bench_on, rows  # noqa: E402 - it stands on Playwright
from playwright.sync_api import BrowserContext, Locator, Route, expect  # noqa: E402 - which need not be there

pytest_plugins = ("page_bench",)

HOSTILE = '<img src=x onerror="window.struck=1"><script>window.struck=1</script>\'; $(rm) \u202e\x1b[31m'
JSON = {**KEY, "Content-Type": "application/json"}


def arguments(line: str) -> list[str]:
    """The words that a shell makes of a curl line."""
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}; {line}"
    found = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=30)
    return found.stdout.decode().split("\0")[:-1]


def carry_out(line: str) -> httpx.Response:
    """Sends what a curl line says."""
    url, *words = arguments(line)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    headers = dict(text.split(": ", 1) for flag, text in pairs if flag == "-H")
    body = next((text for flag, text in pairs if flag == "--data-raw"), None)
    return httpx.request("GET" if body is None else "POST", url, headers=headers, content=body)


def curl_line(bench: Bench, place: Locator, label: str) -> str:
    place.get_by_role("button", name=label).click()
    expect(place.locator(".curl-line textarea")).not_to_have_value("")
    return place.locator(".curl-line textarea").input_value()


def test_a_task_appears_without_a_reload(bench: Bench) -> None:
    bench.open()
    expect(bench.page.get_by_role("heading", name="Nothing has come in yet")).to_be_visible()
    bench.submit(prompt="a red boat")
    expect(rows(bench)).to_contain_text(["a red boat"])


def test_the_line_on_the_empty_page_works(bench: Bench) -> None:
    bench.open()
    assert carry_out(bench.page.locator("#first-line").inner_text()).json()["code"] == 200
    expect(rows(bench)).to_contain_text(["A lighthouse in a storm"])


def test_the_status_follows_the_clock(bench: Bench) -> None:
    bench.submit()
    bench.open()
    expect(rows(bench)).to_contain_text(["created"])
    bench.clock(advance="1m")
    expect(rows(bench)).to_contain_text(["completed"])


@pytest.mark.parametrize(("button", "seconds"), [("+1 s", 1), ("+10 s", 10), ("+1 min", 60)])
def test_a_button_moves_the_clock(bench: Bench, button: str, seconds: int) -> None:
    now = bench.data("clock")["now"]
    bench.open()
    bench.page.get_by_role("button", name=button).click()
    expect(bench.page.locator("#caused")).to_be_visible()
    assert _seconds(bench.data("clock")["now"]) - _seconds(now) == seconds


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def test_the_clock_is_moved_by_any_span(bench: Bench) -> None:
    now = bench.data("clock")["now"]
    bench.open()
    bench.page.get_by_label("Advance by").fill("2 h")
    bench.page.get_by_label("Advance by").press("Enter")
    bench.arrives(lambda: _seconds(bench.data("clock")["now"]) - _seconds(now), 7200)


def test_a_span_that_is_none_is_refused_in_words(bench: Bench) -> None:
    bench.open()
    bench.page.get_by_label("Advance by").fill("soon")
    bench.page.get_by_label("Advance by").press("Enter")
    expect(bench.page.get_by_role("alert").filter(has_text="advance")).to_be_visible()


def test_the_clock_is_resumed_and_frozen(bench: Bench) -> None:
    bench.open()
    bench.page.get_by_role("button", name="Resume").click()
    bench.arrives(lambda: bench.data("clock")["running"], True)
    bench.page.get_by_role("button", name="Freeze").click()
    bench.arrives(lambda: bench.data("clock")["running"], False)


def test_the_clock_is_sped_up(bench: Bench) -> None:
    bench.open()
    bench.page.get_by_label("Speed").select_option("60")
    bench.arrives(lambda: bench.data("clock")["speed"], 60)


def test_what_moving_the_clock_caused_is_listed_in_order(bench: Bench) -> None:
    prediction = bench.submit()
    bench.open()
    bench.page.get_by_role("button", name="+1 min").click()
    expect(bench.page.locator("#caused-events > li")).to_contain_text(
        ["created → processing", "processing → completed"]
    )
    expect(bench.page.locator("#caused-events a").first).to_have_text(prediction[:8])


def test_a_fault_is_armed_as_the_form_says_and_disarmed(bench: Bench) -> None:
    bench.open("bench")
    page = bench.page
    page.locator("#fault-kind").select_option("503")
    page.get_by_label("Where").select_option("poll")
    page.get_by_label("Times").fill("2")
    page.get_by_label("Retry-After").fill("3s")
    page.get_by_label("After the request").check()
    page.get_by_role("button", name="Arm fault").click()
    wanted = ["503; on=poll; times=2; after-commit=true; retry-after=3000ms"]
    expect(page.locator("#armed code")).to_have_text(wanted)
    assert bench.data("health")["armed"] == wanted
    page.get_by_role("button", name="Disarm 503 on poll").click()
    bench.arrives(lambda: bench.data("health")["armed"], [])
    expect(page.get_by_text("Nothing is armed")).to_be_visible()


def test_a_fault_with_a_probability_strikes_for_as_long_as_it_is_armed(bench: Bench) -> None:
    bench.open("bench")
    bench.page.locator("#fault-kind").select_option("reset")
    bench.page.get_by_label("Probability").fill("0.5")
    bench.page.get_by_role("button", name="Arm fault").click()
    bench.arrives(lambda: bench.data("health")["armed"], ["reset; on=submit; times=always; probability=0.5"])


def test_every_kind_of_fault_can_be_armed_from_the_form(bench: Bench) -> None:
    kinds = [each["kind"] for each in bench.data("scenarios")["faults"]]
    bench.open("bench")
    for kind in kinds:
        bench.page.locator("#fault-kind").select_option(kind)
        bench.page.get_by_role("button", name="Arm fault").click()
        expect(bench.page.locator("#armed > li").last).to_contain_text(kind)
    assert [each["kind"] for each in bench.data("faults")["faults"]] == kinds


def test_a_fault_that_somebody_else_armed_is_shown(bench: Bench) -> None:
    bench.open("bench")
    bench.arm("hang; on=poll")
    expect(bench.page.locator("#armed > li")).to_contain_text(["hang; on=poll"])
    expect(bench.page.locator("#tab-bench .count")).to_have_text("1")


def test_a_scenario_is_chosen_and_taken_back(bench: Bench) -> None:
    bench.open("bench")
    bench.page.get_by_label("Scenario", exact=True).select_option("failed")
    bench.page.get_by_label("Changes").fill('error="out; of memory"')
    bench.page.get_by_label("For", exact=True).select_option("wavespeed-ai/flux-schnell-lora")
    bench.page.get_by_label("Submits").fill("2")
    bench.page.get_by_role("button", name="Choose scenario").click()
    wanted = {
        "model": "wavespeed-ai/flux-schnell-lora",
        "scenario": 'failed; error="out; of memory"',
        "times": 2,
    }
    bench.arrives(lambda: bench.data("scenario")["standing"], [wanted])
    bench.page.get_by_role("button", name="Take it back").click()
    bench.arrives(lambda: bench.data("scenario")["standing"], [])


def test_a_task_is_failed_with_a_reason(bench: Bench) -> None:
    prediction = bench.submit(scenario="manual")
    bench.open(f"tasks/{prediction}")
    bench.page.get_by_role("button", name="Start processing").click()
    bench.arrives(lambda: bench.data(f"predictions/{prediction}")["status"], "processing")
    bench.page.get_by_label("Reason").fill("out of memory")
    bench.page.get_by_role("button", name="Fail").click()
    expect(bench.page.locator(".timeline")).to_contain_text("out of memory")
    assert bench.data(f"predictions/{prediction}")["events"][-1]["error"] == "out of memory"


def test_a_task_is_completed_and_its_pictures_are_shown(bench: Bench) -> None:
    prediction = bench.submit(scenario="manual", num_images=2, size="512*512")
    bench.open(f"tasks/{prediction}")
    bench.page.get_by_role("button", name="Complete").click()
    expect(bench.page.locator(".output figcaption")).to_contain_text(["512 \u00d7 512", "512 \u00d7 512"])


def test_what_a_worker_does_cannot_be_completed_by_hand(
    context: BrowserContext, serve: StartServer, tmp_path: Path
) -> None:
    shared = ["--store", f"sqlite:///{tmp_path}/store.db", "--data", str(tmp_path)]
    bench = bench_on(context, serve("--backend", "gpu", "--workers-elsewhere", *shared).url)
    bench.open(f"tasks/{bench.submit()}")
    expect(bench.page.get_by_role("button", name="Complete")).to_be_disabled()
    expect(bench.page.get_by_role("button", name="Fail")).to_be_enabled()


def test_looking_at_a_picture_is_no_fetch(bench: Bench) -> None:
    prediction = bench.submit(scenario="instant", size="512*512")
    bench.open(f"tasks/{prediction}")
    expect(bench.page.locator(".output figcaption")).to_contain_text(["512 \u00d7 512"])
    assert [each["kind"] for each in bench.data("requests")["requests"]] == ["submit"]


def test_a_lora_is_a_link_to_its_file(bench: Bench) -> None:
    trainer = "/api/v3/wavespeed-ai/flux-dev-lora-trainer-turbo"
    prediction = bench.submit(scenario="instant", model=trainer, data="https://example.com/x.zip")
    bench.open(f"tasks/{prediction}")
    with bench.page.expect_download() as loaded:
        bench.page.get_by_role("link", name="0.safetensors").click()
    assert loaded.value.suggested_filename.endswith("0.safetensors")


def test_a_request_is_shown_as_received_and_as_understood(bench: Bench) -> None:
    bench.open(f"tasks/{bench.submit(prompt='x', seed=5)}")
    row = bench.page.locator("table.asked tr", has=bench.page.get_by_role("rowheader", name="seed"))
    expect(row.locator("td")).to_have_text(["5", "5"])
    row = bench.page.locator("table.asked tr", has=bench.page.get_by_role("rowheader", name="strength"))
    expect(row.locator("td")).to_have_text(["not sent", "0.8default"])


def test_what_is_to_come_without_a_date_is_shown(bench: Bench) -> None:
    bench.open(f"tasks/{bench.submit(scenario='polls')}")
    expect(bench.page.locator(".timeline > li")).to_contain_text(
        ["created", "after 2 more polls", "then after 2 more polls"]
    )


def test_a_poll_moves_a_task_that_polls_move(bench: Bench) -> None:
    prediction = bench.submit(scenario="polls")
    bench.open(f"tasks/{prediction}")
    for _ in range(2):
        bench.poll(prediction)
    expect(bench.page.locator(".task-head")).to_contain_text("processing")


def test_each_violation_of_a_refused_request_is_listed(bench: Bench) -> None:
    bench.refuse()
    bench.open("requests")
    bench.page.locator("#entries summary").click()
    expect(bench.page.locator(".violations li")).to_contain_text(["/seed", "/num_images"])


def test_any_task_can_be_sent_again_from_a_shell(bench: Bench) -> None:
    prediction = bench.submit(prompt=HOSTILE, guidance_scale=2.0, scenario="slow; processing=3s")
    bench.open(f"tasks/{prediction}")
    line = curl_line(bench, bench.page.locator("#task"), "Copy submit as curl")
    again = carry_out(line).json()["data"]["id"]
    first, second = (bench.data(f"predictions/{each}") for each in (prediction, again))
    assert (second["received"], second["scenario"]) == (first["received"], first["scenario"])


def test_a_line_for_a_shell_holds_nothing_that_a_terminal_acts_on(bench: Bench) -> None:
    bench.open(f"tasks/{bench.submit(prompt=HOSTILE)}")
    line = curl_line(bench, bench.page.locator("#task"), "Copy submit as curl")
    assert all(character.isprintable() for character in line)


def test_a_refused_request_can_be_sent_again_from_a_shell(bench: Bench) -> None:
    httpx.post(f"{bench.url}{SCHNELL}", content=b'{"prompt": "it\'s", "seed": 1.5}', headers=JSON)
    bench.open("requests")
    bench.page.locator("#entries summary").click()
    line = curl_line(bench, bench.page.locator("#entries"), "Copy as curl")
    assert "/seed" in carry_out(line).json()["message"]


class _Receiver(BaseHTTPRequestHandler):
    """Takes webhooks."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[str]:
    """An address that takes webhooks."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    thread = Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}/hook"
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_webhook_is_shown_with_its_attempts_and_sent_once_more(bench: Bench, receiver: str) -> None:
    prediction = bench.submit(scenario="manual", query=f"webhook={receiver}")
    bench.open("webhooks")
    bench.advance(prediction, "completed")
    expect(bench.page.locator("#webhooks .attempts > li")).to_contain_text(["204"])
    bench.page.get_by_role("button", name="Redeliver").click()
    expect(bench.page.locator("#webhooks .attempts > li")).to_contain_text(["204", "204"])
    expect(bench.page.get_by_role("button", name="Redeliver")).to_be_focused()
    assert [len(each["attempts"]) for each in bench.data("webhooks")["webhooks"]] == [2]


def test_a_finding_leads_to_the_requests_that_show_it(bench: Bench) -> None:
    httpx.post(f"{bench.url}{SCHNELL}?api_key=x", json={"prompt": "x"}, headers=KEY)
    bench.open("audit")
    finding = bench.page.locator(".finding", has_text="key-in-query")
    expect(finding).to_contain_text("Instead:")
    finding.get_by_role("link", name="#1").click()
    expect(bench.page.locator('#entries [data-number="1"] .entry-inside')).to_be_visible()


def test_the_ledger_says_what_was_charged(bench: Bench) -> None:
    bench.submit()
    bench.submit()
    bench.open("audit")
    expect(bench.page.locator("#ledger")).to_contain_text("Duplicates1")
    assert len(bench.data("ledger")["duplicates"]) == 1


def test_reset_asks_first(bench: Bench) -> None:
    bench.submit()
    bench.open()
    bench.page.get_by_role("button", name="Reset…").click()
    bench.page.get_by_role("button", name="Keep it").click()
    assert bench.data("health")["predictions"] == 1
    bench.page.get_by_role("button", name="Reset…").click()
    bench.page.get_by_role("button", name="Forget everything").click()
    expect(bench.page.get_by_role("heading", name="Nothing has come in yet")).to_be_visible()
    assert bench.data("health")["predictions"] == 0


def test_a_reset_by_somebody_else_is_noticed(bench: Bench) -> None:
    bench.submit(prompt="before")
    bench.open()
    expect(rows(bench)).to_contain_text(["before"])
    httpx.post(f"{bench.url}/_mock/reset")
    bench.submit(prompt="after")
    expect(rows(bench)).to_contain_text(["after"])
    expect(rows(bench)).to_have_count(1)
    expect(bench.page.locator("#tab-requests .count")).to_have_text("1")


def test_a_session_has_its_own_page_and_shows_the_way_to_the_others(bench: Bench, server: Server) -> None:
    bench.submit(prompt="mine")
    name = bench.url.rpartition("/")[2]
    bench.page.goto(f"{server.url}/_mock/")
    bench.page.get_by_label("Session").select_option(name)
    expect(bench.page).to_have_url(f"{bench.url}/_mock/")
    expect(rows(bench)).to_contain_text(["mine"])


def test_without_its_slash_the_address_leads_to_the_page(bench: Bench) -> None:
    bench.page.goto(f"{bench.url}/_mock")
    expect(bench.page).to_have_url(f"{bench.url}/_mock/")


def test_a_picked_task_survives_a_reload(bench: Bench) -> None:
    prediction = bench.submit()
    bench.open()
    rows(bench).first.get_by_role("link").click()
    bench.page.reload()
    expect(bench.page.locator(".task-id")).to_have_text(prediction)


def test_the_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    context: BrowserContext, serve: StartServer
) -> None:
    first = serve()
    bench = bench_on(context, first.url)
    bench.submit(prompt="before")
    bench.open()
    first.stop()
    expect(bench.page.locator("#connection")).to_contain_text("does not answer")
    serve("--port", str(first.port))
    bench.submit(prompt="after")
    expect(bench.page.locator("#connection")).to_have_text("Live")
    expect(rows(bench)).to_have_count(1)
    expect(rows(bench)).to_contain_text(["after"])


def test_the_token_is_asked_for_and_kept_in_the_tab_alone(
    context: BrowserContext, serve: StartServer
) -> None:
    bench = bench_on(context, serve("--control-token", "secret").url)
    bench.submit(prompt="behind the lock")
    bench.page.goto(f"{bench.url}/_mock/")
    bench.page.get_by_label("Token").fill("wrong")
    bench.page.get_by_role("button", name="Open").click()
    expect(bench.page.get_by_text("not the right one")).to_be_visible()
    bench.page.get_by_label("Token").fill("secret")
    bench.page.get_by_role("button", name="Open").click()
    expect(rows(bench)).to_contain_text(["behind the lock"])
    assert bench.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert "secret" not in bench.page.url


def test_nothing_is_asked_while_nobody_looks(bench: Bench) -> None:
    page = bench.page
    page.add_init_script("Object.defineProperty(document, 'hidden', {get: () => window.away === true})")
    page.clock.install()
    bench.open()
    page.evaluate("window.away = true")
    page.clock.run_for(60_000)
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(LOOK)
    page.clock.run_for(60_000)
    page.evaluate("fetch('health').then(() => 0)")
    assert asked == [f"{bench.url}/_mock/health"]
    with page.expect_request("**/_mock/clock"):
        page.evaluate(f"window.away = false; {LOOK}")


LOOK = "document.dispatchEvent(new Event('visibilitychange'))"


def test_a_round_is_over_before_the_next_begins(bench: Bench) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    bench.open()
    bench.page.route("**/_mock/clock", hold)
    with bench.page.expect_request("**/_mock/clock"):
        bench.page.evaluate(LOOK)
    for _ in range(5):
        bench.page.evaluate(LOOK)
    bench.page.evaluate("fetch('health').then(() => 0)")
    assert len(held) == 1
    held[0].continue_()


def test_hostile_texts_are_shown_and_do_nothing(bench: Bench) -> None:
    headers = {**KEY, "User-Agent": "<b onclick=window.struck=1>agent</b>"}
    body = {"prompt": HOSTILE, "<svg onload=window.struck=1>": 1, "loras": [{"path": HOSTILE, "scale": 1}]}
    prediction = httpx.post(f"{bench.url}{SCHNELL}", json=body, headers=headers).json()["data"]["id"]
    httpx.get(f"{bench.url}/api/v3/<img src=x onerror=window.struck=1>", headers=headers)
    httpx.post(f"{bench.url}{SCHNELL}", json={"prompt": "x", "size": HOSTILE}, headers=headers)
    bench.open(f"tasks/{prediction}")
    expect(bench.page.locator("table.asked")).to_contain_text("<svg onload=window.struck=1>")
    bench.page.get_by_role("button", name="Show body in full").click()
    expect(bench.page.locator("pre.whole")).to_contain_text("<script>window.struck=1</script>")
    bench.show("requests")
    for entry in bench.page.locator("#entries summary").all():
        entry.click()
    for view in TABS:
        bench.show(view)
    made = bench.page.evaluate(
        "[window.struck, document.querySelectorAll('main :is(img, script, b[onclick])').length]"
    )
    assert made == [None, 0]


def test_long_texts_are_shortened(bench: Bench) -> None:
    bench.open(f"tasks/{bench.submit(prompt='y' * 100_000)}")
    expect(bench.page.locator("table.asked")).to_contain_text("(100000 characters)")
    assert len(bench.page.locator("#view-tasks").inner_text()) < 5000
