// Webhooks: what is to be reported, how each attempt went, and once more.

import { act, tell } from "./actions.js";
import { get, post } from "./api.js";
import { byId, h, icon, keyed, renew, setHidden } from "./dom.js";
import { short, shortId, time } from "./words.js";
import { now, on, put, world } from "./world.js";

const TONES = { delivered: "good", pending: "note", failed: "bad", lost: "warn", refused: "bad" };
const MOST = 200;
const ICONS = { good: "completed", note: "note", bad: "bad", warn: "warn" };

export function startWebhooks() {
  const view = byId("view-webhooks");
  const none = h("p", { class: "empty-note" });
  const list = h("ul", { class: "cards", id: "webhooks" });
  view.append(h("h2", { text: "Webhooks" }), none, list);
  const show = () => {
    const told = world.webhooks;
    const deliveries = told?.webhooks ?? [];
    setHidden(none, deliveries.length > 0);
    renew(none, [told === null, told?.absent], () => explain(told));
    keyed(list, deliveries.toReversed().slice(0, MOST), {
      key: (each) => each.prediction,
      make: makeCard,
      update: showCard,
    });
  };
  on("webhooks", show);
  show();
}

const bodies = new WeakMap();

function makeCard({ prediction }) {
  const body = h("div");
  const card = h(
    "li",
    { class: "card" },
    h(
      "p",
      {},
      "Task ",
      h("a", { href: `#tasks/${encodeURIComponent(prediction)}`, text: shortId(prediction) }),
    ),
    body,
  );
  bodies.set(card, body);
  return card;
}

function showCard(card, delivery) {
  renew(bodies.get(card), delivery, () => makeWebhook(delivery));
}

function explain(told) {
  if (told?.absent) return h("span", { text: "This server does not tell about webhooks." });
  return h(
    "span",
    {},
    "No task has asked for a webhook. Add ",
    h("code", { text: "?webhook=http://127.0.0.1:PORT/path" }),
    " to a submit, and its end is reported there, signed.",
  );
}

/** One delivery, wherever it is shown. */
export function makeWebhook(delivery) {
  const { prediction, url, state, due, fault, attempts } = delivery;
  const button = h("button", {
    type: "button",
    class: "small",
    text: "Redeliver",
    "aria-label": `Redeliver the webhook of ${prediction.slice(0, 8)}`,
  });
  button.addEventListener("click", () => redeliver(prediction));
  const pill = h(
    "span",
    { class: "code-pill" },
    icon(ICONS[TONES[state] ?? "note"]),
    h("span", { text: state }),
  );
  pill.dataset.tone = TONES[state] ?? "note";
  return h(
    "div",
    { class: "webhook" },
    h(
      "p",
      { class: "webhook-head" },
      pill,
      h("code", { text: url }),
      fault ? h("span", { class: "badge", "data-tone": "warn", text: fault }) : null,
    ),
    due ? h("p", { class: "hint", text: `next at ${time(Date.parse(due), now())}` }) : null,
    attempts.length ? h("ol", { class: "attempts" }, attempts.map(attempt)) : null,
    button,
  );
}

function attempt({ at, status, note, fault, signature }) {
  return h(
    "li",
    {},
    h("time", { datetime: at, text: time(Date.parse(at), now()) }),
    h("b", { text: status ? String(status) : "no answer" }),
    note ? h("span", { text: note }) : null,
    fault ? h("span", { class: "badge", "data-tone": "warn", text: fault }) : null,
    signature ? h("code", { text: short(signature, 24).replace(/ \(.*/, "") }) : null,
  );
}

async function redeliver(prediction) {
  const done = await act(() => post(`webhooks/${encodeURIComponent(prediction)}/redeliver`));
  if (done === undefined) return;
  tell(`The webhook of ${prediction.slice(0, 8)} is sent once more.`);
  const told = await act(() => get("webhooks"));
  if (told) put("webhooks", told);
}
