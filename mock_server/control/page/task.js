// One task: where it stands, what was asked, what came of it, and what can be done to it.

import { act, tell } from "./actions.js";
import { post } from "./api.js";
import { askedTable, wholeButton } from "./asked.js";
import { curlButton, submitLine } from "./curl.js";
import { allow, byId, field, h, keyed, renew, setHidden, setText } from "./dom.js";
import { makeEntry, showEntry } from "./journal.js";
import { statusChip } from "./list.js";
import { makeOutput } from "./outputs.js";
import { makeTimeline, showTimeline } from "./timeline.js";
import { makeWebhook } from "./webhooks.js";
import { dollars, shortId, shortModel, time } from "./words.js";
import { entriesOf, isFinal, now, putTask, standing, world } from "./world.js";

let parts = null;
let shownId = "";
const statuses = new Map();

export function makeTask() {
  const line = makeTimeline();
  const reason = h("input", {
    id: "reason",
    maxlength: "2000",
    autocomplete: "off",
    placeholder: "e.g. CUDA out of memory",
  });
  const buttons = Object.fromEntries(
    [
      ["processing", "Start processing"],
      ["completed", "Complete"],
      ["failed", "Fail"],
    ].map(([to, text]) => [
      to,
      h("button", { type: "button", text, "data-to": to, on: { click: () => advance(to) } }),
    ]),
  );
  const section = (id, title, ...content) =>
    h("section", { class: "block", "aria-labelledby": id }, h("h3", { id, text: title }), content);
  const slots = Object.fromEntries(
    ["head", "facts", "asked", "warnings", "outputs", "webhook", "ledger"].map((name) => [
      name,
      h("div", { class: `slot-${name}` }),
    ]),
  );
  slots.requests = h("ol", { class: "entries" });
  slots.whole = h("div");
  const curl = h(
    "div",
    {},
    curlButton(() => submitLine(world.tasks.get(shownId)), "Copy submit as curl"),
  );
  const moves = h(
    "div",
    { class: "block moves", role: "group", "aria-label": "Move this task" },
    buttons.processing,
    buttons.completed,
    h("div", { class: "fail" }, buttons.failed, field("Reason", reason)),
  );
  const blocks = {
    outputs: section("outputs-heading", "Outputs", slots.outputs),
    webhook: section("webhook-heading", "Webhook", slots.webhook),
    requests: section("task-requests-heading", "Requests about it", slots.requests),
  };
  const article = h(
    "article",
    { class: "task", id: "task", tabindex: "-1", hidden: true },
    h("a", { class: "back", href: "#tasks", text: "← All tasks" }),
    slots.head,
    section("timeline-heading", "Timeline", line.element),
    moves,
    blocks.outputs,
    section(
      "asked-heading",
      "Request",
      slots.facts,
      slots.warnings,
      slots.asked,
      h("div", { class: "ask-actions" }, slots.whole, curl),
    ),
    blocks.webhook,
    blocks.requests,
    slots.ledger,
  );
  const missing = h("p", { class: "empty-note", hidden: true });
  parts = { article, missing, line, reason, buttons, slots, blocks, moves };
  return h("div", {}, article, missing);
}

export function leaveTask() {
  shownId = "";
  showTask(undefined, "");
}

export function showTask(task, id) {
  setHidden(parts.article, !task);
  setHidden(parts.missing, Boolean(task) || !id);
  if (!task) {
    setText(parts.missing, id ? `There is no task ${shortId(id)} here.` : "");
    return;
  }
  if (shownId !== task.id) begin(task);
  const status = standing(task).status;
  const { head, outputs, webhook, ledger, requests } = parts.slots;
  renew(head, [task.id, status], () => heading(task, status));
  showTimeline(parts.line, task);
  setHidden(parts.moves, isFinal(status));
  allow(parts.buttons.processing, status === "created");
  // What a worker does, only that can complete.
  allow(parts.buttons.completed, !task.job);
  showOutputs(outputs, task);
  const delivery = world.webhooks?.webhooks?.find((each) => each.prediction === task.id);
  setHidden(parts.blocks.webhook, !task.webhook);
  renew(webhook, [task.webhook, delivery], () =>
    delivery
      ? makeWebhook(delivery)
      : h("p", {}, "To ", h("code", { text: task.webhook ?? "" }), " when it ends."),
  );
  const entries = entriesOf(task.id).slice(-50);
  setHidden(parts.blocks.requests, !entries.length);
  keyed(requests, entries, { key: (entry) => entry.number, make: makeEntry, update: showEntry });
  const row = world.ledger?.tasks?.find((each) => each.prediction === task.id);
  renew(ledger, [row, status], () => (row ? bill(row) : h("span")));
}

