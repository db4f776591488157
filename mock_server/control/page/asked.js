// What a task was asked for: as received, as understood, and in full.

import { act } from "./actions.js";
import { get } from "./api.js";
import { h } from "./dom.js";
import { value } from "./words.js";

/** What was sent beside what it was taken for; a default is said in words. */
export function askedTable(task) {
  const unknown = new Set(
    task.warnings.filter((each) => each.startsWith("unknown field /")).map((each) => each.slice(15)),
  );
  const names = [...new Set([...Object.keys(task.received), ...Object.keys(task.input), ...task.defaulted])];
  const rows = names.map((name) => {
    const defaulted = task.defaulted.includes(name);
    const badge = defaulted ? ["default", "note"] : unknown.has(name) ? ["unknown", "warn"] : null;
    return h(
      "tr",
      { class: defaulted ? "defaulted" : "" },
      h("th", { scope: "row" }, h("code", {}, breakable(name.replace(/^\//, "")))),
      h(
        "td",
        {},
        defaulted
          ? h("span", { class: "hint", text: "not sent" })
          : h("code", { text: value(task.received[name]) }),
      ),
      h(
        "td",
        {},
        h("code", { text: value(at(task.input, name)) }),
        badge ? h("span", { class: "badge", "data-tone": badge[1], text: badge[0] }) : null,
      ),
    );
  });
  const head = h(
    "thead",
    {},
    h(
      "tr",
      {},
      ["Field", "Received", "Understood as"].map((text) => h("th", { scope: "col", text })),
    ),
  );
  return h(
    "div",
    { class: "scroller", role: "region", tabindex: "0", "aria-labelledby": "asked-heading" },
    h("table", { class: "asked" }, head, h("tbody", {}, rows)),
  );
}

const breakable = (name) => name.split(/(?<=[_/])/).flatMap((part) => [part, h("wbr")]);

function at(given, name) {
  if (!name.startsWith("/")) return given[name];
  const steps = name
    .slice(1)
    .split("/")
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  return steps.reduce((inner, step) => inner?.[step], given);
}

const LONGEST = 20_000;

async function showWhole(id, place) {
  const task = await act(() => get(`predictions/${encodeURIComponent(id)}`, { exact: true }));
  if (!task) return;
  const text = JSON.stringify(task.received, null, 2);
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}\n… (${text.length} characters)` : text;
  const body = h(
    "pre",
    { class: "whole", tabindex: "0", "aria-label": "Body as received" },
    h("code", { text: cut }),
  );
  place.replaceChildren(body);
  body.focus();
}

/** A button in whose place the whole body appears. */
export const wholeButton = (id, place) =>
  h("button", { type: "button", text: "Show body in full", on: { click: () => showWhole(id, place) } });
