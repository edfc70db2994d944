// Histograms: the layer's at the bottom, with a brush that chooses channels; small ones in the list and beside a map.

import { binned, spanOf } from "./block.js";
import { byId, framed, h, ink, sharpen, svg } from "./dom.js";
import { count, num } from "./format.js";
import { joined } from "./ranges.js";

const BINS = 96;
const COUNT_AFTER_MS = 60;

/**
 * Bars to scale, and behind them the same counts on a logarithmic scale, so that a single outlier is seen.
 * @param {CanvasRenderingContext2D} context @param {Bins} bins @param {Box} box
 */
export function drawBins(context, bins, box) {
  const most = Math.max(1, ...bins.series.flatMap(({ counts }) => [...Array.from(counts)]));
  bins.series.forEach(({ counts, colour }, n) => {
    const step = box.width / counts.length;
    const bars = (/** @type {(count: number) => number} */ share, /** @type {number} */ alpha) => {
      context.globalAlpha = alpha;
      for (let i = 0; i < counts.length; i++) {
        if (!counts[i]) continue;
        const high = Math.max(1, share(counts[i]) * box.height);
        context.fillRect(box.x + i * step, box.y + box.height - high, Math.max(step - (step > 4 ? 1 : 0), 0.5), high);
      }
      context.globalAlpha = 1;
    };
    context.fillStyle = colour;
    bars((value) => Math.log1p(value) / Math.log1p(most), n ? 0.3 : 0.34);
    bars((value) => value / most, bins.series.length > 1 ? 0.75 : 1);
  });
}

/** @param {ArrayLike<number>} counts @param {string} [kind] @returns {SVGElement} a few pixels high, logarithmic */
export function sparkline(counts, kind = "spark") {
  const bins = 24;
  const small = new Float64Array(bins);
  for (let i = 0; i < counts.length; i++) small[Math.floor((i * bins) / counts.length)] += counts[i];
  const most = Math.log1p(Math.max(...small, 1));
  const bars = Array.from(small, (value, i) => `M${i * 2} 14v${(-Math.log1p(value) / most) * 14}h2v${(Math.log1p(value) / most) * 14}z`);
  return svg("svg", { viewBox: "0 0 48 14", class: kind, "aria-hidden": "true" }, svg("path", { d: bars.join("") }));
}

