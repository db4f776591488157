// wavemock run -- npm test
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { Studio } from "./client.mjs";

const SERVER = process.env.WAVEMOCK_URL;
if (!SERVER) throw new Error("WAVEMOCK_URL is not set. Start with: wavemock run -- npm test");
const PICTURES = fileURLToPath(new URL("pictures.zip", import.meta.url));
const PNG = [0x89, 0x50, 0x4e, 0x47];

/** A world of one's own on the server: other tests are not seen in it, and its clock is not theirs. */
function session() {
  const url = `${SERVER}/_session/${randomUUID()}`;
  const token = process.env.WAVEMOCK_CONTROL_TOKEN;
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  async function control(path, change) {
    const how = change && { method: "POST", body: JSON.stringify(change) };
    const answer = await fetch(`${url}/_mock/${path}`, { headers, ...how });
    const { message, data } = await answer.json();
    assert.equal(answer.status, 200, message);
    return data;
  }
  return { url, control };
}

/** A client in a session whose clock runs `speed` times as fast, with pauses that are as much shorter. */
async function studioAt(speed) {
  const { url, control } = session();
  await control("clock", { speed });
  return { control, studio: new Studio({ baseUrl: url, pollSeconds: 5 / speed, busySeconds: 5 / speed }) };
}

/** How many seconds, on the session's clock, the newest task took. */
async function lengthOfTask(control) {
  const { predictions } = await control("predictions");
  const { events } = predictions[0];
  return (new Date(events.at(-1).at) - new Date(events[0].at)) / 1000;
}

test("what was learned from pictures can be drawn", async () => {
  const { control, studio } = await studioAt(60);
  const lora = await studio.train(PICTURES, "p3r5on");
  const picture = await studio.generate("p3r5on on a beach", { lora });
  assert.deepEqual([...picture.subarray(0, 4)], PNG);
  const { accepted, duplicates, never_fetched } = await control("ledger");
  assert.deepEqual({ accepted, duplicates, never_fetched }, { accepted: 2, duplicates: [], never_fetched: [] });
});

test("a failed task is an error that says why", async () => {
  const { control, studio } = await studioAt(60);
  await control("scenario", { scenario: "failed; error=CUDA out of memory" });
  await assert.rejects(studio.generate("a lighthouse"), /CUDA out of memory/);
});

test("a submit that came too soon is sent again, after the time that was asked for", async () => {
  const { control, studio } = await studioAt(60);
  await control("scenario", { scenario: "rate-limited" });
  await studio.generate("a lighthouse");
  const { accepted, duplicates } = await control("ledger");
  assert.deepEqual({ accepted, duplicates }, { accepted: 1, duplicates: [] });
  const { findings } = await control("audit");
  assert.deepEqual(findings, []);
});

test("a submit whose answer is lost is not sent again", async () => {
  const { control, studio } = await studioAt(60);
  await control("scenario", { scenario: "lost-answer" });
  await assert.rejects(studio.generate("a lighthouse"), { name: "WavespeedSubmissionException" });
  const { accepted, duplicates, answers_lost } = await control("ledger");
  assert.deepEqual([accepted, duplicates.length, answers_lost.length], [1, 0, 1]);
});

test("a training of ten minutes is waited for, in less time than that", async () => {
  const { control, studio } = await studioAt(1200);
  await control("scenario", { scenario: "normal; processing=10m" });
  const began = performance.now();
  assert.match(await studio.train(PICTURES, "p3r5on"), /\.safetensors$/);
  const waited = (performance.now() - began) / 1000;
  const length = await lengthOfTask(control);
  assert.ok(length >= 600 && waited < length, `a task of ${length} s, waited for during ${waited} s`);
});
