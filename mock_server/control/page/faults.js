// Faults: a form for one, and those that are armed.

import { act, tell } from "./actions.js";
import { get, post, remove } from "./api.js";
import { allow, byId, field, h, keyed, option, prose, renew, setHidden, setText } from "./dom.js";
import { many, time } from "./words.js";
import { now, on, put, world } from "./world.js";

const HINTS = {
  seconds: ["Seconds", "A span: 500ms, 2s, 5m"],
  "retry-after": ["Retry-After", "A span, such as 3s"],
  value: ["Status", "e.g. cancelled, timeout"],
  field: ["Field", "e.g. outputs, error, status"],
};
let parts = null;

/** The part of the view that is about faults. */
export function makeFaults() {
  const kind = h("select", { id: "fault-kind", on: { change: choose } });
  const place = h("select", { id: "fault-on" });
  const times = h("input", { id: "fault-times", class: "narrow", value: "1", autocomplete: "off" });
  const probability = h("input", {
    id: "fault-probability",
    class: "narrow",
    inputmode: "decimal",
    autocomplete: "off",
    placeholder: "0 to 1",
  });
  const seed = h("input", { id: "fault-seed", class: "narrow", inputmode: "numeric", autocomplete: "off" });
  const lasts = h("input", { id: "fault-for", class: "narrow", autocomplete: "off", placeholder: "e.g. 5m" });
  const own = h("div", { class: "fields", id: "fault-own" });
  const about = h("p", { class: "hint", id: "fault-about" });
  const written = h("output", {
    class: "preview",
    id: "fault-preview",
    for: "fault-kind fault-on fault-times fault-probability",
  });
  kind.setAttribute("aria-describedby", "fault-about");
  const form = h(
    "form",
    { id: "fault-form", on: { submit: arm, input: preview } },
    h(
      "div",
      { class: "fields" },
      field("Kind", kind),
      field("Where", place),
      field("Times", times, "A number, or always"),
      field("Probability", probability),
    ),
    about,
    own,
    h(
      "details",
      {},
      h("summary", { text: "More" }),
      h("div", { class: "fields" }, field("Seed of the luck", seed), field("Armed for", lasts)),
    ),
    h("p", { class: "preview-line" }, h("span", { class: "hint", text: "As text: " }), written),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary", text: "Arm fault" })),
  );
  const list = h("ul", { class: "cards", id: "armed" });
  const none = h("p", {
    class: "empty-note",
    text: "Nothing is armed: every request meets what its scenario says.",
  });
  const all = h("button", {
    type: "button",
    class: "quiet",
    text: "Disarm all",
    on: { click: () => disarm("faults", "All faults are disarmed.") },
  });
  parts = { kind, place, times, probability, seed, lasts, own, about, written, list, none, all };
  on("catalogue", fill);
  on("faults", show);
  show();
  return [
    h(
      "section",
      { class: "block", "aria-labelledby": "armed-heading" },
      h("div", { class: "block-head" }, h("h2", { id: "armed-heading", text: "Armed" }), all),
      none,
      list,
    ),
    h(
      "section",
      { class: "block", "aria-labelledby": "fault-heading" },
      h("h2", { id: "fault-heading", text: "Fire a fault" }),
      form,
    ),
  ];
}

const kinds = () => world.catalogue?.faults ?? [];
const chosen = () => kinds().find((each) => each.kind === parts.kind.value);

function fill() {
  parts.kind.replaceChildren(...kinds().map((each) => option(each.kind)));
  choose();
}

function choose() {
  const kind = chosen();
  if (!kind) return;
  parts.place.replaceChildren(...kind.on.map((each) => option(each)));
  renew(parts.about, kind, () => prose(`${kind.what} ${kind.advice}`));
  renew(parts.own, kind.kind, () => kind.keys.map(keyField));
  preview();
}

function keyField(key) {
  const id = `fault-key-${key}`;
  if (key === "after-commit") {
    const box = h("input", { type: "checkbox", id, "data-key": key });
    return h(
      "div",
      { class: "field check" },
      box,
      h("label", { for: id, text: "After the request was carried out: only the answer is lost" }),
    );
  }
  const [label, hint] = HINTS[key] ?? [key, ""];
  return field(label, h("input", { id, "data-key": key, class: "narrow", autocomplete: "off" }), hint);
}

const escaped = (text) => (/[;"\\]/.test(text) ? `"${text.replace(/["\\]/g, "\\$&")}"` : text);

/** The fault in the server's own grammar. */
function text() {
  const told = [["on", parts.place.value]];
  const probability = parts.probability.value.trim();
  const times = parts.times.value.trim();
  // With a probability, one time is hardly meant: without a word, a fault then strikes for ever.
  if (times && !(probability && times === "1")) told.push(["times", times]);
  told.push(
    ["probability", probability],
    ["seed", parts.seed.value.trim()],
    ["for", parts.lasts.value.trim()],
  );
  for (const input of parts.own.querySelectorAll("[data-key]")) {
    told.push([
      input.dataset.key,
      input.type === "checkbox" ? (input.checked ? "true" : "") : input.value.trim(),
    ]);
  }
  return [
    parts.kind.value,
    ...told.filter(([, each]) => each).map(([key, each]) => `${key}=${escaped(each)}`),
  ].join("; ");
}

function preview() {
  setText(parts.written, text());
}

async function arm(event) {
  event.preventDefault();
  const armed = await act(() => post("faults", { fault: text() }));
  if (!armed) return;
  tell(`Armed: ${armed.fault}.`);
  await refresh();
}

async function disarm(path, said) {
  if (parts.all.getAttribute("aria-disabled")) return;
  if (!(await act(() => remove(path)))) return;
  tell(said);
  await refresh();
  byId("armed-heading").closest("section").querySelector("button").focus();
}

async function refresh() {
  const told = await act(() => get("faults"));
  if (told) put("faults", told.faults);
}

function show() {
  setHidden(parts.none, world.faults.length > 0);
  allow(parts.all, world.faults.length > 0);
  keyed(parts.list, world.faults, { key: (each) => each.id, make: makeCard, update: showCard });
}

const counts = new WeakMap();

function makeCard(fault) {
  const count = h("span", { class: "hint" });
  const button = h("button", {
    type: "button",
    class: "small",
    text: "Disarm",
    "aria-label": `Disarm ${fault.kind} on ${fault.on}`,
    on: { click: () => disarm(`faults/${encodeURIComponent(fault.id)}`, `Disarmed ${fault.kind}.`) },
  });
  const card = h(
    "li",
    { class: "card row-card" },
    h("div", {}, h("code", { text: fault.fault }), h("br"), count),
    button,
  );
  counts.set(card, count);
  return card;
}

function showCard(card, fault) {
  const since = time(Date.parse(fault.armed_at), now());
  setText(
    counts.get(card),
    `struck ${many(fault.strikes, "time")} of ${many(fault.chances, "chance")}, armed ${since}`,
  );
}