function begin(task) {
  shownId = task.id;
  parts.reason.value = "";
  const { facts, asked, warnings, whole } = parts.slots;
  renew(facts, task.id, () => factsOf(task));
  renew(warnings, [task.id, task.warnings], () =>
    task.warnings.length
      ? h(
          "ul",
          { class: "warnings", "aria-label": "Remarks" },
          task.warnings.map((each) => h("li", { text: each })),
        )
      : h("span"),
  );
  renew(asked, task.id, () => askedTable(task));
  whole.replaceChildren(wholeButton(task.id, whole));
  for (const name of ["outputs", "requests"]) keyed(parts.slots[name], [], { key: String, make: () => null });
  parts.article.closest(".detail-pane").scrollTop = 0;
}

function heading(task, status) {
  return h(
    "div",
    { class: "task-head" },
    h("h2", { text: shortModel(task.model) }),
    statusChip(status),
    h("p", { class: "task-id" }, h("code", { text: task.id })),
  );
}

function factsOf(task) {
  const facts = [
    ["Model", task.model],
    [
      "Version",
      `${task.version}${task.edition === world.health?.edition ? "" : `, edition ${task.edition}`}`,
    ],
    ["Scenario", task.scenario],
    ["Created", time(Date.parse(task.created_at), now())],
    ["Seed", task.seed],
    ["Fault", task.fault],
  ].filter(([, text]) => text !== undefined);
  return h(
    "dl",
    { class: "facts" },
    facts.map(([name, text]) => h("div", {}, h("dt", { text: name }), h("dd", { text: String(text) }))),
  );
}

function showOutputs(place, task) {
  const event = standing(task);
  const outputs = event.outputs ?? [];
  setHidden(parts.blocks.outputs, !outputs.length);
  const listed = outputs.map((url, number) => ({
    url,
    number: number + 1,
    nsfw: event.has_nsfw_contents?.[number] ?? false,
  }));
  keyed(place, listed, { key: (each) => each.url, make: makeOutput });
}

function bill(row) {
  const remarks = [
    row.duplicate_of
      ? ["a duplicate of ", h("a", { href: `#tasks/${row.duplicate_of}`, text: shortId(row.duplicate_of) })]
      : null,
    row.answer_lost ? ["the answer to its submit was lost"] : null,
    row.status === "completed" && !row.fetched ? ["no client was told its end yet"] : null,
  ].filter(Boolean);
  return h(
    "p",
    { class: "bill" },
    `Charged ${dollars(row.price)}`,
    remarks.map((each) => ["; ", ...each]).flat(),
    ".",
  );
}

async function advance(to) {
  if (parts.buttons[to].getAttribute("aria-disabled")) return;
  const error = parts.reason.value.trim();
  const id = shownId;
  const task = await act(() =>
    post(`predictions/${encodeURIComponent(id)}/advance`, to === "failed" && error ? { to, error } : { to }),
  );
  if (!task) return;
  putTask(task);
  if (isFinal(to)) byId("task").focus();
}

/** Says which tasks have come to another status since the last time. */
export function announceChanges() {
  for (const id of world.order) {
    const task = world.tasks.get(id);
    const status = standing(task).status;
    const before = statuses.get(id);
    if (before === status) continue;
    statuses.set(id, status);
    if (before !== undefined) tell(`Task ${id.slice(0, 8)} is ${status}.`);
  }
  for (const id of statuses.keys()) if (!world.tasks.has(id)) statuses.delete(id);
}
