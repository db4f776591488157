// The view of tasks: the list on the left, one of them on the right.

import { get } from "./api.js";
import { act } from "./actions.js";
import { onBeat } from "./clock.js";
import { curlButton, firstLine } from "./curl.js";
import { byId, h, keyed, option, setAttribute, setHidden, setText } from "./dom.js";
import { makeRow, showRow, tickRow } from "./list.js";
import { isOpen, onOpen } from "./tabs.js";
import { announceChanges, leaveTask, makeTask, showTask } from "./task.js";
import { gist, many } from "./words.js";
import { isOver, on, putOlder, standing, world } from "./world.js";

const STEP = 100;
let shownCount = STEP;
let parts = null;

export function startTasks() {
  parts = build(byId("view-tasks"));
  on("tasks view health", show);
  on("tasks", announceChanges);
  onOpen("tasks", open);
  onBeat(tick);
}

function build(view) {
  const filter = h("input", {
    type: "search",
    id: "filter",
    placeholder: "Id, model or prompt",
    autocomplete: "off",
    on: { input: show },
  });
  const status = h(
    "select",
    { id: "filter-status", on: { change: show } },
    option("", "any status"),
    ...["created", "processing", "completed", "failed"].map((each) => option(each)),
  );
  const list = h("ol", { class: "task-list", id: "task-list" });
  const summary = h("p", { class: "hint", id: "task-summary" });
  const more = h("button", { type: "button", class: "more", text: "Show more", on: { click: showMore } });
  const left = h(
    "section",
    { class: "list-pane", "aria-labelledby": "tasks-heading" },
    h("h2", { id: "tasks-heading", text: "Tasks" }),
    h(
      "div",
      { class: "filters", role: "group", "aria-label": "Which tasks" },
      h("label", { class: "unseen", for: "filter", text: "Filter tasks" }),
      filter,
      h("label", { class: "unseen", for: "filter-status", text: "Status" }),
      status,
    ),
    summary,
    list,
    more,
  );
  const pick = h("p", { class: "empty-note", text: "Choose a task to see what became of it." });
  const right = h("section", { class: "detail-pane", "aria-label": "Task" }, pick, makeTask());
  const empty = makeEmpty();
  const panes = h("div", { class: "panes" }, left, right);
  view.append(empty, panes);
  return { filter, status, list, summary, more, pick, panes, empty };
}

function makeEmpty() {
  const code = h("code", { id: "first-line" });
  return h(
    "section",
    { class: "empty", "aria-labelledby": "empty-heading", hidden: true },
    h("h2", { id: "empty-heading", text: "Nothing has come in yet" }),
    h("p", {
      text: "Point a client at this server, or paste this into a shell. What comes in appears here by itself.",
    }),
    h("pre", { tabindex: "0", "aria-label": "A first request" }, code),
    curlButton(() => firstLine(), "Copy"),
    h(
      "p",
      { class: "hint" },
      "Any key will do, unless the server was started with some of its own. ",
      "To make time stand still first, press Freeze above.",
    ),
  );
}

function open(id) {
  const before = parts.panes.dataset.one;
  setAttribute(parts.panes, "data-one", id || null);
  if (!id) leaveTask();
  show();
  // Where only one pane fits, the link that was followed is gone, and the focus with it.
  if (id && !parts.list.offsetParent) {
    byId("task").focus({ preventScroll: true });
    byId("view-tasks").scrollIntoView();
  } else if (before && !id) {
    parts.list.querySelector(`[data-id="${CSS.escape(before)}"] a`)?.focus();
  }
}

function matching() {
  const text = parts.filter.value.trim().toLowerCase();
  const wanted = parts.status.value;
  const all = world.order.map((id) => world.tasks.get(id));
  if (!text && !wanted) return all;
  return all.filter(
    (task) =>
      (!wanted || standing(task).status === wanted) &&
      (!text || `${task.id} ${task.model} ${task.scenario} ${gist(task)}`.toLowerCase().includes(text)),
  );
}

function show() {
  if (!isOpen("tasks") || !world.health) return;
  const nothing = world.count === 0 && !world.selected;
  setHidden(parts.empty, !nothing);
  setHidden(parts.panes, nothing);
  if (nothing) {
    setText(byId("first-line"), firstLine());
    return;
  }
  const found = matching();
  const listed = found.slice(0, shownCount);
  keyed(parts.list, listed, { key: (task) => task.id, make: makeRow, update: showRow });
  const filtered = parts.filter.value.trim() || parts.status.value;
  const known =
    world.order.length < world.count
      ? `the newest ${world.order.length} of ${world.count}`
      : `${world.count}`;
  setText(
    parts.summary,
    filtered
      ? `${many(found.length, "match", "matches")} among ${known}`
      : `${listed.length} of ${many(world.count, "task")}, newest first`,
  );
  setHidden(parts.more, found.length <= shownCount && world.order.length >= world.count);
  setHidden(parts.pick, Boolean(world.selected));
  showTask(world.tasks.get(world.selected), world.selected);
}

async function showMore() {
  const first = parts.list.children.length;
  shownCount += STEP;
  if (world.order.length < Math.min(shownCount, world.count)) {
    const page = await act(() =>
      get(`predictions?limit=${STEP}&before=${encodeURIComponent(world.order.at(-1))}`),
    );
    if (page) putOlder(page);
  }
  show();
  // The button may be gone; whoever pressed it goes on where the list went on.
  parts.list.children[first]?.querySelector("a").focus();
}

function tick() {
  announceChanges();
  if (!isOpen("tasks")) return;
  let moved = false;
  for (const row of parts.list.children) {
    const task = world.tasks.get(row.dataset.id);
    if (task && (row.dataset.over !== "true" || !isOver(task))) moved = tickRow(row, task) || moved;
  }
  if (moved && parts.status.value) show();
  if (world.selected) showTask(world.tasks.get(world.selected), world.selected);
}
