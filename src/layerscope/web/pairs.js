// Where there is no picture: two checkpoints tensor by tensor, or one tensor's histogram in large.

import { bar, byId, cleared, fill, framed, h, num } from "./dom.js";
import { drawBins } from "./histogram.js";
import { rowNow } from "./rows.js";

/** @param {Store} store */
export function setUpPlain(store) {
  const host = byId("plain"),
    canvas = /** @type {HTMLCanvasElement} */ (h("canvas.large-histogram", { role: "img", "aria-label": "histogram of the tensor" }));
  const build = framed(() => {
    const { scene, shown, index, layer, bins } = store.state,
      row = rowNow(store.state);
    byId("panes").classList.toggle("pairs-only", Boolean(row && !row.a && !row.b));
    const ready = index && (shown?.row.key === layer || !index.layers.length);
    host.hidden = Boolean(scene) || !ready;
    if (host.hidden || !index) return;
    if (!row) return fill(host, h("p.empty", index.live?.image ? "No image yet: drop one here, or choose it above." : "There is nothing in this record."));
    if (!row.a && !row.b) return fill(host, pairTable(store, index, layer));
    fill(host, h("p.muted", whyPlain(row, index)), bins && canvas);
    if (bins) drawLarge(canvas, bins);
  });
  store.on("scene shown layer rows tensors theme bins", build);
  new ResizeObserver(build).observe(byId("stage"));
}

/** @param {Row} row @param {Index} index */
function whyPlain(row, index) {
  const layer = row.a ?? row.b;
  if (layer && index.left_out.includes(layer.key)) return "The maps of this layer were left out of the file, to keep it small; its statistics are inside.";
  if (layer?.type === "counter") return `A counter: ${[row.a, row.b].flatMap((side) => side ? side.note || "one number" : []).join(" | ")}.`;
  if (index.at) return `A run keeps its ${layer?.histogram ? "distribution" : "statistics"}, and no picture.`;
  if (layer?.histogram) return "One number a channel: its distribution.";
  return "No picture of this one in the record.";
}

/** @param {HTMLCanvasElement} canvas @param {Bins} bins */
function drawLarge(canvas, bins) {
  const { ctx, width, height } = cleared(canvas);
  drawBins(ctx, bins, { x: 0, y: 0, width, height });
}

/** @param {Store} store @param {Index} index @param {string} layer */
function pairTable(store, { pairs, notes }, layer) {
  const sorted = [...pairs].sort((p, q) => rank(q) - rank(p)),
    most = sorted.reduce((high, pair) => Math.max(high, shift(pair)), 0),
    head = ["tensor", "shape", "status", "greatest |A − B|", "mean |A − B|", "cosine"];
  return h("table.pairs",
    h("caption", ...["The most changed first.", ...notes].map((line) => h("p", line))),
    h("thead", h("tr", ...head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", ...sorted.map((pair) => pairLine(store, pair, most, pair.name === layer))));
}

/** What has no counterpart comes first: it is what one looks for. @param {Pair} pair */
function rank(pair) {
  return pair.status === "same" ? -1 : pair.mean_abs === null ? Infinity : shift(pair);
}

/** Single numbers count batches or scale a layer: their change says nothing beside that of kernels. @param {Pair} pair */
function shift(pair) {
  return pair.shape_a?.length ? pair.mean_abs ?? 0 : 0;
}

/** The row of a tensor, whatever it was matched with. @param {Store} store @param {string} name */
function choose(store, name) {
  const { rows } = store.state,
    row = rows.find(({ key, a, b }) => [key, a?.path, b?.path].includes(name));
  store.open(row?.key ?? name);
}

/** @param {Store} store @param {Pair} pair @param {number} most @param {boolean} current */
function pairLine(store, pair, most, current) {
  const shapes = [pair.shape_a, pair.shape_b].map((shape) => shape?.join(" × ")),
    shape = shapes[0] === shapes[1] ? shapes[0] : `${shapes[0] ?? "–"} | ${shapes[1] ?? "–"}`;
  return h("tr", { class: `status-${pair.status}`, "aria-selected": current, onclick: () => choose(store, pair.name) },
    h("th", { scope: "row" }, pair.name), h("td", shape || "one number"), h("td", pair.status),
    h("td.number", num(pair.max_abs)), h("td.number", num(pair.mean_abs), bar("span.bar", shift(pair) / (most || 1))), h("td.number", num(pair.cosine, 6)));
}
