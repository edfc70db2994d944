// Above and below the sheet: where one is, how it is sorted and coloured, and what the colours mean.

import { gradient } from "./colour.js";
import { byId, clicked, count, dims, fill, forgetInk, h, num, on, quiet, shortName } from "./dom.js";
import { spanOf } from "./block.js";
import { joined } from "./ranges.js";
import { TOP, alike, homeOf, imagesIn, rowNow, tokenName, tokensOf } from "./rows.js";
import { mapOf, scopeOf } from "./scene.js";
import { spotName } from "./stage.js";
import { nameOf } from "./tiles.js";

/** @type {[string, string, string][]} field, value, label */
const OPTIONS = [
  ["range", "channel", "channel"], ["range", "layer", "layer"], ["range", "network", "network"],
  ["map", "viridis", "viridis"], ["map", "gray", "gray"], ["map", "diverging", "diverging"],
  ["mode", "side", "side by side"], ["mode", "swipe", "swipe"], ["mode", "blink", "blink"], ["mode", "diff", "A − B"],
];

const HINTS = {
  "range channel": "each channel over its own least and greatest value: shapes are seen",
  "range layer": "all channels over the range of this layer: strengths can be compared",
  "range network": "all layers over one range",
};

/** What channels can be sorted by beside the statistics. @type {[string, string, string, (index: Index) => boolean][]} value, label, hint, where */
const SORTS = [
  ["dead", "dead", "channels that are zero everywhere first", () => true],
  ["change", "A − B", "by the mean of |A − B|", isCompared],
  ["silent", "silent", "zero everywhere on the most images first", ({ dataset }) => dataset],
  ["class", "class", "first those that the classes explain best", ({ dataset, classes }) => dataset && Boolean(classes?.length)],
];

