// The best examples of a channel over a data set: crops of images, bright where the channel is high.

import { clamp, cleared, fill, h, inPixels, num, outline, percent, shortName } from "./dom.js";
import { cropOf, examplesOf, quantileOf, spreadOf } from "./profile.js";

/** Decoded images that are kept. */
const KEPT = 400;
/** A crop of fewer pixels shows nothing that could be recognised: what lies around is shown too. */
const LEAST_PX = 24;

export class Examples {
  /** @param {Store} store @param {Source} source @param {Loader} loader */
  constructor(store, source, loader) {
    this.store = store;
    this.source = source;
    this.loader = loader;
    this.element = h("div.examples", { role: "list", "aria-label": "best examples" });
    /** @type {Map<number, Promise<ImageBitmap|null>>} */
    this.images = new Map();
    this.turn = 0;
  }

  /** The image of this number; null where the record has none. @param {number} number */
  image(number) {
    let found = this.images.get(number);
    if (!found) {
      const shown = this.store.state.index?.images?.find((one) => one.number === number);
      found = shown?.pixels ? this.source.shown(shown).then((blob) => createImageBitmap(blob)).catch(() => null) : Promise.resolve(null);
    }
    this.images.delete(number);
    this.images.set(number, found);
    if (this.images.size > KEPT) this.images.delete(/** @type {number} */ (this.images.keys().next().value));
    return found;
  }

  /** @param {Layer} layer @param {Profile} profile @param {number} channel */
  show(layer, profile, channel) {
    const turn = ++this.turn,
      names = new Map(this.store.state.index?.images?.map((one) => [one.number, one])),
      found = examplesOf(profile, channel);
    const tiles = found.map((example) => {
      const shown = names.get(example.number),
        [name, label] = [shown?.name ?? `image ${example.number}`, shown?.label ?? ""],
        canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { "aria-hidden": "true" })),
        pick = () => this.store.set({ image: example.place, y: example.y - example.top, x: example.x - example.left });
      const tile = h("button.example", { "aria-pressed": this.store.state.image === example.place, onclick: pick, title: `${name}${label && ` · ${label}`}\n(${example.y}, ${example.x}) = ${num(example.value, 5)}` },
        canvas, h("span.example-said", h("span", label || shortName(name)), h("strong", num(example.value, 3))));
      void this.draw(canvas, layer, profile, channel, example, turn);
      return h("div", { role: "listitem" }, tile);
    });
    fill(this.element, ...(tiles.length ? tiles : [h("p.muted", profile.silent[channel] === profile.images ? "dead: zero everywhere on every image" : "no examples in this record")]));
  }

  /** @param {HTMLCanvasElement} canvas @param {Layer} layer @param {Profile} profile @param {number} channel @param {Example} example @param {number} turn */
  async draw(canvas, layer, profile, channel, example, turn) {
    const [image, block] = await Promise.all([this.image(example.number), this.loader.get(layer, example.place).catch(() => null)]);
    if (turn !== this.turn || !block) return;
    if (!image) {
      drawMap(canvas, block, channel);
      return;
    }
    const entry = this.store.state.index?.images?.find((one) => one.number === example.number),
      size = /** @type {[number, number]} */ ([entry?.height || image.height, entry?.width || image.width]),
      { shown, field, heat } = cropOf(profile, example, block.h, block.w, ...size),
      [left, right] = wide(shown[0], shown[2], size[1]),
      [top, bottom] = wide(shown[1], shown[3], size[0]),
      { ctx, width, height } = cleared(canvas),
      factor = Math.min(width / (right - left), height / (bottom - top)),
      [x0, y0] = [(width - (right - left) * factor) / 2, (height - (bottom - top) * factor) / 2],
      [scaleX, scaleY] = [image.width / size[1], image.height / size[0]],
      within = [x0, y0, (right - left) * factor, (bottom - top) * factor];
    ctx.imageSmoothingQuality = "high";
    ctx.drawImage(image, left * scaleX, top * scaleY, (right - left) * scaleX, (bottom - top) * scaleY, within[0], within[1], within[2], within[3]);
    ctx.save();
    ctx.beginPath();
    ctx.rect(within[0], within[1], within[2], within[3]);
    ctx.clip();
    const at = (/** @type {number[]} */ [a, b, c, d]) => [x0 + (a - left) * factor, y0 + (b - top) * factor, (c - a) * factor, (d - b) * factor],
      [hx, hy, hw, hh] = at(heat);
    // Dark where the channel is low; dim where it is not known, beyond the window.
    ctx.fillStyle = "rgba(0, 0, 0, 0.35)";
    ctx.beginPath();
    ctx.rect(0, 0, width, height);
    ctx.rect(hx, hy, hw, hh);
    ctx.fill("evenodd");
    ctx.drawImage(veil(block, channel), hx, hy, hw, hh);
    const [fx, fy, fw, fh] = at(field);
    if (fw < within[2] - 2 || fh < within[3] - 2) {
      outline(ctx, [fx, fy, fw, fh], ["#000", 3], ["#ffb03b", 1.5]);
    }
    ctx.restore();
  }
}

