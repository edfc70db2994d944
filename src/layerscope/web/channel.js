// The right side: one channel, large, with its numbers; without a channel the layer as a whole.

import { binned, peakOf } from "./block.js";
import { byId, fill, framed, h, ink, sharpen } from "./dom.js";
import { count, dims, num, percent } from "./format.js";
import { drawBins, figures } from "./histogram.js";
import { channelSpan, coloursOf } from "./ranges.js";
import { walkOf } from "./scene.js";
import { readout, spotName } from "./stage.js";
import { largeTile } from "./tile.js";
import { nameOf, planesOf } from "./tiles.js";
import { UnitPane } from "./unit.js";

export class ChannelPane {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.pane = byId("channel-pane");
    /** @type {Large[]} */
    this.maps = [];
    this.said = h("div", { class: "readouts", "aria-live": "polite" });
    this.canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "channel-histogram", role: "img", "aria-label": "histogram of the channel" }));
    this.unit = new UnitPane(store);
    const build = framed(() => this.build());
    store.on("scene channel rows layer shown theme", build);
    store.on("hover y x look", framed(() => this.point()));
    new ResizeObserver(build).observe(this.pane);
  }

  build() {
    const { scene, channel } = this.store.state;
    const tiles = scene?.panes[0].tiles;
    this.maps = [];
    if (!scene || !tiles || channel < 0 || channel >= tiles.count) {
      fill(this.pane, ...this.layerSummary());
      return;
    }
    this.maps = this.mapsOf(scene, channel);
    const single = tiles.strip;
    fill(this.pane,
      this.header(scene, channel),
      single ? null : h("div", { class: `maps maps-${this.maps.length}` }, ...this.maps.map((map) => map.element)),
      this.said,
      ...this.numbers(scene, channel),
      single ? null : this.canvas,
      this.unit.element);
    if (!single) this.drawHistogram(scene, channel);
    this.point();
  }

  /** @param {Scene} scene @param {number} channel */
  header(scene, channel) {
    const { tiles } = scene.panes[0];
    const step = (/** @type {number} */ by) => () => stepChannel(this.store, by);
    return h("header", { class: "pane-head" },
      h("h2", {}, nameOf(tiles, channel)),
      h("span", { class: "muted class" }, tiles.strip ? this.className(channel) : ""),
      (scene.a ?? tiles).dead.has(channel) ? h("span", { class: "chip dead", title: "zero everywhere on these images" }, "dead") : null,
      h("span", { class: "spacer" }),
      h("button", { type: "button", class: "icon", "aria-label": "previous channel", title: "previous (←)", onclick: step(-1) }, "‹"),
      h("button", { type: "button", class: "icon", "aria-label": "next channel", title: "next (→)", onclick: step(1) }, "›"),
      h("button", { type: "button", class: "icon", "aria-label": "back to the layer", title: "back to the layer (Esc)", onclick: () => this.store.set({ channel: -1, y: -1, x: -1 }) }, "×"));
  }

  /** The last layer's values are the classes. @param {number} channel */
  className(channel) {
    const { index, image, layer, rows } = this.store.state;
    if (layer !== rows[rows.length - 1]?.key || index?.kind !== "features") return "";
    return index.predictions[image]?.find((one) => one.index === channel)?.label ?? "";
  }

  /** @param {Scene} scene @param {number} channel @returns {Large[]} A, B and A minus B as far as they are there */
  mapsOf(scene, channel) {
    const point = (/** @type {Place|null} */ at, /** @type {boolean} */ picked) => {
      const side = scene.panes[0].side;
      if (picked && at) this.store.set({ y: at.y, x: at.x });
      else this.store.set({ hover: at && { tile: channel, y: at.y, x: at.x, side } });
    };
    const panes = scene.panes.filter((pane) => channel < pane.tiles.count);
    if (scene.mode === "diff") {
      const [a, b] = /** @type {Tiles[]} */ ([scene.a, scene.b]);
      const colours = coloursOf("channel", scene.rgb ? "gray" : this.store.state.map || "viridis", [a, b], [NaN, NaN]);
      return [largeTile(panes[0].tiles, channel, panes[0].colours, "A − B", point),
        largeTile(a, channel, colours, "A", point), largeTile(b, channel, colours, "B", point)];
    }
    const side = (/** @type {string} */ name) => (panes.length > 1 ? name.toUpperCase() : nameOf(panes[0].tiles, channel));
    return panes.map((pane) => largeTile(pane.tiles, channel, pane.colours, side(pane.side), point));
  }

  /** @param {Scene} scene @param {number} channel @returns {HTMLElement[]} */
  numbers(scene, channel) {
    const sides = /** @type {[string, Tiles|null][]} */ ([["A", scene.a], ["B", scene.b]]);
    const there = sides.filter(([, tiles]) => tiles && channel < tiles.count);
    return there.map(([name, tiles]) => h("section", {},
      there.length > 1 ? h("h3", { "data-side": name.toLowerCase() }, name) : "",
      figures(channelFigures(/** @type {Tiles} */ (tiles), channel))));
  }

  /** @param {Scene} scene @param {number} channel */
  drawHistogram(scene, channel) {
    const { context, width, height, ratio } = sharpen(this.canvas);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const sides = /** @type {Tiles[]} */ ([scene.a, scene.b].filter((tiles) => tiles && channel < tiles.count));
    const span = channelSpan(sides, channel);
    if (Number.isNaN(span[0])) return;
    const colours = sides.length > 1 ? [ink("side-a"), ink("side-b")] : [ink("bar")];
    const series = sides.map((tiles, n) => ({ counts: binned(tiles.block, planesOf(tiles, channel), span, 64), colour: colours[n] }));
    drawBins(context, { low: span[0], high: span[1], series }, { x: 0, y: 2, width, height: height - 18 });
    context.fillStyle = ink("muted");
    context.font = `11px ${ink("font")}`;
    context.fillText(num(span[0], 3), 0, height - 4);
    context.textAlign = "right";
    context.fillText(num(span[1], 3), width, height - 4);
    context.textAlign = "left";
  }

  /** What is under the pointer, else the unit, else the greatest value. */
  point() {
    const { scene, channel, hover, y, x, look } = this.store.state;
    if (!scene || channel < 0) return;
    const { tiles } = scene.panes[0];
    if (channel >= tiles.count) return;
    this.pane.classList.toggle("with-unit", y >= 0 && Boolean(this.store.state.index?.live?.units));
    const [peakY, peakX] = peakOf(tiles.block, planesOf(tiles, channel)[0]);
    const hovered = hover && hover.tile === channel ? hover : null;
    const spot = hovered ?? (y >= 0 ? { y: Math.min(y, tiles.block.h - 1), x: Math.max(0, Math.min(x, tiles.block.w - 1)) } : { y: peakY, x: peakX });
    const what = hovered ? "pointer" : y >= 0 ? "unit" : "greatest";
    this.maps.forEach((map) => map.draw(spot));
    const at = spotName(tiles, scene.shown.image, spot.y, spot.x);
    const both = scene.a && scene.b && channel < scene.b.count && channel < scene.a.count;
    const values = both && scene.mode !== "one"
      ? /** @type {[string, Tiles][]} */ ([["A", scene.a], ["B", scene.b]]).map(([name, side]) => `${name} ${readout(side, { tile: channel, ...inside(side, tiles, spot) })}`).join("   ")
      : what === "unit" && look && !look.error ? num(look.value, 5) // as the network made it; the map keeps 8 bits
        : readout(tiles, { tile: channel, ...spot });
    fill(this.said, h("span", { class: "at" }, `${at} = `), h("strong", {}, values), h("span", { class: "muted" }, tiles.strip ? "" : ` ${what}`));
  }

  /** @returns {HTMLElement[]} */
  layerSummary() {
    const { rows, layer, index } = this.store.state;
    const row = rows.find((one) => one.key === layer);
    if (!row || !index) return [];
    const parts = [h("header", { class: "pane-head" }, h("h2", {}, row.a?.layout.startsWith("N") || row.b?.layout.startsWith("N") ? "this layer" : "this tensor"))];
    for (const one of [row.a, row.b]) if (one) parts.push(this.summaryOf(one, row.a && row.b ? one.side : ""));
    if (row.pair) parts.push(pairFigures(row.pair));
    const found = index.findings.filter((finding) => finding.name === row.path);
    for (const one of found) parts.push(h("p", { class: "note finding" }, h("strong", {}, one.kind.replaceAll("-", " ")), ` ${one.detail}`, one.channels.length ? h("span", { class: "muted" }, ` · channels ${short(one.channels)}`) : null));
    if (row.a?.maps.length || row.b?.maps.length) parts.push(h("p", { class: "muted hint" }, "Choose a channel on the sheet: click it, or press Enter and walk with the arrow keys."));
    return parts;
  }

  /** @param {Layer} layer @param {string} side */
  summaryOf(layer, side) {
    const { total } = layer;
    const shown = total
      ? figures([["mean", num(total.mean)], ["deviation", num(total.std)], ["least", num(total.min)], ["greatest", num(total.max)],
        ["zeros", share(total.zeros, totalCount(total))], ["not finite", count((total.nan ?? 0) + (total.inf ?? 0))]])
      : h("p", { class: "muted" }, "no distribution");
    return h("section", {},
      side ? h("h3", { "data-side": side }, side.toUpperCase()) : "",
      h("p", { class: "layer-line" }, `${layer.type} `, h("span", { class: "muted" }, `${dims(layer.shape, layer.layout)} · ${layer.dtype}`)),
      shown,
      layer.dead.length ? h("p", { class: "note dead" }, `${count(layer.dead.length)} dead: `, h("span", {}, short(layer.dead))) : "",
      layer.note ? h("p", { class: "muted" }, layer.note) : "");
  }
}

