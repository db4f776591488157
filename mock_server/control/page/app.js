// Puts the parts together.

import { startAudit } from "./audit.js";
import { startClock } from "./clock.js";
import { byId, setText } from "./dom.js";
import { startJournal } from "./journal.js";
import { connection, run } from "./poll.js";
import { startBench } from "./scenarios.js";
import { startSessions } from "./sessions.js";
import { startTabs } from "./tabs.js";
import { startTasks } from "./tasks.js";
import { startToken } from "./token.js";
import { startWebhooks } from "./webhooks.js";
import { on, world } from "./world.js";

const STATES = { starting: "Connecting…", live: "Live", away: "No answer; trying again", locked: "Locked" };

function showConnection() {
  const { state, message } = connection;
  const element = byId("connection");
  setText(element, state === "away" && message ? `${message} Trying again…` : STATES[state]);
  element.dataset.state = state;
}

function showCounts() {
  const findings = world.audit?.findings?.length ?? 0;
  const armed = world.faults.length + (world.standing?.standing.length ?? 0);
  const counts = {
    tasks: world.count,
    requests: world.journal.length,
    bench: armed,
    webhooks: world.webhooks?.webhooks?.length ?? 0,
    audit: findings,
  };
  for (const [name, count] of Object.entries(counts)) {
    setText(document.querySelector(`[data-count="${name}"]`), count ? String(count) : "");
  }
}

on("connection", showConnection);
on("tasks journal faults standing webhooks audit", showCounts);
startClock();
startTasks();
startJournal();
startBench();
startWebhooks();
startAudit();
startSessions();
startToken();
startTabs();
void run();
