// Where there is no picture: two checkpoints tensor by tensor, or one tensor's histogram in large.

import { byId, fill, framed, h, ink, sharpen } from "./dom.js";
import { num } from "./format.js";
import { drawBins } from "./histogram.js";

/** @param {Store} store */
export function setUpPlain(store) {
  const host = byId("plain");
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "large-histogram", role: "img", "aria-label": "histogram of the tensor" }));
  const build = framed(() => {
    const { scene, shown, index, rows, layer } = store.state;
    byId("panes").classList.toggle("pairs-only", Boolean(index && index.pairs.length && !index.layers.length));
    const row = rows.find((one) => one.key === layer);
    const ready = index && (shown?.row.key === layer || !index.layers.length);
    host.hidden = Boolean(scene) || !ready;
    if (host.hidden || !index) return;
    if (!row) return fill(host, h("p", { class: "empty" }, index.live?.image ? "No image yet: drop one here, or choose it above." : "There is nothing in this record."));
    if (!index.layers.length) return fill(host, pairTable(store, index.pairs, layer));
    const histogram = (row.a ?? row.b)?.histogram;
    fill(host, h("p", { class: "muted" }, whyPlain(row, index)), histogram ? canvas : null);
    if (histogram) drawLarge(canvas, histogram.counts);
  });
  store.on("scene shown layer rows theme bins", build);
  new ResizeObserver(build).observe(byId("stage"));
}

/** @param {Row} row @param {Index} index */
function whyPlain(row, index) {
  const layer = row.a ?? row.b;
  if (layer && index.left_out.includes(layer.key)) return "The maps of this layer were left out of the file, to keep it small; its statistics are inside.";
  if (layer?.type === "counter") return `A counter: ${layer.note || "one number"}.`;
  if (layer?.histogram) return "One number a channel: its distribution.";
  return "No picture of this one in the record.";
}

/** @param {HTMLCanvasElement} canvas @param {number[]} counts */
function drawLarge(canvas, counts) {
  const { context, width, height, ratio } = sharpen(canvas);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  drawBins(context, { low: 0, high: 1, series: [{ counts, colour: ink("bar") }] }, { x: 0, y: 0, width, height });
}

/** @param {Store} store @param {Pair[]} pairs @param {string} layer */
function pairTable(store, pairs, layer) {
  const sorted = [...pairs].sort((p, q) => rank(q) - rank(p));
  const most = sorted.reduce((high, pair) => Math.max(high, pair.mean_abs ?? 0), 0);
  const head = ["tensor", "shape", "status", "greatest |A − B|", "mean |A − B|", "cosine"];
  return h("table", { class: "pairs" },
    h("caption", {}, "The most changed first."),
    h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...sorted.map((pair) => pairLine(store, pair, most, pair.name === layer))));
}

/** What has no counterpart comes first: it is what one looks for. @param {Pair} pair */
function rank(pair) {
  return pair.status === "same" ? -1 : pair.mean_abs ?? Infinity;
}

/** @param {Store} store @param {Pair} pair @param {number} most @param {boolean} current */
function pairLine(store, pair, most, current) {
  const bar = h("span", { class: "bar" }, h("span", {}));
  /** @type {HTMLElement} */ (bar.firstChild).style.width = `${((pair.mean_abs ?? 0) / (most || 1)) * 100}%`;
  const shapes = [pair.shape_a, pair.shape_b].map((shape) => shape?.join(" × "));
  const shape = shapes[0] === shapes[1] ? shapes[0] : `${shapes[0] ?? "–"} | ${shapes[1] ?? "–"}`;
  return h("tr", { class: `status-${pair.status}`, "aria-selected": current, onclick: () => store.set({ layer: pair.name }) },
    h("th", { scope: "row" }, pair.name), h("td", {}, shape || "one number"), h("td", {}, pair.status),
    h("td", { class: "number" }, num(pair.max_abs)), h("td", { class: "number" }, num(pair.mean_abs), bar), h("td", { class: "number" }, num(pair.cosine, 6)));
}
