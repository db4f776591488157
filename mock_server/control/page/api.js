// Speaks to the control plane of the session in whose page this is.

const TOKEN = "wavemock.token";
const PATIENCE = 15_000;

/** An answer other than success; `status` is 0 where none came. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Relative to the page, and so right behind a session's prefix or that of a proxy. */
export const address = (path) => new URL(path, document.baseURI).href;

/** The address of the API that this control plane belongs to, without a slash at its end. */
export const origin = () => address("../").replace(/\/$/, "");

export const token = () => sessionStorage.getItem(TOKEN) ?? "";
export const keepToken = (text) => sessionStorage.setItem(TOKEN, text);

async function send(method, path, { body, headers = {} } = {}) {
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(address(path), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
  } catch (error) {
    throw new ApiError(
      0,
      error.name === "TimeoutError" ? "The server took too long." : "The server does not answer.",
    );
  }
}

async function refuse(answer) {
  let message = `The server answered ${answer.status}.`;
  try {
    message = (await answer.json()).message ?? message;
  } catch {
    // what stands between here and the server may answer without an envelope
  }
  throw new ApiError(answer.status, message);
}

// Keeps 1.0 and integers beyond 2^53 as they were written, in browsers that can.
const exactly = (_key, value, context) =>
  typeof value === "number" && context?.source && context.source !== String(value) && JSON.rawJSON
    ? JSON.rawJSON(context.source)
    : value;

async function data(method, path, { body, exact = false } = {}) {
  const answer = await send(method, path, { body });
  if (!answer.ok) await refuse(answer);
  try {
    return JSON.parse(await answer.text(), exact ? exactly : undefined).data;
  } catch {
    throw new ApiError(0, "The answer broke off, or is none of this server's.");
  }
}

export const get = (path, options) => data("GET", path, options);
export const post = (path, body) => data("POST", path, { body });
export const remove = (path) => data("DELETE", path);

/** The bytes of an output. Read in this way, they are not taken for a client's. */
export async function bytes(path) {
  const answer = await send("GET", path);
  if (!answer.ok) await refuse(answer);
  return answer.blob();
}