/** The window alone, where the record lacks the image. @param {HTMLCanvasElement} canvas @param {Block} block @param {number} channel */
function drawMap(canvas, block, channel) {
  const { ctx, width, height } = cleared(canvas);
  ctx.fillStyle = "#fff";
  ctx.fillRect(0, 0, width, height);
  ctx.imageSmoothingEnabled = false;
  const [map, factor] = [veil(block, channel, 255), Math.min(width / block.w, height / block.h)];
  ctx.drawImage(map, (width - block.w * factor) / 2, (height - block.h * factor) / 2, block.w * factor, block.h * factor);
}

/** The window as a veil: black, the less the higher the channel. @param {Block} block @param {number} channel @param {number} [most] */
function veil({ h: rows, w: columns, codes }, channel, most = 153) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  return inPixels(canvas, (data) => {
    for (let i = 0; i < rows * columns; i++) {
      const code = codes[channel * rows * columns + i];
      data[4 * i + 3] = Math.round(most * (1 - (code === 255 ? 0 : code) / 254));
    }
  });
}

/** @param {number} low @param {number} high @param {number} whole @returns {Span} */
function wide(low, high, whole) {
  const size = Math.max(high - low, Math.min(LEAST_PX, whole)),
    start = clamp(low - Math.floor((size - high + low) / 2), 0, whole - size);
  return [start, start + size];
}

/** What the data set tells of a channel, in words. @param {Profile} profile @param {number} channel @param {string[]} classes @returns {[string, string][]} */
export function channelMeaning(profile, channel, classes) {
  /** @type {[string, string][]} */
  const said = [["silent on", percent(profile.silent[channel] / Math.max(profile.images, 1))]],
    best = profile.favourite?.[channel] ?? -1;
  if (best >= 0 && classes[best]) {
    said.push(["follows", classes[best]], ["classes explain", percent(profile.explained?.[channel] ?? NaN)]);
    const index = profile.selectivity?.[channel] ?? NaN;
    if (!Number.isNaN(index)) said.push(["selectivity", num(index, 2)]);
  }
  const twins = profile.copies.filter(([a, b]) => a === channel || b === channel);
  if (twins.length) said.push(["same as", twins.slice(0, 4).map(([a, b, r]) => `${a === channel ? b : a} (r ${num(r, 3)})`).join(", ")]);
  return said;
}

/** What its histogram tells. @param {Profile} profile @param {Block} block @param {number} channel @returns {[string, string][]} */
export function channelQuantiles(profile, block, channel) {
  if (!profile.bins) return [];
  const at = (/** @type {number} */ share) => num(quantileOf(profile, channel, block.stats.zeros[channel], spanAt(block, channel), share), 2);
  return [["5 % below", at(0.05)], ["median", at(0.5)], ["95 % below", at(0.95)]];
}

/** Of a channel over the data set. @param {Block} block @param {number} channel @returns {Span} */
function spanAt({ stats: { min, max } }, channel) {
  return [min[channel], max[channel]];
}

/** The histogram of a channel over the data set. @param {Profile} profile @param {Block} block @param {number} channel */
export function channelSpread(profile, block, channel) {
  const span = spanAt(block, channel);
  return { span, counts: spreadOf(profile, channel, block.stats.zeros[channel], span, 64) };
}
