// What happened to a task and what will, on the server's clock.

import { h, icon, keyed, setAttribute, setHidden, setText } from "./dom.js";
import { many, span, time } from "./words.js";
import { isFinal, now } from "./world.js";

export function makeTimeline() {
  const track = h("div", { class: "timeline-track", role: "img" });
  const marker = h("div", { class: "timeline-now", "aria-hidden": "true" });
  const list = h("ol", { class: "timeline" });
  const element = h("div", {}, h("div", { class: "timeline-bar" }, track, marker), list);
  return { element, track, marker, list };
}

/** Brings a timeline up to this moment. */
export function showTimeline(line, task) {
  const at = now();
  const [first] = task.times;
  const end = task.times.at(-1);
  const open = task.steps.length > 0 || !isFinal(task.events.at(-1).status);
  const total = Math.max(1, open ? Math.max(at, end) - first : end - first);
  const stretches = task.events.slice(0, open ? undefined : -1).map((event, place) => ({
    status: event.status,
    from: task.times[place],
    to: task.times[place + 1] ?? Math.max(at, end),
  }));
  if (!stretches.length) stretches.push({ status: task.events[0].status, from: first, to: end });
  keyed(
    line.track,
    stretches.map((each, place) => ({ ...each, place })),
    {
      key: (each) => `${each.place} ${each.status}`,
      make: (each) => h("span", { class: "stretch", "data-status": each.status }),
      update: (node, each) => {
        const share = `${Math.max(1, ((each.to - each.from) / total) * 1000).toFixed(0)}`;
        if (node.style.flexGrow !== share) node.style.flexGrow = share;
        setAttribute(node, "data-passed", String(each.to <= at));
      },
    },
  );
  setAttribute(line.track, "data-open", String(open));
  setAttribute(line.track, "data-instant", String(!open && end === first));
  setAttribute(line.track, "data-end", open ? "" : task.events.at(-1).status);
  const told = stretches
    .map((each) => `${each.status} for ${span(Math.max(0, each.to - each.from))}`)
    .join(", then ");
  setAttribute(line.track, "aria-label", `${told}${open ? "" : `, then ${task.events.at(-1).status}`}`);
  setHidden(line.marker, open || at >= end);
  line.marker.style.insetInlineStart = `${Math.min(100, Math.max(0, ((at - first) / total) * 100)).toFixed(2)}%`;
  keyed(line.list, points(task, at), { key: (point) => point.key, make: makePoint, update: showPoint });
}

function points(task, at) {
  const dated = task.events.map((event, place) => {
    const when = task.times[place];
    return {
      key: `${place} ${event.status}`,
      status: event.status,
      passed: when <= at,
      time: time(when, at),
      datetime: event.at,
      note: when <= at ? (place ? `+${span(when - task.times[0])}` : "") : `in ${span(when - at)}`,
      error: when <= at ? (event.error ?? "") : "",
    };
  });
  const undated = task.steps.map((step, place) => ({
    key: `step ${place} ${step.status}`,
    status: step.status,
    passed: false,
    time: "no date",
    note: (place ? "then " : "") + condition(step),
    error: "",
  }));
  const last = task.events.at(-1).status;
  const never = {
    key: "never",
    status: last,
    label: "never ends",
    passed: false,
    time: "no date",
    note: "unless somebody moves it",
    error: "",
  };
  return undated.length || isFinal(last) ? [...dated, ...undated] : [...dated, never];
}

const condition = ({ polls }) => (polls === undefined ? "when told to" : `after ${many(polls, "more poll")}`);

const spots = new WeakMap();

function makePoint(point) {
  const when = h("time", { datetime: point.datetime });
  const note = h("span", { class: "point-note" });
  const error = h("p", { class: "point-error" });
  const node = h(
    "li",
    { "data-status": point.status },
    h(
      "span",
      { class: "status", "data-status": point.status },
      icon(point.status),
      h("span", { text: point.label ?? point.status }),
    ),
    when,
    note,
    error,
  );
  spots.set(node, { when, note, error });
  return node;
}

function showPoint(node, point) {
  const { when, note, error } = spots.get(node);
  setAttribute(node, "data-passed", String(point.passed));
  setText(when, point.time);
  setText(note, point.note);
  setText(error, point.error);
  setHidden(error, !point.error);
}
