// The clock: shows it running, and moves it.

import { act, tell } from "./actions.js";
import { post } from "./api.js";
import { byId, h, icon, keyed, option, setHidden, setText } from "./dom.js";
import { many, span, time } from "./words.js";
import { now, on, putClock, world } from "./world.js";

const SPEEDS = [0.1, 1, 2, 10, 60, 600, 3600];
const FRAME = 250;
const MOST_EVENTS = 200;
const beats = new Set();

/** Calls `beat` several times a second, while somebody looks. */
export const onBeat = (beat) => beats.add(beat);

export function startClock() {
  const speed = byId("speed");
  speed.append(...SPEEDS.map((each) => option(String(each), `${each}×`)));
  byId("freeze").addEventListener("click", () =>
    move(world.clock?.running ? { freeze: true } : { resume: true }),
  );
  for (const button of document.querySelectorAll("[data-advance]")) {
    button.addEventListener("click", () => move({ advance: button.dataset.advance }));
  }
  byId("advance").addEventListener("submit", (event) => {
    event.preventDefault();
    const by = byId("advance-by").value.trim();
    if (by) move({ advance: /^[0-9.]+$/.test(by) ? `${by}s` : by.replace(/\s+/g, "").replace("min", "m") });
  });
  speed.addEventListener("change", () => move({ speed: Number(speed.value) }));
  byId("caused-close").addEventListener("click", () => {
    setHidden(byId("caused"), true);
    byId("freeze").focus();
  });
  on("clock", showState);
  setInterval(beat, FRAME);
}

function beat() {
  if (document.hidden || !world.clock) return;
  setText(byId("now"), new Date(now()).toISOString().slice(0, 21).replace("T", " "));
  for (const each of beats) each();
}

function showState() {
  const { running, speed, ahead } = world.clock;
  const rate = speed === 1 ? "Running" : `Running at ${speed}×`;
  setText(byId("clock-state"), running ? rate : "Frozen");
  // Of a clock that stands or races, this would be another every second.
  const apart = running && speed === 1 && Math.abs(ahead) >= 1;
  setText(byId("clock-apart"), apart ? `${span(ahead * 1000)} ${ahead > 0 ? "ahead" : "behind"}` : "");
  byId("clock-state").dataset.tone = running ? "good" : "frozen";
  setText(byId("freeze"), running ? "Freeze" : "Resume");
  const select = byId("speed");
  if (document.activeElement === select) return;
  if (![...select.options].some((each) => Number(each.value) === speed)) {
    select.append(option(String(speed), `${speed}×`));
  }
  select.value = String(speed);
  beat();
}

async function move(change) {
  const told = await act(() => post("clock", change));
  if (!told) return;
  const { events, ...clock } = told;
  putClock(clock);
  setHidden(byId("caused"), false);
  setText(byId("caused-heading"), heading(change, events.length));
  const listed = events.slice(-MOST_EVENTS).map((event, place) => ({ ...event, place }));
  keyed(byId("caused-events"), listed, {
    key: (event) => `${event.place} ${event.at} ${event.subject}`,
    make: row,
  });
  tell(`${heading(change, events.length)}.`);
}

function heading(change, count) {
  const caused = count ? many(count, "event") : "nothing happened";
  if (change.freeze) return "The clock stands still";
  if (change.resume) return "The clock runs again";
  if (change.speed) return `The clock runs at ${change.speed}×`;
  return `Advanced by ${change.advance}: ${caused}`;
}

function row(event) {
  const about = event.what === "task" || event.what === "webhook" || event.what === "expired";
  const final = /-> (completed|failed|processing)$/.exec(event.text)?.[1];
  return h(
    "li",
    {},
    h("time", { datetime: event.at, text: time(Date.parse(event.at), now()) }),
    h(
      "span",
      { class: "what" },
      h("span", { class: "status", "data-status": final }, icon(final ?? "note")),
      event.what,
    ),
    about && event.subject
      ? h("a", { href: `#tasks/${encodeURIComponent(event.subject)}`, text: event.subject.slice(0, 8) })
      : h("span", { text: event.subject }),
    h("span", { text: event.text.replace("->", "→") }),
  );
}
