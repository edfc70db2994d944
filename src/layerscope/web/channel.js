// The right side: one channel, large, with its numbers; without a channel the layer as a whole.

import { binned, peakOf, valueAt } from "./block.js";
import { axisEnds, byId, clamp, cleared, count, dims, fill, framed, h, num, percent, quiet, sameSpot } from "./dom.js";
import { channelMeaning, channelQuantiles, channelSpread } from "./examples.js";
import { drawBins, figures } from "./histogram.js";
import { channelSpan, coloursOf } from "./ranges.js";
import { TOP, homeOf, kernelsIn, profileNow, rowNow, tokenName, tokensOf } from "./rows.js";
import { mapOf, walkOf } from "./scene.js";
import { readout, spotName } from "./stage.js";
import { largeTile } from "./tile.js";
import { nameOf, planesOf } from "./tiles.js";
import { layerMeaning } from "./similar.js";
import { UnitPane } from "./unit.js";

export class ChannelPane {
  /** @param {Store} store @param {Examples} examples */
  constructor(store, examples) {
    this.store = store;
    this.state = store.state;
    this.examples = examples;
    this.pane = byId("channel-pane");
    /** @type {Large[]} */
    this.maps = [];
    this.said = h("div.readouts", { "aria-live": "polite" });
    this.canvas = /** @type {HTMLCanvasElement} */ (h("canvas.channel-histogram", { role: "img", "aria-label": "histogram of the channel" }));
    this.unit = new UnitPane(store);
    const build = framed(() => this.build());
    store.on("scene channel rows layer shown theme kernels apart query profile", build);
    store.on("y x", () => store.state.query.includes(",") || rowNow(store.state)?.a?.type !== "attention" || build());
    store.on("hover y x look", framed(() => this.point()));
    new ResizeObserver(build).observe(this.pane);
  }

  build() {
    const { scene, channel } = this.state,
      tiles = scene?.panes[0].tiles;
    this.maps = [];
    if (!scene || !tiles || channel < 0 || channel >= tiles.count) {
      fill(this.pane, ...this.layerSummary());
      return;
    }
    this.maps = this.mapsOf(scene, channel);
    const single = tiles.strip,
      profile = profileNow(this.state);
    if (profile) {
      this.surveyed(scene, channel, profile);
      return;
    }
    fill(this.pane,
      this.header(scene, channel),
      ...this.queries(),
      single ? null : h("div", { class: `maps maps-${this.maps.length}` }, ...this.maps.map((map) => map.element)),
      this.said,
      ...this.numbers(scene, channel),
      single ? null : this.canvas,
      this.unit.element);
    if (!single) this.drawHistogram(scene, channel);
    this.point();
  }

  /** A channel over a data set. @param {Scene} scene @param {number} channel @param {Profile} profile */
  surveyed(scene, channel, profile) {
    const { tiles } = scene.panes[0],
      classes = this.state.index?.classes ?? [];
    this.maps = [];
    fill(this.said);
    fill(this.pane,
      this.header(scene, channel),
      this.examples.element,
      figures([...channelMeaning(profile, channel, classes), ...channelFigures(this.state, { ...tiles, strip: false }, channel),
        ...channelQuantiles(profile, tiles.block, channel)]),
      profile.bins ? this.canvas : null);
    this.examples.show(tiles.layer, profile, channel);
    if (profile.bins) this.drawHistogram(scene, channel);
  }

  /** @param {Scene} scene @param {number} channel */
  header(scene, channel) {
    const { tiles } = scene.panes[0],
      step = (/** @type {number} */ by) => () => stepChannel(this.store, by);
    return h("header.pane-head",
      h("h2", nameOf(tiles, channel)),
      (scene.a ?? tiles).dead.has(channel) ? h("span.chip.dead", { title: "zero everywhere on these images" }, "dead") : null,
      h("span.spacer"),
      h("button.icon", { "aria-label": "previous channel", title: "previous (←)", onclick: step(-1) }, "‹"),
      h("button.icon", { "aria-label": "next channel", title: "next (→)", onclick: step(1) }, "›"),
      h("button.icon", { "aria-label": "back to the layer", title: "back to the layer (Esc)", onclick: () => this.store.set({ ...TOP, query: this.state.query }) }, "×"));
  }

