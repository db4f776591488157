// Keeps what is known up to date: one round a second, never two at a time, none while nobody looks.

import { ApiError, get } from "./api.js";
import {
  addEntries,
  changed,
  forget,
  isOver,
  put,
  putClock,
  putNewest,
  putTask,
  unfinished,
  world,
} from "./world.js";

const PAUSE = 1000;
const LONGEST_PAUSE = 5000;
const PAGE = 100;
const ENTRIES = 1000;
const SELDOM = 3;

export const connection = { state: "starting", message: "" };
let rounds = 0;
let failures = 0;
let last = null;
let wake = () => {};
let poked = false;
let thorough = true;
let stale = true;
let needed = new Set();
let absent = new Set();

/** Says which views are open: what only they show is asked for only then. */
export function need(names) {
  needed = new Set(names);
  poke();
}

/** Starts the next round at once, and has it look at everything. */
export function poke() {
  poked = true;
  thorough = true;
  wake();
}

export async function run() {
  document.addEventListener("visibilitychange", poke);
  for (;;) {
    poked = false;
    if (!document.hidden && connection.state !== "locked") await round();
    const pause = Math.min(PAUSE * 2 ** Math.max(0, failures - 1), LONGEST_PAUSE);
    if (!poked) await rest(document.hidden ? 2 ** 30 : pause);
  }
}

function rest(pause) {
  return new Promise((done) => {
    const timer = setTimeout(done, pause);
    wake = () => {
      clearTimeout(timer);
      done();
    };
  });
}

export function unlock() {
  connection.state = "starting";
  last = null;
  poke();
}

function say(state, message = "") {
  if (connection.state === state && connection.message === message) return;
  Object.assign(connection, { state, message });
  changed("connection");
}

async function round() {
  try {
    await look();
    failures = 0;
    rounds += 1;
    say("live");
  } catch (error) {
    failures += 1;
    if (error instanceof ApiError) {
      say(error.status === 401 ? "locked" : "away", error.message);
    } else {
      console.error(error);
      say("away", "This page made a mistake; the browser's console says which.");
    }
  }
}

async function look() {
  // The last known entry is asked for again: where it is another or none, the server has begun anew.
  const after = last === null ? 0 : last.number - 1;
  const [clock, page] = await Promise.all([
    get("clock"),
    get(`requests?after=${Math.max(0, after)}&limit=${ENTRIES}`),
  ]);
  putClock(clock);
  const [first, ...rest] = page.requests;
  const same =
    last !== null && first?.number === last.number && first.at === last.at && first.path === last.path;
  const anew = rounds === 0 || failures > 0 || (last !== null && !same);
  if (anew && !same) {
    forget();
    absent = new Set();
  }
  await takeEntries(same ? rest : page.requests, page, anew);
}

async function takeEntries(entries, page, anew) {
  const fresh = [...entries];
  for (let next = page; next.requests.length === ENTRIES;) {
    next = await get(`requests?after=${next.last}&limit=${ENTRIES}`);
    fresh.push(...next.requests);
  }
  last = fresh.at(-1) ?? (anew && !page.requests.length ? null : last);
  addEntries(fresh);
  const seldom = thorough || rounds % SELDOM === 0;
  thorough = false;
  const news = anew || fresh.length > 0;
  if (news || seldom) await takeHealth(anew);
  const begun = fresh.filter((entry) => entry.committed).length;
  const moved = fresh.some((entry) => world.tasks.get(entry.prediction)?.steps.length);
  if (anew || begun || moved || world.health.predictions !== world.count || (seldom && unfinished())) {
    putNewest(await get(`predictions?limit=${Math.min(1000, Math.max(PAGE, begun + PAGE / 2))}`));
  }
  await Promise.all([takeSelected(news), ...views(news, seldom)]);
}

async function takeHealth(anew) {
  const { now: _now, ...health } = await get("health");
  const changes = put("health", health);
  if (!world.catalogue) put("catalogue", await get("scenarios"));
  if (changes || anew || world.faults.length) {
    const [faults, standing, account] = await Promise.all([get("faults"), get("scenario"), get("account")]);
    put("faults", faults.faults);
    put("standing", standing);
    put("account", account);
  }
}

/** The selected task may be older than the newest page, and moved by polls or by hand. */
async function takeSelected(news) {
  const id = world.selected;
  const place = world.order.indexOf(id);
  const task = world.tasks.get(id);
  if (!id || (place >= 0 && place < PAGE) || (task && (isOver(task) || !news))) return;
  if (place < 0) {
    await takeAlone(id);
    return;
  }
  // What follows its newer neighbour is the task itself, with its long texts shortened.
  const { predictions } = await get(
    `predictions?limit=1&before=${encodeURIComponent(world.order[place - 1])}`,
  );
  if (predictions[0]?.id === id) putTask(predictions[0]);
}

async function takeAlone(id) {
  try {
    putTask(await get(`predictions/${encodeURIComponent(id)}`));
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

function views(news, seldom) {
  stale ||= news;
  const refresh = seldom && stale;
  if (refresh) stale = false;
  return ["webhooks", "audit", "ledger"]
    .filter((name) => !absent.has(name))
    .filter((name) => world[name] === null || refresh || (needed.has(name) && (news || seldom)))
    .map(takeView);
}

async function takeView(name) {
  try {
    put(name, await get(name));
  } catch (error) {
    if (error.status !== 404) throw error;
    absent.add(name);
    put(name, { absent: true });
  }
}
