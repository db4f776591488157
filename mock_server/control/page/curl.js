// Any request as a line to paste into a shell.

import { tell } from "./actions.js";
import { get, origin } from "./api.js";
import { h, setHidden } from "./dom.js";
import { world } from "./world.js";

const HEADERS = "-H 'Authorization: Bearer any-key'";

/** A text that a shell takes as one word, whatever is in it; what a terminal would act on is written out. */
function quoted(text) {
  if (!/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/.test(text)) {
    return `'${text.replaceAll("'", `'\\''`)}'`;
  }
  const escaped = [...text].map((character) => {
    const code = character.codePointAt(0);
    if (character === "\\" || character === "'") return `\\${character}`;
    if (code >= 32 && code < 127) return character;
    return [...new TextEncoder().encode(character)]
      .map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`)
      .join("");
  });
  return `$'${escaped.join("")}'`;
}

function line(path, { method = "GET", query = "", body, scenario = "" }) {
  const url = origin() + encodeURI(path).replace(/[?#]/g, encodeURIComponent) + (query ? `?${query}` : "");
  const parts = [`curl ${quoted(url)}`];
  if (method !== "GET" && !(method === "POST" && body !== undefined)) parts.push(`-X ${quoted(method)}`);
  parts.push(HEADERS);
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'");
  if (scenario) parts.push(`-H ${quoted(`X-Mock-Scenario: ${scenario}`)}`);
  if (body !== undefined) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(" ");
}

/** The line that the empty page shows. */
export function firstLine() {
  const paths = world.health?.editions[world.health.edition] ?? [];
  const path =
    paths.find((each) => each.includes("schnell")) ?? paths[0] ?? "/api/v3/wavespeed-ai/flux-schnell-lora";
  return line(path, { method: "POST", body: '{"prompt": "A lighthouse in a storm"}' });
}

const unusual = (scenario) => (scenario && scenario !== world.health?.scenario ? scenario : "");

async function received(id) {
  const task = await get(`predictions/${encodeURIComponent(id)}`, { exact: true });
  return JSON.stringify(task.received);
}

/** The submit of a task, with its whole body. */
export async function submitLine(task) {
  const edition = task.edition === world.health?.edition ? "" : `/editions/${task.edition}`;
  const path = `${edition}/api/${task.version}/${task.model}`;
  const query = task.webhook ? `webhook=${encodeURIComponent(task.webhook)}` : "";
  return line(path, {
    method: "POST",
    query,
    body: await received(task.id),
    scenario: unusual(task.scenario),
  });
}

/** A request of the journal. Of one that was refused, only the beginning of its body is known. */
export async function entryLine(entry) {
  const { path, method, query } = entry;
  const scenario = entry.kind === "submit" ? unusual(entry.scenario) : "";
  if (entry.committed) return line(path, { method, query, scenario, body: await received(entry.prediction) });
  return line(path, { method, query, scenario, body: entry.received || undefined });
}

/** A button that shows the line and copies it, where the browser lets it. */
export function curlButton(make, label = "Copy as curl") {
  const text = h("textarea", {
    class: "code",
    readonly: true,
    rows: "4",
    spellcheck: "false",
    "aria-label": "curl line",
  });
  const state = h("p", { class: "hint", role: "status" });
  const shown = h("div", { class: "curl-line", hidden: true }, text, state);
  const button = h("button", { type: "button", text: label });
  button.addEventListener("click", async () => {
    try {
      text.value = await make();
    } catch (error) {
      text.value = "";
      state.textContent = error.message;
      setHidden(shown, false);
      return;
    }
    setHidden(shown, false);
    state.textContent = await copy(text);
    tell(state.textContent);
  });
  return h("div", { class: "curl" }, button, shown);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text.value);
    return "Copied.";
  } catch {
    text.select();
    return "Selected; copy it with the keyboard.";
  }
}
