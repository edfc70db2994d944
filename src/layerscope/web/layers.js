// The list on the left: layers as a tree, each with mean, deviation, a small histogram and its dead channels.

import { byId, clamp, count, dims, fill, h, num, on, quiet, svg } from "./dom.js";
import { sparkline } from "./histogram.js";
import { homeOf, matching, treeOf } from "./rows.js";

export class LayerList {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.list = byId("layer-list");
    /** @type {Set<string>} */
    this.closed = new Set();
    /** @type {Map<string, HTMLElement>} */
    this.buttons = new Map();
    /** @type {Row[]} */
    this.visible = [];
    store.on("rows filter", () => this.build());
    store.on("layer tensors", () => this.current());
    store.on("bins", () => this.addHistogram());
    // The input image takes its room once it is known.
    new ResizeObserver(() => this.buttons.get(this.chosen())?.scrollIntoView({ block: "nearest" })).observe(this.list);
    const filter = /** @type {HTMLInputElement} */ (byId("filter"));
    on(filter, "input", () => store.set({ filter: filter.value }));
    on(filter, "keydown", (event) => {
      if (event.key === "Enter" && this.visible.length) store.open(this.visible[0].key);
      if (event.key === "Escape" || event.key === "Enter") filter.blur();
    });
  }

  build() {
    const { rows, filter, index } = this.store.state,
      found = matching(rows, filter),
      again = index?.at && this.buttons.has(this.chosen()), // another step: the list stays where it is
      { scrollTop } = this.list;
    this.buttons.clear();
    const items = filter
      ? found.map((row) => ({ id: row.key, label: row.key, depth: 0, row, size: 0 }))
      : treeOf(found, this.closed);
    this.visible = /** @type {Row[]} */ (items.map((item) => item.row).filter(Boolean));
    fill(this.list, ...items.map((item) => (item.row ? this.line(item, item.row) : this.group(item))));
    byId("layer-count").textContent = filter ? `${count(found.length)} of ${count(rows.length)}` : `${count(rows.length)} ${index?.entry ?? "layer"}s`;
    if (!found.length && rows.length) fill(this.list, h("p.muted.pad", `nothing matches “${filter}”`));
    this.current();
    if (again) this.list.scrollTop = scrollTop;
  }

  /** @param {Item} item */
  group(item) {
    const closed = this.closed.has(item.id);
    const toggle = () => {
      if (!this.closed.delete(item.id)) this.closed.add(item.id);
      this.build();
      /** @type {HTMLElement|null} */ (this.list.querySelector(`[data-group="${CSS.escape(item.id)}"]`))?.focus();
    };
    const button = h("button.group", { "aria-expanded": !closed, "data-group": item.id, tabindex: -1, onclick: toggle },
      h("span.twist", { "aria-hidden": "true" }, closed ? "▸" : "▾"), item.label, closed ? quiet(` ${item.size}`) : null);
    button.setAttribute("aria-expanded", String(!closed));
    button.style.paddingLeft = `${8 + item.depth * 9}px`;
    return button;
  }

  /** @param {Item} item @param {Row} row */
  line(item, row) {
    const layer = row.a ?? row.b,
      { index } = this.store.state,
      choose = () => this.store.open(row.key);
    const button = h("button.layer", { "data-key": row.key, tabindex: -1, title: titleOf(row), onclick: choose },
      h("span.layer-name", item.label, h("span.layer-type", layer ? ((index?.entry === "tensor" && !index.compares) || typeOf(row).startsWith(item.label) ? "" : typeOf(row)) : row.pair?.status ?? "")),
      h("span.layer-dead", ...badges(row, index?.findings ?? [])),
      h("span.layer-figures", ...figuresOf(row)),
      h("span.layer-spark", glyph(layer)));
    button.style.paddingLeft = `${8 + item.depth * 9 + (item.depth ? 8 : 0)}px`;
    this.buttons.set(row.key, button);
    return button;
  }

  current() {
    const layer = this.chosen(),
      old = this.list.querySelector("[aria-current]");
    old?.removeAttribute("aria-current");
    old?.setAttribute("tabindex", "-1");
    const button = this.buttons.get(layer);
    if (!button) {
      this.list.querySelector("button")?.setAttribute("tabindex", "0");
      return;
    }
    button.setAttribute("aria-current", "true");
    button.tabIndex = 0;
    button.scrollIntoView({ block: "nearest" });
    if (this.list.contains(document.activeElement)) button.focus({ preventScroll: true });
  }

  /** A tensor of the live network is its layer here. */
  chosen() {
    return homeOf(this.store.state)?.key ?? this.store.state.layer;
  }

  /** The layer before or after, in the order of the list. @param {number} by */
  step(by) {
    const at = this.visible.findIndex((row) => row.key === this.chosen()),
      next = this.visible[clamp(at + by, 0, this.visible.length - 1)];
    if (next) this.store.open(next.key);
  }

  /** A layer of a pass has its histogram only once its maps are here. */
  addHistogram() {
    const { bins, shown } = this.store.state,
      place = shown && this.buttons.get(shown.row.key)?.querySelector(".layer-spark");
    if (place && bins) fill(place, sparkline(bins.series[0].counts));
  }
}

