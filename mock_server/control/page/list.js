// One row of the list of tasks.

import { h, icon, setAttribute, setText } from "./dom.js";
import { gist, shortId, shortModel, time } from "./words.js";
import { isFinal, now, standing, world } from "./world.js";

const parts = new WeakMap();

export function statusChip(status) {
  const chip = h("span", { class: "status" }, icon(status), h("span", { text: status }));
  chip.dataset.status = status;
  return chip;
}

export function makeRow(task) {
  const chip = h("span", { class: "row-status" });
  const fill = h("span", { class: "fill" });
  const link = h(
    "a",
    { href: `#tasks/${encodeURIComponent(task.id)}`, class: "row" },
    h("span", { class: "row-top" }, chip, h("span", { class: "row-time", text: time(task.times[0]) })),
    h("span", { class: "row-gist", text: gist(task) }),
    h(
      "span",
      { class: "row-foot" },
      h("span", { text: shortModel(task.model) }),
      h("span", { class: "row-id", text: shortId(task.id) }),
    ),
    h("span", { class: "track", "aria-hidden": "true" }, fill),
  );
  const row = h("li", { "data-id": task.id }, link);
  parts.set(row, { chip, fill, link });
  return row;
}

export function showRow(row, task) {
  setAttribute(parts.get(row).link, "aria-current", world.selected === task.id ? "true" : null);
  tickRow(row, task);
}

/** Brings a row up to this moment; whether its status has changed. */
export function tickRow(row, task) {
  const { chip, fill } = parts.get(row);
  const status = standing(task).status;
  const share = isFinal(status) ? 1 : progress(task);
  const scale = `scaleX(${Math.round(share * 1000) / 1000})`;
  if (fill.style.transform !== scale) fill.style.transform = scale;
  setAttribute(row, "data-over", String(isFinal(status)));
  if (row.dataset.status === status) return false;
  const first = row.dataset.status === undefined;
  row.dataset.status = status;
  chip.replaceChildren(statusChip(status));
  setText(chip.firstChild.lastChild, status);
  return !first;
}

/** How far a task has come; one whose end has no date stops short of it. */
function progress(task) {
  const [first] = task.times;
  const last = task.times.at(-1);
  if (task.steps.length || !isFinal(task.events.at(-1).status)) {
    return standing(task).status === "created" ? 0.1 : 0.5;
  }
  return last > first ? Math.min(1, Math.max(0.02, (now() - first) / (last - first))) : 1;
}