export class Controls {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.state = store.state;
    for (const field of ["mode", "sort", "range", "map"]) {
      const name = field === "mode" ? "compare" : field;
      byId("controls").append(h("div.choice", { id: `group-${field}`, hidden: field === "mode" }, name, h("div", { id: `choose-${field}`, role: "group", "aria-label": name })));
    }
    this.sorts = "";
    /** @type {[string, string, HTMLButtonElement][]} */
    this.buttons = OPTIONS.map(([field, value, label]) => this.button(field, value, label, Reflect.get(HINTS, `${field} ${value}`) ?? null));
    store.on("index", () => this.buildSorts());
    store.on("scene index layer range map sort mode", () => this.buttonsNow());
    store.on("scene layer channel y x rows tensors query", () => this.crumbs());
    store.on("scene channel theme", () => this.scaleBar());
  }

  /** @param {string} field @param {string} value @param {string} label @param {string|null} title @returns {[string, string, HTMLButtonElement]} */
  button(field, value, label, title) {
    const choose = (/** @type {MouseEvent} */ event) => {
      this.store.set(/** @type {any} */ ({ [field]: value }));
      // Clicked with a mouse it gives the keys back to the sheet; chosen with a key it keeps the focus.
      if (event.detail) button.blur();
    };
    /** @type {HTMLButtonElement} */
    const button = /** @type {HTMLButtonElement} */ (h("button", { "data-value": value, title, onclick: choose }, label));
    byId(`choose-${field}`).append(button);
    return [field, value, button];
  }

  /** The channels' own order, the statistics in brief, and what else there is of this index. */
  buildSorts() {
    const { index, sort } = this.state;
    if (!index) return;
    /** @type {[string, string, string][]} */
    const sorts = [["index", "index", "in the order of the layer"],
      .../** @type {[string, string, string][]} */ (index.statistics.filter(({ brief }) => brief).map(({ name, label, text }) => [name, label, `${text}: the greatest first`])),
      .../** @type {[string, string, string][]} */ (SORTS.filter(([, , , there]) => there(index)).map((one) => one.slice(0, 3)))];
    if (!sorts.some(([value]) => value === sort)) this.store.set({ sort: "index" });
    if (this.sorts === String(sorts)) return; // the steps of a run have the same ones
    this.sorts = String(sorts);
    fill(byId("choose-sort"));
    this.buttons = [...this.buttons.filter(([field]) => field !== "sort"), ...sorts.map((one) => this.button("sort", ...one))];
  }

  buttonsNow() {
    const { state } = this.store,
      { scene, index } = state;
    byId("group-mode").hidden = !index || !isCompared(index);
    const row = scene?.shown.row,
      same = Boolean(row && alike(row, scene.shown.image)),
      tiles = scene?.panes[0].tiles,
      map = scene && tiles ? (scene.mode === "diff" ? "diverging" : mapOf(state, tiles)) : state.map;
    for (const [field, value, button] of this.buttons) {
      if (field === "range" && tiles) button.disabled = tiles.strip && value === "channel";
      const now = field === "range" && tiles ? scopeOf(state, tiles) : field === "map" ? (scene?.rgb ? "" : map) : field === "mode" && scene && scene.mode !== "one" ? scene.mode : Reflect.get(state, field);
      button.setAttribute("aria-pressed", String(now === value));
      if (field === "map") button.disabled = Boolean(scene?.rgb) || scene?.mode === "diff";
      if (field === "mode") {
        button.disabled = value === "side" ? scene?.mode === "one" : !same;
        button.title = row && button.disabled ? whyNotBoth(row) : "";
      }
      if (value === "change") button.disabled = !same;
    }
    byId("controls").classList.toggle("off", !scene);
  }

  crumbs() {
    const { index, channel, y, x, scene, query, image } = this.state,
      row = rowNow(this.state),
      home = homeOf(this.state),
      main = row?.a ?? row?.b;
    const crumb = (/** @type {string} */ text, /** @type {any} */ patch, /** @type {boolean} */ last) =>
      h(last ? "span" : "button", last ? { "aria-current": "location", class: "crumb" } : { class: "crumb", onclick: () => this.store.set(patch) }, text);
    const tiles = scene?.panes[0].tiles,
      within = tiles && channel >= 0 && channel < tiles.count,
      parts = [crumb((home ? row?.path.split(".").pop() : row?.key) ?? "…", TOP, !within && !query)];
    if (query) parts.push(crumb(query === "tokens" ? tokenName(tokensOf(main, image)) : `from ${query === "mean" ? query : `(${query.replace(",", ", ")})`}`, { ...TOP, query }, !within));
    if (home) parts.unshift(crumb(home.key, { layer: home.key, ...TOP }, false));
    if (within) parts.push(crumb(nameOf(tiles, channel), { y: -1, x: -1 }, y < 0));
    if (within && y >= 0 && tiles.block.h * tiles.block.w > 1) parts.push(crumb(spotName(tiles, scene.shown.image, y, x), {}, true));
    fill(byId("crumbs"), ...parts.flatMap((part, n) => (n ? [h("span.muted", { "aria-hidden": "true" }, "›"), part] : [part])));
    const shape = main ? [main, row?.a && row.b && row.b !== main ? row.b : null].filter(Boolean).map((one) => dims(/** @type {any} */ (one).shape, /** @type {any} */ (one).layout)) : [],
      shapes = shape[0] === shape[1] ? shape.slice(0, 1) : shape;
    fill(byId("layer-facts"), ...(main ? [h("span", shapes.join("  |  ")), quiet(main.type),
      main.dead.length ? h("button.chip.dead", { title: "show them first", onclick: () => this.store.set({ sort: "dead" }) }, `${count(main.dead.length)} dead`) : null,
      index?.compares && row && !alike(row, 0) ? h("span.muted.note-short", whyNotBoth(row)) : null,
      main.note && !query ? h("span.muted.note-short", { title: main.note }, main.note) : null] : []));
  }

  scaleBar() {
    const { scene, channel } = this.state,
      bar = byId("scale");
    bar.classList.toggle("off", !scene);
    if (!scene) return fill(byId("scale-low")), fill(byId("scale-high")), fill(byId("scale-said"));
    const { tiles, colours } = scene.panes[0];
    byId("scale-bar").style.background = scene.rgb ? "linear-gradient(90deg, #000, #fff)" : gradient(colours.map);
    const own = scopeOf(this.state, tiles) === "channel" && tiles.count > 1,
      bounds = own && (channel < 0 || channel >= tiles.count) ? null : colours.bounds(Math.max(channel, 0)),
      even = colours.map === "diverging";
    byId("scale-low").textContent = bounds ? num(bounds[0], 3) : even ? "−max" : "min";
    byId("scale-high").textContent = bounds ? num(bounds[1], 3)  : "max";
    byId("scale-middle").textContent = even ? "0" : "";
    byId("scale-said").textContent = scaleSaid(this.state, scene, own);
  }
}

