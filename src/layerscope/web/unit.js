// The arithmetic of one value on the live network: input patch times kernel, plus bias, is the value.

import { colourTable } from "./colour.js";
import { fill, h, num, quiet } from "./dom.js";
import { numberGrid } from "./tile.js";

const MOST_ROWS = 6;

export class UnitPane {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.element = h("section.unit", { "aria-label": "how the value came about" });
    store.on("look channel y index scene", () => this.build());
    this.build();
  }

  build() {
    const { look, index, channel, y, scene, query } = this.store.state;
    if (channel < 0) return;
    const layer = scene?.shown.row.a ?? scene?.shown.row.b,
      hint = (/** @type {(Node|string)[]} */ ...parts) => fill(this.element, h("p.muted.hint", ...parts));
    if (!index || !layer?.layout.includes("N") || query === "tokens") fill(this.element);
    else if (layer.type === "attention") hint(`Head ${channel}: softmax of query × key. ${index.live ? "Click a patch, then its place above: what each head attends to from there." : ""}`);
    else if (!index.live?.units) hint(`This is a record: the receptive field and the sum behind a value need the live network, layerscope view NETWORK IMAGE${index.compares ? " --against OTHER" : ""}.`);
    else if (y < 0) hint("Click a value of the map, or press Enter, to see how it came about.");
    else if (!look) hint("the network computes it… ", h("progress", { "aria-label": "computing" }));
    else {
      const rows = look.map((one) => (one.arithmetic?.kernel ? contributions(one.arithmetic) : [])),
        most = mostOf(rows.flat());
      fill(this.element, ...look.flatMap((one, n) => one.error ? [h("p.note.finding", one.error)] : lookParts(one, rows[n], most)));
    }
  }
}

/** @typedef {{name: string, patch: number[][], kernel: number[][], product: number[][], total: number}} Part of an input channel */

/** @param {any} look @param {Part[]} rows @param {ReturnType<typeof mostOf>} most @returns {HTMLElement[]} */
function lookParts(look, rows, most) {
  const { receptive_field: field, arithmetic, side } = look,
    parts = [h("h3", side ? { "data-side": side } : {}, `how it came about${side && ` in ${side.toUpperCase()}`}`)];
  if (field) {
    const size = field.size.join(" × "),
      names = ["rows", "columns"].slice(-field.box.length),
      spans = field.box.map((/** @type {number[]} */ [first, last], /** @type {number} */ n) => `${names[n] ?? ""} ${first}…${last - 1}`).join(", ");
    parts.push(h("p", "It sees ", h("strong", `${size} pixels`), quiet(` of the input: ${spans}`)));
  }
  if (arithmetic) parts.push(...sumParts(arithmetic, rows, most));
  for (const note of look.notes ?? []) parts.push(h("p.muted", note));
  return parts;
}

/** @param {any} sum @param {Part[]} rows @param {ReturnType<typeof mostOf>} most @returns {HTMLElement[]} */
function sumParts(sum, rows, most) {
  if (!sum.kernel) {
    const terms = Object.entries(sum.terms ?? {}).map(([name, value]) => h("div", h("dt", name), h("dd", num(/** @type {number} */ (value), 5))));
    return [h("p.formula", sum.formula), h("dl.figures", ...terms), resultLine(sum)];
  }
  const shown = rows.slice(0, MOST_ROWS),
    rest = rows.slice(MOST_ROWS).reduce((total, row) => total + row.total, 0),
    table = colourTable("diverging"),
    header = h("div.sum-row.sum-head", { "aria-hidden": "true" }, h("span", "input"), h("span", "patch"), h("span"), h("span", "kernel"), h("span"), h("span", "products"), h("span", "sum"));
  const lines = shown.map((row) => h("div.sum-row",
    quiet(row.name), numberGrid(row.patch, most.patch, table), h("span", "×"),
    numberGrid(row.kernel, most.kernel, table), h("span", "="), numberGrid(row.product, most.product, table),
    h("span.sum-value", num(row.total, 3))));
  const first = shown[0];
  return [
    h("div.sum", header, ...lines),
    h("dl.sum-total",
      ...(rows.length > MOST_ROWS ? [line(`${rows.length - MOST_ROWS} more inputs`, rest)] : []),
      line("bias", sum.bias), line("sum", sum.sum, true)),
    resultLine(sum),
    ...(first && first.patch.length * first.patch[0].length <= 25 ? [spelled(first)] : []),
  ];
}

/** @param {string} name @param {number} value @param {boolean} [strong] */
function line(name, value, strong = false) {
  return h("div", h("dt", strong ? "" : "+ ", name), h("dd", { class: strong ? "strong" : "" }, num(value, 5)));
}

/** @param {any} sum */
function resultLine(sum) {
  return h("p.result", quiet("the layer produced "), h("strong", num(sum.value, 5)));
}

/** The terms of one input, to be added up by hand. @param {{name: string, patch: number[][], kernel: number[][]}} row */
function spelled(row) {
  const terms = row.patch.flatMap((values, y) => values.map((value, x) => `${num(value, 3)}·${num(row.kernel[y][x], 3)}`));
  return h("details", h("summary", `the ${terms.length} products of input ${row.name}`), h("p.terms", terms.join(" + ")));
}

/**
 * Input channels by the size of what they add.
 * @param {any} sum
 * @returns {Part[]}
 */
export function contributions(sum) {
  const vector = typeof sum.patch[0] === "number";
  // A linear layer has one row of inputs: chunks of it would mean nothing, so it is one contribution.
  const patches = vector ? [sum.patch] : sum.patch,
    kernels = vector ? [sum.kernel] : sum.kernel,
    products = vector ? [sum.products] : sum.products;
  const rows = patches.map((/** @type {any} */ patch, /** @type {number} */ n) => {
    const product = plain(products[n]),
      total = product.flat().reduce((/** @type {number} */ all, /** @type {number} */ one) => all + one, 0);
    return { name: vector ? "all" : String(sum.inputs[n] ?? n), patch: plain(patch), kernel: plain(kernels[n]), product, total };
  });
  return rows.sort((/** @type {any} */ p, /** @type {any} */ q) => Math.abs(q.total) - Math.abs(p.total));
}

/** Any number of axes as rows and columns. @param {any} values @returns {number[][]} */
function plain(values) {
  if (typeof values === "number") return [[values]];
  if (typeof values[0] === "number") {
    // A long line as a block of rows, or it would be a hair.
    const width = values.length > 32 ? Math.ceil(Math.sqrt(values.length)) : values.length;
    return Array.from({ length: Math.ceil(values.length / width) }, (_, y) => values.slice(y * width, (y + 1) * width));
  }
  if (typeof values[0][0] === "number") return values;
  return values.flat();
}

/** The ends of the colours: the same for both networks of a comparison. @param {Part[]} rows */
function mostOf(rows) {
  return { patch: largest(rows.map((row) => row.patch)), kernel: largest(rows.map((row) => row.kernel)), product: largest(rows.map((row) => row.product)) };
}

/** @param {number[][][]} all */
function largest(all) {
  return all.reduce((most, rows) => rows.reduce((high, row) => row.reduce((top, value) => Math.max(top, Math.abs(value)), high), most), 0);
}
