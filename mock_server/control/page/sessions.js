// Which session this is, and the way to the others.

import { act, tell } from "./actions.js";
import { post } from "./api.js";
import { byId, option, renew, setText } from "./dom.js";
import { poke } from "./poll.js";
import { many } from "./words.js";
import { on, world } from "./world.js";

export function startSessions() {
  const select = byId("session");
  select.addEventListener("change", () => {
    // Up to where the sessions branch off, whatever a proxy has put before that.
    const root = location.pathname.replace(/(?:\/_session\/[^/]+)?\/_mock\/?$/, "");
    location.assign(`${root}${select.value ? `/_session/${encodeURIComponent(select.value)}` : ""}/_mock/`);
  });
  on("health", () => {
    const { session, sessions, version } = world.health;
    const names = [...new Set(["", session, ...sessions])];
    renew(select, [names, session], () => names.map((name) => option(name, name || "none")));
    if (document.activeElement !== select) select.value = session;
    setText(byId("version"), `wavemock ${version}`);
    document.title = session ? `${session} · wavemock` : "wavemock";
  });
  startReset();
}

function startReset() {
  const dialog = byId("reset-dialog");
  byId("reset").addEventListener("click", () => {
    const what = `${many(world.count, "task")}, the requests, faults and scenarios`;
    const where = world.health?.session ? ` of the session ${world.health.session}` : "";
    setText(
      byId("reset-text"),
      `This forgets ${what}${where}, and lets the clock run as the machine's. It cannot be undone.`,
    );
    dialog.showModal();
  });
  byId("reset-no").addEventListener("click", () => dialog.close());
  byId("reset-yes").addEventListener("click", async () => {
    dialog.close();
    const told = await act(() => post("reset"));
    if (!told) return;
    location.hash = "tasks";
    tell(`${many(told.forgotten, "task")} forgotten.`);
    poke();
  });
}