/** Two sides, and their maps. @param {Index} index */
function isCompared({ compares, layers }) {
  return compares && layers.length > 0;
}

/** @param {State} state @param {Scene} scene @param {boolean} own */
function scaleSaid(state, scene, own) {
  const sides = scene.mode === "diff" ? [scene.panes[0].tiles] : scene.panes.map((pane) => pane.tiles),
    [low, high] = sides.map((tiles) => spanOf(tiles.block)).reduce(joined),
    one = sides[0].what === "kernels" ? "kernel" : "channel",
    spans = `${scene.mode === "diff" ? "A − B" : sides[0].what === "matrix" ? "matrix" : one === "kernel" ? "tensor" : "layer"} ${num(low, 3)} to ${num(high, 3)}`;
  if (sides[0].what === "matrix") return spans;
  if (state.range === "network") return `every layer over this range · ${spans}`;
  return own ? `each over its own range · ${spans}` : `all ${sides[0].strip ? "value" : one}s over the range of the layer`;
}

/** @param {Row} row */
function whyNotBoth(row) {
  if (!row.a || !row.b) return `only in ${row.a ? "A" : "B"}: nothing to compare`;
  if (!row.a.maps[0] || !row.b.maps[0]) return "";
  return `${row.how === "stage" ? "one stage of two architectures: " : ""}shapes differ, nothing to subtract: side by side, each over its own range`;
}

/** The bar at the very top. @param {Store} store */
export function topBar(store) {
  const chooser = /** @type {HTMLSelectElement} */ (byId("image"));
  on(chooser, "change", () => store.set({ image: Number(chooser.value), y: -1, x: -1 }));
  store.on("index", ({ index, image }) => {
    if (!index) return;
    fill(byId("subject"), ...subjectParts(index));
    const places = Array.from({ length: index.dataset ? imagesIn(index) : 0 }, (_, n) => (n ? `example ${n + 1}` : "best example")),
      names = index.compares && !index.at ? [] : [...index.pictures.map(({ name }) => name), ...places];
    byId("image-choice").hidden = names.length < 2;
    fill(chooser, ...names.map((name, n) => h("option", { value: n }, name)));
    chooser.value = String(image);
    const said = [...index.notes, ...(index.never.length ? [`never ran: ${index.never.join(", ")}`] : []), ...(index.left_out?.length ? [`left out of this file: ${index.left_out.join(", ")}`] : [])],
      notes = byId("notes");
    notes.hidden = !said.length;
    fill(byId("notes-list"), ...said.map((note) => h("li", note)));
    byId("notes-count").textContent = `${said.length} note${said.length > 1 ? "s" : ""}`;
  });
  store.on("image", ({ image }) => (chooser.value = String(image)));
  clicked("theme", () => toggleTheme(store));
}

/** @param {Index} index */
function subjectParts(index) {
  if (!index.compares) return [h("span", { title: index.subject }, shortName(index.subject))];
  return [h("b", { "data-side": "a" }, "A"), h("span", { title: index.subject }, shortName(index.subject)), quiet("vs"),
    h("b", { "data-side": "b" }, "B"), h("span", { title: index.subject_b }, shortName(index.subject_b))];
}

/** @returns {string} what was chosen before, else what the system is set to */
export function firstTheme() {
  const system = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  try {
    return localStorage.getItem("layerscope-theme") ?? system;
  } catch {
    return system; // a notebook's frame has no storage
  }
}

/** @param {Store} store */
export function toggleTheme(store) {
  const theme = store.state.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("layerscope-theme", theme);
  } catch {
    // not kept then
  }
  applyTheme(theme);
  store.set({ theme });
}

/** @param {string} theme */
export function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  forgetInk();
}