/** The bottom of the page. */
export class LayerHistogram {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("histogram-canvas"));
    /** @type {Bins|null} */
    this.bins = null;
    const draw = framed(() => this.draw());
    // Counting the codes waits until the maps are on the screen: they are what was asked for.
    let timer = 0;
    store.on("shown", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.count(), COUNT_AFTER_MS);
    });
    store.on("brush hover channel theme scene", draw);
    new ResizeObserver(draw).observe(this.canvas);
    this.listen();
  }

  count() {
    const { shown, scene } = this.store.state;
    this.bins = null;
    const layer = shown?.row.a ?? shown?.row.b;
    const sides = scene ? /** @type {Tiles[]} */ ([scene.a, scene.b].filter(Boolean)) : [];
    if (layer?.histogram) {
      const { edges, counts } = layer.histogram;
      this.bins = { low: edges[0], high: edges[edges.length - 1], series: [{ counts, colour: "bar" }] };
    } else if (sides.length) {
      const span = sides.map(({ block }) => spanOf(block)).reduce(joined);
      const all = (/** @type {Tiles} */ { block }) => Array.from({ length: block.C }, (_, c) => c);
      const colours = sides.length > 1 ? ["side-a", "side-b"] : ["bar"];
      const series = sides.map((tiles, n) => ({ counts: binned(tiles.block, all(tiles), span, BINS), colour: colours[n] }));
      if (!Number.isNaN(span[0])) this.bins = { low: span[0], high: span[1], series };
    }
    this.draw();
    this.store.set({ bins: this.bins });
  }

  /** @returns {Box} */
  box() {
    return { x: 14, y: 6, width: this.canvas.clientWidth - 28, height: this.canvas.clientHeight - 24 };
  }

  draw() {
    const { context, width, height, ratio } = sharpen(this.canvas);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const box = this.box();
    const { bins } = this;
    if (!bins) return;
    const coloured = bins.series.map(({ counts, colour }) => ({ counts, colour: ink(colour) }));
    drawBins(context, { ...bins, series: coloured }, box);
    this.drawAxis(context, box, bins);
    this.drawBrush(context, box, bins);
    this.say();
  }

  /** @param {CanvasRenderingContext2D} context @param {Box} box @param {Bins} bins */
  drawAxis(context, box, bins) {
    context.fillStyle = ink("line");
    context.fillRect(box.x, box.y + box.height, box.width, 1);
    context.fillStyle = ink("muted");
    context.font = `11px ${ink("font")}`;
    const at = (/** @type {number} */ value) => box.x + ((value - bins.low) / (bins.high - bins.low || 1)) * box.width;
    const base = box.y + box.height + 13;
    context.fillText(num(bins.low, 3), box.x, base);
    context.textAlign = "right";
    context.fillText(num(bins.high, 3), box.x + box.width, base);
    context.textAlign = "center";
    const zero = at(0);
    if (bins.low < 0 && bins.high > 0 && zero > box.x + 50 && zero < box.x + box.width - 50) {
      context.fillText("0", zero, base);
      context.fillRect(zero, box.y, 1, box.height);
    }
    context.textAlign = "left";
  }

  /** @param {CanvasRenderingContext2D} context @param {Box} box @param {Bins} bins */
  drawBrush(context, box, bins) {
    const { brush } = this.store.state;
    if (!brush) return;
    const [left, right] = brush.map((value) => box.x + ((value - bins.low) / (bins.high - bins.low || 1)) * box.width);
    context.fillStyle = ink("accent");
    context.globalAlpha = 0.2;
    context.fillRect(left, box.y, right - left, box.height);
    context.globalAlpha = 1;
    context.fillRect(left - 1, box.y, 2, box.height);
    context.fillRect(right - 1, box.y, 2, box.height);
  }

  say() {
    const { brush, scene } = this.store.state;
    const said = byId("brush-said");
    byId("brush-clear").hidden = !brush;
    if (!brush || !scene) {
      said.textContent = scene ? "drag across it to choose the channels with values there" : "";
      return;
    }
    const { tiles } = scene.panes[0];
    said.textContent = `${count(scene.chosen?.size ?? 0)} of ${count(tiles.count)} have values from ${num(brush[0], 3)} to ${num(brush[1], 3)}`;
  }

  listen() {
    /** @type {number|null} */
    let start = null;
    const valueUnder = (/** @type {PointerEvent} */ event) => {
      const box = this.box();
      const share = Math.min(Math.max((event.offsetX - box.x) / box.width, 0), 1);
      return this.bins ? this.bins.low + share * (this.bins.high - this.bins.low) : 0;
    };
    const { canvas, store } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.bins || !store.state.scene) return;
      start = valueUnder(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = valueUnder(event);
      store.set({ brush: [Math.min(start, now), Math.max(start, now)] });
    });
    canvas.addEventListener("pointerup", (event) => {
      if (start !== null && valueUnder(event) === start) store.set({ brush: null });
      start = null;
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    byId("brush-clear").addEventListener("click", () => store.set({ brush: null }));
  }

  /** Arrows move the lower end, with Shift the upper one. @param {KeyboardEvent} event */
  key(event) {
    const { bins, store } = this;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!bins || !by || !store.state.scene) return;
    event.preventDefault();
    event.stopPropagation();
    const step = (by * (bins.high - bins.low)) / 40;
    let [low, high] = store.state.brush ?? [bins.low, bins.high];
    if (event.shiftKey) high = Math.min(Math.max(high + step, low), bins.high);
    else low = Math.max(Math.min(low + step, high), bins.low);
    store.set({ brush: [low, high] });
  }
}

/** Labels with their numbers, in two columns or one. @param {[string, string][]} pairs */
export function figures(pairs, columns = "") {
  return h("dl", { class: `figures ${columns}` }, ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