  /** The last layer's values are the classes. @param {number} channel */
  className(channel) {
    const { index, image, layer, rows } = this.state;
    if (layer !== rows[rows.length - 1]?.key || !index || index.compares) return "";
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
      const [a, b] = /** @type {Tiles[]} */ ([scene.a, scene.b]),
        colours = coloursOf("channel", mapOf(this.state, a), [a, b], [NaN, NaN]);
      return [largeTile(panes[0].tiles, channel, panes[0].colours, "A − B", point),
        largeTile(a, channel, colours, "A", point), largeTile(b, channel, colours, "B", point)];
    }
    const side = (/** @type {string} */ name) => (panes.length > 1 ? name.toUpperCase() : nameOf(panes[0].tiles, channel));
    return panes.map((pane) => largeTile(pane.tiles, channel, pane.colours, side(pane.side), point));
  }

  /** @param {Scene} scene @param {number} channel @returns {HTMLElement[]} */
  numbers(scene, channel) {
    const sides = /** @type {[string, Tiles|null][]} */ ([["A", scene.a], ["B", scene.b]]),
      there = sides.filter(([, tiles]) => tiles && channel < tiles.count);
    return there.map(([name, tiles]) => h("section",
      there.length > 1 ? h("h3", { "data-side": name.toLowerCase() }, name) : "",
      figures([...channelFigures(this.state, /** @type {Tiles} */ (tiles), channel), ...(name === "A" ? this.apart(channel) : [])])));
  }

  /** The tokens apart from their patches, or from where attention looks. @returns {HTMLElement[]} */
  queries() {
    const { index, image, query, y, x } = this.state,
      row = rowNow(this.state),
      layer = row?.a ?? row?.b,
      map = layer?.maps[image],
      tokens = tokensOf(layer, image),
      attends = layer?.type === "attention";
    if (!map || tokens < (attends ? 0 : 1)) return [];
    /** @type {[string, string, string][]} value, text, hint */
    const options = attends
      ? [["", tokens ? "class token" : "mean", tokens ? "what the class token attends to" : ""], ...(tokens ? [/** @type {[string, string, string]} */ (["mean", "mean", "the mean over all queries"])] : []),
        [y < 0 ? "-" : `${y},${x}`, y < 0 ? "patch" : `(${y}, ${x})`, y < 0 ? "click a patch first" : "what this patch attends to"]]
      : [["", `${map.h} × ${map.w} patches`, ""], ["tokens", tokenName(tokens), "in front of the patches, without a place in the image"]];
    const buttons = options.map(([value, text, hint]) => h("button", { "data-value": value, "aria-pressed": String(value === query), disabled: value === "-" || Boolean(value && !index?.live),
      title: value && !index?.live ? "needs the live network: layerscope view NETWORK IMAGE" : hint, onclick: () => this.store.set(value === "tokens" ? { query: value, y: -1, x: -1 } : { query: value }) }, text));
    return [h("div.choice", attends ? "from" : "show", h("div", { id: "choose-query", role: "group", "aria-label": attends ? "who attends" : "which tokens" }, ...buttons))];
  }

  /** What the tokens without a place have in a channel. @param {number} channel @returns {[string, string][]} */
  apart(channel) {
    const { apart } = this.state;
    return Array.from({ length: apart && channel < apart.C ? apart.w : 0 }, (_, n) => [n ? `token ${n}` : "class token", num(valueAt(/** @type {Block} */ (apart), channel, 0, n), 3)]);
  }

  /** @param {Scene} scene @param {number} channel */
  drawHistogram(scene, channel) {
    const { ctx, width, height } = cleared(this.canvas),
      sides = /** @type {Tiles[]} */ ([scene.a, scene.b].filter((tiles) => tiles && channel < tiles.count)),
      profile = profileNow(this.state),
      spread = profile && channelSpread(profile, sides[0].block, channel),
      span = spread ? spread.span : channelSpan(sides, channel);
    if (Number.isNaN(span[0])) return;
    const colours = sides.length > 1 ? ["side-a", "side-b"] : ["bar"];
    const series = spread ? [{ counts: spread.counts, colour: colours[0] }]
      : sides.map((tiles, n) => ({ counts: binned(tiles.block, planesOf(tiles, channel), span, 64), colour: colours[n] }));
    drawBins(ctx, { low: span[0], high: span[1], series }, { x: 0, y: 2, width, height: height - 18 });
    axisEnds(ctx, span, 0, width, height - 4);
  }

  /** What is under the pointer, else the unit, else the greatest value. */
  point() {
    const { scene, channel, hover, y, x, look } = this.state;
    if (!scene || channel < 0) return;
    const { tiles } = scene.panes[0];
    if (channel >= tiles.count) return;
    this.pane.classList.toggle("with-unit", y >= 0 && Boolean(this.state.index?.live?.units));
    const [peakY, peakX] = peakOf(tiles.block, planesOf(tiles, channel)[0]),
      hovered = hover && hover.tile === channel ? hover : null,
      spot = hovered ?? (y >= 0 ? { y: Math.min(y, tiles.block.h - 1), x: Math.max(0, Math.min(x, tiles.block.w - 1)) } : { y: peakY, x: peakX }),
      what = hovered ? "at the pointer" : y >= 0 ? "chosen" : "the greatest";
    this.maps.forEach((map) => map.draw(spot));
    const at = spotName(tiles, scene.shown.image, spot.y, spot.x),
      both = scene.a && scene.b && channel < scene.b.count && channel < scene.a.count;
    const read = (/** @type {Tiles} */ side) => {
      const exact = what === "chosen" ? look?.find((one) => one.side === side.layer.side)?.value : null; // the map keeps 8 bits
      return exact == null ? readout(side, { tile: channel, ...inside(side, tiles, spot) }) : num(exact, 5);
    };
    const values = both && scene.mode !== "one"
      ? /** @type {[string, Tiles][]} */ ([["A", scene.a], ["B", scene.b]]).map(([name, side]) => `${name} ${read(side)}`).join("\n")
      : read(tiles);
    const said = tiles.strip ? this.className(channel) : what,
      two = values.includes("\n");
    fill(this.said, h("span.at", `${at || "value"}${two ? ` ${said}:\n` : " = "}`), h("strong", values), quiet(two ? "" : ` ${said}`));
  }

  /** @returns {HTMLElement[]} */
  layerSummary() {
    const { index, kernels } = this.state,
      row = rowNow(this.state);
    if (!row || !index) return [];
    const home = homeOf(this.state),
      parts = [h("header.pane-head", h("h2", row.a?.layout.startsWith("N") || row.b?.layout.startsWith("N") ? "this layer" : "this tensor")), ...this.queries()];
    for (const one of [row.a, row.b]) if (one) parts.push(this.summaryOf(one, row.a && row.b ? one.side : ""));
    if (row.pair && row.a && row.b) parts.push(pairFigures(row.pair));
    const found = [...index.findings, ...(home ? kernels?.findings ?? [] : [])].filter((finding) => finding.name === row.path);
    for (const one of found) parts.push(h("p.note.finding", h("strong", one.kind.replaceAll("-", " ")), ` ${one.detail}`, one.channels.length ? quiet(` · channels ${short(one.channels)}`) : null));
    const go = (/** @type {string} */ text, /** @type {string} */ layer) => parts.push(h("button.wide", { onclick: () => this.store.open(layer) }, text, h("kbd", "w")));
    parts.push(...layerMeaning(this.store));
    if (home) go("back to what the layer gives", home.key);
    for (const name of kernelsIn(index, row)) go(`its kernels: ${name.split(".").pop()}`, name);
    if (index.entry === "layer" && !index.compares && !index.dataset && !index.live && !index.at && /Conv|Linear/.test(row.a?.type ?? "")) parts.push(h("p.muted.hint", "Its kernels are not in a record of features: layerscope view NETWORK IMAGE shows them, and layerscope weights CHECKPOINT."));
    if (row.a?.maps.length || row.b?.maps.length) parts.push(h("p.muted.hint", "Choose one on the sheet: click it, or press Enter and walk with the arrow keys."));
    return parts;
  }

  /** @param {Layer} layer @param {string} side */
  summaryOf(layer, side) {
    const { total } = layer;
    const shown = total ? figures(statisticsOf(this.state, (name) => total[name], valuesIn(total))) : h("p.muted", "no distribution");
    return h("section",
      side ? h("h3", { "data-side": side }, side.toUpperCase()) : "",
      h("p.layer-line", `${layer.type} `, quiet(`${dims(layer.shape, layer.layout)} · ${layer.dtype}`)),
      shown,
      layer.dead.length ? h("p.note.dead", `${count(layer.dead.length)} dead: `, h("span", short(layer.dead))) : "",
      layer.note ? h("p.muted", layer.note) : "");
  }
}

