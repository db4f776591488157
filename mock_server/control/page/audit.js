// The audit and the ledger: what the client had better not do, and what it would be billed for.

import { byId, h, icon, prose, renew } from "./dom.js";
import { dollars, many, shortId, tone } from "./words.js";
import { on, world } from "./world.js";

const MOST = 200;
const ICONS = { bad: "bad", warn: "warn", note: "note" };

export function startAudit() {
  const findings = h("div", { id: "findings" });
  const totals = h("div", { id: "ledger" });
  byId("view-audit").append(
    h(
      "section",
      { class: "block", "aria-labelledby": "ledger-heading" },
      h("h2", { id: "ledger-heading", text: "Ledger" }),
      totals,
    ),
    h(
      "section",
      { class: "block", "aria-labelledby": "audit-heading" },
      h("h2", { id: "audit-heading", text: "Findings about the client" }),
      findings,
    ),
  );
  on("audit", () => renew(findings, world.audit, () => report(world.audit)));
  on("ledger account", () =>
    renew(totals, [world.ledger, world.account], () => billOf(world.ledger, world.account)),
  );
}

function report(audit) {
  if (audit.absent) return h("p", { class: "empty-note", text: "This server does not audit." });
  if (!audit.findings.length) {
    const after = audit.requests ? ` after ${many(audit.requests, "request")}` : "";
    return h("p", { class: "empty-note", text: `Nothing can be said against the client${after}.` });
  }
  const more = audit.findings.length - MOST;
  return [
    h("ul", { class: "cards" }, audit.findings.slice(0, MOST).map(finding)),
    more > 0 ? h("p", { class: "empty-note", text: `And ${many(more, "milder finding")}.` }) : null,
  ];
}

function finding({ rule, severity, message, advice, prediction, requests, entries }) {
  const level = tone(severity);
  const pill = h("span", { class: "code-pill" }, icon(ICONS[level]), h("span", { text: severity }));
  pill.dataset.tone = level;
  const evidence = requests ?? entries ?? [];
  return h(
    "li",
    { class: "card finding" },
    h("h3", {}, pill, h("code", { text: rule })),
    h("p", {}, prose(message.charAt(0).toUpperCase() + message.slice(1))),
    h("p", { class: "advice" }, h("b", { text: "Instead: " }), prose(advice)),
    h(
      "p",
      { class: "hint" },
      prediction
        ? [
            "Task ",
            h("a", { href: `#tasks/${encodeURIComponent(prediction)}`, text: shortId(prediction) }),
            " ",
          ]
        : null,
      evidence.length
        ? [
            "Requests ",
            evidence.flatMap((number, place) => [
              place ? ", " : "",
              h("a", { href: `#requests/${number}`, text: `#${number}` }),
            ]),
          ].flat()
        : null,
    ),
  );
}

function billOf(ledger, account) {
  const facts = account
    ? [
        ["Balance", dollars(account.balance), ""],
        ["Account level", account.level || "none", account.level ? "" : "no limits"],
      ]
    : [];
  if (ledger && !ledger.absent) {
    facts.unshift(
      ["Accepted", String(ledger.accepted), ledger.accepted === 1 ? "task" : "tasks"],
      ["Charged", dollars(ledger.charged), ""],
      ["Duplicates", String(ledger.duplicates.length), `${dollars(ledger.duplicates_charged)} for nothing`],
      ["Never fetched", String(ledger.never_fetched.length), "completed, nobody was told"],
      ["Answers lost", String(ledger.answers_lost.length), "accepted, the client cannot know"],
    );
  }
  return h(
    "dl",
    { class: "totals" },
    facts.map(([name, number, note]) =>
      h(
        "div",
        {},
        h("dt", { text: name }),
        h("dd", {}, h("b", { text: number }), note ? h("span", { class: "hint", text: note }) : null),
      ),
    ),
  );
}
