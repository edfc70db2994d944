// What a survey tells of a layer as a whole: how many directions it uses, copies among its channels, and layers like it.

import { clamp, count, h, inPixels, num, on, quiet } from "./dom.js";
import { figures } from "./histogram.js";
import { profileNow } from "./rows.js";

/** @param {Store} store @returns {HTMLElement[]} */
export function layerMeaning(store) {
  const { index, layer } = store.state,
    profile = profileNow(store.state);
  if (!index || !profile) return [];
  const parts = [figures([
    ["images", count(profile.images)],
    ["effective rank", profile.rank === null ? "–" : `${num(profile.rank, 3)} of ${count(profile.silent.length)}`],
  ], "one")];
  const { copies } = profile,
    pair = (/** @type {[number, number, number]} */ [a, b, r]) => h("button.link", { onclick: () => store.set({ channel: a, y: -1, x: -1 }) }, `${a} and ${b}`, quiet(` r ${num(r, 3)}`));
  if (copies.length) parts.push(h("section", h("h3", `${count(copies.length)} pair${copies.length > 1 ? "s" : ""} of channels with one signal`), h("p.links", ...copies.slice(0, 8).map(pair))));
  const similar = index.similarity,
    at = similar?.keys.indexOf(layer) ?? -1;
  if (similar && at >= 0) {
    const near = similar.value[at].map((value, n) => ({ value: value ?? NaN, key: similar.keys[n] }))
      .filter(({ value, key }) => key !== layer && value > 0).sort((p, q) => q.value - p.value).slice(0, 6);
    const go = (/** @type {{value: number, key: string}} */ { value, key }) => h("button.link", { onclick: () => store.open(key) }, key, quiet(` ${num(value, 2)}`));
    parts.push(h("section", h("h3", { title: "centred kernel alignment over minibatches of 64 images; 1 is the same up to rotation and scale" }, "most like it (CKA)"),
      heatMap(store, similar, at), h("p.links", ...near.map(go))));
  }
  return parts;
}

/** All layers against all; a click leads to the layer of the row. @param {Store} store @param {{keys: string[], value: (number|null)[][]}} similar @param {number} at */
function heatMap(store, { keys, value }, at) {
  const size = keys.length;
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas.similarity", { width: size, height: size, role: "img", "aria-label": "similarity of all layers; the row and column of this layer are marked" }));
  inPixels(canvas, (data) => value.forEach((row, y) => row.forEach((one, x) => {
    const shade = Math.round(255 * clamp(one ?? 0, 0, 1));
    data.set(y === at || x === at ? [255, 176 * (shade / 255), 59 * (shade / 255), 255] : [shade, shade, shade, 255], 4 * (y * size + x));
  })));
  const cell = (/** @type {MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect(),
      within = (/** @type {number} */ share) => clamp(Math.floor(share * size), 0, size - 1);
    return [within((event.clientY - box.top) / box.height), within((event.clientX - box.left) / box.width)];
  };
  on(canvas, "pointermove", (event) => {
    const [y, x] = cell(event);
    canvas.title = `${keys[y]} and ${keys[x]}: ${num(value[y][x] ?? NaN, 2)}`;
  });
  on(canvas, "click", (event) => store.open(keys[cell(event)[0]]));
  return canvas;
}