/** @param {Record<string, number|null>} total */
function totalCount(total) {
  return (total.count ?? 0) + (total.nan ?? 0) + (total.inf ?? 0);
}

/** @param {number|null|undefined} part @param {number} whole */
function share(part, whole) {
  return part == null || !whole ? "–" : percent(part / whole);
}

/** @param {number[]} numbers */
function short(numbers) {
  return numbers.slice(0, 24).join(", ") + (numbers.length > 24 ? ` and ${numbers.length - 24} more` : "");
}

/** A point of one sheet on a map of another size. @param {Tiles} tiles @param {Tiles} from @param {Place} spot */
function inside(tiles, from, { y, x }) {
  return { y: Math.floor(((y + 0.5) * tiles.block.h) / from.block.h), x: Math.floor(((x + 0.5) * tiles.block.w) / from.block.w) };
}

/** @param {Pair} pair */
function pairFigures(pair) {
  return h("section", {}, h("h3", {}, "A against B"),
    figures([["status", pair.status], ["greatest |A − B|", num(pair.max_abs)], ["mean |A − B|", num(pair.mean_abs)], ["cosine", num(pair.cosine, 6)]], "one"));
}

/** @param {Tiles} tiles @param {number} channel @returns {[string, string][]} */
function channelFigures(tiles, channel) {
  const { block } = tiles;
  const planes = planesOf(tiles, channel);
  const over = (/** @type {ArrayLike<number>} */ from) => planes.reduce((sum, plane) => sum + from[plane], 0);
  const size = planes.length * block.h * block.w;
  if (tiles.strip) return [["value", num(block.hi[channel], 6)], ["rank", `${count(rankOf(block.hi, channel))} of ${count(tiles.count)}`]];
  const broken = over(block.nan) + over(block.inf);
  const zeros = over(block.zeros);
  return [
    ["mean", num(over(block.mean) / planes.length)],
    ["deviation", num(Math.sqrt(planes.reduce((sum, plane) => sum + block.std[plane] ** 2, 0) / planes.length))],
    ["least", num(Math.min(...planes.map((plane) => block.min[plane])))],
    ["greatest", num(Math.max(...planes.map((plane) => block.max[plane])))],
    ["zeros", count(zeros) + (zeros && zeros <= size ? ` · ${percent(zeros / size)}` : "")],
    ["not finite", count(broken)],
  ];
}

/** @param {Float32Array} values @param {number} at */
function rankOf(values, at) {
  return values.reduce((rank, value) => rank + (value > values[at] ? 1 : 0), 1);
}

/**
 * The channel before or after in the order of the sheet.
 * @param {Store} store @param {number} by
 */
export function stepChannel(store, by) {
  const { scene, channel } = store.state;
  if (!scene) return;
  const walk = walkOf(scene);
  const at = walk.indexOf(channel);
  const next = walk[at < 0 ? 0 : Math.min(Math.max(at + by, 0), walk.length - 1)];
  if (next !== undefined) store.set({ channel: next, y: -1, x: -1 });
}