/**
 * Every statistic with its label. @param {State} state @param {(name: string) => number|null} valueOf
 * @param {number} size how many values there are
 * @returns {Figure[]}
 */
function statisticsOf({ index }, valueOf, size) {
  return (index?.statistics ?? []).map(({ name, label, type }) => {
    const value = valueOf(name),
      share = value ? percent(value / size) : "";
    if (type === "float" || value == null) return [label, num(value)];
    return [label, share && value >= 1000 ? share : count(value) + (share && ` · ${share}`), `${count(value)} of ${count(size)}`];
  });
}

/** @param {number[]} numbers */
function short(numbers) {
  return numbers.slice(0, 24).join(", ") + (numbers.length > 24 ? ` and ${numbers.length - 24} more` : "");
}

/** A point of one sheet on a map of another size. @param {Tiles} tiles @param {Tiles} from @param {Place} spot */
function inside(tiles, from, { y, x }) {
  return { y: sameSpot(y, from.block.h, tiles.block.h), x: sameSpot(x, from.block.w, tiles.block.w) };
}

/** @param {Pair} pair */
function pairFigures(pair) {
  return h("section", h("h3", "A against B"),
    figures([["status", pair.status], ["greatest |A − B|", num(pair.max_abs)], ["mean |A − B|", num(pair.mean_abs)], ["cosine", num(pair.cosine, 6)]], "one"));
}

