// How times, spans and values are written.

const DAY = 86_400_000;

/** A time of day on the server's clock, with the date where that is not today's. */
export function time(at, now = at) {
  const text = new Date(at).toISOString();
  const day = text.slice(0, 10);
  const clock = text.slice(11, 23);
  return Math.floor(at / DAY) === Math.floor(now / DAY) ? clock : `${day} ${clock}`;
}

/** A span of milliseconds, as exact as anybody reads it. */
export function span(milliseconds) {
  const ms = Math.abs(milliseconds);
  const sign = milliseconds < 0 ? "−" : "";
  if (ms < 1000) return `${sign}${Math.round(ms)} ms`;
  if (ms < 10_000) return `${sign}${(ms / 1000).toFixed(2)} s`;
  if (ms < 60_000) return `${sign}${(ms / 1000).toFixed(1)} s`;
  const units = [
    ["d", DAY],
    ["h", 3_600_000],
    ["min", 60_000],
    ["s", 1000],
  ];
  const first = units.findIndex(([, size]) => ms >= size);
  const [name, size] = units[first];
  const whole = Math.floor(ms / size);
  const [lesser, lesserSize] = units[first + 1] ?? ["", 1];
  const rest = lesser ? Math.floor((ms % size) / lesserSize) : 0;
  return `${sign}${whole} ${name}${rest ? ` ${rest} ${lesser}` : ""}`;
}

export const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

const DOLLARS = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
export const dollars = (amount) => `$${DOLLARS.format(amount)}`;

export const shortId = (id) => (id.length > 12 ? `${id.slice(0, 8)}…` : id);

const SHORTENED = /… \([0-9]+ characters\)$/;

/** At most `length` characters, never half of one. What the server has shortened already stays as it is. */
export function short(text, length = 200) {
  if (text.length < length + 30 && SHORTENED.test(text)) return text;
  const points = text.length > length ? [...text.slice(0, length + 1)].slice(0, length).join("") : text;
  return points.length < text.length ? `${points}… (${text.length} characters)` : text;
}

/** A value as JSON, its long texts shortened. */
export function value(given, length = 200) {
  if (given === undefined) return "";
  return JSON.stringify(
    given,
    (_, each) => (typeof each === "string" ? short(each, length) : each),
    1,
  ).replace(/\n\s*/g, " ");
}

export const shortModel = (model) => model.replace(/^wavespeed-ai\//, "");

/** What a task was asked for, in one line. */
export function gist(task) {
  const given = task.received ?? {};
  const said = given.prompt ?? given.trigger_word ?? given.images_data_url ?? given.data ?? "";
  return typeof said === "string" && said.trim() ? short(said.trim(), 140) : "no prompt";
}

const SEVERITY = { error: "bad", warning: "warn", note: "note" };
export const tone = (severity) => SEVERITY[severity] ?? "note";

/** The tone of an HTTP status; 0 is an answer that was never sent. */
export function statusTone(status) {
  if (status >= 500 || status === 0) return "bad";
  if (status >= 400) return "warn";
  return "good";
}