/** @param {Row} row */
function typeOf(row) {
  const [a, b] = [row.a?.type, row.b?.type];
  return a && b && a !== b ? `${a} | ${b}` : a ?? b ?? "";
}

/** @param {Row} row */
function titleOf(row) {
  const shape = (/** @type {Layer|null} */ layer) => (layer ? `${layer.key}  ${layer.type}  ${dims(layer.shape, layer.layout)}` : "");
  return [shape(row.a), shape(row.b)].filter(Boolean).join("\n") || row.key;
}

/** @param {Row} row @param {Finding[]} findings */
function badges(row, findings) {
  const dead = Math.max(row.a?.dead.length ?? 0, row.b?.dead.length ?? 0),
    mine = findings.filter((finding) => finding.name === row.path);
  return [
    row.how === "shape" ? h("span.badge", { title: "matched by shape" }, "≈") : null,
    row.how === "" && (row.a?.side || row.b?.side) ? h("span.badge", { title: "no counterpart in the other network" }, row.a ? "A" : "B") : null,
    mine.length ? h("span.badge.finding", { title: mine.map((one) => `${one.kind}: ${one.detail}`).join("\n") }, "!") : null,
    dead ? h("span.badge.dead", { title: `${dead} dead: zero everywhere` }, String(dead)) : null,
  ];
}

/** @param {Row} row @returns {HTMLElement[]} */
function figuresOf(row) {
  const both = row.a && row.b;
  if (row.pair && (both || !row.a)) {
    return [h("span", { title: "mean |A − B|" }, row.pair.mean_abs === null ? "" : num(row.pair.mean_abs, 2))];
  }
  const total = (row.a ?? row.b)?.total;
  if (!total || total.mean == null) return [];
  return [h("span", { title: "mean" }, num(total.mean, 2)), h("span", { title: "standard deviation", class: "muted" }, `±${num(total.std, 2)}`)];
}

/** The histogram, or until there is one the range with mean and deviation. @param {Layer|null} layer @returns {Node|string} */
function glyph(layer) {
  if (!layer) return "";
  if (layer.histogram) return sparkline(layer.histogram.counts);
  const { total } = layer;
  if (!total || total.min == null || total.max == null || total.mean == null) return "";
  const [low, high, mean, std] = [total.min, total.max, total.mean, total.std ?? 0],
    at = (/** @type {number} */ value) => (high > low ? clamp(((value - low) / (high - low)) * 46, 0, 46) + 1 : 24);
  return svg("svg", { viewBox: "0 0 48 14", class: "spark box", "aria-hidden": "true" },
    svg("path", { d: `M1 7H47M1 4V10M47 4V10`, class: "whisker" }),
    svg("rect", { x: at(mean - std), y: 3, width: Math.max(at(mean + std) - at(mean - std), 1), height: 8 }),
    svg("path", { d: `M${at(mean)} 2V12`, class: "mean" }));
}
