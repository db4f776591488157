// Which view is open. The address says it, so that reload, back and links from one view to another work.

import { byId, setAttribute, setHidden } from "./dom.js";
import { need } from "./poll.js";
import { changed, world } from "./world.js";

const NAMES = ["tasks", "requests", "bench", "webhooks", "audit"];
const NEEDS = { tasks: ["webhooks", "ledger"], webhooks: ["webhooks"], audit: ["audit", "ledger"] };
let current = "";
const openers = new Map();

/** Calls `open` with what the address says behind the view's name, each time that it says it. */
export const onOpen = (name, open) => openers.set(name, open);

export const isOpen = (name) => current === name;

export function startTabs() {
  byId("tabs").addEventListener("keydown", walk);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  window.addEventListener("hashchange", follow);
  follow();
}

function follow() {
  const [name, ...rest] = decode(location.hash.slice(1)).split("/");
  const wanted = NAMES.includes(name) ? name : NAMES[0];
  const moved = wanted !== current;
  current = wanted;
  for (const each of NAMES) {
    const tab = byId(`tab-${each}`);
    setAttribute(tab, "aria-selected", String(each === wanted));
    setAttribute(tab, "tabindex", each === wanted ? "0" : "-1");
    setHidden(byId(`view-${each}`), each !== wanted);
  }
  if (wanted === "tasks") world.selected = rest.join("/");
  if (moved) need(NEEDS[wanted] ?? []);
  openers.get(wanted)?.(rest.join("/"));
  changed("view");
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const place = NAMES.indexOf(current);
  let next = step ? (place + step + NAMES.length) % NAMES.length : null;
  if (event.key === "Home") next = 0;
  if (event.key === "End") next = NAMES.length - 1;
  if (event.key === " ") byId(`tab-${NAMES[place]}`).click();
  if (next === null) return;
  event.preventDefault();
  location.hash = NAMES[next];
  byId(`tab-${NAMES[next]}`).focus();
}
