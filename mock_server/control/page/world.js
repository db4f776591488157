// What is known of the server: the tasks, the journal, the clock; and who wants to hear of changes.

const MOST_ENTRIES = 3000;
const listeners = new Map();

export const world = {
  health: null,
  clock: null,
  tasks: new Map(),
  order: [],
  count: 0,
  journal: [],
  faults: [],
  standing: null,
  catalogue: null,
  account: null,
  webhooks: null,
  audit: null,
  ledger: null,
  selected: "",
};

/** Calls `listener` whenever one of the topics has changed. */
export function on(topics, listener) {
  for (const topic of topics.split(" ")) {
    if (!listeners.has(topic)) listeners.set(topic, new Set());
    listeners.get(topic).add(listener);
  }
}

export function changed(...topics) {
  const called = new Set(topics.flatMap((topic) => [...(listeners.get(topic) ?? [])]));
  for (const listener of called) listener();
}

/** Takes a new value in, and says so only where it is another. */
export function put(name, value) {
  if (JSON.stringify(world[name]) === JSON.stringify(value)) return false;
  world[name] = value;
  changed(name);
  return true;
}

export function putClock(clock) {
  world.clock = { ...clock, at: Date.parse(clock.now), read: performance.now() };
  changed("clock");
}

/** The server's time at this moment: that of the last answer, carried on at the clock's speed. */
export function now() {
  const clock = world.clock;
  if (!clock) return Date.now();
  return clock.running ? clock.at + (performance.now() - clock.read) * clock.speed : clock.at;
}

function read(task) {
  return { ...task, times: task.events.map((event) => Date.parse(event.at)) };
}

/** The event that a task stands at; the statuses follow from the dates and the clock, so nobody need ask. */
export function standing(task, at = now()) {
  let place = 0;
  while (place + 1 < task.times.length && task.times[place + 1] <= at) place += 1;
  return task.events[place];
}

export const isFinal = (status) => status === "completed" || status === "failed";
export const isOver = (task) => isFinal(standing(task).status);
export const unfinished = () => world.order.some((id) => !isOver(world.tasks.get(id)));

function keep(task) {
  const before = world.tasks.get(task.id);
  const signature = JSON.stringify([task.events.map((event) => [event.at, event.status]), task.steps]);
  if (before?.signature === signature) return false;
  world.tasks.set(task.id, { ...read(task), signature });
  return true;
}

/** Takes in one task as it is now. It may be older than all that are listed. */
export function putTask(task) {
  if (keep(task)) changed("tasks");
}

/** Takes in the newest page. Where it does not reach what is known, the older ones are to be asked for again. */
export function putNewest({ count, predictions }) {
  let news = count !== world.count;
  world.count = count;
  for (const task of predictions) news = keep(task) || news;
  const ids = predictions.map((task) => task.id);
  const fresh = new Set(ids);
  const seam = ids.length ? world.order.indexOf(ids.at(-1)) : -1;
  const older = seam < 0 ? [] : world.order.slice(seam + 1).filter((id) => !fresh.has(id));
  const order = [...ids, ...older].slice(0, Math.max(count, ids.length));
  news ||= order.length !== world.order.length || order.some((id, place) => id !== world.order[place]);
  world.order = order;
  const known = new Set([...order, world.selected]);
  for (const id of world.tasks.keys()) if (!known.has(id)) world.tasks.delete(id);
  if (news) changed("tasks");
}

/** Takes in the page that follows the oldest known task. */
export function putOlder({ count, predictions }) {
  world.count = count;
  for (const task of predictions) {
    keep(task);
    if (!world.order.includes(task.id)) world.order.push(task.id);
  }
  changed("tasks");
}

export function addEntries(entries) {
  if (!entries.length) return;
  world.journal = [...world.journal, ...entries].slice(-MOST_ENTRIES);
  changed("journal");
}

/** Forgets what came from the clients: the server has, too. */
export function forget() {
  world.tasks.clear();
  world.order = [];
  world.count = 0;
  world.journal = [];
  changed("tasks", "journal");
}

export const entriesOf = (id) => world.journal.filter((entry) => entry.prediction === id);
