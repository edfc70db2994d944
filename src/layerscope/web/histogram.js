// Histograms: the layer's at the bottom, with a brush that chooses channels; small ones in the list and beside a map.

import { binned, spanOf } from "./block.js";
import { axisEnds, byId, clamp, cleared, clicked, count, framed, h, ink, num, on, svg } from "./dom.js";
import { joined } from "./ranges.js";

const BINS = 96;
const COUNT_AFTER_MS = 60;

/**
 * Bars to scale, and behind them the same counts on a logarithmic scale, so that a single outlier is seen.
 * @param {CanvasRenderingContext2D} ctx @param {Bins} bins @param {Box} box
 */
export function drawBins(ctx, bins, box) {
  const most = Math.max(1, ...bins.series.flatMap(({ counts }) => [...Array.from(counts)]));
  bins.series.forEach(({ counts, colour }, n) => {
    const step = box.width / counts.length;
    const bars = (/** @type {(count: number) => number} */ share, /** @type {number} */ alpha) => {
      ctx.globalAlpha = alpha;
      for (let i = 0; i < counts.length; i++) {
        if (!counts[i]) continue;
        const high = Math.max(1, share(counts[i]) * box.height);
        ctx.fillRect(box.x + i * step, box.y + box.height - high, Math.max(step - (step > 4 ? 1 : 0), 0.5), high);
      }
      ctx.globalAlpha = 1;
    };
    ctx.fillStyle = ink(colour);
    bars((value) => Math.log1p(value) / Math.log1p(most), n ? 0.3 : 0.34);
    bars((value) => value / most, bins.series.length > 1 ? 0.75 : 1);
  });
}

/** @param {ArrayLike<number>} counts @param {string} [kind] @returns {SVGElement} a few pixels high, logarithmic */
export function sparkline(counts, kind = "spark") {
  const bins = 24,
    small = new Float64Array(bins);
  for (let i = 0; i < counts.length; i++) small[Math.floor((i * bins) / counts.length)] += counts[i];
  const most = Math.log1p(Math.max(...small, 1)),
    bars = Array.from(small, (value, i) => `M${i * 2} 14v${(-Math.log1p(value) / most) * 14}h2v${(Math.log1p(value) / most) * 14}z`);
  return svg("svg", { viewBox: "0 0 48 14", class: kind, "aria-hidden": "true" }, svg("path", { d: bars.join("") }));
}

/** Counts of one tensor's bins over the range of two. @param {{edges: number[], counts: number[]}} from @param {number} low @param {number} high */
function relaid({ edges, counts }, low, high) {
  const out = new Float64Array(BINS);
  counts.forEach((n, at) => (out[Math.min(BINS - 1, Math.floor((((edges[at] + edges[at + 1]) / 2 - low) / (high - low || 1)) * BINS))] += n));
  return out;
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
    const given = [shown?.row.a, shown?.row.b].flatMap((layer) => layer?.histogram ?? []),
      colours = given.length > 1 || scene?.a && scene.b ? ["side-a", "side-b"] : ["bar"],
      sides = scene ? /** @type {Tiles[]} */ ([scene.a, scene.b].filter(Boolean)) : [];
    if (given.length && sides.length < 2) {
      const [low, high] = given.map(({ edges }) => /** @type {Span} */ ([edges[0], edges[edges.length - 1]])).reduce(joined);
      this.bins = { low, high, series: given.map((one, n) => ({ counts: given.length > 1 ? relaid(one, low, high) : one.counts, colour: colours[n] })) };
    } else if (sides.length) {
      const span = sides.map(({ block }) => spanOf(block)).reduce(joined),
        all = (/** @type {Tiles} */ { block }) => Array.from({ length: block.C }, (_, c) => c),
        series = sides.map((tiles, n) => ({ counts: binned(tiles.block, all(tiles), span, BINS), colour: colours[n] }));
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
    const { ctx } = cleared(this.canvas),
      box = this.box(),
      { bins } = this;
    if (!bins) return;
    drawBins(ctx, bins, box);
    this.drawAxis(ctx, box, bins);
    this.drawBrush(ctx, box, bins);
    this.say();
  }

  /** @param {CanvasRenderingContext2D} ctx @param {Box} box @param {Bins} bins */
  drawAxis(ctx, box, bins) {
    ctx.fillStyle = ink("line");
    ctx.fillRect(box.x, box.y + box.height, box.width, 1);
    const base = box.y + box.height + 13,
      [zero] = across(box, bins, [0]);
    axisEnds(ctx, [bins.low, bins.high], box.x, box.x + box.width, base);
    ctx.textAlign = "center";
    if (bins.low < 0 && bins.high > 0 && zero > box.x + 50 && zero < box.x + box.width - 50) {
      ctx.fillText("0", zero, base);
      ctx.fillRect(zero, box.y, 1, box.height);
    }
    ctx.textAlign = "left";
  }

  /** @param {CanvasRenderingContext2D} ctx @param {Box} box @param {Bins} bins */
  drawBrush(ctx, box, bins) {
    const { brush } = this.store.state;
    if (!brush) return;
    const [left, right] = across(box, bins, brush);
    ctx.fillStyle = ink("accent");
    ctx.globalAlpha = 0.2;
    ctx.fillRect(left, box.y, right - left, box.height);
    ctx.globalAlpha = 1;
    ctx.fillRect(left - 1, box.y, 2, box.height);
    ctx.fillRect(right - 1, box.y, 2, box.height);
  }

  say() {
    const { brush, scene } = this.store.state,
      said = byId("brush-said");
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
      const box = this.box(),
        share = Math.min(Math.max((event.offsetX - box.x) / box.width, 0), 1);
      return this.bins ? this.bins.low + share * (this.bins.high - this.bins.low) : 0;
    };
    const { canvas, store } = this;
    on(canvas, "pointerdown", (event) => {
      if (!this.bins || !store.state.scene) return;
      start = valueUnder(event);
      canvas.setPointerCapture(event.pointerId);
    });
    on(canvas, "pointermove", (event) => {
      if (start === null) return;
      const now = valueUnder(event);
      store.set({ brush: [Math.min(start, now), Math.max(start, now)] });
    });
    on(canvas, "pointerup", (event) => {
      if (start !== null && valueUnder(event) === start) store.set({ brush: null });
      start = null;
    });
    on(canvas, "keydown", (event) => this.key(event));
    clicked("brush-clear", () => store.set({ brush: null }));
  }

  /** Arrows move the lower end, with Shift the upper one. @param {KeyboardEvent} event */
  key(event) {
    const { bins, store } = this,
      by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!bins || !by || !store.state.scene) return;
    event.preventDefault();
    event.stopPropagation();
    const step = (by * (bins.high - bins.low)) / 40;
    let [low, high] = store.state.brush ?? [bins.low, bins.high];
    if (event.shiftKey) high = clamp(high + step, low, bins.high);
    else low = Math.max(Math.min(low + step, high), bins.low);
    store.set({ brush: [low, high] });
  }
}

/** Where values lie. @param {Box} box @param {Bins} bins @param {number[]} values */
function across(box, { low, high }, values) {
  return values.map((value) => box.x + ((value - low) / (high - low || 1)) * box.width);
}

/** Labels with their numbers, in two columns or one. @param {Figure[]} all */
export function figures(all, columns = "") {
  return h("dl", { class: `figures ${columns}` }, ...all.map(([name, value, title = value]) => h("div", h("dt", name), h("dd", { title }, value))));
}
