// What a button does: carries it out, says how that went, and has the page look again.

import { byId, setHidden, setText } from "./dom.js";
import { poke } from "./poll.js";

const NEWS_PAUSE = 1500;
let waiting = [];
let timer = 0;

/** Carries out `work`; its result, or undefined where it was refused, which is then said. */
export async function act(work) {
  try {
    const result = await work();
    complain("");
    return result;
  } catch (error) {
    complain(error.message);
    return undefined;
  } finally {
    poke();
  }
}

function complain(message) {
  const notice = byId("notice");
  setText(notice, message);
  setHidden(notice, !message);
}

/** Says something to whoever listens instead of looking; what comes together is said together. */
export function tell(message) {
  waiting.push(message);
  if (timer) return;
  timer = setTimeout(() => {
    const count = waiting.length;
    setText(
      byId("news"),
      count > 3 ? `${waiting.slice(-1)} And ${count - 1} more changes.` : waiting.join(" "),
    );
    waiting = [];
    timer = 0;
  }, NEWS_PAUSE);
}
