// Elements are built here and nowhere else, and text only ever becomes text.

/** An element. `props`: class, text, on (listeners), hidden, and any attribute; children: nodes and texts. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on") listen(element, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function listen(element, listeners) {
  for (const [event, listener] of Object.entries(listeners)) element.addEventListener(event, listener);
}

/** One of the symbols that stand in index.html; decoration, since words always stand beside it. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const byId = (id) => document.getElementById(id);

/** Changes a text only where it differs, so that nothing is laid out or read aloud again for no reason. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Whether a button can be used; it keeps the focus when it cannot, unlike a disabled one. */
export function allow(button, allowed) {
  setAttribute(button, "aria-disabled", allowed ? null : "true");
}

const kept = new WeakMap();

/**
 * Makes the children of `parent` those of `items`, in order. What is there already stays the same element and
 * is not moved, so that focus, selection and scroll position survive.
 */
export function keyed(parent, items, { key, make, update = () => {} }) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const name = key(item);
    after.set(name, before.get(name) ?? make(item));
  }
  for (const [name, node] of before) if (after.get(name) !== node) node.remove();
  let next = parent.firstChild;
  for (const item of items) {
    const node = after.get(key(item));
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  kept.set(parent, after);
}

const shown = new WeakMap();

/**
 * Puts what `make` gives in place of an element's content, unless `subject` is what it shows already. A control
 * in it that has the focus hands it on to its successor.
 */
export function renew(element, subject, make) {
  const signature = JSON.stringify(subject);
  if (shown.get(element) === signature) return;
  shown.set(element, signature);
  const focused = element.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  element.replaceChildren(...[make()].flat().filter(Boolean));
  if (focused) [...element.querySelectorAll("a, button")].find((each) => nameOf(each) === focused)?.focus();
}

const nameOf = (control) =>
  control.getAttribute("href") ?? control.getAttribute("aria-label") ?? control.textContent;

/** A text in which `what stands like this` is code. */
export function prose(text) {
  return text
    .split("`")
    .map((part, place) => (place % 2 ? h("code", { text: part }) : part))
    .filter(Boolean);
}

/** A label with its control below it, and a hint that the control is described by. */
export function field(label, control, hint = "") {
  if (!control.id) control.id = `field-${(field.count = (field.count ?? 0) + 1)}`;
  const parts = [h("label", { for: control.id, text: label }), control];
  if (hint) {
    control.setAttribute("aria-describedby", `${control.id}-hint`);
    parts.push(h("p", { id: `${control.id}-hint`, class: "hint", text: hint }));
  }
  return h("div", { class: "field" }, parts);
}

export const option = (value, text = value) => h("option", { value, text });
