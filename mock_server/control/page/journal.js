// The journal: every request that came in, newest first, and what became of it.

import { curlButton, entryLine } from "./curl.js";
import { byId, h, icon, keyed, option, setAttribute, setHidden, setText } from "./dom.js";
import { isOpen, onOpen } from "./tabs.js";
import { many, shortId, span, statusTone, time } from "./words.js";
import { on, world } from "./world.js";

const STEP = 100;
let shownCount = STEP;
let parts = null;

export function startJournal() {
  parts = build(byId("view-requests"));
  on("journal view health", show);
  onOpen("requests", open);
}

function build(view) {
  const filter = h("input", {
    type: "search",
    id: "journal-filter",
    placeholder: "Path, id, agent or fault",
    autocomplete: "off",
    on: { input: show },
  });
  const kind = h(
    "select",
    { id: "journal-kind", on: { change: show } },
    option("", "every kind"),
    option("refused", "refused or lost"),
    ...["submit", "poll", "output", "upload", "platform", "other"].map((each) => option(each)),
  );
  const summary = h("p", { class: "hint" });
  const list = h("ol", { class: "entries", id: "entries" });
  const more = h("button", { type: "button", class: "more", text: "Show more", on: { click: showMore } });
  view.append(
    h("h2", { text: "Requests" }),
    h(
      "div",
      { class: "filters", role: "group", "aria-label": "Which requests" },
      h("label", { class: "unseen", for: "journal-filter", text: "Filter requests" }),
      filter,
      h("label", { class: "unseen", for: "journal-kind", text: "Kind" }),
      kind,
    ),
    summary,
    list,
    more,
  );
  return { filter, kind, summary, list, more };
}

/** Opens the entry that the address names. */
function open(number) {
  show();
  if (!number) return;
  const place = world.journal.findIndex((entry) => String(entry.number) === number);
  if (place < 0) return;
  parts.filter.value = "";
  parts.kind.value = "";
  shownCount = Math.max(shownCount, world.journal.length - place);
  show();
  const row = [...parts.list.children].find((each) => each.dataset.number === number);
  row.firstChild.open = true;
  row.firstChild.firstChild.focus();
  row.scrollIntoView({ block: "center" });
}

function matching() {
  const text = parts.filter.value.trim().toLowerCase();
  const kind = parts.kind.value;
  return world.journal
    .toReversed()
    .filter(
      (entry) =>
        (!kind || (kind === "refused" ? entry.status === 0 || entry.status >= 400 : entry.kind === kind)) &&
        (!text ||
          `${entry.method} ${entry.path}?${entry.query} ${entry.agent} ${entry.fault} ${entry.scenario}`
            .toLowerCase()
            .includes(text)),
    );
}

function show() {
  if (!isOpen("requests") || !world.health) return;
  const found = matching();
  keyed(parts.list, found.slice(0, shownCount), {
    key: (entry) => `${entry.number} ${entry.at}`,
    make: makeEntry,
    update: showEntry,
  });
  setHidden(parts.more, found.length <= shownCount);
  const filtered = parts.filter.value.trim() || parts.kind.value;
  const all = many(world.journal.length, "request");
  const text = filtered
    ? `${many(found.length, "match", "matches")} among ${all}`
    : `${all}, newest first. This page's own are not among them.`;
  setText(
    parts.summary,
    world.journal.length
      ? text
      : "Nothing has been asked yet. Each request shows up here, also the refused ones.",
  );
}

function showMore() {
  const first = parts.list.children.length;
  shownCount += STEP;
  show();
  parts.list.children[first]?.querySelector("summary").focus();
}

export function makeEntry(entry) {
  const status = h(
    "span",
    { class: "code-pill" },
    icon(icons[statusTone(entry.status)]),
    h("span", { text: entry.status ? String(entry.status) : "no answer" }),
  );
  status.dataset.tone = statusTone(entry.status);
  const notes = h(
    "span",
    { class: "entry-notes" },
    entry.told ? h("span", { class: "badge", "data-tone": "note", text: `told ${entry.told}` }) : null,
    entry.fault
      ? h("span", { class: "badge", "data-tone": "warn", text: `fault ${entry.fault.split(";")[0]}` })
      : null,
    entry.committed && entry.status !== 200
      ? h("span", { class: "badge", "data-tone": "bad", text: "accepted, answer lost" })
      : null,
    entry.refusal ? h("span", { class: "entry-why", text: entry.refusal }) : null,
  );
  const summary = h(
    "summary",
    {},
    h("span", { class: "entry-number", text: `#${entry.number}` }),
    h("time", { datetime: entry.at, text: time(Date.parse(entry.at)) }),
    status,
    h(
      "span",
      { class: "entry-what" },
      h("b", { text: entry.method }),
      ` ${entry.path}${entry.query ? `?${entry.query}` : ""}`,
    ),
    notes,
  );
  const details = h("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(inside(entry));
  });
  return h("li", { class: "entry", "data-number": entry.number }, details);
}

const icons = { good: "completed", warn: "warn", bad: "bad" };

export function showEntry(row, entry) {
  setAttribute(row, "data-number", entry.number);
}

function inside(entry) {
  const facts = [
    ["Kind", entry.kind],
    ["Took", span(Date.parse(entry.ended) - Date.parse(entry.at))],
    ["Key", entry.key && `fingerprint ${entry.key}`],
    ["User agent", entry.agent || "none"],
    ["Body", entry.size ? `${entry.size} bytes` : ""],
    ["Scenario", entry.scenario],
    ["Fault", entry.fault],
    ["Retry-After", entry.retry_after === undefined ? "" : `${entry.retry_after} s`],
  ].filter(([, text]) => text);
  return h(
    "div",
    { class: "entry-inside" },
    entry.refusal
      ? h("div", { class: "violations" }, h("h4", { text: "Why it was refused" }), violations(entry.refusal))
      : null,
    h(
      "dl",
      { class: "facts" },
      facts.map(([name, text]) => h("div", {}, h("dt", { text: name }), h("dd", { text }))),
    ),
    entry.prediction && world.tasks.has(entry.prediction)
      ? h(
          "p",
          {},
          "Task ",
          h("a", { href: `#tasks/${encodeURIComponent(entry.prediction)}`, text: shortId(entry.prediction) }),
        )
      : null,
    entry.received
      ? h(
          "pre",
          { tabindex: "0", "aria-label": "Beginning of the body" },
          h("code", { text: entry.received }),
        )
      : null,
    entry.received && entry.size > new TextEncoder().encode(entry.received).length
      ? h("p", {
          class: "hint",
          text: "Only the beginning of this body was kept; the curl line has no more of it.",
        })
      : null,
    curlButton(() => entryLine(entry)),
  );
}

/** The violations that a refusal lists, one by one. */
function violations(refusal) {
  const listed = /^[0-9]+ violations?: (.*)$/s.exec(refusal);
  const each = listed ? listed[1].split(/; (?=\/|the body)/) : [refusal];
  return h(
    "ul",
    {},
    each.map((text) => h("li", { text })),
  );
}
