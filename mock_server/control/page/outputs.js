// The outputs of a task, read through the control plane: looking at them is no fetch of the client's.

import { address, bytes } from "./api.js";
import { h } from "./dom.js";

const IMAGE = /\.(?:png|jpe?g|webp)$/i;
const ADDRESS = /\/outputs\/([0-9a-f]{32})\/([0-9]+\.[a-z]+)$/;

/** One output: a picture, or a link to a file. */
export function makeOutput({ url, nsfw, number }) {
  const found = ADDRESS.exec(url);
  const caption = h(
    "figcaption",
    {},
    nsfw ? h("span", { class: "badge", "data-tone": "warn", text: "flagged as NSFW" }) : null,
  );
  const figure = h("figure", { class: "output" }, caption);
  if (!found) {
    caption.append(h("code", { text: url }));
    return figure;
  }
  const [, id, name] = found;
  const path = `outputs/${id}/${name}`;
  caption.append(
    h("a", {
      href: address(path),
      download: `${id.slice(0, 8)}-${name}`,
      text: name,
      on: { click: (event) => save(event, path, name) },
    }),
  );
  if (IMAGE.test(name)) void load(figure, caption, path, `Output ${number}`);
  return figure;
}

async function load(figure, caption, path, alt) {
  try {
    const picture = URL.createObjectURL(await bytes(path));
    const release = () => URL.revokeObjectURL(picture);
    const image = h("img", { alt, on: { load: release, error: release } });
    image.src = picture;
    figure.insertBefore(image, caption);
    image.addEventListener("load", () =>
      caption.append(h("span", { class: "hint", text: ` ${image.naturalWidth} × ${image.naturalHeight}` })),
    );
  } catch (error) {
    caption.append(h("span", { class: "error", text: ` ${error.message}` }));
  }
}

// A link cannot carry the token, so the file is read here and handed on.
async function save(event, path, name) {
  event.preventDefault();
  const link = h("a", { download: name });
  link.href = URL.createObjectURL(await bytes(path));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