/** @param {State} state @param {Tiles} tiles @param {number} channel @returns {Figure[]} */
function channelFigures(state, tiles, channel) {
  const { block, layer } = tiles;
  if (tiles.strip) return [["value", num(block.hi[channel], 6)], ["rank", `${count(rankOf(block.hi, channel))} of ${count(tiles.count)}`]];
  // Of all images, and of a whole kernel: its slices, and its colours, have the same statistics.
  const size = layer.total ? valuesIn(layer.total) / (tiles.what === "matrix" ? 1 : layer.channels) : block.h * block.w;
  return statisticsOf(state, (name) => block.stats[name][planesOf(tiles, channel)[0]], size);
}

/** How many values there are. @param {Record<string, number|null>} total */
function valuesIn({ count, nan, inf }) {
  return (count ?? 0) + (nan ?? 0) + (inf ?? 0);
}

/** @param {Numbers} values @param {number} at */
function rankOf(values, at) {
  return Array.from(values).filter((value) => value > values[at]).length + 1;
}

/** The channel before or after in the order of the sheet. @param {Store} store @param {number} by */
export function stepChannel(store, by) {
  const { scene, channel } = store.state;
  if (!scene) return;
  const walk = walkOf(scene),
    at = walk.indexOf(channel),
    next = walk[at < 0 ? 0 : clamp(at + by, 0, walk.length - 1)];
  if (next !== undefined) store.set({ channel: next, y: -1, x: -1 });
}
