// Asks for the token where the control plane wants one.

import { keepToken, token } from "./api.js";
import { byId, setText } from "./dom.js";
import { connection, unlock } from "./poll.js";
import { on } from "./world.js";

export function startToken() {
  const dialog = byId("token-dialog");
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // there is nothing behind it
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(byId("token").value);
    byId("token").value = "";
    dialog.close();
    unlock();
  });
  on("connection", () => {
    if (connection.state !== "locked" || dialog.open) return;
    setText(byId("token-error"), token() ? "That token is not the right one." : "");
    dialog.showModal();
  });
}
