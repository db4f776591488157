"""That anybody can use the page: by keyboard, by ear, in the dark, on a small screen, with a lot on it."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from conftest import Server

pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
pytest.register_assert_rewrite("page_bench")
from page_bench import TABS, Bench, rows  # noqa: E402 - it stands on Playwright
from playwright.sync_api import ViewportSize, expect  # noqa: E402 - which need not be there

pytest_plugins = ("page_bench",)

FILLED = 5
ROLES = {"button", "link", "textbox", "searchbox", "combobox", "tab", "checkbox", "region", "tabpanel", "img"}

# Of each text that can be seen, its contrast to the nearest ground that is painted behind it (WCAG 2, 1.4.3).
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = rgba(getComputedStyle(each).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest('.unseen, .skip, script, noscript')) continue;
    const [one, two] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${element.className} ${text.slice(0, 40)}`);
  }
  return found;
}"""

# What can be reached with Tab: the tab that is not open is reached with the arrows.
REACHABLE = """() => [...document.querySelectorAll(
  'a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((each) => each.checkVisibility() && each.tabIndex >= 0).length"""

MARK = """() => {
  const element = document.activeElement;
  if (element === document.body || element.dataset.reached) return false;
  element.dataset.reached = 'yes';
  return true;
}"""


def fill(bench: Bench) -> str:
    """Something of every kind for each view, and FILLED tasks; the id of one that has not ended."""
    bench.submit(scenario="instant", prompt="A lighthouse in a storm, oil on canvas", size="512*512")
    bench.submit(scenario="failed; error=out of memory", prompt="A bowl of fruit", max_images=2)
    bench.submit(scenario="polls", prompt="Moved by polls")
    bench.refuse()
    bench.arm("503; on=poll; times=2")
    bench.stand("slow; processing=30s")
    bench.clock(advance="700ms")
    bench.poll(
        bench.submit(
            scenario="queued", prompt="A long queue, with a webhook", query="webhook=http://127.0.0.1:9/x"
        )
    )
    bench.clock(advance="20s")
    return bench.submit(scenario="normal; created=1s; processing=9s", prompt="A red boat at dawn")


def show_all(bench: Bench, view: str, task: str) -> None:
    """Opens a view, and whatever can be unfolded in it."""
    bench.page.goto("about:blank")
    bench.open(f"tasks/{task}" if view == "tasks" else view)
    expect(bench.page.locator("#tab-tasks .count")).to_have_text(str(FILLED))
    unfold = "all => all.forEach(each => { each.open = true; })"
    bench.page.locator(f"#view-{view} details").evaluate_all(unfold)


def test_every_control_has_a_name(bench: Bench) -> None:
    task, nameless = fill(bench), []
    for view in TABS:
        show_all(bench, view, task)
        tree = bench.page.context.new_cdp_session(bench.page).send("Accessibility.getFullAXTree")
        nameless += [node["role"] for node in tree["nodes"] if _is_control(node) and not _name(node)]
    assert nameless == []


def _is_control(node: dict[str, Any]) -> bool:
    return not node["ignored"] and node["role"]["value"] in ROLES


