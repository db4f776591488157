// Scenarios: what submits get that name none, and all that there are.

import { act, tell } from "./actions.js";
import { post, remove } from "./api.js";
import { allow, byId, field, h, keyed, option, prose, renew, setHidden, setText } from "./dom.js";
import { makeFaults } from "./faults.js";
import { many, shortModel } from "./words.js";
import { on, put, world } from "./world.js";

let parts = null;

export function startBench() {
  const view = byId("view-bench");
  view.append(
    h("div", { class: "columns" }, h("div", {}, makeFaults()), h("div", {}, makeScenarios())),
    makeCatalogue(),
  );
}

function makeScenarios() {
  const name = h("select", {
    id: "scenario-name",
    "aria-describedby": "scenario-about",
    on: { change: describe },
  });
  const more = h("input", {
    id: "scenario-more",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "e.g. processing=3s; outcome=failed",
  });
  const model = h("select", { id: "scenario-model" }, option("", "every model"));
  const times = h("input", {
    id: "scenario-times",
    class: "narrow",
    inputmode: "numeric",
    autocomplete: "off",
    placeholder: "all",
  });
  const about = h("p", { class: "hint", id: "scenario-about" });
  const form = h(
    "form",
    { id: "scenario-form", on: { submit: choose } },
    h("div", { class: "fields" }, field("Scenario", name), field("For", model), field("Submits", times)),
    about,
    field(
      "Changes",
      more,
      "progression, created, processing, outcome, error, nsfw or fault, with semicolons between",
    ),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "submit", class: "primary", text: "Choose scenario" }),
    ),
  );
  const list = h("ul", { class: "cards", id: "standing" });
  const none = h("p", { class: "empty-note" });
  const back = h("button", { type: "button", class: "quiet", text: "Take it back", on: { click: takeBack } });
  parts = { name, more, model, times, about, list, none, back };
  on("catalogue health", fill);
  on("standing", show);
  return [
    h(
      "section",
      { class: "block", "aria-labelledby": "standing-heading" },
      h("div", { class: "block-head" }, h("h2", { id: "standing-heading", text: "Standing" }), back),
      none,
      list,
    ),
    h(
      "section",
      { class: "block", "aria-labelledby": "scenario-heading" },
      h("h2", { id: "scenario-heading", text: "Choose a scenario" }),
      form,
    ),
  ];
}

function fill() {
  const scenarios = world.catalogue?.scenarios ?? [];
  if (parts.name.options.length !== scenarios.length) {
    parts.name.replaceChildren(...scenarios.map((each) => option(each.name)));
    describe();
  }
  const paths = world.health ? Object.values(world.health.editions).flat() : [];
  const models = [...new Set(paths.map((path) => path.replace(/^.*?\/api\/[^/]+\//, "")))];
  if (parts.model.options.length !== models.length + 1) {
    parts.model.replaceChildren(
      option("", "every model"),
      ...models.map((each) => option(each, shortModel(each))),
    );
  }
}

function describe() {
  const scenario = world.catalogue?.scenarios.find((each) => each.name === parts.name.value);
  renew(parts.about, scenario, () => (scenario ? prose(`${scenario.what} ${scenario.advice}`) : []));
}

async function choose(event) {
  event.preventDefault();
  const more = parts.more.value.trim();
  const choice = { scenario: parts.name.value + (more ? `; ${more}` : "") };
  if (parts.model.value) choice.model = parts.model.value;
  if (parts.times.value.trim()) choice.times = Number(parts.times.value);
  const standing = await act(() => post("scenario", choice));
  if (!standing) return;
  put("standing", standing);
  tell(`Submits that name no scenario now get ${choice.scenario}.`);
}

async function takeBack() {
  if (parts.back.getAttribute("aria-disabled")) return;
  const standing = await act(() => remove("scenario"));
  if (!standing) return;
  put("standing", standing);
  tell("Taken back.");
}

function show() {
  const { default: usual, standing } = world.standing;
  setText(parts.none, `A submit that names no scenario gets ${usual}${standing.length ? ", but:" : "."}`);
  setHidden(parts.list, !standing.length);
  allow(parts.back, standing.length > 0);
  keyed(parts.list, standing, {
    key: (each) => JSON.stringify(each),
    make: (each) =>
      h(
        "li",
        { class: "card" },
        h("code", { text: each.scenario }),
        h("span", { class: "hint", text: ` for ${each.model ? shortModel(each.model) : "every model"}` }),
        each.times === undefined
          ? null
          : h("span", { class: "hint", text: `, ${many(each.times, "submit")} more` }),
      ),
  });
}

function makeCatalogue() {
  const body = h("tbody");
  const ways = h("p", { class: "hint" });
  on("catalogue", () => {
    renew(body, world.catalogue, () => world.catalogue.scenarios.map(line));
    const magic = world.catalogue.magic ? " A prompt with [[mock:NAME]] or the seed does so, too." : "";
    setText(
      ways,
      `A client chooses by, what stands first winning: ${world.catalogue.ways.join("; ")}.${magic}`,
    );
  });
  const head = h(
    "thead",
    {},
    h(
      "tr",
      {},
      ["Scenario", "What happens", "What a client has to do", "Seed"].map((text) =>
        h("th", { scope: "col", text }),
      ),
    ),
  );
  return h(
    "details",
    { class: "block catalogue" },
    h("summary", {}, h("h2", { text: "All scenarios" })),
    ways,
    h(
      "div",
      { class: "scroller", role: "region", tabindex: "0", "aria-label": "All scenarios" },
      h("table", {}, head, body),
    ),
  );
}

const line = (each) =>
  h(
    "tr",
    {},
    h("th", { scope: "row" }, h("code", { text: each.name })),
    h("td", {}, prose(each.what)),
    h("td", {}, prose(each.advice)),
    h("td", { class: "number", text: each.seed === undefined ? "" : String(each.seed) }),
  );