def _name(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value", "")).strip()


@pytest.mark.parametrize("view", TABS)
def test_every_control_is_reached_with_the_tab_key(bench: Bench, view: str) -> None:
    show_all(bench, view, fill(bench))
    wanted = bench.page.evaluate(REACHABLE)
    bench.page.evaluate("document.activeElement.blur()")
    reached = 0
    for _ in range(wanted + 2):
        bench.page.keyboard.press("Tab")
        reached += bench.page.evaluate(MARK)
    assert (reached, wanted > 10) == (wanted, True)


def test_a_whole_walk_needs_no_mouse(bench: Bench) -> None:
    prediction = bench.submit(scenario="manual")
    bench.open()
    press = bench.page.keyboard.press
    press("Tab")
    expect(bench.page.get_by_role("link", name="Skip to content")).to_be_focused()
    press("Enter")
    expect(bench.page.locator("#main")).to_be_focused()
    for _ in range(3):
        press("Tab")
    press("Enter")
    expect(bench.page.locator(".task-id")).to_have_text(prediction)
    while bench.page.evaluate("document.activeElement.textContent") != "Complete":
        press("Tab")
    press("Enter")
    expect(bench.page.locator(".task-head")).to_contain_text("completed")
    expect(bench.page.locator("#task")).to_be_focused()


def test_the_tabs_are_walked_with_arrows(bench: Bench) -> None:
    bench.open()
    bench.page.locator("#tab-tasks").focus()
    for key, wanted in (
        ("ArrowRight", "requests"),
        ("End", "audit"),
        ("ArrowRight", "tasks"),
        ("ArrowLeft", "audit"),
    ):
        bench.page.keyboard.press(key)
        expect(bench.page.locator(f"#tab-{wanted}")).to_be_focused()
        expect(bench.page.locator(f"#view-{wanted}")).to_be_visible()


def test_the_focus_can_be_seen(bench: Bench) -> None:
    bench.open("bench")
    bench.page.keyboard.press("Tab")
    for _ in range(15):
        bench.page.keyboard.press("Tab")
        assert bench.page.evaluate("getComputedStyle(document.activeElement).outline").endswith("solid 2px")


def test_the_focus_stays_when_something_comes_in(bench: Bench) -> None:
    bench.submit(prompt="first")
    bench.open()
    link = rows(bench).first.get_by_role("link")
    link.focus()
    handle = link.element_handle()
    bench.submit(prompt="second")
    expect(rows(bench)).to_have_count(2)
    assert handle is not None
    assert handle.evaluate("each => each === document.activeElement")


def test_a_dialog_gives_the_focus_back(bench: Bench) -> None:
    bench.open()
    bench.page.get_by_role("button", name="Reset…").press("Enter")
    bench.page.keyboard.press("Escape")
    expect(bench.page.get_by_role("button", name="Reset…")).to_be_focused()


def test_what_changes_is_said_to_those_who_listen(bench: Bench) -> None:
    prediction = bench.submit()
    bench.open()
    bench.page.get_by_role("button", name="+1 min").click()
    news = bench.page.get_by_role("status").and_(bench.page.locator("#news"))
    expect(news).to_contain_text(f"Task {prediction[:8]} is completed.")


def test_the_headings_leave_no_level_out(bench: Bench) -> None:
    bench.open(f"tasks/{fill(bench)}")
    headings = bench.page.locator(":is(h1, h2, h3, h4):visible").all()
    levels = [int(each.evaluate("each => each.tagName[1]")) for each in headings]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(bench: Bench, theme: str) -> None:
    bench.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    task, faint = fill(bench), []
    for view in TABS:
        show_all(bench, view, task)
        faint += bench.page.evaluate(CONTRASTS)
    assert faint == []


def test_the_theme_follows_the_system_until_one_is_chosen(bench: Bench) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    bench.page.emulate_media(color_scheme="light")
    bench.open()
    light = bench.page.evaluate(ground)
    bench.page.emulate_media(color_scheme="dark")
    dark = bench.page.evaluate(ground)
    bench.page.get_by_label("Theme").select_option("light")
    bench.page.reload()
    assert (bench.page.evaluate(ground), light != dark) == (light, True)


# The second is a screen of 1280 by 860 at 200 %.
@pytest.mark.parametrize("size", [ViewportSize(width=400, height=800), ViewportSize(width=640, height=430)])
def test_nothing_is_wider_than_a_small_screen(bench: Bench, size: ViewportSize) -> None:
    bench.page.set_viewport_size(size)
    task, widths = fill(bench), {}
    for view in TABS:
        show_all(bench, view, task)
        widths[view] = bench.page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(TABS, size["width"])


def test_on_a_small_screen_a_task_stands_in_place_of_the_list(bench: Bench) -> None:
    prediction = bench.submit()
    bench.page.set_viewport_size({"width": 400, "height": 800})
    bench.open()
    rows(bench).get_by_role("link").click()
    expect(bench.page.locator("#task")).to_be_focused()
    expect(bench.page.locator("#task-list")).to_be_hidden()
    bench.page.get_by_role("link", name="All tasks").click()
    expect(bench.page.locator(f'[data-id="{prediction}"] a')).to_be_focused()


def test_five_hundred_tasks_are_shown_in_steps(bench: Bench) -> None:
    bench.submit_many(500)
    bench.open()
    expect(rows(bench)).to_have_count(100)
    for wanted in (200, 300, 400, 500):
        bench.page.get_by_role("button", name="Show more").click()
        expect(rows(bench)).to_have_count(wanted)
    expect(bench.page.get_by_role("button", name="Show more")).to_be_hidden()
    ids = [row.get_attribute("data-id") for row in (rows(bench).first, rows(bench).last)]
    listed = [each["id"] for each in bench.data("predictions?limit=1000")["predictions"]]
    assert ids == [listed[0], listed[-1]]


def test_rows_that_have_not_changed_stay_the_same_elements(bench: Bench) -> None:
    bench.submit_many(120)
    bench.open()
    expect(rows(bench)).to_have_count(100)
    bench.page.evaluate("document.querySelectorAll('#task-list > li').forEach((row) => { row.mark = true; })")
    bench.submit(prompt="one more")
    expect(rows(bench).first).to_contain_text("one more")
    marked = "[...document.querySelectorAll('#task-list > li')].filter((row) => row.mark).length"
    assert bench.page.evaluate(marked) == 99


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where pictures of the page go."""
    found = Path(os.environ.get("WAVEMOCK_SCREENSHOTS") or tmp_path)
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", TABS)
def test_pictures_are_taken_of_each_view(bench: Bench, folder: Path, view: str, theme: str) -> None:
    bench.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    task = fill(bench)
    bench.open(f"tasks/{task}" if view == "tasks" else view)
    bench.page.get_by_role("button", name="+1 s").first.click()
    expect(bench.page.locator("#caused")).to_be_visible()
    if view == "requests":
        refused = bench.page.locator(".code-pill", has_text="400")
        bench.page.locator("#entries summary", has=refused).click()
    picture = folder / f"{view}-{theme}.png"
    bench.page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000


def test_pictures_are_taken_of_an_empty_a_full_and_a_small_page(
    bench: Bench, folder: Path, server: Server
) -> None:
    page = bench.page
    bench.open()
    page.screenshot(path=folder / "empty-light.png")
    page.get_by_label("Theme").select_option("dark")
    page.screenshot(path=folder / "empty-dark.png")
    page.get_by_label("Theme").select_option("auto")
    bench.submit_many(500)
    bench.clock(advance="800ms")
    fill(bench)
    expect(page.locator("#tab-tasks .count")).to_have_text("505")
    page.screenshot(path=folder / "500-light.png")
    rows(bench).nth(4).get_by_role("link").click()
    expect(page.locator(".output figcaption")).to_contain_text(["512"])
    page.screenshot(path=folder / "500-picked-light.png")
    page.set_viewport_size({"width": 400, "height": 800})
    page.screenshot(path=folder / "small-task.png", full_page=True)
    assert len(list(folder.glob("*.png"))) >= 5
